"""Collect, clean and fuse: counts over public keys, and what can be read from them.

A patient is in one cell of each table at most `most` times; tables stand side by side in one
vector. Keys are public and signed: an unknown value goes to a public default cell, so neither the
length nor the keys of a release depend on data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError

OTHER: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Counts by the combinations of public keys; each axis ends in `other`."""

    name: str
    axes: tuple[tuple[str, tuple[str, ...]], ...]

    def __post_init__(self) -> None:
        for axis, keys in self.axes:
            if not keys or len(set(keys)) != len(keys) or OTHER in keys:
                raise InvalidInputError(f"the keys of {axis} are different and do not say other")

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis, `other` included."""
        return tuple(len(keys) + 1 for _, keys in self.axes)

    @property
    def cells(self) -> int:
        """Cells in all."""
        return int(np.prod(self.shape))

    def keys(self) -> list[tuple[str, ...]]:
        """The keys of every cell, in the order of the vector."""
        return list(product(*[(*keys, OTHER) for _, keys in self.axes]))

    def cell(self, row: Mapping[str, str]) -> int:
        """Return where a row is counted; whatever is missing or unknown counts as `other`."""
        place = [
            keys.index(value) if (value := row.get(axis, OTHER)) in keys else len(keys)
            for axis, keys in self.axes
        ]
        return int(np.ravel_multi_index(place, self.shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Several tables in one vector; each patient brings at most `most` rows to each.

    Attributes:
        scale: integer units of one row. Counts alone would need noise too small to be Gaussian.
    """

    tables: tuple[Table, ...]
    most: int
    scale: int = 64

    def __post_init__(self) -> None:
        if not self.tables or self.most < 1 or self.scale < 1:
            raise InvalidInputError("a census has tables, and a patient brings at least one row")

    @property
    def length(self) -> int:
        """Words of the vector."""
        return sum(table.cells for table in self.tables)

    @property
    def sensitivity2(self) -> int:
        """Delta^2: all rows of a patient in one cell of every table."""
        return len(self.tables) * (self.most * self.scale) ** 2

    @property
    def largest(self) -> int:
        """Most one patient brings to one word."""
        return self.most * self.scale


def count_rows(
    tables: Tables, patients: Sequence[Sequence[Mapping[str, str]]]
) -> NDArray[np.int64]:
    """Return the counts of the first `most` rows of every patient, in integer units."""
    total = np.zeros(tables.length, np.int64)
    for rows in patients:
        for row in rows[: tables.most]:
            start = 0
            for table in tables.tables:
                total[start + table.cell(row)] += tables.scale
                start += table.cells
    return total


def read_tables(tables: Tables, total: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return the noisy counts of each table, shaped by its axes; negative ones are left as is."""
    if total.shape != (tables.length,):
        raise InvalidInputError("the sum has another length than the tables")
    found: dict[str, NDArray[np.float64]] = {}
    start = 0
    for table in tables.tables:
        cells = total[start : start + table.cells] / tables.scale
        found[table.name] = cells.reshape(table.shape)
        start += table.cells
    return found


# --- cleaning --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A public grid over a quantity; what is below or above counts in the outermost cells."""

    lower: float
    upper: float
    cells: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.lower) and np.isfinite(self.upper) and self.cells > 1):
            raise InvalidInputError("a grid has two finite ends and at least two cells")
        if self.lower >= self.upper:
            raise InvalidInputError("a grid's lower end is below its upper one")

    @property
    def width(self) -> float:
        """Of one cell, in the quantity's unit."""
        return (self.upper - self.lower) / self.cells

    def cell(self, value: float | None) -> int:
        """Return the cell of a value; the one after the last for a missing value."""
        if value is None or not np.isfinite(value):
            return self.cells
        return int(np.clip((value - self.lower) / self.width, 0, self.cells - 1))


def grid_counts(
    grid: Grid, patients: Sequence[Sequence[float | None]], most: int, scale: int
) -> NDArray[np.int64]:
    """Return the histogram, missing values last, over the first `most` values of each patient."""
    total = np.zeros(grid.cells + 1, np.int64)
    for values in patients:
        for value in values[:most]:
            total[grid.cell(value)] += scale
    return total


def quantile(grid: Grid, counts: NDArray[np.float64], q: float) -> float | None:
    """Return a quantile from noisy counts, or None when too little is there.

    The cumulative sum is made monotone first, so noise cannot turn it back.
    """
    if not 0 < q < 1:
        raise InvalidInputError("a quantile is between 0 and 1")
    cumulative = np.maximum.accumulate(np.cumsum(counts[: grid.cells]))
    total = float(cumulative[-1])
    if total < 1:
        return None
    place = int(np.searchsorted(cumulative, q * total))
    before = float(cumulative[place - 1]) if place else 0.0
    here = float(cumulative[place]) - before
    inside = (q * total - before) / here if here > 0 else 0.5
    return grid.lower + grid.width * (place + float(np.clip(inside, 0, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """What all hospitals apply to one field: what fills a gap, and beyond what a value is odd."""

    fill: float
    lower_fence: float
    upper_fence: float
    missing: float  # share


def cleaning(grid: Grid, counts: NDArray[np.float64]) -> Cleaning | None:
    """Return fill value (median) and Tukey's fences from noisy counts; None when too few."""
    first, middle, third = (quantile(grid, counts, q) for q in (0.25, 0.5, 0.75))
    if first is None or middle is None or third is None:
        return None
    spread = third - first
    present, missing = float(counts[: grid.cells].sum()), float(counts[grid.cells])
    return Cleaning(
        fill=middle,
        lower_fence=first - 1.5 * spread,
        upper_fence=third + 1.5 * spread,
        missing=float(np.clip(missing / max(present + missing, 1.0), 0, 1)),
    )
