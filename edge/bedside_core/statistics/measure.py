"""Price a query, and measure it with noise that is handed in.

The law of the noise is fixed by public numbers before data is read: sensitivity and rho. `measure`
calls the mechanism once per cell, in release order, whatever the data are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from bedside_core.accounting import (
    UNITS_PER_RHO,
    compose,
    exponential_cost,
    gaussian_cost,
    gaussian_half_width,
    gaussian_sigma2,
    laplace_cost,
    laplace_half_width,
)
from bedside_core.errors import InvalidInputError
from bedside_core.statistics.choice import Choice
from bedside_core.statistics.query import Query
from bedside_core.statistics.rows import Kept

_ROOT_GRID = 10**6  # an epsilon derived from rho is a fraction with this denominator


class Mechanisms(Protocol):
    """Exact noise; each call is one draw of fresh randomness. The box's adapter is in `system`."""

    def gaussian(self, value: int, *, l2sq: int, rho_units: int) -> int:
        """Return value + discrete Gaussian noise of `gaussian_sigma2(l2sq, rho_units)`."""
        ...

    def laplace(self, value: int, *, l1: int, epsilon: Fraction) -> int:
        """Return value + discrete Laplace noise of scale l1 / epsilon."""
        ...

    def choose(self, utilities: Sequence[int], *, sensitivity: int, epsilon: Fraction) -> int:
        """Return an index by the exponential mechanism, P ~ exp(epsilon u / (2 sensitivity))."""
        ...

    def flip(self, utilities: Sequence[int], *, sensitivity: int, epsilon: Fraction) -> int:
        """Return an index by permute-and-flip."""
        ...

    def respond(self, truth: int, *, choices: int, epsilon: Fraction) -> int:
        """Return one of 0 ... choices - 1 by randomised response."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianLaw:
    """Discrete Gaussian noise on every cell, the least that costs at most `units` of rho."""

    l2sq: int
    units: int

    @property
    def sigma2(self) -> int:
        """Squared scale of the noise on one cell, in squared released integers."""
        return gaussian_sigma2(self.l2sq, self.units)

    @property
    def cost(self) -> int:
        """Units of 1e-12 rho of the whole vector; never above what was asked."""
        return gaussian_cost(self.l2sq, self.sigma2)

    @property
    def variance(self) -> float:
        """Of the noise on one cell, in squared released integers."""
        return float(self.sigma2)

    def half_width(self, miss: float) -> int:
        """Return the half width of an interval that fails with probability at most `miss`."""
        return gaussian_half_width(self.sigma2, miss)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaplaceLaw:
    """Discrete Laplace noise of scale l1 / epsilon on every cell."""

    l1: int
    epsilon: Fraction

    @property
    def cost(self) -> int:
        """Units of 1e-12 rho of the whole vector."""
        return laplace_cost(self.epsilon)

    @property
    def variance(self) -> float:
        """Of the noise on one cell: 2 p / (1 - p)^2 with p = exp(-epsilon / l1)."""
        rate = float(self.epsilon / self.l1)
        return 2 * math.exp(-rate) / math.expm1(-rate) ** 2

    def half_width(self, miss: float) -> int:
        """Return the half width of an interval that fails with probability at most `miss`."""
        return laplace_half_width(self.epsilon.numerator, self.epsilon.denominator * self.l1, miss)


Law = GaussianLaw | LaplaceLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceLaw:
    """The exponential mechanism, one draw per probability, each of `epsilon`."""

    draws: int
    epsilon: Fraction

    @property
    def cost(self) -> int:
        """Units of 1e-12 rho of all draws."""
        return compose([exponential_cost(self.epsilon)] * self.draws)


def gaussian_law(query: Query, units: int) -> GaussianLaw:
    """Return the least Gaussian noise whose cost is at most `units` of rho."""
    return GaussianLaw(l2sq=query.l2sq, units=_price(units))


def laplace_law(query: Query, units: int) -> LaplaceLaw:
    """Return the least Laplace noise, on a grid of epsilon, whose cost is at most `units`.

    Raises:
        InvalidInputError: so little rho leaves no epsilon of 1e-6.
    """
    return LaplaceLaw(l1=query.l1, epsilon=_root(2 * _price(units)))


def choice_law(choice: Choice, units: int) -> ChoiceLaw:
    """Split `units` of rho over the probabilities: the largest equal epsilon that fits.

    Raises:
        InvalidInputError: so little rho leaves no epsilon of 1e-6.
    """
    draws = len(choice.sensitivities)
    return ChoiceLaw(draws=draws, epsilon=_root(8 * (_price(units) // draws)))


def _price(units: int) -> int:
    if type(units) is not int or units < 1:
        raise InvalidInputError("a price is an integer of at least 1 unit of rho")
    return units


def _root(units: int) -> Fraction:
    """Square root of units of rho, rounded down to a millionth."""
    root = math.isqrt(units * _ROOT_GRID**2 // UNITS_PER_RHO)
    if root < 1:
        raise InvalidInputError("so little rho buys no answer")
    return Fraction(root, _ROOT_GRID)


def measure(query: Query, law: Law, kept: Kept, noise: Mechanisms) -> tuple[int, ...]:
    """Return the noisy vector: one draw per cell, in release order.

    Raises:
        InvalidInputError: law or bounding belong to another query.
    """
    if isinstance(law, GaussianLaw):
        if law.l2sq != query.l2sq:
            raise InvalidInputError("the law was made for another sensitivity")
        exact, l2sq, units = query.exact(kept), law.l2sq, law.units
        return tuple(noise.gaussian(value, l2sq=l2sq, rho_units=units) for value in exact)
    if law.l1 != query.l1:
        raise InvalidInputError("the law was made for another sensitivity")
    exact = query.exact(kept)
    return tuple(noise.laplace(value, l1=law.l1, epsilon=law.epsilon) for value in exact)


def choose(choice: Choice, law: ChoiceLaw, kept: Kept, noise: Mechanisms) -> tuple[int, ...]:
    """Return the chosen grid index per probability.

    Raises:
        InvalidInputError: law or bounding belong to another query.
    """
    if law.draws != len(choice.sensitivities):
        raise InvalidInputError("the law was made for another number of quantiles")
    pairs = zip(choice.utilities(kept), choice.sensitivities, strict=True)
    return tuple(
        noise.choose(utilities, sensitivity=sensitivity, epsilon=law.epsilon)
        for utilities, sensitivity in pairs
    )
