"""From a checkpoint to files an engine loads: one ONNX file, and OpenVINO IR in float32."""

import warnings
from pathlib import Path

import numpy as np
import torch

from bedside_models.checkpoint import Checkpoint
from bedside_models.graphs import IR_NAME, ONNX_NAME, convert_to_ir, refuse_stray_weights

OPSET = 17
OUTPUTS = ("logit", "features", "cam")


def export(checkpoint: Checkpoint, folder: Path) -> list[Path]:
    """Write model.onnx, model.xml and model.bin into `folder`.

    Shapes are static with batch 1: dynamic shapes make memory grow in OpenVINO. The IR keeps
    float32 weights; its default would round them to float16.

    Raises:
        ExportRefusedError: the exporter put weights into a second file, which no digest covers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx_path, ir_path = folder / ONNX_NAME, folder / IR_NAME
    export_onnx(checkpoint, onnx_path)
    convert_to_ir(onnx_path, ir_path)
    return [onnx_path, ir_path, ir_path.with_suffix(".bin")]


def export_onnx(checkpoint: Checkpoint, path: Path) -> None:
    """Write one self-contained ONNX file.

    Raises:
        ExportRefusedError: a stray weight file appeared beside it.
    """
    size = checkpoint.architecture.input_size
    image = torch.zeros(1, 1, size, size)
    with warnings.catch_warnings():
        # The older exporter on purpose: one file, opset 17, the same bytes every time.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            checkpoint.network(),
            (image,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=list(OUTPUTS),
            do_constant_folding=True,
        )
    refuse_stray_weights(path)


def cam_gap(logit: np.ndarray, cam: np.ndarray) -> float:
    """Return the largest |logit - mean(map)|: zero but for rounding in a sound export."""
    return float(np.abs(logit - cam.mean(axis=(1, 2), dtype=np.float64)).max())
