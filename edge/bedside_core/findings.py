"""From a network's numbers to what a radiologist is told: present, absent or undetermined.

Also the pure parts of the input check (is this an image the model was made for?) and of the
saliency map. Nothing here runs a network or reads a file.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_core.imaging import Float, Intensity


class Decision(StrEnum):
    """DCM 121053 Present, 121054 Absent, 121059 Presence Undetermined."""

    PRESENT = "present"
    ABSENT = "absent"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Platt scaling: p = sigmoid(scale * logit + offset), fitted on the validation split."""

    scale: float = 1.0
    offset: float = 0.0

    def probability(self, logit: float) -> float:
        """Return the calibrated probability in 0..1.

        Raises:
            InvalidInputError: the logit is NaN or infinite; no probability is made up for it.
        """
        if not np.isfinite(logit):
            raise InvalidInputError("the network answered with something that is not a number")
        return float(1.0 / (1.0 + np.exp(-np.clip(self.scale * logit + self.offset, -60.0, 60.0))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a probability becomes a decision: inside low < p < high nobody should lean on it."""

    threshold: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.low <= self.threshold <= self.high <= 1.0:
            raise InvalidInputError("need 0 <= low <= threshold <= high <= 1")

    def decide(self, probability: float) -> Decision:
        """Return the decision; the band's edges belong to the clear answers."""
        if self.low < probability < self.high:
            return Decision.UNDETERMINED
        # not the threshold: where it lies on the band's lower edge, that edge is still absent
        return Decision.PRESENT if probability >= self.high else Decision.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Familiar:
    """What the training images looked like to the network and to the eye.

    Attributes:
        mean: (C,) mean pooled feature vector.
        precision_chol: (C, C) lower triangle L with distance^2 = |L^T (x - mean)|^2.
        cutoff: largest distance that still counts as familiar.
        intensity: for each name of `Intensity`, the (least, most) seen in training.
    """

    mean: NDArray[np.float32] = field(repr=False)
    precision_chol: NDArray[np.float32] = field(repr=False)
    cutoff: float
    intensity: dict[str, tuple[float, float]]

    def distance(self, features: NDArray[np.float32]) -> float:
        """Return the Mahalanobis distance of a (C,) feature vector; infinite if not finite."""
        gap = features.astype(np.float64).ravel() - self.mean
        if not np.isfinite(gap).all():
            return float("inf")
        return float(np.linalg.norm(self.precision_chol.astype(np.float64).T @ gap))


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the input check: what was looked at, whether it passed, and why not."""

    name: str
    passed: bool
    reason: str


def intensity_check(seen: Intensity, familiar: Familiar) -> Check:
    """Compare the grey-scale statistics with the training range."""
    for name, (least, most) in sorted(familiar.intensity.items()):
        value = float(getattr(seen, name))
        if not least <= value <= most:
            reason = f"{name} {value:.3f} is outside {least:.3f}..{most:.3f}"
            return Check(name="intensity", passed=False, reason=reason)
    return Check(name="intensity", passed=True, reason="grey scale within the training range")


def feature_check(features: NDArray[np.float32], familiar: Familiar) -> Check:
    """Compare the pooled features with the training distribution."""
    distance = familiar.distance(features)
    reason = f"feature distance {distance:.1f}, cut-off {familiar.cutoff:.1f}"
    return Check(name="features", passed=distance <= familiar.cutoff, reason=reason)


# Logit units: the 99.5th percentile of the reference model's map cells over its validation split.
_FULL_SALIENCY = 15.0


def saliency(cam: Float) -> Float:
    """Scale a class-activation map (h, w) to 0..1: only evidence *for* the finding is shown.

    The scale is absolute, so a clear chest stays dark instead of being stretched until noise
    glows, and two images can be compared.
    """
    return np.asarray(np.clip(np.asarray(cam, np.float32) / _FULL_SALIENCY, 0.0, 1.0), np.float32)
