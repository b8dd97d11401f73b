"""From a work folder to a model package: gate every export on decisions, then write and re-read.

A package is built in a new folder beside the target and renamed at the end, so a refusal or a
crash leaves nothing that looks like a package.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import ExportRefusedError, InvalidInputError
from bedside_core.findings import Familiar
from bedside_core.golden import GoldenSet, parse_golden
from bedside_core.imaging import PipelineSpec, prepare
from bedside_core.manifest import MANIFEST_NAME, Manifest, check_files, parse_manifest
from bedside_core.model_bom import BOM_NAME, model_bom
from bedside_models.decisions import Operating, Parity, parity
from bedside_models.phantom import Phantom, golden_phantoms, sha256_of
from bedside_models.runtimes import Runner, open_runner

FORMAT = "bedside-model/1"
GOLDEN_PATH = "golden/cases.json"
_FACTS = ("best_epoch", "parameters", "multiply_adds", "torch")  # of a training run
MEAN_PATH, CHOL_PATH = "outlier/mean.f32", "outlier/precision_chol.f32"
TENSOR_TOLERANCE = 2e-3
_PROBES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFile:
    """An export as it will be listed: engine, precision, file, companions, tolerances."""

    engine: str
    precision: str
    path: str
    companions: tuple[str, ...]
    golden_logit: float
    changed_decisions_per_200: float

    @property
    def key(self) -> str:
        """Return 'engine precision', the name of this export in evaluation.json."""
        return f"{self.engine} {self.precision}"


# Tolerances: float exports repeat the trained network to rounding, so not one decision may change;
# int8 is held to one in 200. The golden tolerance allows for another CPU's order of summation.
EXPORTS = (
    ExportFile(
        engine="onnxruntime",
        precision="f32",
        path="model.onnx",
        companions=(),
        golden_logit=2e-3,
        changed_decisions_per_200=0.0,
    ),
    ExportFile(
        engine="openvino",
        precision="f32",
        path="model.xml",
        companions=("model.bin",),
        golden_logit=2e-3,
        changed_decisions_per_200=0.0,
    ),
    ExportFile(
        engine="onnxruntime",
        precision="int8",
        path="model.int8.onnx",
        companions=(),
        golden_logit=0.15,
        changed_decisions_per_200=1.0,
    ),
    ExportFile(
        engine="openvino",
        precision="int8",
        path="model.int8.xml",
        companions=("model.int8.bin",),
        golden_logit=0.15,
        changed_decisions_per_200=1.0,
    ),
)


def judge(
    export: ExportFile,
    trained: NDArray[np.float64],
    exported: NDArray[np.float64],
    operating: Operating,
) -> Parity:
    """Compare an export's decisions with the trained network's on held-out images.

    Raises:
        ExportRefusedError: more decisions changed than the export's tolerance allows, however
            good its AUC may look.
    """
    if trained.shape != exported.shape or not trained.size:
        raise InvalidInputError("need one answer of the export for every held-out image")
    found = parity(trained, exported, operating)
    if found.changed_per_200 > export.changed_decisions_per_200:
        raise ExportRefusedError(
            f"{export.path} ({export.key}) changed {found.changed} of {found.images} decisions; "
            f"{export.changed_decisions_per_200:g} per 200 are allowed"
        )
    return found


def gate(
    folder: Path,
    images: NDArray[np.float32],
    trained: NDArray[np.float64],
    operating: Operating,
    exports: tuple[ExportFile, ...] = EXPORTS,
) -> dict[str, Parity]:
    """Run every export on the held-out images and judge it.

    Raises:
        ExportRefusedError: the first export beyond its tolerance.
        EngineFailedError: an export does not even load.
    """
    out = {}
    for export in exports:
        answers = open_runner(export.engine, folder / export.path).run(images)
        out[export.key] = judge(export, trained, answers.logit, operating)
    return out


def golden_cases(
    folder: Path, spec: PipelineSpec, operating: Operating, exports: tuple[ExportFile, ...]
) -> tuple[dict[str, Any], list[Phantom]]:
    """Return the content of golden/cases.json and the phantoms it speaks of."""
    phantoms = list(golden_phantoms())
    tensors = [prepare(p.frame.frame(p.data), spec).tensor for p in phantoms]
    stacked = np.concatenate(tensors)
    answers = {e.key: open_runner(e.engine, folder / e.path).run(stacked).logit for e in exports}
    cases = []
    for number, phantom in enumerate(phantoms):
        cases.append(
            {
                "name": phantom.name,
                "frame": phantom.frame.model_dump(mode="json"),
                "tensor": {
                    "sha256": sha256_of(tensors[number].astype("<f4").tobytes()),
                    "tolerance": TENSOR_TOLERANCE,
                    "probes": _probes(tensors[number][0, 0]),
                },
                "answers": [_answer(e, float(answers[e.key][number]), operating) for e in exports],
            }
        )
    return {"format": "bedside-golden/1", "cases": cases}, phantoms


def _probes(plane: NDArray[np.float32]) -> list[tuple[int, int, float]]:
    """Return values on a slanted lattice: every row band and column band is looked at."""
    side = plane.shape[0]
    places = [(k * side // _PROBES, (k * 37 % _PROBES) * side // _PROBES) for k in range(_PROBES)]
    return [(row, column, round(float(plane[row, column]), 5)) for row, column in places]


def _answer(export: ExportFile, logit: float, operating: Operating) -> dict[str, Any]:
    probability = operating.calibration.probability(logit)
    return {
        "engine": export.engine,
        "precision": export.precision,
        "logit": round(logit, 6),
        "probability": round(probability, 6),
        "decision": operating.rule.decide(probability).value,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What goes into a package beside the exports."""

    name: str
    version: str
    release: int
    features: int
    cam: tuple[int, int]
    operating: Operating
    spec: PipelineSpec
    familiar: Familiar = field(repr=False)
    card: str = field(repr=False)
    evaluation: Mapping[str, Any] = field(repr=False)
    extra: Mapping[str, bytes] = field(repr=False)
    training: Mapping[str, Any] = field(repr=False)


