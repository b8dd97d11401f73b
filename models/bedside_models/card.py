"""The model card: what the network is, what it was measured to do, what it must not be used for.

Every figure comes from evaluation.json and the checkpoint; nothing is typed in by hand.
"""

from collections.abc import Mapping, Sequence
from typing import Any

DOWNLOAD = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
CITATION = (
    "Xiaosong Wang, Yifan Peng, Le Lu, Zhiyong Lu, Mohammadhadi Bagheri, Ronald M. Summers. "
    "*ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised "
    "Classification and Localization of Common Thorax Diseases.* IEEE CVPR 2017, pp. 3462-3471. "
    "https://doi.org/10.1109/CVPR.2017.369"
)


def write_card(
    *,
    name: str,
    version: str,
    training: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    checkpoint_digest: str,
) -> str:
    """Return card.md."""
    sections = [
        f"# {name} {version}",
        _purpose(),
        _results(evaluation),
        _decision(evaluation["operating"]),
        _groups(evaluation),
        _exports(evaluation),
        _outliers(evaluation),
        _training(training, checkpoint_digest),
        _data(training["data"]),
        _limits(evaluation),
    ]
    return "\n\n".join(sections) + "\n"


def _purpose() -> str:
    return (
        "**A research reference model. Not a medical device.** It was trained on a small public "
        "data set so that Bedside can be tried, tested and measured with a real network. It says "
        "nothing about any patient that a clinician may rely on.\n\n"
        "Intended use: research, integration testing, and as the starting point of joint training "
        "between hospitals. It reads one frontal chest radiograph (CR or DX, AP or PA) and gives "
        "the probability that the report of such an image would have been mined as *pneumonia* "
        "rather than *no finding*, with a class-activation map. A trained reader sees the image "
        "and decides. Not intended: diagnosis, triage without a reader, other body parts, lateral "
        "views, children as a group (too few were seen), screening (the classes were balanced "
        "here, pneumonia is 1.3 % of the whole collection)."
    )


def _results(evaluation: Mapping[str, Any]) -> str:
    split = "test" if "test" in evaluation["splits"] else "val"
    groups = evaluation["splits"][split]
    lines = [
        f"## Figures on the {split} split",
        "Value and 95 % interval from "
        f"{evaluation['draws']} bootstrap draws of patients (seed {evaluation['seed']}). "
        "*Metadata alone* is a logistic model on view, original size, spacing and follow-up "
        "number: what can be had without looking at the lungs.",
        "| group | images (positive) | AUC | AUC, metadata alone |\n| --- | ---: | --- | --- |",
    ]
    wanted = (
        "all",
        "view AP",
        "view PA",
        "commonest size",
        "commonest size, AP",
        "commonest size, PA",
    )
    rows = [
        f"| {g} | {groups[g]['images']} ({groups[g]['positive']}) | {_interval(groups[g]['auc'])} "
        f"| {_interval(groups[g]['auc_metadata_only'])} |"
        for g in wanted
    ]
    if split == "test":
        lines[1] += " Everything was chosen on training and validation images."
    else:
        lines[1] += " **Interim card: the test split has not been looked at.**"
    if evaluation["note"]:
        lines[1] += "\n\n" + evaluation["note"]
    table = "\n".join([lines[2], *rows])
    pictures = (
        "![ROC](plots/roc.png) ![reliability](plots/reliability.png)\n\n"
        "![AUC by group](plots/groups.png)"
    )
    return "\n\n".join([lines[0], lines[1], table, pictures])


def _decision(operating: Mapping[str, Any]) -> str:
    return (
        "## Probability and decision\n\n"
        f"Platt scaling fitted on validation: p = sigmoid({operating['scale']:.4f} x logit "
        f"{operating['offset']:+.4f}). Threshold {operating['threshold']:.4f}; undetermined "
        f"between {operating['low']:.4f} and {operating['high']:.4f}. How chosen: "
        f"{operating['chosen_by']}. A site sets its own threshold and calibration on its own "
        "cases: prevalence here is 50 % by construction, so predicted probabilities do not carry "
        "over."
    )


