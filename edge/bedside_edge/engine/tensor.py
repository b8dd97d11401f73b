"""What every engine does alike: refuse a tensor it would misread, name what it compiled."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import EngineFailedError, InvalidInputError, InvalidPackageError
from bedside_core.hardware.profile import Value
from bedside_core.manifest import IoContract, Precision
from bedside_edge.ports import EngineInfo, Outputs

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What an engine is asked to compile: verified bytes and every number, no defaults.

    Attributes:
        model: bytes of the model file.
        companions: bytes of the files beside it (an IR's weights), in the manifest's order.
        io: names and static shapes the compiled model must show.
        precision: what convolutions must run in.
        streams: inferences at the same time.
        threads: threads of each.
        device: exact device.
        properties: set as they stand; the profile's schema holds the allow-list.
        readback: keys to ask the compiled engine for.
    """

    model: bytes = field(repr=False)
    companions: tuple[bytes, ...] = field(default=(), repr=False)
    io: IoContract
    precision: Precision
    streams: int = 1
    threads: int = 1
    device: str = "CPU"
    properties: Mapping[str, Value] = field(default_factory=dict)
    readback: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return sha256 over the model's bytes and its companions', in hex."""
        total = hashlib.sha256(self.model)
        for companion in self.companions:
            total.update(companion)
        return "sha256:" + total.hexdigest()


class Compiled(Protocol):
    """An Engine that also tells what its layers run in, and the properties it was asked for."""

    info: EngineInfo
    census: Mapping[str, int]
    readback: Mapping[str, str]

    def run(self, tensor: NDArray[np.float32]) -> Outputs:
        """As `Engine.run`."""
        ...

    def close(self) -> None:
        """As `Engine.close`."""
        ...


def check_tensor(tensor: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    """Refuse what an engine would misread or turn into nonsense without an error.

    Raises:
        InvalidInputError: no array, other type, byte order (onnxruntime computes garbage from
            big-endian), shape or layout, or a value that is not finite.
    """
    if not isinstance(tensor, np.ndarray) or tensor.dtype.type is not np.float32:
        raise InvalidInputError("an engine takes a float32 array")
    if tensor.dtype != _FLOAT32:
        raise InvalidInputError("the tensor is not in this machine's byte order")
    if tensor.shape != shape:
        raise InvalidInputError(f"the tensor's shape is {tensor.shape}, the model takes {shape}")
    if not tensor.flags.c_contiguous:
        raise InvalidInputError("the tensor is not contiguous in C order")
    # ReLU kernels may swallow a NaN and answer with a number: only the input shows it. 10 us.
    if not np.isfinite(tensor).all():
        raise InvalidInputError("the tensor holds values that are not finite")


def check_io(io: IoContract, inputs: Mapping[str, object], outputs: Mapping[str, object]) -> None:
    """Compare a compiled model's names and shapes (lists of int, f32 only) with the manifest.

    Raises:
        InvalidPackageError: names or shapes differ, or a shape is not static.
    """
    wanted_in = {io.input.name: io.input.shape}
    wanted_out = {part.name: part.shape for part in (io.logit, io.features, io.cam)}
    if dict(inputs) != wanted_in or dict(outputs) != wanted_out:
        raise InvalidPackageError(
            f"the model reads {dict(inputs)} and writes {dict(outputs)}; "
            f"its manifest says {wanted_in} and {wanted_out}"
        )


def to_outputs(arrays: Sequence[NDArray[np.float32]]) -> Outputs:
    """Return (logit, features, cam) as the port's value, copied out of the runtime's memory.

    Raises:
        EngineFailedError: the logit is not a number.
    """
    logit, features, cam = arrays
    value = float(logit.reshape(-1)[0])
    if not math.isfinite(value):
        raise EngineFailedError("the engine answered with something that is not a number")
    return Outputs(
        logit=value,
        features=np.array(features, np.float32).reshape(-1),
        cam=np.array(cam, np.float32).reshape(cam.shape[-2:]),
    )


def precision_of(layers: Iterable[str], every: Iterable[str]) -> str:
    """Name the precision of a compiled model from what its layers run in.

    Args:
        layers: precisions of its convolutions and matrix products (f32, f16, bf16, int8).
        every: precisions of all its layers.

    Returns:
        bf16 or f16 as soon as any layer runs in it; int8 if any product does; else f32. So f32
        means all of it, and nothing half-precise hides behind int8.
    """
    seen, products = set(every), set(layers)
    for half in ("bf16", "f16"):
        if half in seen | products:
            return half
    if "int8" in products:
        return "int8"
    return "f32" if products == {"f32"} else "unknown"
