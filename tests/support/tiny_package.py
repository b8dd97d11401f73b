"""A complete small model package on disk, with exports for both engines and golden cases."""

import hashlib
import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bedside_core.golden import GoldenFrame
from bedside_core.imaging import PipelineSpec, prepare
from bedside_core.manifest import EngineName, IoContract, Precision, parse_manifest
from bedside_edge.engine.opening import RUNTIMES
from bedside_edge.engine.tensor import Build
from support.fake_engine import TINY_IO
from support.sample_manifest import manifest_fields
from support.tiny_onnx import CHANNELS, SIZE, tiny_network

EXPORTS: dict[tuple[EngineName, Precision], tuple[str, ...]] = {
    ("onnxruntime", "f32"): ("model.onnx",),
    ("onnxruntime", "int8"): ("model.int8.onnx",),
    ("openvino", "f32"): ("model.xml", "model.bin"),
    ("openvino", "int8"): ("model.int8.xml", "model.int8.bin"),
}


@lru_cache
def to_ir(onnx: bytes) -> tuple[bytes, bytes]:
    """Return an ONNX model as OpenVINO IR and weights."""
    from bedside_edge.engine.openvino import openvino  # imported there so that it calls nobody

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.xml"
        openvino.save_model(openvino.Core().read_model(onnx), path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


@lru_cache
def model_files() -> dict[str, bytes]:
    """Return the tiny network in all four exports."""
    plain, quantised = tiny_network(), tiny_network(quantised=True)
    files = {"model.onnx": plain, "model.int8.onnx": quantised}
    files["model.xml"], files["model.bin"] = to_ir(plain)
    files["model.int8.xml"], files["model.int8.bin"] = to_ir(quantised)
    return files


def tiny_build(engine: EngineName, precision: Precision, /, **changes: Any) -> Build:
    """Return what an engine needs to compile an export of the tiny network."""
    model, *companions = (model_files()[path] for path in EXPORTS[engine, precision])
    fields: dict[str, Any] = {"model": model, "companions": tuple(companions), "io": TINY_IO}
    return Build(**{**fields, "precision": precision, **changes})


def _frames() -> dict[str, tuple[dict[str, Any], bytes]]:
    rows, columns = np.mgrid[0:48, 0:40]
    bright = (120 + 100 * np.sin(rows / 9.0) * np.cos(columns / 7.0)).astype("|u1")
    deep = (2000 + 1500 * np.cos(rows / 11.0 + columns / 5.0)).astype("<u2")
    common = {"rows": 48, "columns": 40, "slope": 1.0, "intercept": 0.0, "padding": None}
    return {
        "waves": (
            {**common, "dtype": "|u1", "monochrome1": False, "window": None, "spacing": None},
            bright.tobytes(),
        ),
        "ripples": (
            {
                **common,
                "dtype": "<u2",
                "monochrome1": True,
                "window": {"centre": 2000.0, "width": 3000.0, "function": "LINEAR"},
                "spacing": [0.2, 0.2],
            },
            deep.tobytes(),
        ),
    }


@lru_cache
def _known_answers() -> dict[str, Any]:
    """Run the exports once to learn the golden answers, as the training side does."""
    spec = PipelineSpec(size=SIZE)
    cases = []
    for name, (fields, data) in _frames().items():
        frame = {**fields, "path": f"golden/{name}.raw"}
        tensor = prepare(GoldenFrame.model_validate(frame).frame(data), spec).tensor
        answers = []
        for engine, precision in EXPORTS:
            compiled = RUNTIMES[engine](tiny_build(engine, precision))
            logit = compiled.run(tensor).logit
            compiled.close()
            chance = 1 / (1 + np.exp(-logit))
            decision = "undetermined" if 0.4 < chance < 0.6 else "present"
            answers.append(
                {
                    "engine": engine,
                    "precision": precision,
                    "logit": logit,
                    "probability": float(chance),
                    "decision": decision if chance > 0.4 else "absent",
                }
            )
        probes = [[r, c, float(tensor[0, 0, r, c])] for r, c in ((3, 8), (16, 16), (25, 20))]
        digest = hashlib.sha256(tensor.astype("<f4").tobytes()).hexdigest()
        told = {"sha256": f"sha256:{digest}", "tolerance": 1e-4, "probes": probes}
        cases.append({"name": name, "frame": frame, "tensor": told, "answers": answers})
    return {"format": "bedside-golden/1", "cases": cases}


def write_tiny_package(
    folder: Path,
    *,
    io: IoContract = TINY_IO,
    golden: dict[str, Any] | None = None,
    files: dict[str, bytes] | None = None,
    fields: dict[str, Any] | None = None,
) -> Path:
    """Write a package; `golden`, `files` and manifest `fields` replace or add parts."""
    cases = golden or _known_answers()
    contents = dict(model_files())
    contents |= {f"golden/{name}.raw": data for name, (_, data) in _frames().items()}
    contents["golden/cases.json"] = json.dumps(cases).encode()
    contents["ood/mean.f32"] = np.zeros(CHANNELS, "<f4").tobytes()
    contents["ood/chol.f32"] = np.eye(CHANNELS, dtype="<f4").tobytes()
    contents |= files or {}
    manifest = manifest_fields()
    manifest["io"] = io.model_dump()
    manifest["outlier"]["features"] = CHANNELS
    manifest["golden"]["cases"] = len(cases["cases"])
    tolerance = {"golden_logit": 0.001, "changed_decisions_per_200": 0.0}
    manifest["variants"] = [
        {
            "engine": engine,
            "precision": precision,
            "path": paths[0],
            "companions": list(paths[1:]),
            "tolerance": tolerance,
        }
        for (engine, precision), paths in EXPORTS.items()
    ]
    manifest["files"] = {
        path: {"sha256": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}
        for path, data in contents.items()
    }
    manifest |= fields or {}
    raw = json.dumps(manifest).encode()
    parse_manifest(raw)  # a broken fixture fails here, not in the test that uses it
    for path, data in contents.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (folder / "manifest.json").write_bytes(raw)
    return folder


def known_answers() -> dict[str, Any]:
    """Return a copy of the golden cases, to be changed by a test."""
    copy: dict[str, Any] = json.loads(json.dumps(_known_answers()))
    return copy
