"""The accountant that prints second numbers, its library imported when it is first asked."""

from collections.abc import Sequence
from functools import cached_property

from bedside_edge.ports.accounting import Accountant, Spend


class LazyAccounting:
    """`Accountant` that becomes `DpAccounting` when it is first used."""

    @cached_property
    def _accountant(self) -> Accountant:
        from bedside_edge.system.accounting_dp import DpAccounting

        return DpAccounting()

    def epsilon(self, spends: Sequence[Spend], delta: float) -> float:
        """See `DpAccounting`."""
        return self._accountant.epsilon(spends, delta)

    def training_epsilon(self, rate: float, sigma: float, steps: int, delta: float) -> float:
        """See `DpAccounting`."""
        return self._accountant.training_epsilon(rate, sigma, steps, delta)
