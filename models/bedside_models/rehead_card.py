"""The card of a package whose head was trained jointly: what is new, from where, and not known."""

from collections.abc import Mapping
from typing import Any

from bedside_core.manifest import Manifest
from bedside_core.trained_head import TrainedHead


def rehead_card(
    base: Manifest,
    version: str,
    head: TrainedHead,
    left_out: Mapping[str, str],
    judged: Mapping[str, Any],
) -> str:
    """Return card.md; every figure comes from the head's file or from `judged`."""
    sections = [
        f"# {base.name} {version}",
        "**A research reference model. Not a medical device.**\n\n"
        f"Intended use: {base.intended_use}\n\n"
        f"This is {base.name} {base.version} with another last layer. Backbone, pixel pipeline and "
        "input check are the same bytes; the card of that version is in `lineage/base-card.md`. "
        "Its figures are **not** those of this package.",
        _lineage(head),
        "## Probability and decision\n\n"
        f"{head.chosen_by}. Threshold {head.rule.threshold:.4f}; undetermined between "
        f"{head.rule.low:.4f} and {head.rule.high:.4f}. No image was looked at for it: how well it "
        "holds is what the joint validation measures. A site sets its own threshold and "
        "calibration on its own cases.",
        _figures(judged),
        "## Exports\n\nONNX and OpenVINO IR with the head in the graph. Int8 exports, where there "
        "are any, have the base's int8 backbone, and the head fitted to its features on training "
        "images." + "".join(f"\n\n- {key} is left out: {why}." for key, why in left_out.items()),
        "## Known limits\n\n"
        "- Labels are readings signed off at the sites; nobody saw them together.\n"
        "- The noise that protects patients is in the weights. Another run gives other weights.\n"
        "- The backbone may have been trained on some of the same patients.\n"
        "- Groups that were rare at every site were rare in training.",
    ]
    return "\n\n".join(sections) + "\n"


def _lineage(head: TrainedHead) -> str:
    rows = [
        f"| {one.round} | {one.organisations} | {one.boxes} | {one.sigma:.0f} | "
        f"{one.epsilon:.3f} at {one.delta:g} | {one.record[:16]} |"
        for one in head.rounds
    ]
    return (
        "## Where the head comes from\n\n"
        f"{len(head.rounds)} joint round{'s' if len(head.rounds) > 1 else ''}, about "
        f"{head.patients:.0f} patients ({head.positives:.0f} with the finding; both counts carry "
        "the noise). Each site sent one masked sum of products of features and labels; only the "
        "noisy sum over sites was opened. Ridge regression, penalty "
        f"{head.ridge:.4g}.\n\n"
        "| round | organisations | boxes | noise sd | epsilon of a patient | record |\n"
        "| --- | ---: | ---: | ---: | --- | --- |\n" + "\n".join(rows) + "\n\nEpsilon is that of "
        "the whole sum for one patient, if as many boxes as the manifest says added their noise. "
        "A patient is in one of the rounds."
    )


def _figures(judged: Mapping[str, Any]) -> str:
    if not judged:
        return (
            "## Figures\n\n**None of its own.** No labelled image was at hand where this package "
            "was made. Do not use it before a joint validation round has promoted it."
        )
    parts = ["## Figures", f"Value and 95 % interval, {judged['draws']} draws of patients."]
    for split in ("test", "val"):
        rows = [
            f"| {name} | {f['images']} ({f['positive']}) | {_interval(f['auc'])} | "
            f"{_interval(f['auc_base'])} | {_interval(f['sensitivity'])} | "
            f"{_interval(f['specificity'])} | {_interval(f['brier'])} |"
            for name, f in judged[split].items()
        ]
        parts.append(
            f"Split **{split}**.\n\n| group | images (positive) | AUC | AUC of the base | "
            "sensitivity | specificity | Brier |\n| --- | ---: | --- | --- | --- | --- | --- |\n"
            + "\n".join(rows)
        )
    return "\n\n".join(parts)


def _interval(estimate: list[float | None]) -> str:
    value, low, high = estimate
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.2f}-{high:.2f})"