def _groups(evaluation: Mapping[str, Any]) -> str:
    parts = ["## The same by sex, age, view and size"]
    for split in reversed(evaluation["splits"]):
        header = (
            f"Split **{split}**.\n\n| group | images (positive) | AUC | sensitivity | specificity "
            "| Brier | ECE before | ECE after | undetermined |\n"
            "| --- | ---: | --- | --- | --- | --- | --- | --- | ---: |"
        )
        rows = [
            f"| {name} | {f['images']} ({f['positive']}) | {_interval(f['auc'])} | "
            f"{_interval(f['sensitivity'])} | {_interval(f['specificity'])} | "
            f"{_interval(f['brier'])} | {_number(f['ece_raw'][0])} | {_number(f['ece'][0])} | "
            f"{_percent(f['undetermined_share'])} |"
            for name, f in evaluation["splits"][split].items()
        ]
        parts.append("\n".join([header, *rows]))
    overall = evaluation["splits"]["test" if "test" in evaluation["splits"] else "val"]["all"]
    parts.append(
        "Sensitivity and specificity are at the threshold, the band ignored; outside the band "
        f"they are {_number(overall['sensitivity_outside_band'])} and "
        f"{_number(overall['specificity_outside_band'])} overall. "
        "A dash means that the group holds too few images of one class. Groups are small: their "
        "intervals overlap nearly everywhere, which shows neither fairness nor its absence. ECE "
        "is biased upwards on sets this small."
    )
    return "\n\n".join(parts)


