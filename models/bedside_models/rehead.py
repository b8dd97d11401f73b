"""A new package version from a package and a head that hospitals trained together.

The head goes into the graphs themselves: the same weights make the logit and the map, in ONNX and
in the OpenVINO IR. Backbone, pixel pipeline and input check stay as they were, byte for byte.
Needs onnx, openvino and onnxruntime; no torch, and no image unless one wants figures and int8.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import ExportRefusedError, InvalidInputError
from bedside_core.findings import Calibration
from bedside_core.imaging import prepare
from bedside_core.manifest import MANIFEST_NAME, Manifest
from bedside_core.trained_head import TrainedHead
from bedside_models.decisions import Operating
from bedside_models.graphs import convert_to_ir, refuse_stray_weights
from bedside_models.package import (
    EXPORTS,
    GOLDEN_PATH,
    ExportFile,
    golden_cases,
    inventory,
    read_package,
)
from bedside_models.phantom import golden_phantoms
from bedside_models.rehead_card import rehead_card
from bedside_models.rehead_figures import Figures
from bedside_models.runtimes import Outputs, open_runner

CARD_PATH: Final = "card.md"
HEAD_PATH: Final = "lineage/head.json"
BASE_MANIFEST_PATH: Final = "lineage/base-manifest.json"
_TELLS = 1e-3  # largest difference between a graph's logit and the head on its own features
FLOAT_EXPORTS = tuple(export for export in EXPORTS if export.precision == "f32")
INT8_KEYS = tuple(export.key for export in EXPORTS if export.precision == "int8")
NO_IMAGES: Final = "needs labelled images: to fit the head to int8 features, to count decisions"


def package_digest(folder: Path) -> str:
    """Return the hexadecimal SHA-256 of a package's manifest, which names all its other files."""
    return hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()


def set_head(path: Path, weights: NDArray[np.float64], offset: float) -> None:
    """Write a head into an ONNX file in place, where logit and map are made.

    Args:
        path: of the model.
        weights: (features,).
        offset: added once to the logit and to every cell of the map.

    Raises:
        ExportRefusedError: the graph does not end in one linear layer and a 1 x 1 convolution of
            the same shape, or either shares its weights with something else.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    made_by = {name: node for node in model.graph.node for name in node.output}
    tensors = {one.name: one for one in model.graph.initializer}
    mapping = made_by.get("cam")
    while mapping is not None and mapping.op_type in ("Gather", "Squeeze", "Reshape"):
        mapping = made_by.get(mapping.input[0])
    linear = made_by.get("logit")
    for node, kind in ((linear, "Gemm"), (mapping, "Conv")):
        inputs = list(node.input) if node is not None and node.op_type == kind else []
        if len(inputs) != 3 or not {*inputs[1:]} <= set(tensors):
            raise ExportRefusedError(f"{path.name} does not end in a head that can be replaced")
        for name, new in ((inputs[1], weights), (inputs[2], np.float64(offset))):
            old = numpy_helper.to_array(tensors[name])
            if old.size != np.size(new):
                raise ExportRefusedError(f"{path.name} has a head of another size")
            readers = [one for one in model.graph.node if name in one.input]
            if any(one.op_type not in ("Gemm", "Conv") for one in readers):
                raise ExportRefusedError(f"{path.name} uses its head's weights elsewhere")
            value = np.asarray(new, np.float32).reshape(old.shape)
            tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(model, str(path))
    refuse_stray_weights(path)


def require_head(answers: Outputs, weights: NDArray[np.float64], offset: float, what: str) -> None:
    """Refuse an export that does not say what the head says of the export's own features.

    Raises:
        ExportRefusedError: the logit, or the mean of the map, is another number.
    """
    wanted = answers.features.astype(np.float64) @ weights + offset
    room = _TELLS * max(1.0, float(np.abs(wanted).max()))
    for name, found in (
        ("logit", answers.logit),
        ("map", answers.cam.mean(axis=(1, 2), dtype=np.float64)),
    ):
        if not np.abs(found - wanted).max() <= room:  # also when it is no number
            raise ExportRefusedError(f"the {name} of {what} is not the head's")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What the work folder holds for the new version."""

    folder: Path
    exports: tuple[ExportFile, ...]
    left_out: dict[str, str]  # export -> why
    judged: dict[str, Any]  # figures; empty when there was nothing to judge by


def rehead(base: Path, head: TrainedHead, target: Path, figures: Figures | None = None) -> Manifest:
    """Write the next version of `base` with another head into `target`, named by its version.

    Args:
        base: the package whose features the head was learned on.
        head: as the hub solved it.
        target: folder to write; its name is the version. Replaced when the new one is complete.
        figures: labelled images to judge by. Without them there are no int8 exports and no
            figures of its own, and the card says so.

    Raises:
        ExportRefusedError: the head belongs to another package or finding, an export does not
            repeat it, or the figures say that it reads worse than the base.
        InvalidInputError: the target's name is no version after the base's.
        InvalidPackageError: `base` is not a sound package.
    """
    manifest = read_package(base)
    require_version(target, manifest)
    if (head.model, head.finding) != (package_digest(base), manifest.finding.code):
        raise ExportRefusedError("the head was learned on another package's features, or finding")
    if manifest.io.features.shape[-1] != len(head.weights):
        raise ExportRefusedError("the head has another number of features than the package")
    scaled = in_log_odds(head)
    operating = Operating(calibration=scaled.calibration, rule=scaled.rule, alpha=0.1)
    with tempfile.TemporaryDirectory(prefix="bedside-head-") as name:
        work = Path(name)
        plain, intermediate = FLOAT_EXPORTS
        shutil.copyfile(base / plain.path, work / plain.path)
        set_head(work / plain.path, np.array(scaled.weights), scaled.offset)
        convert_to_ir(work / plain.path, work / intermediate.path)
        _check_floats(work, manifest, scaled)
        exports, left_out, judged = FLOAT_EXPORTS, dict.fromkeys(INT8_KEYS, NO_IMAGES), {}
        if figures is not None:
            kept, left_out = figures.int8(base, work, operating, partial(_set_scaled, scaled))
            exports, judged = (*FLOAT_EXPORTS, *kept), figures.judge(base, work, operating)
        made = _Made(folder=work, exports=exports, left_out=left_out, judged=judged)
        return _write(base, manifest, head, operating, made, target)


