"""What a release would cost and how good it would be, before any data is touched.

Everything here follows from public numbers: bounds, c, the price, and a guess of how many studies
arrive. A plan's cost is the ledger's charge to the unit, because both come from the same law.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bedside_core.accounting import cap_units, epsilon, gaussian_half_width, gaussian_sigma2
from bedside_core.errors import InvalidInputError
from bedside_core.statistics.choice import Choice
from bedside_core.statistics.measure import choice_law, gaussian_law
from bedside_core.statistics.query import Query
from bedside_core.statistics.reading import GREY, MISS
from bedside_core.statistics.running import running
from bedside_core.statistics.strata import GRADES, Strata, prices, strata

DELTA = 1e-6  # at which epsilon is printed
USEFUL = 0.25  # a relative standard error above it calls for a longer window
WEEK = 7
_MOST_SIZE = 10**9


class Schedule(StrEnum):
    """How often a vector is released within one epoch, for one charge."""

    ONE_OFF = "one-off"  # once, on one snapshot
    NIGHTLY = "nightly-disjoint"  # each night's new studies; a patient's total stays within c
    RUNNING = "running-total"  # after each night the total so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One cell of the plan, in natural units.

    Attributes:
        deviation: standard deviation of its noise.
        half_width: of its 95 % interval.
        relative: deviation over the number of studies of one release; None for sums.
    """

    cell: str
    deviation: float
    half_width: float
    relative: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Price and expected error of a release or a schedule.

    Attributes:
        cost: units of 1e-12 rho, exactly what the ledger will charge; for a schedule once.
        epsilon: of that cost at `DELTA`.
        relative: standard error of a count of all studies of one release, over their number.
        weekly: the same for seven nights of a nightly schedule added up; None otherwise.
        weekly_release: if the schedule released once a week instead, at the same price.
    """

    schedule: Schedule
    nights: int
    size: int
    cost: int
    epsilon: float
    sigma2: int
    lines: tuple[Line, ...]
    relative: float
    weekly: float | None
    weekly_release: float | None
    warnings: tuple[str, ...]


def plan(
    query: Query,
    units: int,
    size: int,
    schedule: Schedule = Schedule.ONE_OFF,
    nights: int = 1,
) -> Plan:
    """Return the plan of a vector.

    Args:
        query: what would be released.
        units: rho to spend on the epoch's schedule, or on the one release.
        size: public guess of the studies of one release: of the window, or of one night.
        schedule: how often.
        nights: of the epoch; 1 for a one-off.

    Raises:
        InvalidInputError: a number out of range, or a schedule that does not fit the query.
    """
    _check(size, schedule, nights)
    if schedule is Schedule.RUNNING:
        return _running_plan(query, units, size, nights)
    law = gaussian_law(query, units)
    sigma, width = math.sqrt(law.sigma2), law.half_width(MISS)
    pairs = zip(query.cells, query.units, query.grid_steps(), strict=True)
    lines = tuple(_line(cell, unit, step, sigma, width, size) for cell, unit, step in pairs)
    relative = sigma / _study_unit(query) / size
    nightly = schedule is Schedule.NIGHTLY
    weekly = relative / math.sqrt(WEEK) if nightly else None
    return Plan(
        schedule=schedule,
        nights=nights,
        size=size,
        cost=law.cost,
        epsilon=epsilon(law.cost, DELTA),
        sigma2=law.sigma2,
        lines=lines,
        relative=relative,
        weekly=weekly,
        weekly_release=relative / WEEK if nightly else None,
        warnings=_warnings(relative, size, schedule, weekly),
    )


def _running_plan(query: Query, units: int, size: int, nights: int) -> Plan:
    """Plan totals; widths and errors are those after the last night."""
    totals = running(query, nights)
    sigma2 = totals.sigma2(units)
    cost = totals.cost(sigma2)
    sigma, width = totals.deviation(nights, sigma2), totals.half_width(nights, sigma2)
    whole = size * nights
    pairs = zip(query.cells, query.units, query.grid_steps(), strict=True)
    relative = sigma / _study_unit(query) / whole
    return Plan(
        schedule=Schedule.RUNNING,
        nights=nights,
        size=size,
        cost=cost,
        epsilon=epsilon(cost, DELTA),
        sigma2=sigma2,
        lines=tuple(_line(cell, unit, step, sigma, width, whole) for cell, unit, step in pairs),
        relative=relative,
        weekly=None,
        weekly_release=None,
        warnings=_warnings(relative, whole, Schedule.RUNNING, None),
    )


def plan_strata(graded: Strata, size: int) -> Plan:
    """Return the plan of a release with noise by grade: the error of the sum over the grades."""
    _check(size, Schedule.ONE_OFF, 1)
    query = graded.query
    sigma, width = math.sqrt(graded.variance), graded.half_width(MISS)
    pairs = zip(query.cells, query.units, query.grid_steps(), strict=True)
    relative = sigma / _study_unit(query) / size
    return Plan(
        schedule=Schedule.ONE_OFF,
        nights=1,
        size=size,
        cost=graded.cost,
        epsilon=epsilon(graded.cost, DELTA),
        sigma2=sum(law.sigma2 for law in graded.laws.values()),
        lines=tuple(_line(cell, unit, step, sigma, width, size) for cell, unit, step in pairs),
        relative=relative,
        weekly=None,
        weekly_release=None,
        warnings=_warnings(relative, size, Schedule.ONE_OFF, None),
    )


def strata_for(query: Query, units: int, shares: Mapping[int, int]) -> Strata:
    """Return the strata of a release of `units` whose grades spend in proportion to `shares`."""
    return strata(query, dict(zip(GRADES, prices(units, shares), strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoicePlan:
    """Price of quantiles and how far off their rank may be.

    Attributes:
        rank_error: studies between the answer and the quantile, not exceeded with 95 %.
        relative: the same over the guessed number of studies.
    """

    cost: int
    epsilon: float
    size: int
    rank_error: float
    relative: float
    warnings: tuple[str, ...]


def plan_choice(choice: Choice, units: int, size: int) -> ChoicePlan:
    """Return the plan of quantiles: with 95 % all of them lie within the rank error.

    A utility stays within 2 s (ln grid + ln(draws / .05)) / epsilon of the best (McSherry, Talwar
    2007, Theorem 6). Patient weights are said in patients.
    """
    _check(size, Schedule.ONE_OFF, 1)
    law = choice_law(choice, units)
    grid, draws = len(choice.values), law.draws
    reach = 2 * (math.log(grid) + math.log(draws / MISS)) / float(law.epsilon)
    errors = [
        reach * sensitivity / probability.denominator
        for sensitivity, probability in zip(
            choice.sensitivities, choice.spec.probabilities, strict=True
        )
    ]
    worst = max(errors) / choice.weight
    return ChoicePlan(
        cost=law.cost,
        epsilon=epsilon(law.cost, DELTA),
        size=size,
        rank_error=worst,
        relative=worst / size,
        warnings=_warnings(worst / size, size, Schedule.ONE_OFF, None),
    )


def units_for_width(query: Query, cell: str, half_width: float) -> int:
    """Return the least rho whose 95 % interval of a cell is at most `half_width` to each side.

    Raises:
        InvalidInputError: no cell of that name, or a width below half a step of the cell.
    """
    if cell not in query.cells:
        raise InvalidInputError("no cell of that name")
    if type(half_width) not in (int, float) or not math.isfinite(half_width) or half_width <= 0:
        raise InvalidInputError("a half width is a number above 0")
    target = math.floor(half_width * query.units[query.cells.index(cell)])
    if target < 1:
        raise InvalidInputError("so narrow an interval would leave no noise")
    low, high = 1, cap_units(1000.0, DELTA)
    if gaussian_half_width(gaussian_sigma2(query.l2sq, high), MISS) > target:
        raise InvalidInputError("so narrow an interval would leave no noise")
    while low < high:
        middle = (low + high) // 2
        fits = gaussian_half_width(gaussian_sigma2(query.l2sq, middle), MISS) <= target
        low, high = (low, middle) if fits else (middle + 1, high)
    return low


def curve(
    query: Query,
    epsilons: Sequence[float],
    size: int,
    schedule: Schedule = Schedule.ONE_OFF,
    nights: int = 1,
    shares: Mapping[int, int] | None = None,
) -> tuple[tuple[float, float], ...]:
    """Return (epsilon, relative error) points: what a budget buys; `shares` are those of grades."""

    def relative(units: int) -> float:
        if shares is not None:
            return plan_strata(strata_for(query, units, shares), size).relative
        return plan(query, units, size, schedule, nights).relative

    return tuple((target, relative(cap_units(target, DELTA))) for target in epsilons)


def _line(cell: str, unit: int, step: int, sigma: float, width: float, size: int) -> Line:
    relative = sigma / unit / size if step == 1 else None
    return Line(cell=cell, deviation=sigma / unit, half_width=width / unit, relative=relative)


def _study_unit(query: Query) -> int:
    """Released integers of one study or patient; a vector without a count has that of its first."""
    counts = zip(query.units, query.grid_steps(), strict=True)
    return next((unit for unit, step in counts if step == 1), query.units[0])


def _warnings(
    relative: float, size: int, schedule: Schedule, weekly: float | None
) -> tuple[str, ...]:
    found = []
    if weekly is not None and relative > USEFUL:
        found.append(
            f"{_percent(relative)} error at {size} studies a night; weekly gives {_percent(weekly)}"
        )
    elif relative > USEFUL:
        wait = "take a longer window or more studies"
        found.append(f"{_percent(relative)} error at {size} studies; {wait}")
    if relative > GREY:
        found.append("the interval would be wider than the number: the release would be greyed")
    if schedule is Schedule.RUNNING:
        found.append("early totals are worse: the noise is that of a year on a few nights")
    return tuple(found)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _check(size: int, schedule: Schedule, nights: int) -> None:
    if type(size) is not int or not 1 <= size <= _MOST_SIZE:
        raise InvalidInputError("the size is a public guess of at least 1 study")
    if type(nights) is not int or nights < 1 or (schedule is Schedule.ONE_OFF and nights != 1):
        raise InvalidInputError("a one-off has 1 night, a schedule at least 1")