def _exports(evaluation: Mapping[str, Any]) -> str:
    header = (
        "## Exports\n\n"
        "Against the trained network in float32 on every validation"
        + (" and test" if "test" in evaluation["splits"] else "")
        + " image. Speed in one run on the machine named, two threads, batch 1.\n\n"
        "| export | changed decisions | changed with the band | largest change of probability "
        "| images/s | times its float32 |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    rows = []
    for key, found in evaluation["parity"].items():
        speed = evaluation["speed"]["images_per_s"].get(key)
        ratio = evaluation["speed"]["times_f32"].get(key)
        rows.append(
            f"| {key} | {found['changed_decisions']} of {found['images']} | "
            f"{found['changed_three_way']} | {found['largest_change_of_probability']:.3g} | "
            f"{_number(speed, 0)} | {_number(ratio, 2)} |"
        )
    notes = (
        f"OpenVINO int8 was made by `{evaluation['openvino_method']}`: "
        f"{evaluation['openvino_method_reason']}. Measured on: {evaluation['speed']['cpu']}."
    )
    return "\n".join([header, *rows]) + "\n\n" + notes


def _outliers(evaluation: Mapping[str, Any]) -> str:
    outlier = evaluation["outlier"]
    rows = [f"| {name} | {_percent(share)} |" for name, share in outlier["alarms"].items()]
    return (
        "## Input check\n\n"
        "Mahalanobis distance of the pooled features (Ledoit-Wolf covariance of the training "
        f"images), cut-off {outlier['cutoff']:.2f}: 1.25 times the 0.99 quantile on validation. "
        "All training images come from one hospital; the margin lets other detectors pass. It was "
        "set after the public sample radiograph RG1 of pydicom-data was refused without it, so "
        "that RG1 is read proves nothing. "
        "Share of images refused:\n\n| validation images | refused |\n| --- | ---: |\n"
        + "\n".join(rows)
        + "\n\nIt is a coarse net: it does not vouch for an image that passes."
    )


def _training(training: Mapping[str, Any], checkpoint_digest: str) -> str:
    recipe, architecture = training["recipe"], training["recipe"]["architecture"]
    teachers = (
        f"{recipe['teachers']} teachers of the same shape learned from the labels for "
        f"{recipe['teacher_epochs']} epochs at {recipe['teacher_size']} px (seeds "
        f"{recipe['seed'] + 1} to {recipe['seed'] + recipe['teachers']}); the student, seed "
        f"{recipe['seed']}, learned to agree with their mean on the same random views "
        f"(weight {1 - recipe['label_share']:.2g}) and from the labels "
        f"(weight {recipe['label_share']:.2g})"
        if recipe["teachers"]
        else f"one network learned from the labels, seed {recipe['seed']}"
    )
    return (
        "## Network and training\n\n"
        f"Residual CNN of plain 3 x 3 convolutions, batch norm and ReLU; stem "
        f"{architecture['stem']}, stages {architecture['stages']}, input 1 x "
        f"{architecture['input_size']} x {architecture['input_size']}; "
        f"{training['parameters']:,} parameters, {training['multiply_adds'] / 1e6:.0f} M "
        "multiply-adds. Trained from random weights by `bedside-models train`: "
        f"{teachers}. AdamW, one cycle, batch {recipe['batch']}, mixup "
        f"{recipe['mixup']:g}, label smoothing {recipe['smoothing']:g}, averaged weights. "
        "Augmentation: zoom, proportions, rotation, shear, shift, mirror, crop, gamma, shading, "
        "blur, noise, erased rectangles. Loss weights that would balance the label inside AP and "
        "PA of the commonest size and inside all other sizes, and count a patient with k images "
        f"sqrt(k), are raised to the power {recipe['balance']:g}: part of the way. "
        f"The student was kept at epoch {training['best_epoch']} of "
        f"{recipe['student_epochs']}: the best validation AUC over pairs of the same view and "
        f"size ({training['best_validation']:.3f}). Wall time {training['wall_s'] / 60:.0f} min "
        f"on {training['threads']} threads. Checkpoint {checkpoint_digest}.\n\n"
        "![training](plots/training.png)"
    )


def _data(data: Mapping[str, Any]) -> str:
    rows = [
        f"| {split} | {c['images']} | {c['patients']} | {c['positive']} | "
        f"{_counts(c['by_view_and_label'])} |"
        for split, c in data["splits"].items()
    ]
    return (
        "## Data\n\n"
        "799 frontal radiographs of 538 patients out of ChestX-ray14, two classes (*No Finding*, "
        "*Pneumonia* among the findings), split by patient. **No image and no row of the table "
        "is in this repository or package**; golden cases are drawn from formulas.\n\n"
        "| split | images | patients | positive | view and label |\n"
        "| --- | ---: | ---: | ---: | --- |\n"
        + "\n".join(rows)
        + f"\n\nDigest of table and images: {data['digest']}.\n\n"
        f"The NIH Clinical Center is the data provider. Download site: {DOWNLOAD}\n\n"
        f"Citation: {CITATION}"
    )


def _limits(evaluation: Mapping[str, Any]) -> str:
    split = "test" if "test" in evaluation["splits"] else "val"
    metadata = evaluation["splits"][split]["all"]["auc_metadata_only"]
    return (
        "## Known limits\n\n"
        "- Labels were mined by software from reports that are not public; pneumonia is among "
        "the weakest of them. A ceiling on every figure above follows.\n"
        "- **AP/PA view confounds.** AP is 69 % of no finding and 45 % of pneumonia here; in the "
        "whole collection the association runs the other way.\n"
        f"- **Equipment confounds more.** Metadata alone reach AUC {_interval(metadata)} on "
        f"{split}. Uncommon sizes are nearly all pneumonia and nearly all PA, so the figures "
        "over all images and over PA are flattered. Read the rows within AP and within the "
        "commonest size.\n"
        "- 120 test images of 92 patients: a few hundredths of AUC are chance.\n"
        "- 8-bit images with the display window burned in; on 12-bit originals with other "
        "windows the network was never measured.\n"
        "- Images of children are few; figures under 18 mean little.\n"
        "- The map shows what moved the number. It is coarse and does not outline disease."
    )


def _interval(estimate: Sequence[float | None]) -> str:
    value, low, high = estimate
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:.2f} (no interval)"
    return f"{value:.3f} ({low:.2f}-{high:.2f})"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in counts.items())
