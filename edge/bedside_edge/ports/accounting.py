"""The port of accountants that print a second number and calibrate training; never the gate."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianSpend:
    """`times` releases of discrete Gaussian noise: squared sensitivity over squared scale."""

    l2sq: int
    sigma2: int
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaplaceSpend:
    """`times` releases of discrete Laplace noise of pure `epsilon` on L1 sensitivity `l1`."""

    l1: int
    epsilon: Fraction
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PureSpend:
    """`times` mechanisms of pure `epsilon`, whatever they are."""

    epsilon: Fraction
    times: int = 1


Spend = GaussianSpend | LaplaceSpend | PureSpend


class Accountant(Protocol):
    """Epsilon of a schedule that was fixed in advance; a filter on it is not free."""

    def epsilon(self, spends: Sequence[Spend], delta: float) -> float:
        """Return epsilon by privacy loss distributions; exact up to its grid for Gaussians."""
        ...

    def training_epsilon(self, rate: float, sigma: float, steps: int, delta: float) -> float:
        """Return epsilon of DP-SGD: `steps` of Poisson rate `rate` and noise multiplier `sigma`."""
        ...
