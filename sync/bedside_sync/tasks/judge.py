"""Validate and annotate: how well a model reads everywhere, and how well readers agree.

Validation sends score histograms by label, confusion and calibration cells per subgroup, and one
veto bit per site that the sum hides among the others. Annotation sends one vote per item.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError

_Z95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Layout: per group, a score histogram of negatives, one of positives, then one veto word.

    Everything else (confusion at any threshold on the grid, calibration, Brier, AUC) is read from
    the histograms, so no further privacy is spent on it.
    """

    groups: tuple[str, ...]
    bins: int = 20
    most: int = 1  # images of one patient that count
    scale: int = 64

    def __post_init__(self) -> None:
        if not self.groups or self.bins < 2 or self.most < 1 or self.scale < 1:
            raise InvalidInputError("a validation has groups and at least two bins")

    @property
    def length(self) -> int:
        """Words of the vector."""
        return len(self.groups) * 2 * self.bins + 1

    @property
    def sensitivity2(self) -> int:
        """Delta^2 of one patient: all images in one cell, and a site's veto turned by this case."""
        return (self.most**2 + 1) * self.scale**2

    @property
    def largest(self) -> int:
        """Most one patient, or a veto, brings to one word."""
        return self.most * self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One judged image: group, the model's probability, the reader's verdict."""

    group: str
    score: float
    positive: bool


def validation_vector(
    task: Validation, patients: Sequence[Sequence[Case]], *, veto: bool
) -> NDArray[np.int64]:
    """Return a site's counts. An unknown group or a score that is none counts in the first cell."""
    total = np.zeros(task.length, np.int64)
    index = {name: place for place, name in enumerate(task.groups)}
    for cases in patients:
        for case in cases[: task.most]:
            score = case.score if math.isfinite(case.score) else 0.0
            place = min(task.bins - 1, max(0, int(score * task.bins)))
            start = index.get(case.group, 0) * 2 * task.bins
            total[start + (task.bins if case.positive else 0) + place] += task.scale
    total[-1] = task.scale if veto else 0
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its 95 % interval from the noise; `value` is None when it cannot be given."""

    value: float | None
    lower: float = math.nan
    upper: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a group's histograms say."""

    positives: float
    negatives: float
    auc: Figure
    sensitivity: Figure
    specificity: Figure
    brier: float | None
    calibration: tuple[tuple[float, float | None], ...]  # mid of bin, share of positives


def read_validation(
    task: Validation, total: NDArray[np.int64], variance: float, threshold: float
) -> tuple[dict[str, Judged], bool]:
    """Return the figures of each group, and whether any site vetoed.

    Args:
        task: the layout.
        total: the opened sum.
        variance: of the noise in each word, in integer units squared.
        threshold: probability at or above which the model says present; rounded to the grid.

    A veto counts when its word is above half a vote and above three times the noise, so that
    chance alone makes one in 740 readings. One site's bit is seen when the noise multiplier is
    below a third; with more noise several sites have to say it.
    """
    if total.shape != (task.length,):
        raise InvalidInputError("the sum has another length than the validation")
    sd = math.sqrt(variance) / task.scale
    cells = total[:-1].reshape(len(task.groups), 2, task.bins) / task.scale
    found = {
        name: _judge(task, cells[place, 0], cells[place, 1], sd, threshold)
        for place, name in enumerate(task.groups)
    }
    return found, bool(total[-1] / task.scale > max(0.5, 3 * sd))


def _judge(
    task: Validation,
    negative: NDArray[np.float64],
    positive: NDArray[np.float64],
    sd: float,
    threshold: float,
) -> Judged:
    bins = task.bins
    mids = (np.arange(bins) + 0.5) / bins
    cut = min(bins, max(0, round(threshold * bins)))
    p, n = float(positive.sum()), float(negative.sum())
    whole = sd * math.sqrt(bins)
    counted = np.clip(positive, 0, None) + np.clip(negative, 0, None)
    brier = None
    if p + n > 2 * _Z95 * whole:
        square = positive * (mids - 1) ** 2 + negative * mids**2
        brier = float(np.clip(square.sum() / (p + n), 0, 1))
    shares = [
        float(np.clip(positive[b] / counted[b], 0, 1)) if counted[b] > 4 * sd + 1 else None
        for b in range(bins)
    ]
    return Judged(
        positives=p,
        negatives=n,
        auc=_auc(positive, negative, sd),
        sensitivity=_share(float(positive[cut:].sum()), p, sd, bins - cut, bins),
        specificity=_share(float(negative[:cut].sum()), n, sd, cut, bins),
        brier=brier,
        calibration=tuple(zip(mids.tolist(), shares, strict=True)),
    )


