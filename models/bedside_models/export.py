"""From a checkpoint to files an engine loads: one ONNX file, and OpenVINO IR in float32."""

import warnings
from pathlib import Path

import numpy as np
import torch

from bedside_core.errors import ExportRefusedError
from bedside_models.checkpoint import Checkpoint

OPSET = 17
OUTPUTS = ("logit", "features", "cam")
ONNX_NAME, IR_NAME = "model.onnx", "model.xml"


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


def refuse_stray_weights(path: Path) -> None:
    """Refuse an ONNX file whose weights lie in another file.

    Raises:
        ExportRefusedError: a tensor is external, or a data file lies beside the model.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    external = [t.name for t in model.graph.initializer if t.HasField("data_location")]
    external = [
        t.name
        for t in model.graph.initializer
        if t.name in external and t.data_location == onnx.TensorProto.EXTERNAL
    ]
    stray = [p.name for p in path.parent.glob("*.data")]
    if external or stray:
        raise ExportRefusedError(f"{path.name} keeps weights in another file: {stray or external}")


def convert_to_ir(source: Path, target: Path) -> None:
    """Convert an ONNX file to OpenVINO IR (.xml and .bin), weights as they are."""
    import openvino

    openvino.save_model(openvino.convert_model(str(source)), str(target), compress_to_fp16=False)


def cam_gap(logit: np.ndarray, cam: np.ndarray) -> float:
    """Return the largest |logit - mean(map)|: zero but for rounding in a sound export."""
    return float(np.abs(logit - cam.mean(axis=(1, 2), dtype=np.float64)).max())
