"""Means, rates, AUC, calibration and quantiles from released counts and sums.

Post-processing: what it needs was noised already. A denominator whose interval includes 0 gives
"not reported", never a number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bedside_core.statistics.query import (
    ABSENT,
    DECISIONS,
    LABELS,
    NEGATIVE,
    POSITIVE,
    PRESENT,
    STUDIES,
    group_names,
)
from bedside_core.statistics.reading import (
    NOT_REPORTED,
    Answer,
    Estimate,
    cells_ratio,
    difference,
    estimate,
    shifted,
)
from bedside_core.statistics.spec import KeySet, Number

_Z95 = 1.959963984540055


def prevalence(read: Answer) -> Estimate:
    """Return the share of studies decided present."""
    return cells_ratio(read, ("positives",), (STUDIES,))


def mean(read: Answer, number: Number) -> Estimate:
    """Return the mean of a number over the studies that have one."""
    name, middle = number.field, float(number.middle)
    half = (number.upper - number.lower) / 2
    cells = (f"{name} - middle",), (f"{name}: studies with one",)
    return shifted(cells_ratio(read, *cells, bounds=(-half, half)), middle)


def variance(read: Answer, number: Number) -> Estimate:
    """Return the variance; its interval holds whenever those of both moments hold (90 %)."""
    name, half = number.field, (number.upper - number.lower) / 2
    below = (f"{name}: studies with one",)
    first = cells_ratio(read, (f"{name} - middle",), below, bounds=(-half, half))
    second = cells_ratio(read, (f"({name} - middle)^2",), below, bounds=(0.0, half * half))
    moments = [
        (one.value, one.low, one.high)
        for one in (first, second)
        if one.value is not None and one.low is not None and one.high is not None
    ]
    if len(moments) < 2:
        return NOT_REPORTED
    (value, low, high), (square, least, most) = moments
    ends = (low * low, high * high)
    floor = 0.0 if low <= 0 <= high else min(ends)
    return estimate(
        square - value * value, least - max(ends), most - floor, least=0.0, most=half * half
    )


def brier(read: Answer) -> Estimate:
    """Return the mean of (score - label)^2 over labelled studies."""
    cells = ("squared error - 1/2",), ("labelled with a score",)
    return shifted(cells_ratio(read, *cells, bounds=(-0.5, 0.5)), 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a group's confusion counts say; undetermined counts as not called present."""

    group: str
    sensitivity: Estimate  # called present among the positive
    specificity: Estimate  # called absent among the negative
    false_positive_rate: Estimate  # called present among the negative
    undetermined: Estimate  # share of the labelled without a decision


def rates(read: Answer, by: Sequence[KeySet] = ()) -> tuple[Rates, ...]:
    """Return the rates of every group of a confusion statistic, in release order."""
    return tuple(_rates(read, group) for group in group_names(by))


def _rates(read: Answer, group: str) -> Rates:
    def cells(label: str, decisions: Sequence[str]) -> list[str]:
        return [", ".join(filter(None, (group, label, decision))) for decision in decisions]

    every = {label: cells(label, DECISIONS) for label in LABELS}
    undecided = [cell for label in LABELS for cell in cells(label, DECISIONS[2:])]
    called = (PRESENT,)
    return Rates(
        group=group,
        sensitivity=cells_ratio(read, cells(POSITIVE, called), every[POSITIVE]),
        specificity=cells_ratio(read, cells(NEGATIVE, (ABSENT,)), every[NEGATIVE]),
        false_positive_rate=cells_ratio(read, cells(NEGATIVE, called), every[NEGATIVE]),
        undetermined=cells_ratio(read, undecided, every[NEGATIVE] + every[POSITIVE]),
    )


def gaps(found: Sequence[Rates]) -> dict[str, Estimate]:
    """Return each group's sensitivity minus that of the first group."""
    first = found[0].sensitivity
    return {one.group: difference(one.sensitivity, first) for one in found[1:]}


def auc(read: Answer, bins: int) -> Estimate:
    """Return the area under the ROC curve, binned; its interval is first order in the noise.

    A = sum_b p_b (N below b + n_b / 2) / (P N). Cells below 0 count as 0 here and nowhere else.
    Not reported unless both P and N stand clear of 0.
    """
    counts = {
        label: [read.natural(f"score bin {b}, {label}") for b in range(bins)] for label in LABELS
    }
    spread = read.spread(f"score bin 0, {POSITIVE}")
    clear = read.reach() * math.sqrt(bins * spread)
    if min(math.fsum(counts[label]) for label in LABELS) <= clear:
        return NOT_REPORTED
    negative, positive = ([max(0.0, value) for value in counts[label]] for label in LABELS)
    wins, losses = _ranks(positive, negative)
    p_all, n_all = math.fsum(positive), math.fsum(negative)
    area = math.fsum(p * win for p, win in zip(positive, wins, strict=True)) / p_all
    slopes = [(win - area) / p_all for win in wins] + [(loss - area) / n_all for loss in losses]
    width = _Z95 * math.sqrt(spread * math.fsum(slope * slope for slope in slopes))
    return estimate(area, area - width, area + width, least=0.0, most=1.0)


def _ranks(positive: Sequence[float], negative: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return per bin the share of negatives below a positive there, of positives above a negative.

    Ties within a bin count half.
    """
    p_all, n_all = math.fsum(positive), math.fsum(negative)
    above, below, wins, losses = p_all, 0.0, [], []
    for p, n in zip(positive, negative, strict=True):
        above -= p
        wins.append((below + n / 2) / n_all)
        losses.append((above + p / 2) / p_all)
        below += n
    return wins, losses


def calibration(read: Answer, bins: int) -> tuple[Estimate, ...]:
    """Return mean score minus share of positives, for each bin of the score."""
    return tuple(
        cells_ratio(
            read, (f"score - label, bin {b}",), (f"labelled, score bin {b}",), bounds=(-1.0, 1.0)
        )
        for b in range(bins)
    )


def calibration_error(read: Answer, bins: int) -> Estimate:
    """Return the expected calibration error: sum of |gaps| over all labelled studies.

    Noise makes it too large on average; the interval is that of the noise around the value shown.
    """
    counts = [f"labelled, score bin {b}" for b in range(bins)]
    sums = [f"score - label, bin {b}" for b in range(bins)]
    labelled = math.fsum(map(read.natural, counts))
    if labelled <= read.reach() * math.sqrt(math.fsum(map(read.spread, counts))):
        return NOT_REPORTED
    value = math.fsum(abs(read.natural(cell)) for cell in sums) / labelled
    width = _Z95 * math.sqrt(math.fsum(map(read.spread, sums))) / labelled
    return estimate(value, value - width, value + width, least=0.0, most=1.0)


def histogram_quantile(read: Answer, number: Number, bins: int, q: float) -> float | None:
    """Return a quantile from a released histogram, as many as wanted; None if it is empty.

    Within a bin the studies are taken to lie evenly. Cells below 0 count as 0.
    """
    counts = [max(0.0, read.natural(f"{number.field} bin {b}")) for b in range(bins)]
    target, below = q * math.fsum(counts), 0.0
    width = (number.upper - number.lower) / bins
    for place, count in enumerate(counts):
        if count > 0 and below + count >= target:
            return number.lower + width * (place + (target - below) / count)
        below += count
    return None
