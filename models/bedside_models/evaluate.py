"""The figures of the card: every split, every group, beside a model that never saw a pixel.

Calibration, threshold and undetermined band are fitted on validation. The test split is read only
when asked for, once, for the network that is going to be packaged.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bedside_core.findings import Rule
from bedside_models.data import AGE_BANDS, Dataset, Row
from bedside_models.decisions import Array, Labels, Operating
from bedside_models.draws import seeded
from bedside_models.metrics import (
    Metric,
    auc,
    bootstrap,
    brier,
    expected_calibration_error,
    sensitivity_at,
    sigmoid,
    specificity_at,
)

Step = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Logits of some rows of the table."""

    index: NDArray[np.int64] = field(repr=False)
    logits: Array = field(repr=False)


def groups_of(rows: Iterable[Row]) -> dict[str, list[bool]]:
    """Return the card's groups as masks over the rows, 'all' first."""
    rows = list(rows)
    groups: dict[str, list[bool]] = {"all": [True] * len(rows)}
    for view in ("AP", "PA"):
        groups[f"view {view}"] = [r.view == view for r in rows]
    groups["commonest size"] = [r.common_size for r in rows]
    for view in ("AP", "PA"):
        groups[f"commonest size, {view}"] = [r.common_size and r.view == view for r in rows]
    for sex in ("F", "M"):
        groups[f"sex {sex}"] = [r.sex == sex for r in rows]
    for name, _, _ in AGE_BANDS:
        groups[f"age {name}"] = [r.age_band == name for r in rows]
    return groups


def split_figures(
    dataset: Dataset,
    scored: Scored,
    operating: Operating,
    metadata: Array,
    *,
    draws: int,
    seed: int,
    step: Step,
) -> dict[str, Any]:
    """Return every figure of one split: name of group -> figures, each [value, low, high]."""
    rows = [dataset.rows[i] for i in scored.index.tolist()]
    labels, patients = dataset.labels()[scored.index], dataset.patients()[scored.index]
    calibration = operating.calibration
    raw = sigmoid(scored.logits)
    calibrated = sigmoid(calibration.scale * scored.logits + calibration.offset)
    groups, out = groups_of(rows), {}
    for number, (name, members) in enumerate(groups.items()):
        mask = np.array(members, bool)

        def estimate(
            metric: Metric, values: Array, mask: NDArray[np.bool_] = mask
        ) -> list[float | None]:
            generator = seeded(seed)
            return bootstrap(
                metric, labels[mask], values[mask], patients[mask], draws, generator
            ).rounded()

        out[name] = {
            "images": int(mask.sum()),
            "patients": int(np.unique(patients[mask]).size),
            "positive": int(labels[mask].sum()),
            "auc": estimate(auc, scored.logits),
            "auc_metadata_only": estimate(auc, metadata),
            "sensitivity": estimate(sensitivity_at(operating.rule.threshold), calibrated),
            "specificity": estimate(specificity_at(operating.rule.threshold), calibrated),
            "brier_raw": estimate(brier, raw),
            "brier": estimate(brier, calibrated),
            "ece_raw": estimate(expected_calibration_error, raw),
            "ece": estimate(expected_calibration_error, calibrated),
            **_with_band(labels[mask], calibrated[mask], operating.rule),
        }
        step("figures", number + 1, len(groups))
    return out


def _with_band(labels: Labels, probabilities: Array, rule: Rule) -> dict[str, Any]:
    """Return the share left undetermined and the operating point on the rest."""
    clear = (probabilities <= rule.low) | (probabilities >= rule.high)
    metrics = (sensitivity_at(rule.threshold), specificity_at(rule.threshold))
    values = [metric(labels[clear], probabilities[clear]) for metric in metrics]
    sensitivity, specificity = (round(v, 4) if np.isfinite(v) else None for v in values)
    return {
        "undetermined_share": round(float(1 - clear.mean()), 4) if labels.size else None,
        "sensitivity_outside_band": sensitivity,
        "specificity_outside_band": specificity,
    }


def metadata_scores(dataset: Dataset, index: NDArray[np.int64]) -> Array:
    """Return scores of a logistic model on view, size, spacing and follow-up; fitted on train.

    It is the yardstick for shortcuts: what it reaches can be had without looking at the lungs.
    """
    train = dataset.indices("train")
    scaler = StandardScaler().fit(_metadata(dataset, train))
    model = LogisticRegression(max_iter=1000)
    model.fit(scaler.transform(_metadata(dataset, train)), dataset.labels()[train])
    return np.asarray(
        model.decision_function(scaler.transform(_metadata(dataset, index))), np.float64
    )


def _metadata(dataset: Dataset, index: NDArray[np.int64]) -> Array:
    return np.array(
        [
            [
                float(row.view == "AP"),
                float(row.common_size),
                float(row.original[0] > row.original[1]),
                float(row.original[0] == row.original[1]),
                row.original[0] / 1000,
                row.original[1] / 1000,
                row.original_spacing * 10,
                np.log1p(row.follow_up),
            ]
            for row in (dataset.rows[i] for i in index.tolist())
        ]
    )