def _set_scaled(head: TrainedHead, path: Path) -> None:
    set_head(path, np.array(head.weights), head.offset)


def _write(
    base: Path,
    manifest: Manifest,
    head: TrainedHead,
    operating: Operating,
    made: _Made,
    target: Path,
) -> Manifest:
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    golden, phantoms = golden_cases(made.folder, manifest.pipeline.spec(), operating, made.exports)
    card = base / CARD_PATH
    blobs = {
        GOLDEN_PATH: _json(golden),
        **{one.frame.path: one.data for one in phantoms},
        **{
            kept: (base / kept).read_bytes()
            for kept in (manifest.outlier.mean, manifest.outlier.precision_chol)
        },
        **{
            file: (made.folder / file).read_bytes()
            for export in made.exports
            for file in (export.path, *export.companions)
        },
        HEAD_PATH: head.document(),
        BASE_MANIFEST_PATH: (base / MANIFEST_NAME).read_bytes(),
        CARD_PATH: rehead_card(manifest, target.name, head, made.left_out, made.judged).encode(),
        "evaluation.json": _json(_evaluation(base, manifest, head, operating, made)),
        **({"lineage/base-card.md": card.read_bytes()} if card.is_file() else {}),
    }
    for file, data in blobs.items():
        (part / file).parent.mkdir(parents=True, exist_ok=True)
        (part / file).write_bytes(data)
    fields = _fields(manifest, target.name, head, operating, made.exports)
    fields["golden"] = {"path": GOLDEN_PATH, "cases": len(golden["cases"])}
    (part / MANIFEST_NAME).write_bytes(_json({**fields, "files": inventory(part)}))
    written = read_package(part)
    if target.exists():
        shutil.rmtree(target)
    part.rename(target)
    return written


def _evaluation(
    base: Path, manifest: Manifest, head: TrainedHead, operating: Operating, made: _Made
) -> dict[str, Any]:
    return {
        "format": "bedside-evaluation/1",
        "operating": {
            **asdict(operating.calibration),
            **asdict(operating.rule),
            "chosen_by": head.chosen_by,
        },
        "lineage": {
            "base": f"{manifest.name}/{manifest.version}",
            "base_digest": package_digest(base),
            "head_digest": hashlib.sha256(head.document()).hexdigest(),
            "rounds": [asdict(one) for one in head.rounds],
            "patients": round(head.patients),
        },
        "left_out": made.left_out,
        "figures": made.judged or None,
    }


def _check_floats(work: Path, manifest: Manifest, head: TrainedHead) -> None:
    spec = manifest.pipeline.spec()
    images = [prepare(one.frame.frame(one.data), spec).tensor for one in golden_phantoms()]
    for export in FLOAT_EXPORTS:
        answers = open_runner(export.engine, work / export.path).run(np.concatenate(images))
        require_head(answers, np.array(head.weights), head.offset, export.path)


def _fields(
    manifest: Manifest,
    version: str,
    head: TrainedHead,
    operating: Operating,
    exports: tuple[ExportFile, ...],
) -> dict[str, Any]:
    variants = [
        {
            "engine": one.engine,
            "precision": one.precision,
            "path": one.path,
            "companions": list(one.companions),
            "tolerance": {
                "golden_logit": one.golden_logit,
                "changed_decisions_per_200": one.changed_decisions_per_200,
            },
        }
        for one in exports
    ]
    return manifest.model_dump(mode="json") | {
        "version": version,
        "release": manifest.release + 1,
        "calibration": {**asdict(operating.calibration), "fitted_on": "sums of joint rounds"},
        "decision": {**asdict(operating.rule), "chosen_by": head.chosen_by},
        "variants": variants,
    }


def in_log_odds(head: TrainedHead) -> TrainedHead:
    """Return the same head with log-odds for scores: calibration becomes the identity.

    Golden cases and the saliency map are in units of the logit. A ridge solution for labels 0 and
    1 scores a few tenths, and what holds for log-odds would let anything pass there.
    """
    scale, offset = head.calibration.scale, head.calibration.offset
    return replace(
        head,
        weights=tuple(scale * one for one in head.weights),
        offset=scale * head.offset + offset,
        calibration=Calibration(),
    )


def _json(value: Any) -> bytes:  # noqa: ANN401  any JSON
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def require_version(target: Path, manifest: Manifest) -> None:
    """InvalidInputError unless the target is named by a version after the base's."""
    wanted, held = target.name.split("."), manifest.version.split(".")
    if len(wanted) != 3 or not all(part.isdecimal() for part in wanted):
        raise InvalidInputError("the target folder is named by a version, as 1.1.0")
    if [int(part) for part in wanted] <= [int(part) for part in held]:
        raise InvalidInputError(f"the version comes after {held}, the base's")
