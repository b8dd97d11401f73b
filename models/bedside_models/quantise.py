"""Static int8 for both engines, calibrated on training images and judged on decisions.

onnxruntime: QDQ, one scale per weight channel, unsigned activations. OpenVINO: the same QDQ file
converted, or NNCF without its bias correction. NNCF's default correction changed one decision in
nine on a network of this kind (docs/models.md), so it is not among the candidates.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_models.graphs import IR_NAME, ONNX_NAME, convert_to_ir, refuse_stray_weights
from bedside_models.runtimes import open_runner

INT8_ONNX_NAME, INT8_IR_NAME = "model.int8.onnx", "model.int8.xml"
OPENVINO_METHODS = ("qdq", "nncf")
HEAD_BIAS = "head.bias"
PERCENTILE = 99.9995


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """What was written, and by which method for OpenVINO."""

    onnx: Path
    ir: Path
    openvino_method: str


def quantise(folder: Path, images: NDArray[np.float32], openvino_method: str) -> Quantised:
    """Write model.int8.onnx and model.int8.xml/.bin beside the float exports.

    Args:
        folder: holds model.onnx and model.xml.
        images: (n, 1, s, s) prepared training images; 100 to 300 are enough.
        openvino_method: one of OPENVINO_METHODS.

    Raises:
        InvalidInputError: an unknown method, or no images.
    """
    if openvino_method not in OPENVINO_METHODS or not len(images):
        raise InvalidInputError(f"need images and a method out of {OPENVINO_METHODS}")
    onnx_path, ir_path = folder / INT8_ONNX_NAME, folder / INT8_IR_NAME
    with redirect_stdout(sys.stderr):  # both libraries print while they work; stdout is the answer
        quantise_onnx(folder / ONNX_NAME, onnx_path, images)
        if openvino_method == "qdq":
            convert_to_ir(onnx_path, ir_path)
        else:
            quantise_ir(folder / IR_NAME, ir_path, images)
    return Quantised(onnx=onnx_path, ir=ir_path, openvino_method=openvino_method)


def quantise_onnx(source: Path, target: Path, images: NDArray[np.float32]) -> None:
    """Write a static QDQ int8 model whose first and last layers stay float.

    The first convolution sees one channel: 1 % of the work, a third of the rounding error. The
    head and the map read pooled features, whose rounding moves every decision and whose cost is
    nothing; being float, the head can be fitted to the int8 features afterwards. Ranges leave out
    5 values in a million: the plain range wastes steps on them.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*stem_nodes(prepared), *head_nodes(prepared)],
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )
    refit_head(source, target, images)
    refuse_stray_weights(target)


def stem_nodes(path: Path) -> list[str]:
    """Return the nodes that read the image directly, and what follows them up to a block."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    first = next(node for node in graph.node if "input" in node.input)
    return [
        first.name,
        *(n.name for n in graph.node if n.op_type == "Relu" and n.input[0] in first.output),
    ]


def refit_head(source: Path, target: Path, images: NDArray[np.float32]) -> None:
    """Fit the float head on int8 features so that it repeats the float network's logit.

    Ridge regression of the change on the centred features of the calibration images: it takes
    off the mean shift and whatever part of the rounding is the same on every image.

    Args:
        source: the float model.
        target: the int8 model, rewritten in place; logit and map keep sharing one head.
        images: (n, 1, s, s) calibration images.
    """
    import onnx
    from onnx import numpy_helper

    rounded = open_runner("onnxruntime", target).run(images)
    gap = open_runner("onnxruntime", source).run(images).logit - rounded.logit
    centre = rounded.features.mean(axis=0, dtype=np.float64)
    features = rounded.features - centre
    spread = features.T @ features / len(features)
    ridge = np.trace(spread) / len(spread) * np.eye(len(spread))
    change = np.linalg.solve(spread + ridge, features.T @ (gap - gap.mean()) / len(features))
    shift = float(gap.mean() - change @ centre)

    model = onnx.load(str(target))
    tensors = {t.name: t for t in model.graph.initializer}
    readers = [node for node in model.graph.node if HEAD_BIAS in node.input]
    added = {HEAD_BIAS: np.float64(shift)} | {node.input[1]: change for node in readers}
    for name, more in added.items():
        old = numpy_helper.to_array(tensors[name])
        new = (old + np.reshape(more, old.shape)).astype(np.float32)
        tensors[name].CopyFrom(numpy_helper.from_array(new, name))
    onnx.save(model, str(target))


def head_nodes(path: Path) -> list[str]:
    """Return the nodes after the last block: pooling, the linear head and the map's 1 x 1 layer."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    made_by = {name: node for node in graph.node for name in node.output}
    pool = made_by["features"]
    while pool.op_type not in ("ReduceMean", "GlobalAveragePool"):
        pool = made_by[pool.input[0]]
    seen = {pool.input[0]}
    head = []
    for node in graph.node:  # the graph is sorted: readers come after what they read
        if seen & set(node.input):
            head.append(node.name)
            seen |= set(node.output)
    return head


def quantise_ir(source: Path, target: Path, images: NDArray[np.float32]) -> None:
    """Write an NNCF int8 IR without bias correction."""
    import nncf
    import openvino

    quantised = nncf.quantize(
        openvino.Core().read_model(str(source)),
        nncf.Dataset([image[None] for image in images]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        fast_bias_correction=True,
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
    )
    openvino.save_model(quantised, str(target), compress_to_fp16=False)


class _Reader:
    """onnxruntime's calibration reader over images in memory."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self._images = images
        self._rest: Iterator[dict[str, Any]] = iter(())
        self.rewind()

    def rewind(self) -> None:
        self._rest = iter([{"input": image[None]} for image in self._images])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rest, None)

    def __len__(self) -> int:
        return len(self._images)
