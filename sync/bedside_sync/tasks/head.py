"""Train: a linear head from noisy sums of squares, in one release and without iterations.

Each patient brings one feature vector x (pooled features of the frozen backbone, projected by a
public matrix, averaged over the patient's images, norm at most 1) and labels y in {0, 1} per
finding, at most `most_positive` of them 1. Sent are 5 x_i^2, 7 x_i x_j for i < j, and a x_i y_c in
integers. Since 49 <= 2 * 25 the first two together never pass 25 |x|^4, so

    Delta^2 = 25 D^4 + a^2 D^2 L,   D^2 the bound of the rounded |x|^2

holds exactly, whatever the floating point arithmetic before did. The hub solves the ridge problem
after the noise; nothing needs to be iterated and no site waits for another.

When the last feature is the same for every patient, the sum also holds how many patients and
positives there are and where they lie: intercept and calibration cost no further privacy
(`tasks.calibrated`).

Source: Foulds et al. 2016 arXiv:1603.07294 and Wang 2018 arXiv:1803.02596 (noisy sufficient
statistics, ridge chosen after the noise).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg.ring import Bounds, DrawWords, round_row

_DIAGONAL: Final = 5
_MIXED: Final = 7
_RIDGE: Final = 2.0  # times noise sd times sqrt(p): half to once this is flat, a tenth overfits


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadTask:
    """The public settings of a training round.

    Attributes:
        features: p, after the projection; a constant one counts.
        findings: names of the labels, in the order of their columns.
        scale: integer units of a feature; 64 keeps the rounding below the noise.
        label_weight: a: how the budget is shared between x x^T and x y.
        most_positive: L: most findings one patient may have; more are dropped.
    """

    features: int
    findings: tuple[str, ...]
    scale: int = 64
    label_weight: int = 160
    most_positive: int = 4

    def __post_init__(self) -> None:
        if self.features < 1 or not self.findings or self.most_positive < 1:
            raise InvalidInputError("a head has features and findings")

    @property
    def bounds(self) -> Bounds:
        """How a patient's features become integers."""
        return Bounds(clip=Fraction(1), scale=self.scale, length=self.features)

    @property
    def length(self) -> int:
        """Words: p diagonal, p (p - 1) / 2 mixed, p for every finding."""
        p = self.features
        return p + p * (p - 1) // 2 + p * len(self.findings)

    @property
    def sensitivity2(self) -> int:
        """Delta^2: the squared L2 norm one patient can bring, exact."""
        square = self.bounds.squared
        positives = min(self.most_positive, len(self.findings))
        return _DIAGONAL**2 * square**2 + self.label_weight**2 * square * positives

    @property
    def largest(self) -> int:
        """Most one patient brings to one word."""
        square = self.bounds.squared
        return max(_DIAGONAL * square, self.label_weight * (math.isqrt(square) + 1))


def head_vector(
    task: HeadTask, x: NDArray[np.float64], y: NDArray[np.int64], draw: DrawWords
) -> tuple[NDArray[np.int64], int]:
    """Return the sum over patients, and how many were left out.

    Args:
        task: the settings.
        x: (patients, p) real features; rows above norm 1 are clipped.
        y: (patients, findings) of 0 and 1; of more than `most_positive` ones the later are dropped
            (their order is public and the same for everybody).
        draw: uniform words for the rounding.

    Raises:
        InvalidInputError: arrays of other shapes, or labels other than 0 and 1.
    """
    if x.ndim != 2 or x.shape[1] != task.features or y.shape != (len(x), len(task.findings)):
        raise InvalidInputError("features and labels have other shapes than the round")
    if not np.isin(y, (0, 1)).all():
        raise InvalidInputError("labels are 0 or 1")
    kept: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int64]] = []
    for row, label in zip(x, y, strict=True):
        integers = round_row(row, task.bounds, draw)
        if integers is not None:
            kept.append(integers)
            labels.append(np.where(np.cumsum(label) <= task.most_positive, label, 0))
    if not kept:
        return np.zeros(task.length, np.int64), len(x)
    rounded, marked = np.stack(kept), np.stack(labels)
    # exact: every product of sums stays below 2^53 for less than 10^11 patients
    gram = rounded.T @ rounded
    upper = np.triu_indices(task.features, 1)
    parts = [
        _DIAGONAL * np.diagonal(gram),
        _MIXED * gram[upper],
        task.label_weight * (rounded.T @ marked).T.reshape(-1),
    ]
    return np.concatenate(parts).astype(np.int64), len(x) - len(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear head: scores are `x @ weights`."""

    weights: NDArray[np.float64]  # (p, findings)
    ridge: float
    findings: tuple[str, ...]


def solve_head(
    task: HeadTask,
    totals: Sequence[NDArray[np.int64]],
    variance: float,
    *,
    constant: float = 0.0,
) -> Head:
    """Return the head from one or several nights' sums.

    With a constant feature the sums are centred first: what all patients have in common, such as a
    hospital's detector, would else lead the head as soon as the noise asks for a strong ridge. The
    weight of the constant is then the intercept, which no ridge pulls.

    Args:
        task: the settings.
        totals: opened sums; nights are added, each patient being in one of them.
        variance: of the noise in each word of one night's sum.
        constant: value of the last feature where it is the same for everybody, else 0.

    Raises:
        InvalidInputError: a sum of another length.
    """
    gram, right = read_sums(task, totals)
    p, unit = task.features, float(task.scale) ** 2
    deviation = math.sqrt(variance * len(totals)) / (_MIXED * unit)
    ridge = _RIDGE * deviation * math.sqrt(p)
    if constant <= 0 or p == 1:
        return Head(weights=_ridge(gram, right, ridge), ridge=ridge, findings=task.findings)
    everybody = max(1.0, gram[-1, -1] / constant**2)
    sums, positives = gram[:-1, -1] / constant, right[-1] / constant
    inner = _ridge(
        gram[:-1, :-1] - np.outer(sums, sums) / everybody,
        right[:-1] - np.outer(sums, positives) / everybody,
        ridge,
    )
    intercept = (positives - sums @ inner) / everybody
    weights = np.vstack([inner, intercept[None, :] / constant])
    return Head(weights=weights, ridge=ridge, findings=task.findings)


def _ridge(
    gram: NDArray[np.float64], right: NDArray[np.float64], ridge: float
) -> NDArray[np.float64]:
    """Return (gram + ridge)^-1 right, with what noise made negative in gram taken as 0."""
    values, vectors = np.linalg.eigh(gram)
    lifted = np.maximum(values, 0.0) + max(ridge, 1e-9)
    return np.asarray(vectors @ ((vectors.T @ right) / lifted[:, None]), np.float64)


def read_sums(
    task: HeadTask, totals: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the noisy (p, p) sum of x x^T and (p, findings) sum of x y over all nights.

    Raises:
        InvalidInputError: a sum of another length.
    """
    if not totals or any(total.shape != (task.length,) for total in totals):
        raise InvalidInputError("the sums have another length than the round")
    total = np.sum([night.astype(np.float64) for night in totals], axis=0)
    p, unit = task.features, float(task.scale) ** 2
    gram = np.zeros((p, p))
    upper = np.triu_indices(p, 1)
    gram[upper] = total[p : p + len(upper[0])] / (_MIXED * unit)
    gram += gram.T
    gram[np.diag_indices(p)] = total[:p] / (_DIAGONAL * unit)
    mixed = total[p + len(upper[0]) :].reshape(len(task.findings), p).T
    return gram, mixed / (task.label_weight * task.scale)
