"""The card's pictures: ROC, reliability, groups as a forest, training curves. Small PNGs."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bedside_models.metrics import roc

_DPI = 90
_INK, _SECOND, _FAINT = "#1f4e5f", "#b5651d", "#9aa5ab"
Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def roc_plot(splits: Mapping[str, tuple[Labels, Array]], labels: Mapping[str, str]) -> bytes:
    """Return the ROC of each split; `labels` are the legend's texts."""
    figure = Figure(figsize=(4.2, 4.0))
    axes = figure.subplots()
    for colour, (name, (truth, scores)) in zip((_FAINT, _INK), splits.items(), strict=False):
        false_positive, sensitivity = roc(truth, scores)
        axes.plot(false_positive, sensitivity, color=colour, label=labels[name])
    axes.plot([0, 1], [0, 1], ":", color=_FAINT, linewidth=1)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.005))
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return _png(figure)


def reliability_plot(truth: Labels, raw: Array, calibrated: Array, bins: int = 8) -> bytes:
    """Return observed share against predicted probability, before and after calibration."""
    figure = Figure(figsize=(4.2, 4.0))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color=_FAINT, linewidth=1)
    for values, colour, name in ((raw, _FAINT, "as trained"), (calibrated, _INK, "calibrated")):
        parts = np.array_split(np.argsort(values, kind="stable"), bins)
        axes.plot(
            [values[part].mean() for part in parts],
            [truth[part].mean() for part in parts],
            "o-",
            color=colour,
            label=name,
        )
    axes.set(
        xlabel="predicted probability", ylabel="share labelled pneumonia", xlim=(0, 1), ylim=(0, 1)
    )
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return _png(figure)


def forest_plot(groups: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return AUC with its interval for each group, the metadata-only model beside it."""
    names = [name for name, figures in groups.items() if figures["auc"][0] is not None]
    figure = Figure(figsize=(6.2, 0.34 * len(names) + 1.0))
    axes = figure.subplots()
    for row, name in enumerate(reversed(names)):
        _bar(axes, row + 0.1, groups[name]["auc"], _INK, "o")
        _bar(axes, row - 0.18, groups[name]["auc_metadata_only"], _SECOND, "x")
    axes.set_yticks(
        range(len(names)), [f"{n} ({groups[n]['images']})" for n in reversed(names)], fontsize=8
    )
    axes.axvline(0.5, color=_FAINT, linestyle=":", linewidth=1)
    axes.set(xlabel="AUC, 95 % interval (o image model, x metadata alone)", xlim=(0.2, 1.0))
    return _png(figure)


def _bar(axes: Axes, row: float, estimate: Sequence[float | None], colour: str, mark: str) -> None:
    value, low, high = estimate
    if low is not None and high is not None:
        axes.plot([low, high], [row, row], color=colour, linewidth=1.5)
    if value is not None:
        axes.plot([value], [row], mark, color=colour, markersize=5)


def training_plot(history: Sequence[Mapping[str, Any]], best_epoch: int) -> bytes:
    """Return loss of every stage, and the student's validation figures."""
    figure = Figure(figsize=(7.6, 3.2))
    left, right = figure.subplots(1, 2)
    for stage in dict.fromkeys(line["stage"] for line in history):
        lines = [line for line in history if line["stage"] == stage]
        colour, width = (_INK, 1.6) if stage == "student" else (_FAINT, 0.8)
        left.plot(
            [line["epoch"] for line in lines],
            [line["loss"] for line in lines],
            color=colour,
            linewidth=width,
        )
    left.set(xlabel="epoch", ylabel="training loss (dark: student)")
    checked = [line for line in history if line["stage"] == "student" and "auc" in line]
    for name, colour, text in (
        ("auc", _FAINT, "AUC, all"),
        ("within_strata", _INK, "AUC, same view and size"),
    ):
        right.plot(
            [c["epoch"] for c in checked], [c[name] for c in checked], color=colour, label=text
        )
    right.axvline(best_epoch, color=_SECOND, linestyle=":", linewidth=1)
    right.set(xlabel="epoch (dotted: kept)", ylabel="validation")
    right.legend(loc="lower right", fontsize=8, frameon=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    stream = BytesIO()
    figure.tight_layout()
    # No Software field: the bytes then depend on the figures, not on matplotlib's version text.
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()
