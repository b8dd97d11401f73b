"""Decisions: how they are chosen on validation, and how many an export changes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedside_core.findings import Calibration, Rule
from bedside_models.metrics import choose_threshold, fit_platt, sigmoid, undetermined_band

BAND_ALPHA = 0.1
Labels = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """Calibration and decision rule, and the words that say how they were chosen."""

    calibration: Calibration
    rule: Rule
    alpha: float

    @property
    def chosen_by(self) -> str:
        """Return the rule in words, for manifest and card."""
        return (
            "validation split: largest Youden index, middle of the widest gap among ties; "
            f"undetermined where the class-conditional conformal set at alpha {self.alpha:g} "
            "holds both answers"
        )

    def describe(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "scale": self.calibration.scale,
            "offset": self.calibration.offset,
            "fitted_on": "val",
            "threshold": self.rule.threshold,
            "low": self.rule.low,
            "high": self.rule.high,
            "alpha": self.alpha,
            "chosen_by": self.chosen_by,
        }

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> "Operating":
        """Return what `describe` wrote."""
        return cls(
            calibration=Calibration(scale=fields["scale"], offset=fields["offset"]),
            rule=Rule(threshold=fields["threshold"], low=fields["low"], high=fields["high"]),
            alpha=fields["alpha"],
        )


def fit_operating(labels: Labels, logits: Array, alpha: float = BAND_ALPHA) -> Operating:
    """Fit Platt scaling, then choose threshold and band, all on the same validation images."""
    scale, offset = fit_platt(labels, logits)
    probabilities = sigmoid(scale * logits + offset)
    threshold = choose_threshold(labels, probabilities)
    low, high = undetermined_band(labels, probabilities, threshold, alpha)
    rule = Rule(
        threshold=round(threshold, 6), low=round(min(low, threshold), 6), high=round(high, 6)
    )
    calibration = Calibration(scale=round(scale, 6), offset=round(offset, 6))
    return Operating(calibration=calibration, rule=rule, alpha=alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far an export strays from the trained network on the same images."""

    images: int
    changed: int
    changed_three_way: int
    largest_probability: float
    largest_logit: float

    @property
    def changed_per_200(self) -> float:
        """Return changed decisions for every 200 images."""
        return 200.0 * self.changed / max(1, self.images)

    def describe(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "images": self.images,
            "changed_decisions": self.changed,
            "changed_decisions_per_200": round(self.changed_per_200, 3),
            "changed_three_way": self.changed_three_way,
            "largest_change_of_probability": float(f"{self.largest_probability:.3g}"),
            "largest_change_of_logit": float(f"{self.largest_logit:.3g}"),
        }


def parity(trained: Array, exported: Array, operating: Operating) -> Parity:
    """Compare logits image by image: the decision at the threshold, then with the band.

    An answer that is not a number counts as a changed decision.
    """
    calibration, rule = operating.calibration, operating.rule
    before = sigmoid(calibration.scale * trained + calibration.offset)
    after = sigmoid(calibration.scale * exported + calibration.offset)
    broken = ~np.isfinite(exported)
    after[broken] = np.nan
    changed = ((before >= rule.threshold) != (after >= rule.threshold)) | broken
    three_way = _state(before, rule) != _state(after, rule)
    gap_p, gap_logit = np.abs(before - after), np.abs(trained - exported)
    return Parity(
        images=int(trained.size),
        changed=int(changed.sum()),
        changed_three_way=int((three_way | broken).sum()),
        largest_probability=float("inf") if broken.any() else float(gap_p.max(initial=0.0)),
        largest_logit=float("inf") if broken.any() else float(gap_logit.max(initial=0.0)),
    )


def _state(probabilities: Array, rule: Rule) -> NDArray[np.int64]:
    undetermined = (probabilities > rule.low) & (probabilities < rule.high)
    return np.where(undetermined, 1, np.where(probabilities >= rule.high, 2, 0))
