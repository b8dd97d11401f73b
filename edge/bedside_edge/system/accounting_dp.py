"""`Accountant` by dp-accounting: the number printed beside ours, and rates for training.

Imported only where it is asked for: the library takes a second to load.
"""

import math
from collections.abc import Sequence

from dp_accounting import (
    DpEvent,
    GaussianDpEvent,
    LaplaceDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from bedside_edge.ports.accounting import GaussianSpend, Spend

# any order gives a valid bound; sampled ones below 2 converge badly and are never the best here
ORDERS = [2 + step / 5 for step in range(1, 40)]
ORDERS += [float(order) for order in [2, *range(10, 65), 80, 96, 128, 192, 256, 512, 1024]]
_FINE, _COARSE = 1e-4, 1e-3  # grid of the loss distributions; coarse for very many releases
_MANY = 1000


class DpAccounting:
    """Epsilon of schedules that were fixed in advance."""

    def epsilon(self, spends: Sequence[Spend], delta: float) -> float:
        """Return epsilon of all spends together by privacy loss distributions, rounded up."""
        count = sum(spend.times for spend in spends)
        accountant = PLDAccountant(
            value_discretization_interval=_FINE if count <= _MANY else _COARSE
        )
        for spend in spends:
            accountant.compose(_event(spend), spend.times)
        return float(accountant.get_epsilon(delta))

    def training_epsilon(self, rate: float, sigma: float, steps: int, delta: float) -> float:
        """Return epsilon of DP-SGD by Renyi orders; 0 for a rate of 0."""
        if rate <= 0:
            return 0.0
        sampled = PoissonSampledDpEvent(rate, GaussianDpEvent(sigma))
        accountant = RdpAccountant(ORDERS)
        accountant.compose(SelfComposedDpEvent(sampled, steps))
        return float(accountant.get_epsilon(delta))


def _event(spend: Spend) -> DpEvent:
    if isinstance(spend, GaussianSpend):
        return GaussianDpEvent(math.sqrt(spend.sigma2 / spend.l2sq))
    return LaplaceDpEvent(1 / float(spend.epsilon))
