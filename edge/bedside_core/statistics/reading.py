"""From noisy integers to numbers a person reads: value, exact interval, how far to trust it.

All of it happens after the noise and costs no privacy. An interval covers the noise, not what the
bound c leaves out; the truncation cell says how many patients that concerns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from bedside_core.errors import InvalidInputError
from bedside_core.statistics.measure import Law
from bedside_core.statistics.query import Query

MISS = 0.05  # intervals at 95 %
GREY = 0.5  # a relative error above it is shown greyed: the number says little

NOT_COVERED = "the interval covers noise, not truncation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval, in natural units.

    Attributes:
        value: un-clamped: sums of several answers stay unbiased. None: not reported.
        shown: clamped into what is possible.
        relative: half width over the size of the value; infinite at 0.
        grey: the relative error is above 50 %.
    """

    value: float | None
    shown: float | None
    low: float | None
    high: float | None
    relative: float
    grey: bool

    @property
    def reported(self) -> bool:
        """Whether there is a number at all."""
        return self.value is not None


NOT_REPORTED = Estimate(value=None, shown=None, low=None, high=None, relative=math.inf, grey=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A released vector with all that is needed to read it.

    Attributes:
        values: released integers, un-clamped.
        variance: of the noise on one cell, in squared released integers.
        half_width: of the 95 % interval of one cell, in released integers, from the exact law.
    """

    query: Query
    values: tuple[int, ...]
    variance: float
    half_width: int

    def place(self, cell: str) -> int:
        """Return the index of a cell; InvalidInputError when there is none of that name."""
        if cell not in self.query.cells:
            raise InvalidInputError("no cell of that name")
        return self.query.cells.index(cell)

    def natural(self, cell: str) -> float:
        """Return a cell's noisy value in natural units (studies, points of score)."""
        place = self.place(cell)
        return float(Fraction(self.values[place], self.query.units[place]))

    def spread(self, cell: str) -> float:
        """Return the noise variance of a cell in squared natural units."""
        return self.variance / self.query.units[self.place(cell)] ** 2

    def reach(self) -> float:
        """Return the half width in standard deviations: the exact law's own 1.96."""
        return max(1.0, self.half_width / math.sqrt(self.variance))

    def count(self, cell: str) -> Estimate:
        """Return a count: not below 0 where it is shown."""
        width = self.half_width / self.query.units[self.place(cell)]
        value = self.natural(cell)
        return estimate(value, value - width, value + width, least=0.0)

    def counts(self) -> dict[str, Estimate]:
        """Return every cell that counts studies or patients."""
        pairs = zip(self.query.cells, self.query.grid_steps(), strict=True)
        return {cell: self.count(cell) for cell, unit in pairs if unit == 1}


def answer(query: Query, law: Law, values: Sequence[int]) -> Answer:
    """Bind released integers to their query and law.

    Raises:
        InvalidInputError: the vector has another length.
    """
    if len(values) != len(query.cells):
        raise InvalidInputError(f"the query has {len(query.cells)} cells")
    width = law.half_width(MISS)
    return Answer(query=query, values=tuple(values), variance=law.variance, half_width=width)


def estimate(
    value: float, low: float, high: float, *, least: float = -math.inf, most: float = math.inf
) -> Estimate:
    """Return an estimate with its shown value clamped to least ... most."""

    def clamp(number: float) -> float:
        return min(most, max(least, number))

    width = (high - low) / 2
    relative = width / abs(value) if value else math.inf
    return Estimate(
        value=value,
        shown=clamp(value),
        low=clamp(low),
        high=clamp(high),
        relative=relative,
        grey=relative > GREY,
    )


def ratio(
    value: tuple[float, float],
    spread: tuple[float, float, float],
    reach: float,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Return x / y with Fieller's interval; not reported when that of y includes 0.

    All r with (x - r y)^2 <= z^2 Var(X - r Y) form the interval: valid however small y is.

    Args:
        value: x and y.
        spread: Var X, Var Y, Cov(X, Y).
        reach: z, in standard deviations.
        bounds: what a ratio can be.

    Source: Fieller 1954, Journal of the Royal Statistical Society B 16(2).
    """
    (x, y), (var_x, var_y, cov) = value, spread
    square = reach * reach
    a, b, c = y * y - square * var_y, x * y - square * cov, x * x - square * var_x
    if a <= 0 or y <= 0:
        return NOT_REPORTED
    root = math.sqrt(max(0.0, b * b - a * c))
    return estimate(x / y, (b - root) / a, (b + root) / a, least=bounds[0], most=bounds[1])


def cells_ratio(
    read: Answer,
    above: Sequence[str],
    below: Sequence[str],
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Return sum(above) / sum(below) of cells with independent noise, shared ones allowed."""
    x, y = (math.fsum(map(read.natural, cells)) for cells in (above, below))
    var_x, var_y = (math.fsum(map(read.spread, cells)) for cells in (above, below))
    cov = math.fsum(read.spread(cell) for cell in above if cell in below)
    return ratio((x, y), (var_x, var_y, cov), read.reach(), bounds)


def shifted(one: Estimate, by: float, times: float = 1.0) -> Estimate:
    """Return by + times * estimate, times above 0."""
    if one.value is None or one.shown is None or one.low is None or one.high is None:
        return one
    low, high = by + times * one.low, by + times * one.high
    return estimate(by + times * one.value, low, high, least=low, most=high)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Return one - other; its interval holds whenever both hold (at least 90 %)."""
    if one.value is None or one.low is None or one.high is None:
        return NOT_REPORTED
    if other.value is None or other.low is None or other.high is None:
        return NOT_REPORTED
    return estimate(one.value - other.value, one.low - other.high, one.high - other.low)


def shares(read: Answer, cells: Sequence[str]) -> Mapping[str, Estimate]:
    """Return each cell's share of the sum of them all."""
    return {cell: cells_ratio(read, (cell,), cells) for cell in cells}
