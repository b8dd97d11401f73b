"""Running totals over an epoch of nights by the square-root Toeplitz factorisation, in integers.

The triangle of ones A, which sums nights, is B C with C lower triangular Toeplitz of c_k =
binom(2k, k) / 4^k, here rounded to the grid 2^-12. Each night measures y_t = sum_{j <= t} C_{t-j}
x_j + z_t with fresh exact noise, and publishes the total sum_j b_{t-j} y_j / 4096, b the prefix
sums of the inverse power series of C / 4096. B C is A for the rounded C, so the total has no bias.
One charge covers the epoch: a patient's c studies lie somewhere in the columns of C, whose squared
norm is at most sum C_k^2. Only y_t is stored; a crash sends the stored one again.

Source: Fichtenberger, Henzinger, Upadhyay 2022, arXiv:2202.11205; Denisov et al. 2022,
arXiv:2202.08312 for adaptive streams.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bedside_core.accounting import gaussian_cost, gaussian_sigma2
from bedside_core.errors import InvalidInputError
from bedside_core.statistics.measure import Mechanisms
from bedside_core.statistics.query import Query
from bedside_core.statistics.spec import Weight

GRID = 4096
MOST_NIGHTS = 3660

_Z95 = 1.959963984540055  # normal quantile of 0.975, rounded up


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The factorisation for `nights` nights, and what one patient moves over all of them.

    Attributes:
        coefficients: C_k, integers.
        decoder: b_k; used after the noise, so floats do no harm.
        l2sq: squared L2 sensitivity of all y together.
    """

    query: Query
    nights: int
    l2sq: int
    coefficients: tuple[int, ...] = field(repr=False)
    decoder: tuple[float, ...] = field(repr=False)

    def sigma2(self, units: int) -> int:
        """Return the least noise whose cost for the whole epoch is at most `units` of rho."""
        return gaussian_sigma2(self.l2sq, units)

    def cost(self, sigma2: int) -> int:
        """Return the price of the whole epoch; later nights are free."""
        return gaussian_cost(self.l2sq, sigma2)

    def carry(self, nights: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """Return the exact y_t of the last night, before noise, from all nights' vectors x_j.

        Raises:
            InvalidInputError: no night, more than there are, or a vector of another length.
        """
        self._check(nights)
        weights = self.coefficients[: len(nights)][::-1]
        pairs = [zip(weights, column, strict=True) for column in zip(*nights, strict=True)]
        return tuple(sum(weight * value for weight, value in pair) for pair in pairs)

    def measure(
        self, nights: Sequence[Sequence[int]], units: int, noise: Mechanisms
    ) -> tuple[int, ...]:
        """Return y_t of the last night: its exact value plus fresh noise, one draw per cell.

        Args:
            nights: the exact vectors of all nights so far, in order.
            units: rho that was charged for the whole epoch.
            noise: the box's mechanisms.
        """
        exact = self.carry(nights)
        return tuple(noise.gaussian(v, l2sq=self.l2sq, rho_units=units) for v in exact)

    def totals(self, measured: Sequence[Sequence[int]]) -> tuple[float, ...]:
        """Return the total of every cell after the last night, in released integers."""
        self._check(measured)
        weights = self.decoder[: len(measured)][::-1]
        columns = list(zip(*measured, strict=True))
        return tuple(
            math.fsum(b * y for b, y in zip(weights, column, strict=True)) / GRID
            for column in columns
        )

    def deviation(self, night: int, sigma2: int) -> float:
        """Return the standard deviation of a total after `night` nights, in released integers."""
        if not 1 <= night <= self.nights:
            raise InvalidInputError(f"a night is one of 1 to {self.nights}")
        return math.sqrt(sigma2 * math.fsum(b * b for b in self.decoder[:night])) / GRID

    def half_width(self, night: int, sigma2: int) -> float:
        """Return the half width of a 95 % interval: a sum of many independent draws is normal."""
        return _Z95 * self.deviation(night, sigma2)

    def _check(self, vectors: Sequence[Sequence[int]]) -> None:
        if not 1 <= len(vectors) <= self.nights:
            raise InvalidInputError(f"an epoch has 1 to {self.nights} nights")
        if any(len(vector) != len(self.query.cells) for vector in vectors):
            raise InvalidInputError(f"a night has {len(self.query.cells)} cells")


def running(query: Query, nights: int) -> Running:
    """Return the factorisation for a query over an epoch.

    Raises:
        InvalidInputError: patient weights (they need a closed window), or too many nights.
    """
    if query.weight is not Weight.STUDY:
        raise InvalidInputError("running totals count studies: other weights need a closed window")
    if type(nights) is not int or not 1 <= nights <= MOST_NIGHTS:
        raise InvalidInputError(f"an epoch has 1 to {MOST_NIGHTS} nights")
    coefficients = tuple(_coefficient(k) for k in range(nights))
    return Running(
        query=query,
        nights=nights,
        l2sq=query.l2sq * sum(value * value for value in coefficients),
        coefficients=coefficients,
        decoder=_decoder(coefficients),
    )


def _coefficient(k: int) -> int:
    """Return binom(2k, k) / 4^k on the grid, rounded to nearest."""
    return int((2 * math.comb(2 * k, k) * GRID + 4**k) // (2 * 4**k))


def _decoder(coefficients: Sequence[int]) -> tuple[float, ...]:
    """Return prefix sums of the inverse power series of C / GRID; C_0 = GRID, so it starts at 1."""
    scaled = [value / GRID for value in coefficients]
    inverse = [1.0]
    for k in range(1, len(scaled)):
        inverse.append(-math.fsum(scaled[i] * inverse[k - i] for i in range(1, k + 1)))
    total, sums = 0.0, []
    for value in inverse:
        total += value
        sums.append(total)
    return tuple(sums)