def write_package(folder: Path, contents: Contents, target: Path) -> Manifest:
    """Assemble `target` from the exports in `folder`; replace it only when complete.

    The caller has gated the exports. The written package is read back with the box's own checks.

    Raises:
        InvalidPackageError: what was written is not a valid package.
    """
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for export in EXPORTS:
        for name in (export.path, *export.companions):
            shutil.copyfile(folder / name, part / name)
    golden, phantoms = golden_cases(folder, contents.spec, contents.operating, EXPORTS)
    blobs = {
        GOLDEN_PATH: _json(golden),
        **{p.frame.path: p.data for p in phantoms},
        MEAN_PATH: contents.familiar.mean.astype("<f4").tobytes(),
        CHOL_PATH: contents.familiar.precision_chol.astype("<f4").tobytes(),
        "card.md": contents.card.encode(),
        "evaluation.json": _json(contents.evaluation, sort=False),  # groups keep the card's order
        **contents.extra,
    }
    for name, data in blobs.items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_bytes(data)
    fields = _manifest(contents, GoldenSet.model_validate(golden), inventory(part))
    facts = training_facts(contents.training)
    bill = model_bom(parse_manifest(_json(fields)), contents.evaluation, facts)
    (part / BOM_NAME).write_bytes(bill)
    fields["files"] = inventory(part)
    (part / MANIFEST_NAME).write_bytes(_json(fields))
    manifest = read_package(part)
    if target.exists():
        shutil.rmtree(target)
    part.rename(target)
    return manifest


def training_facts(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a training run, from the description in its checkpoint."""
    return dict(training.get("recipe", {})) | {k: training[k] for k in _FACTS if k in training}


def _manifest(contents: Contents, golden: GoldenSet, files: Mapping[str, Any]) -> dict[str, Any]:
    size = contents.spec.size
    return {
        "format": FORMAT,
        "name": contents.name,
        "version": contents.version,
        "release": contents.release,
        "intended_use": (
            "Research and integration testing: points at frontal chest radiographs with the kind "
            "of opacity that reports call pneumonia. Decision support for a trained reader who "
            "sees the image; never a diagnosis."
        ),
        "not_a_medical_device": True,
        "finding": {
            "name": "opacity",
            "code": "233604007",
            "scheme": "SCT",
            "meaning": "Pneumonia",
        },
        "io": {
            "input": _tensor("input", [1, 1, size, size]),
            "logit": _tensor("logit", [1, 1]),
            "features": _tensor("features", [1, contents.features]),
            "cam": _tensor("cam", [1, *contents.cam]),
        },
        "pipeline": {**asdict(contents.spec), "digest": contents.spec.digest()},
        "calibration": {
            "scale": contents.operating.calibration.scale,
            "offset": contents.operating.calibration.offset,
            "fitted_on": "val",
        },
        "decision": {
            "threshold": contents.operating.rule.threshold,
            "low": contents.operating.rule.low,
            "high": contents.operating.rule.high,
            "chosen_by": contents.operating.chosen_by,
        },
        "accepts": {
            "modalities": ["CR", "DX"],
            "body_parts": ["CHEST", "THORAX"],
            "views": ["AP", "PA"],
            "minimum_pixels": 256,
        },
        "outlier": {
            "mean": MEAN_PATH,
            "precision_chol": CHOL_PATH,
            "features": contents.features,
            "cutoff": contents.familiar.cutoff,
            "intensity": {k: list(v) for k, v in contents.familiar.intensity.items()},
        },
        "golden": {"path": GOLDEN_PATH, "cases": len(golden.cases)},
        "variants": [
            {
                "engine": e.engine,
                "precision": e.precision,
                "path": e.path,
                "companions": list(e.companions),
                "tolerance": {
                    "golden_logit": e.golden_logit,
                    "changed_decisions_per_200": e.changed_decisions_per_200,
                },
            }
            for e in EXPORTS
        ],
        "files": files,
    }


def _tensor(name: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": "FP32"}


def _json(value: Mapping[str, Any], *, sort: bool = True) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=sort, allow_nan=False) + "\n").encode()


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """Return digest and size of every file below `folder` but the manifest."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST_NAME:
            data = path.read_bytes()
            files[name] = {"sha256": sha256_of(data), "size": len(data)}
    return files


def read_package(folder: Path) -> Manifest:
    """Read and check a package as the box does: manifest, digests, golden file.

    Raises:
        InvalidPackageError: a file is missing, changed, extra, or says something inconsistent.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InvalidInputError("the folder has no manifest.json")
    manifest = parse_manifest(path.read_bytes())
    found = {name: (e["sha256"], e["size"]) for name, e in inventory(folder).items()}
    check_files(manifest, found)
    parse_golden((folder / manifest.golden.path).read_bytes(), manifest.files)
    return manifest


def open_variant(folder: Path, manifest: Manifest, engine: str, precision: str) -> Runner:
    """Load one export of a package."""
    return open_runner(engine, folder / manifest.variant(engine, precision).path)
