"""The files an engine loads, whatever made them: ONNX and OpenVINO IR. Needs no torch."""

from pathlib import Path

from bedside_core.errors import ExportRefusedError

ONNX_NAME, IR_NAME = "model.onnx", "model.xml"


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