def _share(part: float, whole: float, sd: float, cells: int, of: int) -> Figure:
    """Return a ratio of noisy sums with Fieller's interval; none when the denominator may be 0."""
    variance_part, variance_whole = cells * sd * sd, of * sd * sd
    covariance = variance_part
    t2 = _Z95 * _Z95
    a = whole * whole - t2 * variance_whole
    if whole <= 0 or a <= 0:
        return Figure(value=None)
    b = part * whole - t2 * covariance
    c = part * part - t2 * variance_part
    root = math.sqrt(max(b * b - a * c, 0.0))
    lower, upper = (b - root) / a, (b + root) / a
    return Figure(
        value=min(1.0, max(0.0, part / whole)), lower=max(0.0, lower), upper=min(1.0, upper)
    )


def _auc(positive: NDArray[np.float64], negative: NDArray[np.float64], sd: float) -> Figure:
    """Return the area with a delta-method interval; none when either class may be empty."""
    bins = len(positive)
    p, n = np.clip(positive, 0, None), np.clip(negative, 0, None)
    total_p, total_n = float(p.sum()), float(n.sum())
    edge = _Z95 * sd * math.sqrt(bins)
    if min(float(positive.sum()), float(negative.sum())) <= edge or total_p * total_n <= 0:
        return Figure(value=None)
    below = np.concatenate([[0.0], np.cumsum(n)[:-1]])
    above = total_p - np.cumsum(p)
    area = float((p * (below + n / 2)).sum() / (total_p * total_n))
    gradient_p = ((below + n / 2) / total_n - area) / total_p
    gradient_n = ((above + p / 2) / total_p - area) / total_n
    half = _Z95 * sd * math.sqrt(float((gradient_p**2).sum() + (gradient_n**2).sum()))
    # what binning itself can hide: pairs inside one bin count a half
    half += float((p * n).sum() / (2 * total_p * total_n))
    return Figure(value=area, lower=max(0.0, area - half), upper=min(1.0, area + half))


# --- annotation --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """What the votes on one item came to."""

    votes: tuple[float, ...]
    winner: int | None  # None without a clear majority: back to the readers


def vote_vector(items: int, classes: int, votes: Sequence[int | None]) -> NDArray[np.int64]:
    """Return a site's votes: one class or none for each item of the shared pool."""
    if len(votes) != items:
        raise InvalidInputError("a vote, or none, for every item")
    total = np.zeros(items * classes, np.int64)
    for item, vote in enumerate(votes):
        if vote is not None:
            if not 0 <= vote < classes:
                raise InvalidInputError("a vote names one of the classes")
            total[item * classes + vote] = 1
    return total


def read_votes(
    total: NDArray[np.int64] | NDArray[np.float64],
    classes: int,
    sd: float,
    *,
    margin: float = 0.5,
) -> list[Consensus]:
    """Return the consensus on each item: the class that leads by more than noise and margin."""
    found: list[Consensus] = []
    for votes in total.reshape(-1, classes).astype(np.float64):
        order = np.argsort(votes)[::-1]
        lead = votes[order[0]] - (votes[order[1]] if classes > 1 else 0.0)
        clear = lead > max(margin, _Z95 * sd * math.sqrt(2))
        found.append(
            Consensus(votes=tuple(votes.tolist()), winner=int(order[0]) if clear else None)
        )
    return found


def kappa(table: NDArray[np.float64]) -> Figure:
    """Return Cohen's kappa of two readers from their (classes, classes) counts.

    Source: Cohen 1960; large-sample variance by Fleiss, Cohen, Everitt 1969.
    """
    total = float(table.sum())
    if table.ndim != 2 or table.shape[0] != table.shape[1] or total <= 0:
        return Figure(value=None)
    share = table / total
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    agreed, chance = float(np.trace(share)), float(rows @ columns)
    if chance >= 1:
        return Figure(value=None)
    value = (agreed - chance) / (1 - chance)
    diagonal = np.diagonal(share)
    first = float((diagonal * ((1 - chance) - (rows + columns) * (1 - agreed)) ** 2).sum())
    crossed = (columns[:, None] + rows[None, :]) ** 2
    off = share * crossed
    second = (1 - agreed) ** 2 * float(off.sum() - np.trace(off))
    third = (agreed * chance - 2 * chance + agreed) ** 2
    deviation = math.sqrt(max(first + second - third, 0.0) / total) / (1 - chance) ** 2
    return Figure(
        value=value,
        lower=max(-1.0, value - _Z95 * deviation),
        upper=min(1.0, value + _Z95 * deviation),
    )
