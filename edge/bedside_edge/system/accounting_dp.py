"""`Accountant` by dp-accounting: the number printed beside ours, and rates for training.

Imported only where it is asked for: the library takes a second to load.
"""

import math
from collections.abc import Sequence

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.pld.common import DifferentialPrivacyParameters
from dp_accounting.rdp import RdpAccountant

from bedside_edge.ports.accounting import GaussianSpend, LaplaceSpend, Spend

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
        grid = _FINE if count <= _MANY else _COARSE
        whole = pld.identity(value_discretization_interval=grid)
        for spend in spends:
            whole = whole.compose(_distribution(spend, grid).self_compose(spend.times))
        return float(whole.get_epsilon_for_delta(delta))

    def training_epsilon(self, rate: float, sigma: float, steps: int, delta: float) -> float:
        """Return epsilon of DP-SGD by Renyi orders; 0 for a rate of 0."""
        if rate <= 0:
            return 0.0
        sampled = PoissonSampledDpEvent(rate, GaussianDpEvent(sigma))
        accountant = RdpAccountant(ORDERS)
        accountant.compose(SelfComposedDpEvent(sampled, steps))
        return float(accountant.get_epsilon(delta))


def _distribution(spend: Spend, grid: float) -> pld.PrivacyLossDistribution:
    """Return the loss of one release, rounded up to the grid."""
    if isinstance(spend, GaussianSpend):
        sigma = math.sqrt(spend.sigma2 / spend.l2sq)
        return pld.from_gaussian_mechanism(sigma, value_discretization_interval=grid)
    if isinstance(spend, LaplaceSpend):
        scale = 1 / float(spend.epsilon)
        return pld.from_laplace_mechanism(scale, value_discretization_interval=grid)
    pure = DifferentialPrivacyParameters(float(spend.epsilon), 0.0)
    return pld.from_privacy_parameters(pure, value_discretization_interval=grid)
