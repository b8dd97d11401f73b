"""A small valid manifest for tests that need the rules of a package, not its files."""

from typing import Any

from bedside_core.imaging import PipelineSpec
from bedside_core.manifest import Manifest

ZERO = "sha256:" + "0" * 64


def manifest_fields() -> dict[str, Any]:
    """Return the manifest as JSON-like fields, to be changed by a test before parsing."""
    spec = PipelineSpec(size=32)
    tensor = {"datatype": "FP32"}
    return {
        "format": "bedside-model/1",
        "name": "sample",
        "version": "1.0.0",
        "release": 1,
        "intended_use": "tests",
        "not_a_medical_device": True,
        "finding": {"name": "opacity", "code": "1", "scheme": "SCT", "meaning": "Opacity"},
        "io": {
            "input": {"name": "input", "shape": [1, 1, 32, 32], **tensor},
            "logit": {"name": "logit", "shape": [1, 1], **tensor},
            "features": {"name": "features", "shape": [1, 4], **tensor},
            "cam": {"name": "cam", "shape": [1, 2, 2], **tensor},
        },
        "pipeline": {
            "name": spec.name,
            "revision": spec.revision,
            "size": spec.size,
            "low_percentile": spec.low_percentile,
            "high_percentile": spec.high_percentile,
            "std_floor": spec.std_floor,
            "digest": spec.digest(),
        },
        "calibration": {"scale": 1.0, "offset": 0.0, "fitted_on": "val"},
        "decision": {"threshold": 0.5, "low": 0.4, "high": 0.6, "chosen_by": "hand"},
        "accepts": {
            "modalities": ["CR", "DX"],
            "body_parts": ["CHEST"],
            "views": ["PA", "AP"],
            "minimum_pixels": 16,
        },
        "outlier": {
            "mean": "ood/mean.f32",
            "precision_chol": "ood/chol.f32",
            "features": 4,
            "cutoff": 5.0,
            "intensity": {"mean": [0.0, 1.0]},
        },
        "golden": {"path": "golden/cases.json", "cases": 1},
        "variants": [
            {
                "engine": "onnxruntime",
                "precision": "f32",
                "path": "model.onnx",
                "tolerance": {"golden_logit": 0.001, "changed_decisions_per_200": 0.0},
            }
        ],
        "files": {
            path: {"sha256": ZERO, "size": 1}
            for path in ("ood/mean.f32", "ood/chol.f32", "golden/cases.json", "model.onnx")
        },
    }


def sample_manifest() -> Manifest:
    """Return the fields as a parsed manifest."""
    return Manifest.model_validate(manifest_fields())
