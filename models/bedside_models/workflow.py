"""The steps behind the commands: each reads the work folder, does one thing, writes there.

The work folder holds checkpoint.npz, training.jsonl, the exports and evaluation.json. Nothing in
it is an image or a row of the data table.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import ExportRefusedError, InvalidInputError
from bedside_core.findings import Familiar
from bedside_core.imaging import Intensity, PipelineSpec
from bedside_core.manifest import Manifest
from bedside_models import outlier, plots
from bedside_models.card import write_card
from bedside_models.checkpoint import Checkpoint, load_checkpoint
from bedside_models.data import Dataset, Split, tensors
from bedside_models.decisions import Operating, fit_operating, parity
from bedside_models.draws import seeded
from bedside_models.evaluate import Scored, metadata_scores, split_figures
from bedside_models.metrics import sigmoid
from bedside_models.package import EXPORTS, Contents, gate, write_package
from bedside_models.quantise import OPENVINO_METHODS, quantise
from bedside_models.runtimes import images_per_second, open_runner

CHECKPOINT_NAME, EVALUATION_NAME = "checkpoint.npz", "evaluation.json"
Step = Callable[[str, int, int], None]
Images = NDArray[np.float32]


def spec_of(checkpoint: Checkpoint) -> PipelineSpec:
    """Return the pixel pipeline at the network's input size."""
    return PipelineSpec(size=checkpoint.architecture.input_size)


def torch_logits(checkpoint: Checkpoint, images: Images) -> NDArray[np.float64]:
    """Return the trained network's float32 answers (n,)."""
    import torch

    from bedside_models.train import predict

    return np.asarray(predict(checkpoint.network(), torch.from_numpy(images)), np.float64)


def quantise_step(
    work: Path, dataset: Dataset, method: str, count: int, seed: int
) -> dict[str, Any]:
    """Write the int8 exports; `auto` keeps the OpenVINO method that changes fewest decisions.

    Calibrates on `count` training images; the choice looks at validation images only.
    """
    checkpoint = load_checkpoint(work / CHECKPOINT_NAME)
    spec = spec_of(checkpoint)
    train = dataset.indices("train")
    chosen = np.sort(train[seeded(seed).permutation(train.size)[:count]])
    calibration, _ = tensors(dataset, chosen, spec)
    methods = OPENVINO_METHODS if method == "auto" else (method,)
    val = dataset.indices("val")
    images, _ = tensors(dataset, val, spec)
    trained = torch_logits(checkpoint, images)
    operating = fit_operating(dataset.labels()[val], trained)
    tried: dict[str, Any] = {}
    for name in methods:
        made = quantise(work, calibration, name)
        runner = open_runner("openvino", made.ir)
        found = parity(trained, runner.run(images).logit, operating)
        tried[name] = {
            **found.describe(),
            "images_per_s": round(images_per_second([runner], images[:1])[0], 1),
        }
    best = min(
        methods,
        key=lambda m: (tried[m]["changed_decisions"], -tried[m]["images_per_s"]),
    )
    if best != methods[-1]:
        quantise(work, calibration, best)
    note = {"method": best, "tried": tried, "calibration_images": int(chosen.size)}
    (work / "quantise.json").write_text(json.dumps(note, indent=1, sort_keys=True) + "\n")
    return note


def evaluate_step(
    work: Path,
    dataset: Dataset,
    *,
    final: bool,
    draws: int,
    seed: int,
    note: str = "",
    step: Step,
) -> dict[str, Any]:
    """Write evaluation.json and the plots; the test split is read only when `final`."""
    checkpoint = load_checkpoint(work / CHECKPOINT_NAME)
    spec = spec_of(checkpoint)
    splits: tuple[Split, ...] = ("val", "test") if final else ("val",)
    images = {s: tensors(dataset, dataset.indices(s), spec)[0] for s in splits}
    logits = {s: torch_logits(checkpoint, images[s]) for s in splits}
    labels = {s: dataset.labels()[dataset.indices(s)] for s in splits}
    operating = fit_operating(labels["val"], logits["val"])
    held_out = np.concatenate([images[s] for s in splits])
    trained = np.concatenate([logits[s] for s in splits])
    int8 = json.loads((work / "quantise.json").read_text())
    result: dict[str, Any] = {
        "format": "bedside-evaluation/1",
        "checkpoint": checkpoint.digest(),
        "data": dataset.digest,
        "draws": draws,
        "seed": seed,
        "note": note,
        "operating": operating.describe(),
        "splits": {
            s: split_figures(
                dataset,
                Scored(index=dataset.indices(s), logits=logits[s]),
                operating,
                metadata_scores(dataset, dataset.indices(s)),
                draws=draws,
                seed=seed,
                step=step,
            )
            for s in splits
        },
        "parity": {},
        "quantise": int8,
        "openvino_method": int8["method"],
        "openvino_method_reason": _reason(int8),
        "outlier": _outlier_figures(work, dataset, spec, images["val"]),
    }
    runners = {e.key: open_runner(e.engine, work / e.path) for e in EXPORTS}
    for key, runner in runners.items():
        answers = runner.run(held_out)
        result["parity"][key] = parity(trained, answers.logit, operating).describe()
        gap = np.abs(answers.logit - answers.cam.mean(axis=(1, 2), dtype=np.float64)).max()
        result["parity"][key]["largest_gap_of_map_mean"] = float(f"{gap:.3g}")
    result["speed"] = _speed(runners, held_out[:1])
    (work / EVALUATION_NAME).write_text(json.dumps(result, indent=1) + "\n")
    _draw(work, checkpoint, result, labels, logits, operating)
    return result


