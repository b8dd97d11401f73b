"""Tiny ONNX models written byte by byte, so that engine tests need no training-side package.

Field numbers are those of onnx/onnx.proto (IR version 8, opset 17). The network has the reference
model's shape in small: two convolutions, global average pooling, one linear unit, and the
class-activation map whose mean is the logit.
"""

import struct

import numpy as np

SIZE, CHANNELS, MAP = 32, 16, 8
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7}


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def tensor(name: str, array: np.ndarray) -> bytes:
    """TensorProto."""
    dims = b"".join(_number(1, size) for size in array.shape)
    return (
        dims + _number(2, _TYPES[array.dtype.name]) + _bytes(8, name) + _bytes(9, array.tobytes())
    )


def _attribute(name: str, value: int | float | list[int]) -> bytes:
    if isinstance(value, list):
        return _bytes(1, name) + b"".join(_number(8, v) for v in value) + _number(20, 7)
    if isinstance(value, float):
        return _bytes(1, name) + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, 1)
    return _bytes(1, name) + _number(3, value) + _number(20, 2)


def node(operator: str, inputs: list[str], output: str, **attributes) -> bytes:
    """NodeProto with one output."""
    body = b"".join(_bytes(1, name) for name in inputs) + _bytes(2, output)
    body += _bytes(3, f"{operator}_{output}") + _bytes(4, operator)
    return body + b"".join(_bytes(5, _attribute(key, value)) for key, value in attributes.items())


def _value(name: str, shape: list[int | str]) -> bytes:
    dims = b"".join(
        _bytes(1, _bytes(2, size) if isinstance(size, str) else _number(1, size)) for size in shape
    )
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, dims)))


def model(
    nodes: list[bytes],
    weights: dict[str, np.ndarray],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
) -> bytes:
    """ModelProto of one graph."""
    graph = b"".join(_bytes(1, one) for one in nodes) + _bytes(2, "tiny")
    graph += b"".join(_bytes(5, tensor(name, array)) for name, array in weights.items())
    graph += b"".join(_bytes(11, _value(name, shape)) for name, shape in inputs.items())
    graph += b"".join(_bytes(12, _value(name, shape)) for name, shape in outputs.items())
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 17))


def _weights(scale: float) -> dict[str, np.ndarray]:
    def wave(*shape: int) -> np.ndarray:
        count = int(np.prod(shape))
        values = np.sin(np.arange(1, count + 1) * 12.9898) * 43758.5453
        return ((values - np.floor(values) - 0.45) * scale).astype(np.float32).reshape(shape)

    return {
        "w1": wave(CHANNELS, 1, 3, 3),
        "w2": wave(CHANNELS, CHANNELS, 3, 3),
        "head": wave(1, CHANNELS),
        "bias": np.array([0.25], np.float32),
    }


def tiny_network(
    *, scale: float = 0.5, batch: int | str = 1, quantised: bool = False, divide: bool = False
) -> bytes:
    """The tiny network; `quantised`: QDQ int8; `divide`: answers infinity; batch "n": dynamic."""
    made = _weights(scale)
    weights = {"head": made["head"], "bias": made["bias"], "cam_w": made["head"][..., None, None]}
    nodes: list[bytes] = []

    def quantise(name: str, step: float) -> str:
        weights[f"{name}_s"] = np.array(step, np.float32)
        weights[f"{name}_z"] = np.array(128 if name == "image" else 0, np.uint8)
        scale_zero = [f"{name}_s", f"{name}_z"]
        nodes.append(node("QuantizeLinear", [name, *scale_zero], f"{name}_q"))
        nodes.append(node("DequantizeLinear", [f"{name}_q", *scale_zero], f"{name}_d"))
        return f"{name}_d"

    def weight(name: str) -> str:
        array = made[name]
        if not quantised:
            weights[name] = array
            return name
        step = float(np.abs(array).max()) / 127
        weights[f"{name}_q"] = np.rint(array / step).astype(np.int8)
        weights[f"{name}_s"] = np.array(step, np.float32)
        weights[f"{name}_z"] = np.array(0, np.int8)
        nodes.append(node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], f"{name}_d"))
        return f"{name}_d"

    here = "image"
    for at, step in ((1, 0.05), (2, 0.02)):
        source = quantise(here, step) if quantised else here
        shape = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
        nodes.append(node("Conv", [source, weight(f"w{at}")], f"c{at}", **shape))
        nodes.append(node("Relu", [f"c{at}"], f"r{at}"))
        here = f"r{at}"
    if quantised:
        here = quantise(here, 0.02)
    nodes.append(node("ReduceMean", [here], "features", axes=[2, 3], keepdims=0))
    if divide:
        weights["zero"] = np.zeros((1, 1), np.float32)
        nodes.append(node("Gemm", ["features", "head", "bias"], "finite", transB=1))
        nodes.append(node("Div", ["finite", "zero"], "logit"))
    else:
        nodes.append(node("Gemm", ["features", "head", "bias"], "logit", transB=1))
    nodes.append(node("Conv", [here, "cam_w", "bias"], "cam4", kernel_shape=[1, 1]))
    weights["cam_shape"] = np.array([0, MAP, MAP], np.int64)
    nodes.append(node("Reshape", ["cam4", "cam_shape"], "cam"))
    return model(
        nodes,
        weights,
        {"image": [batch, 1, SIZE, SIZE]},
        {"logit": [batch, 1], "features": [batch, CHANNELS], "cam": [batch, MAP, MAP]},
    )
