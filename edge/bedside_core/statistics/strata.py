"""Grades: strata of patients with their own price, and sampling rates for training.

A grade is fixed for each patient for the epoch (the snapshot store keeps it), so strata hold
disjoint patients and a release over all of them costs a patient only the rho of that patient's
grade (parallel composition). The data set pays the largest of them, so its budget holds for every
patient whatever their grade. The total is the sum of the strata; no refusal depends on data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bedside_core.accounting import compose_disjoint, gaussian_sum_half_width
from bedside_core.errors import InvalidInputError
from bedside_core.statistics.measure import GaussianLaw, Mechanisms, gaussian_law, measure
from bedside_core.statistics.query import Query
from bedside_core.statistics.rows import STRICTEST_GRADE, Kept

GRADES = tuple(range(1, STRICTEST_GRADE + 1))
RATE_GRID = 10_000  # sampling rates are multiples of 1e-4, rounded down


@dataclass(frozen=True, slots=True, kw_only=True)
class Strata:
    """One query with a law per grade; every grade is always measured, empty ones too."""

    query: Query
    laws: Mapping[int, GaussianLaw]

    @property
    def costs(self) -> dict[int, int]:
        """Units of rho that a patient of each grade pays."""
        return {grade: law.cost for grade, law in self.laws.items()}

    @property
    def cost(self) -> int:
        """Units the data set pays: the largest, because no patient stands in two strata."""
        return compose_disjoint(self.costs.values())

    @property
    def variance(self) -> float:
        """Noise variance of a cell of the total, in squared released integers."""
        return sum(law.variance for law in self.laws.values())

    def half_width(self, miss: float) -> int:
        """Return the half width of a cell of the total; it fails with probability at most `miss`.

        Proven for the sum of the strata's exact laws, see `gaussian_sum_half_width`.
        """
        return gaussian_sum_half_width([law.sigma2 for law in self.laws.values()], miss)

    def measure(self, kept: Kept, noise: Mechanisms) -> dict[int, tuple[int, ...]]:
        """Return the noisy vector of every grade, in the order of the grades."""
        return {
            grade: measure(self.query, law, kept.of_grade(grade), noise)
            for grade, law in self.laws.items()
        }


def strata(query: Query, units: Mapping[int, int]) -> Strata:
    """Return the strata of a query with a budget for each grade.

    Args:
        query: asked of every stratum.
        units: rho per grade 1 to 5, all five, falling or equal: a stricter grade never spends
            more than a milder one.

    Raises:
        InvalidInputError: a grade is missing or a stricter one would spend more.
    """
    if tuple(sorted(units)) != GRADES:
        raise InvalidInputError("every grade of 1 to 5 needs its budget")
    ordered = [units[grade] for grade in GRADES]
    if ordered != sorted(ordered, reverse=True):
        raise InvalidInputError("a stricter grade never spends more than a milder one")
    return Strata(query=query, laws={g: gaussian_law(query, units[g]) for g in GRADES})


def prices(units: int, shares: Mapping[int, int]) -> tuple[int, ...]:
    """Return what a release of `units` costs a patient of each grade, 1 to 5, in units of rho.

    Args:
        units: of the mildest grade.
        shares: rho that an epoch may cost each grade, falling or equal; a release spends in their
            proportion, rounded down, at least one unit.
    """
    return tuple(max(1, units * shares[grade] // shares[GRADES[0]]) for grade in GRADES)


def total(answers: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the sum of the strata's vectors, cell by cell."""
    return tuple(sum(column) for column in zip(*answers, strict=True))


def sampling_rate(epsilon_of: Callable[[float], float], target: float) -> float:
    """Return the largest Poisson rate on the grid of 1e-4 whose epsilon is at most `target`.

    Args:
        epsilon_of: epsilon of the whole training at a rate in (0, 1], growing with the rate; the
            shell hands in an accountant.
        target: the grade's epsilon.

    Returns:
        A rate of 0 to 1; 0 when even the smallest rate costs more. Rounded down: the nearest rate
        may cost more than was agreed.

    Source: Boenisch et al. 2023, arXiv:2303.17046 ("Sample").
    """
    if type(target) is not float or not target > 0:
        raise InvalidInputError("an epsilon to aim at is a float above 0")
    low, high = 0, RATE_GRID
    while low < high:
        middle = (low + high + 1) // 2
        fits = epsilon_of(middle / RATE_GRID) <= target
        low, high = (middle, high) if fits else (low, middle - 1)
    return low / RATE_GRID