def _reason(note: dict[str, Any]) -> str:
    if len(note["tried"]) == 1:
        return "asked for by name"
    parts = [
        f"{name} changed {t['changed_decisions']} of {t['images']} validation decisions at "
        f"{t['images_per_s']:.0f} images/s"
        for name, t in note["tried"].items()
    ]
    return "; ".join(parts)


def _speed(runners: dict[str, Any], image: Images) -> dict[str, Any]:
    rates = dict(zip(runners, images_per_second(list(runners.values()), image), strict=True))
    return {
        "cpu": _cpu_name(),
        "threads": 2,
        "images_per_s": {key: round(rate, 1) for key, rate in rates.items()},
        "times_f32": {
            key: round(rate / rates[f"{key.split()[0]} f32"], 2) for key, rate in rates.items()
        },
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    vector = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16") if f in flags]
    return f"{names[0] if names else 'unknown CPU'}, {', '.join(vector)}"


def familiar_of(
    work: Path, dataset: Dataset, spec: PipelineSpec
) -> tuple[Familiar, list[Intensity]]:
    """Fit the input check with the float32 ONNX export's features."""
    runner = open_runner("onnxruntime", work / "model.onnx")
    train, seen = tensors(dataset, dataset.indices("train"), spec)
    val, _ = tensors(dataset, dataset.indices("val"), spec)
    familiar = outlier.fit_familiar(runner.run(train).features, runner.run(val).features, seen)
    return familiar, seen


def _outlier_figures(
    work: Path, dataset: Dataset, spec: PipelineSpec, val: Images
) -> dict[str, Any]:
    familiar, _ = familiar_of(work, dataset, spec)
    runner = open_runner("onnxruntime", work / "model.onnx")
    alarms = {"as they are": outlier.alarm_share(familiar, runner.run(val).features)}
    for name, images in outlier.disturbed(val).items():
        alarms[name] = outlier.alarm_share(familiar, runner.run(images).features)
    return {
        **outlier.describe(familiar),
        "alarms": {name: round(share, 4) for name, share in alarms.items()},
    }


def _draw(
    work: Path,
    checkpoint: Checkpoint,
    result: dict[str, Any],
    labels: dict[Split, NDArray[np.int64]],
    logits: dict[Split, NDArray[np.float64]],
    operating: Operating,
) -> None:
    folder = work / "plots"
    folder.mkdir(exist_ok=True)
    last = list(result["splits"])[-1]
    legend = {
        s: f"{s}, AUC {figures['all']['auc'][0]:.3f}, n {figures['all']['images']}"
        for s, figures in result["splits"].items()
    }
    calibration = operating.calibration
    calibrated = sigmoid(calibration.scale * logits[last] + calibration.offset)
    curves = {s: (labels[s], logits[s]) for s in logits}
    training = checkpoint.training
    pictures = {
        "roc.png": plots.roc_plot(curves, legend),  # type: ignore[arg-type]  # Split is a str
        "reliability.png": plots.reliability_plot(labels[last], sigmoid(logits[last]), calibrated),
        "groups.png": plots.forest_plot(result["splits"][last]),
        "training.png": plots.training_plot(training["history"], training["best_epoch"]),
    }
    for name, data in pictures.items():
        (folder / name).write_bytes(data)


def package_step(
    work: Path, dataset: Dataset, target: Path, *, name: str, version: str, release: int
) -> Manifest:
    """Gate every export on held-out images, then write the package.

    Raises:
        ExportRefusedError: evaluation.json speaks of another checkpoint, or an export changed
            more decisions than its tolerance allows.
        InvalidInputError: nothing was evaluated yet.
    """
    checkpoint = load_checkpoint(work / CHECKPOINT_NAME)
    if not (work / EVALUATION_NAME).is_file():
        raise InvalidInputError("run `bedside-models evaluate` first")
    evaluation = json.loads((work / EVALUATION_NAME).read_text())
    if evaluation["checkpoint"] != checkpoint.digest():
        raise ExportRefusedError("evaluation.json was made from another checkpoint")
    spec = spec_of(checkpoint)
    operating = Operating.parse(evaluation["operating"])
    splits: tuple[Split, ...] = ("val", "test") if "test" in evaluation["splits"] else ("val",)
    images, _ = tensors(dataset, dataset.indices(*splits), spec)
    gate(work, images, torch_logits(checkpoint, images), operating)
    familiar, _ = familiar_of(work, dataset, spec)
    probe = open_runner("onnxruntime", work / "model.onnx").run(images[:1])
    card = write_card(
        name=name,
        version=version,
        training=checkpoint.training,
        evaluation=evaluation,
        checkpoint_digest=checkpoint.digest(),
    )
    return write_package(
        work,
        Contents(
            name=name,
            version=version,
            release=release,
            features=checkpoint.architecture.features,
            cam=(probe.cam.shape[1], probe.cam.shape[2]),
            operating=operating,
            spec=spec,
            familiar=familiar,
            card=card,
            evaluation=evaluation,
            training=checkpoint.training,
            extra={
                f"plots/{path.name}": path.read_bytes()
                for path in sorted((work / "plots").glob("*.png"))
            },
        ),
        target,
    )
