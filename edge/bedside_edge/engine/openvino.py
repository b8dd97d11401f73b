"""OpenVINO: the precision hint is always set, and every layer's is read back."""

import queue
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from bedside_core.errors import EngineFailedError, InvalidPackageError
from bedside_core.hardware.matching import as_text
from bedside_edge.engine.tensor import Build, check_io, check_tensor, precision_of, to_outputs
from bedside_edge.ports import EngineInfo, Outputs

_PRODUCTS = ("Convolution", "FullyConnected", "MatMul", "Deconvolution", "GroupConvolution")
_TYPES = {"f32": "f32", "f16": "f16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
# An int8 model keeps its few float layers in f32: left alone, OpenVINO computes those in bf16.
_HINTS = {"f32": "f32", "bf16": "bf16", "f16": "f16", "int8": "f32"}


class OpenvinoEngine:
    """A compiled model with one infer request per stream; further callers wait for one."""

    def __init__(self, build: Build) -> None:
        """Compile from bytes and read back what was compiled.

        Raises:
            InvalidPackageError: not an IR with its one weight file, or other inputs or outputs.
            EngineFailedError: OpenVINO refused it, or reads back other threads or a stale cache.
        """
        if len(build.companions) != 1:
            raise InvalidPackageError("an OpenVINO model is an IR and its one weight file")
        self._shape = tuple(build.io.input.shape)
        try:
            compiled = _compile(build)
            check_io(build.io, _ports(compiled.inputs), _ports(compiled.outputs))
            layers = _layers(compiled)
            self.info = _info(compiled, build, layers)
            self.readback: Mapping[str, str] = _told(compiled, build.readback)
        except RuntimeError as cause:
            # Also for AUTO and its kind: what they picked cannot be read back.
            raise EngineFailedError("OpenVINO cannot compile the model as pinned") from cause
        order = {name: at for at, port in enumerate(compiled.outputs) for name in port.get_names()}
        names = (build.io.logit.name, build.io.features.name, build.io.cam.name)
        self._order = [order[name] for name in names]
        self.census: Mapping[str, int] = Counter(" ".join(layer) for layer in layers)
        idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(build.streams):
            idle.put(compiled.create_infer_request())
        self._idle: queue.LifoQueue[Any] | None = idle
        self.run(np.zeros(self._shape, np.float32))

    def run(self, tensor: NDArray[np.float32]) -> Outputs:
        """Infer one image; see `Engine.run`."""
        idle = self._idle
        if idle is None:
            raise EngineFailedError("the engine is closed")
        check_tensor(tensor, self._shape)
        request = idle.get()
        try:
            answer = request.infer({0: tensor}, share_inputs=True, share_outputs=True)
            # Copied before the request goes back: its buffers are the next caller's.
            return to_outputs([answer[at] for at in self._order])
        except RuntimeError as cause:
            raise EngineFailedError("OpenVINO failed on a valid tensor") from cause
        finally:
            idle.put(request)

    def close(self) -> None:
        """Refuse further calls; those under way or waiting finish, the last frees the runtime."""
        self._idle = None


@cache
def _core() -> Any:  # noqa: ANN401 - the runtime is untyped
    """Return the one Core of the process, which is never freed.

    Its CPU plugin gives the thread that made it another signal stack, and frees that stack when
    another thread frees the plugin: the next signal then kills the process. Crash and cure were
    measured with 2026.4.1; the cause is inferred from the backtrace.
    """
    return openvino.Core()


def _compile(build: Build) -> Any:  # noqa: ANN401 - the runtime is untyped
    properties: dict[str, object] = {
        "INFERENCE_PRECISION_HINT": _HINTS[build.precision],
        "NUM_STREAMS": build.streams,
    }
    if build.device == "CPU":
        properties["INFERENCE_NUM_THREADS"] = build.streams * build.threads
        # Pinned threads cannot step aside for the receivers, which share these cores.
        properties["ENABLE_CPU_PINNING"] = False
    core = _core()
    model = core.read_model(build.model, build.companions[0])
    # Never AUTO, HETERO or MULTI: they pick something and say nothing.
    compiled = core.compile_model(model, build.device, properties | dict(build.properties))
    if compiled.get_property("LOADED_FROM_CACHE"):
        raise EngineFailedError("OpenVINO took the model from a cache instead of these bytes")
    return compiled


def _ports(ports: Any) -> dict[str, object]:  # noqa: ANN401 - the runtime is untyped
    found: dict[str, object] = {}
    for port in ports:
        shape, kind = port.get_partial_shape(), port.get_element_type().get_type_name()
        name = port.get_any_name()
        found[name] = list(shape.to_shape()) if shape.is_static and kind == "f32" else str(port)
    return found


def _layers(compiled: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - the runtime is untyped
    """Return (layer type, precision it runs in) of every layer of the compiled graph."""
    infos = (op.get_rt_info() for op in compiled.get_runtime_model().get_ops())
    return [(i["layerType"].astype(str), i["runtimePrecision"].astype(str)) for i in infos]


def _info(compiled: Any, build: Build, layers: list[tuple[str, str]]) -> EngineInfo:  # noqa: ANN401
    kinds = [(layer, _TYPES.get(kind, "other")) for layer, kind in layers if layer != "Const"]
    precision = precision_of(
        [kind for layer, kind in kinds if layer in _PRODUCTS], [kind for _, kind in kinds]
    )
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if hint != _HINTS[build.precision]:
        precision = f"{precision} (hint reads back {hint})"
    streams = int(compiled.get_property("NUM_STREAMS"))
    if streams != build.streams:
        raise EngineFailedError(f"OpenVINO made {streams} streams instead of {build.streams}")
    threads = build.threads
    if build.device == "CPU":
        threads = int(compiled.get_property("INFERENCE_NUM_THREADS")) // streams
    return EngineInfo(
        engine="openvino",
        version=openvino.get_version().split("-")[0],
        device=",".join(compiled.get_property("EXECUTION_DEVICES")),
        precision=precision,
        threads=threads,
        model_sha256=build.digest(),
    )


def _told(compiled: Any, keys: Iterable[str]) -> dict[str, str]:  # noqa: ANN401 - untyped
    """Return what the compiled model says of each key, as text."""
    told = {}
    for key in keys:
        value = compiled.get_property(key)
        if hasattr(value, "get_type_name"):
            value = value.get_type_name()
        elif isinstance(value, list):
            value = ",".join(value)
        elif not isinstance(value, bool | int | str):
            value = str(value).rpartition(".")[
                2
            ]  # an enumeration's member: PerformanceMode.LATENCY
        told[key] = as_text(value)
    return told


def available_devices() -> tuple[str, ...]:
    """Return the devices OpenVINO finds on this machine."""
    return tuple(_core().available_devices)
