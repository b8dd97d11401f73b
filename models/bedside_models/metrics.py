"""Figures for a model card: discrimination, operating point, calibration, each with its interval.

Plain numpy on scores and labels. Every interval is a percentile bootstrap that draws patients,
not images, because images of one patient are not independent; the generator is handed in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_models.draws import Draws

Array = NDArray[np.float64]
TIED = 0.05  # Youden index; see choose_threshold
Metric = Callable[[NDArray[np.int64], Array], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval; None where the group cannot carry the figure."""

    value: float | None
    low: float | None
    high: float | None

    def rounded(self) -> list[float | None]:
        """Return [value, low, high] to four digits."""
        parts = (self.value, self.low, self.high)
        return [None if part is None else round(part, 4) for part in parts]


def auc(labels: NDArray[np.int64], scores: Array) -> float:
    """Return the area under the ROC curve, ties counted half (Mann-Whitney).

    Returns:
        NaN when only one class is there.
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    if positive.size == 0 or negative.size == 0:
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    ties = np.searchsorted(ordered, positive, side="right") - below
    return float((below + 0.5 * ties).mean() / negative.size)


def roc(labels: NDArray[np.int64], scores: Array) -> tuple[Array, Array]:
    """Return (false positive rate, sensitivity) at every distinct threshold, from 0,0 to 1,1."""
    order = np.argsort(-scores, kind="stable")
    hits, misses = np.cumsum(labels[order] == 1), np.cumsum(labels[order] == 0)
    last = np.append(np.diff(scores[order]) != 0, True)
    sensitivity = np.concatenate([[0.0], hits[last] / max(1, hits[-1])])
    return np.concatenate([[0.0], misses[last] / max(1, misses[-1])]), sensitivity


def sensitivity_at(threshold: float) -> Metric:
    """Return the metric 'share of the labelled-positive with a probability at the threshold'."""

    def metric(labels: NDArray[np.int64], probabilities: Array) -> float:
        positive = probabilities[labels == 1]
        return float((positive >= threshold).mean()) if positive.size else float("nan")

    return metric


def specificity_at(threshold: float) -> Metric:
    """Return the metric 'share of the labelled-negative below the threshold'."""

    def metric(labels: NDArray[np.int64], probabilities: Array) -> float:
        negative = probabilities[labels == 0]
        return float((negative < threshold).mean()) if negative.size else float("nan")

    return metric


def brier(labels: NDArray[np.int64], probabilities: Array) -> float:
    """Return the mean squared error of the probability; 0 is perfect, 0.25 is a coin."""
    return float(((probabilities - labels) ** 2).mean()) if labels.size else float("nan")


def expected_calibration_error(
    labels: NDArray[np.int64], probabilities: Array, bins: int = 10
) -> float:
    """Return the ECE over equally filled bins: mean |observed - predicted|, weighted by size.

    Equal filling keeps a bin of two images from speaking as loudly as one of twenty. The figure
    is biased upwards on small sets: chance alone gives about 0.1 for 120 images and 10 bins.
    """
    if labels.size == 0:
        return float("nan")
    order = np.argsort(probabilities, kind="stable")
    total = 0.0
    for part in np.array_split(order, min(bins, labels.size)):
        total += abs(float(labels[part].mean() - probabilities[part].mean())) * part.size
    return total / labels.size


def bootstrap(
    metric: Metric,
    labels: NDArray[np.int64],
    scores: Array,
    patients: NDArray[np.int64],
    draws: int,
    generator: Draws,
) -> Estimate:
    """Return a metric with the 2.5 and 97.5 percentiles over `draws` samples of patients.

    Draws in which the metric is undefined (one class missing) are left out; if more than a tenth
    are, the interval is None.

    Raises:
        InvalidInputError: the arrays differ in length.
    """
    if not labels.shape == scores.shape == patients.shape:
        raise InvalidInputError("labels, scores and patients differ in length")
    value = metric(labels, scores) if labels.size else float("nan")
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None)
    unique, inverse = np.unique(patients, return_inverse=True)
    members = [np.flatnonzero(inverse == index) for index in range(unique.size)]
    seen = []
    for _ in range(draws):
        drawn = generator.integers(0, unique.size, unique.size)
        rows = np.concatenate([members[index] for index in drawn])
        seen.append(metric(labels[rows], scores[rows]))
    usable = np.asarray(seen)[np.isfinite(seen)]
    if usable.size < 0.9 * draws:
        return Estimate(value=value, low=None, high=None)
    low, high = np.percentile(usable, [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high))


def sigmoid(values: Array) -> Array:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -60.0, 60.0))), np.float64)


def fit_platt(labels: NDArray[np.int64], logits: Array, steps: int = 100) -> tuple[float, float]:
    """Return (scale, offset) of Platt scaling by Newton's method on smoothed targets.

    Source: Platt 1999, with the targets (N+ + 1)/(N+ + 2) and 1/(N- + 2), which keep the fit
    finite when the classes separate.

    Raises:
        InvalidInputError: one class is missing.
    """
    positives = int(labels.sum())
    negatives = labels.size - positives
    if not positives or not negatives:
        raise InvalidInputError("Platt scaling needs both classes")
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    weights = np.zeros(2)
    for _ in range(steps):
        probability = sigmoid(design @ weights)
        gradient = design.T @ (probability - target)
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    return float(weights[0]), float(weights[1])


def choose_threshold(labels: NDArray[np.int64], probabilities: Array) -> float:
    """Return the threshold with the largest Youden index, in the middle of its plateau.

    Thresholds whose index is within `TIED` of the best are tied: its standard error on 120 images
    is about 0.07. Among them the one in the widest gap between neighbouring probabilities is
    taken, so that rounding in an export changes as few decisions as possible.
    """
    ordered = np.unique(probabilities)
    middles = (ordered[1:] + ordered[:-1]) / 2
    gaps = np.diff(ordered)
    sensitivity = np.array([sensitivity_at(t)(labels, probabilities) for t in middles])
    specificity = np.array([specificity_at(t)(labels, probabilities) for t in middles])
    youden = sensitivity + specificity - 1
    tied = np.flatnonzero(youden >= youden.max() - TIED)
    return float(middles[tied[np.argmax(gaps[tied])]])


def undetermined_band(
    labels: NDArray[np.int64], probabilities: Array, threshold: float, alpha: float
) -> tuple[float, float]:
    """Return (low, high): between them the conformal set at error `alpha` holds both classes.

    Class-conditional split conformal prediction: 'present' stays in the set while its probability
    is above the alpha-quantile of the labelled-positive, 'absent' while it is below the
    (1 - alpha)-quantile of the labelled-negative, with the finite-sample ranks
    floor(alpha (n + 1)). Where the set would be empty the band collapses onto the threshold.

    Source: Vovk 2012, "Conditional validity of inductive conformal predictors".
    """
    positive = np.sort(probabilities[labels == 1])
    negative = np.sort(probabilities[labels == 0])[::-1]
    rank_positive = int(np.floor(alpha * (positive.size + 1))) - 1
    rank_negative = int(np.floor(alpha * (negative.size + 1))) - 1
    low = float(positive[rank_positive]) if rank_positive >= 0 else 0.0
    high = float(negative[rank_negative]) if rank_negative >= 0 else 1.0
    return min(low, threshold), max(high, threshold)
