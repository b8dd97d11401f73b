"""Running an exported file in both engines the way the box does: pinned, static, CPU only."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import EngineFailedError, InvalidInputError

Tensor = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Answers for n images: logit (n,), features (n, c), cam (n, h, w)."""

    logit: NDArray[np.float64]
    features: NDArray[np.float32]
    cam: NDArray[np.float32]


class Runner(Protocol):
    """One loaded export."""

    def run(self, images: Tensor) -> Outputs:
        """Answer (n, 1, s, s) images one at a time: exports have batch 1."""
        ...


class _OrtRunner:
    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as cause:  # onnxruntime raises a family of unrelated types
            raise EngineFailedError(f"onnxruntime cannot load {path.name}") from cause

    def run(self, images: Tensor) -> Outputs:
        names = ["logit", "features", "cam"]
        return _gather(self._session.run(names, {"input": image[None]}) for image in images)


class _OpenVinoRunner:
    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # the default would be bf16 on this class of CPU
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        try:
            self._compiled = core.compile_model(str(path), "CPU", settings)
        except RuntimeError as cause:
            raise EngineFailedError(f"openvino cannot load {path.name}") from cause
        self._request = self._compiled.create_infer_request()

    def run(self, images: Tensor) -> Outputs:
        return _gather(self._one(image) for image in images)

    def _one(self, image: Tensor) -> list[Any]:
        self._request.infer({"input": image[None]})
        names = ("logit", "features", "cam")
        return [np.array(self._request.get_tensor(name).data) for name in names]


def _gather(answers: Iterable[Sequence[Any]]) -> Outputs:
    logit, features, cam = zip(*answers, strict=True)
    return Outputs(
        logit=np.concatenate(logit)[:, 0].astype(np.float64),
        features=np.concatenate(features),
        cam=np.concatenate(cam),
    )


def open_runner(engine: str, path: Path, threads: int = 2) -> Runner:
    """Load an export.

    Raises:
        EngineFailedError: the engine cannot load the file.
        InvalidInputError: no such engine.
    """
    if engine == "onnxruntime":
        return _OrtRunner(path, threads)
    if engine == "openvino":
        return _OpenVinoRunner(path, threads)
    raise InvalidInputError(f"no engine {engine!r}")


def images_per_second(runners: list[Runner], image: Tensor, rounds: int = 6) -> list[float]:
    """Return each runner's images per second, the best of `rounds` taken in turn.

    Turns keep a noisy neighbour from hitting one runner only; the best round is the least
    disturbed one.
    """
    for runner in runners:
        runner.run(image)
    best = [0.0] * len(runners)
    burst = np.repeat(image, 20, axis=0)
    for _ in range(rounds):
        for number, runner in enumerate(runners):
            started = time.perf_counter()
            runner.run(burst)
            best[number] = max(best[number], len(burst) / (time.perf_counter() - started))
    return best
