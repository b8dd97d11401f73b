"""ONNX Runtime: one provider, no fallback, its kernels read back after a first run."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bedside_core.errors import EngineFailedError, InvalidPackageError
from bedside_core.hardware.matching import as_text
from bedside_edge.engine.tensor import Build, check_io, check_tensor, precision_of, to_outputs
from bedside_edge.ports import EngineInfo, Outputs

_PROVIDERS: Final = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
    "VitisAI": "VitisAIExecutionProvider",
    "Hailo": "HailoExecutionProvider",
}
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_TYPES = {
    "float": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8",
}  # fmt: skip

onnxruntime.disable_telemetry_events()


class OnnxEngine:
    """A session; several threads may call `run` at once, each call uses `threads` threads."""

    def __init__(self, build: Build) -> None:
        """Compile, run once on an empty image, and read back what executed.

        Raises:
            InvalidPackageError: the model has companions, or other inputs or outputs than stated.
            EngineFailedError: ONNX Runtime refused it, or chose another provider.
        """
        if build.companions:
            raise InvalidPackageError("an ONNX model is a single file")
        provider = _PROVIDERS[build.device]
        if provider not in onnxruntime.get_available_providers():
            # Asked for it all the same, onnxruntime warns and computes on the CPU.
            raise EngineFailedError(f"this onnxruntime has no {provider}")
        self._shape = tuple(build.io.input.shape)
        self._input = build.io.input.name
        self._outputs = [build.io.logit.name, build.io.features.name, build.io.cam.name]
        with tempfile.TemporaryDirectory(prefix="bedside-") as folder:
            session = _session(build, provider, str(Path(folder) / "first-run"))
            self._session: Any = session
            self._check(session, build, provider)
            self.run(np.zeros(self._shape, np.float32))
            executed = _executed(Path(session.end_profiling()).read_bytes())
        self.census: Mapping[str, int] = Counter(f"{op} {kind}" for op, kind, _ in executed)
        self.info = EngineInfo(
            engine="onnxruntime",
            version=onnxruntime.__version__,
            device=build.device if {where for *_, where in executed} == {provider} else "mixed",
            precision=precision_of(
                [kind for op, kind, _ in executed if any(name in op for name in _PRODUCTS)],
                [kind for _, kind, _ in executed],
            ),
            threads=session.get_session_options().intra_op_num_threads,
            model_sha256=build.digest(),
        )
        self.readback: Mapping[str, str] = _told(session, provider, build.readback)

    @staticmethod
    def _check(session: Any, build: Build, provider: str) -> None:  # noqa: ANN401 - untyped
        # A GPU's provider always has the CPU's listed behind it; fallback to it is switched off.
        if session.get_providers()[:1] != [provider]:
            raise EngineFailedError(f"ONNX Runtime chose {session.get_providers()}")
        told = [
            {part.name: part.shape if part.type == "tensor(float)" else part.type for part in parts}
            for parts in (session.get_inputs(), session.get_outputs())
        ]
        check_io(build.io, *told)

    def run(self, tensor: NDArray[np.float32]) -> Outputs:
        """Infer one image; see `Engine.run`."""
        session = self._session
        if session is None:
            raise EngineFailedError("the engine is closed")
        check_tensor(tensor, self._shape)
        try:
            arrays = session.run(self._outputs, {self._input: tensor})
        except Exception as cause:  # its classes share no base but this
            raise EngineFailedError(f"ONNX Runtime failed: {type(cause).__name__}") from cause
        return to_outputs(arrays)

    def close(self) -> None:
        """Drop the session; calls under way finish first."""
        self._session = None


def _session(build: Build, provider: str, profile_prefix: str) -> Any:  # noqa: ANN401 - untyped
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = build.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # errors come as exceptions; its own lines quote file names
    # A spinning helper thread takes a core from the receivers and the other streams.
    entries = {"session.intra_op.allow_spinning": "0"}
    if build.device != "CPU":  # with the CPU's provider the same key raises INVALID_ARGUMENT
        entries["session.disable_cpu_ep_fallback"] = "1"
    own = {key: as_text(value) for key, value in build.properties.items()}
    entries |= {key: value for key, value in own.items() if key.startswith("session.")}
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    options.enable_profiling = True
    options.profile_file_prefix = profile_prefix
    asked = {key: value for key, value in own.items() if not key.startswith("session.")}
    try:
        return onnxruntime.InferenceSession(build.model, options, providers=[(provider, asked)])
    except Exception as cause:  # its classes share no base but this
        raise EngineFailedError(
            f"ONNX Runtime cannot load the model: {type(cause).__name__}"
        ) from cause


def _told(session: Any, provider: str, keys: Iterable[str]) -> dict[str, str]:  # noqa: ANN401
    """Return what the session says of the keys; what it does not know is absent."""
    options, own = session.get_session_options(), session.get_provider_options()
    known = {
        "providers": ",".join(session.get_providers()),
        "intra_op_num_threads": str(options.intra_op_num_threads),
    } | own.get(provider, {})
    for key in keys:
        if key.startswith("session."):
            try:
                known[key] = options.get_session_config_entry(key)
            except RuntimeError:  # not set: then it was not set as asked
                continue
    return {key: str(known[key]) for key in keys if key in known}


def _executed(trace: bytes) -> list[tuple[str, str, str]]:
    """Return (operator, precision, provider) of every kernel in a profile of one run.

    The session has no precision property. What ran is better evidence than what was asked for:
    a quantised graph whose operators did not fuse shows float products here.
    """
    executed: list[tuple[str, str, str]] = []
    for event in json.loads(trace):
        detail = event.get("args", {})
        if event.get("cat") != "Node" or "provider" not in detail:
            continue
        kinds = {name for part in detail["input_type_shape"] for name in part}
        found = {_TYPES[name] for name in kinds if name in _TYPES} or {"other"}
        # A product that takes any 8-bit operand is an 8-bit product; its scales are floats.
        first = next(kind for kind in ("bf16", "f16", "int8", "f32", "other") if kind in found)
        executed.append((detail["op_name"], first, detail["provider"]))
    return executed
