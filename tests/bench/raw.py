"""The bare runtimes, as a user would call them without any service; asked over a pipe.

`python -m bench.raw ENGINE PRECISION` uses the same package, streams and threads as the service.
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from bedside_core.imaging import prepare
from bedside_edge.config import Model
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.wiring import Loaded, load_model
from bench.processes import WARM_UP, answer_questions

Run = Callable[[NDArray[np.float32]], Any]


def _onnxruntime(loaded: Loaded, threads: int) -> Callable[[], Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    model = loaded.package.read(loaded.opened.variant.path)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    io = loaded.model.manifest.io
    names = [io.logit.name, io.features.name, io.cam.name]
    return lambda: lambda tensor: session.run(names, {io.input.name: tensor})


def _openvino(loaded: Loaded, threads: int, streams: int) -> Callable[[], Run]:
    import openvino

    variant = loaded.opened.variant
    core = openvino.Core()
    model = core.read_model(
        loaded.package.read(variant.path), loaded.package.read(variant.companions[0])
    )
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
        },
    )

    def caller() -> Run:
        request = compiled.create_infer_request()
        return lambda tensor: request.infer({0: tensor}, share_inputs=True, share_outputs=True)

    return caller


class Raw:
    """The measuring operations."""

    def __init__(self, engine: str, precision: str) -> None:
        loaded = load_model(Model.model_validate({"engine": engine, "precision": precision}))
        self.plan = plan = loaded.opened.plan
        self.info = loaded.opened.engine.info
        wide = max(plan.threads, plan.latency_threads)
        if plan.kind == "onnxruntime":
            single, many = _onnxruntime(loaded, wide), _onnxruntime(loaded, plan.threads)
        else:
            single = _openvino(loaded, wide, 1)
            many = _openvino(loaded, plan.threads, plan.streams)
        self.callers = [many() for _ in range(plan.streams)]
        self.single = single()
        self.pipeline = loaded.model.pipeline
        self.reader = PydicomReader()
        shape = loaded.model.manifest.io.input.shape
        # any finite tensor takes the same time; this one is reproducible and not constant
        self.tensor = np.sin(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)
        for run in (self.single, *self.callers):
            for _ in range(5):
                run(self.tensor)

    def about(self) -> dict[str, Any]:
        """Say what runs."""
        return {
            "engine": self.plan.kind,
            "precision": self.info.precision,
            "streams": self.plan.streams,
            "threads": self.plan.threads,
            "latency_threads": max(self.plan.threads, self.plan.latency_threads),
        }

    def save_tensor(self, path: str) -> dict[str, Any]:
        """Write the tensor the measurements use, and its shape."""
        Path(path).write_bytes(self.tensor.astype("<f4").tobytes())
        return {"shape": list(self.tensor.shape)}

    def latency(self, count: int) -> dict[str, Any]:
        """Milliseconds of single calls, one after the other."""
        before = time.process_time()
        taken = _timed(count, lambda: self.single(self.tensor))
        return {"ms": taken, "cpu_s": time.process_time() - before}

    def throughput(self, seconds: float) -> dict[str, Any]:
        """Calls per second with a thread per stream."""
        counts = [0] * len(self.callers)
        start = threading.Barrier(len(self.callers) + 1)

        def loop(index: int) -> None:
            run = self.callers[index]
            start.wait()
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                run(self.tensor)
                counts[index] += 1

        threads = [threading.Thread(target=loop, args=(n,)) for n in range(len(counts))]
        for thread in threads:
            thread.start()
        start.wait()
        began = time.perf_counter()
        for thread in threads:
            thread.join()
        return {"per_s": sum(counts) / (time.perf_counter() - began)}

    def decode_and_infer(self, path: str, count: int) -> dict[str, Any]:
        """Milliseconds from Part 10 bytes to the engine's answer, in this process."""
        data = Path(path).read_bytes()

        def once() -> None:
            self.single(self._tensor_of(data))

        return {"ms": _timed(count, once)}

    def decode(self, path: str, count: int) -> dict[str, Any]:
        """Milliseconds from Part 10 bytes to the model's tensor."""
        data = Path(path).read_bytes()
        return {"ms": _timed(count, lambda: self._tensor_of(data))}

    def pydicom_decode(self, path: str, count: int) -> dict[str, Any]:
        """Milliseconds of pydicom alone, from bytes to stored values."""
        data = Path(path).read_bytes()
        return {
            "ms": _timed(count, lambda: pydicom.dcmread(pydicom.filebase.BytesIO(data)).pixel_array)
        }

    def _tensor_of(self, data: bytes) -> NDArray[np.float32]:
        return prepare(self.reader.frame(data), self.pipeline).tensor


def _timed(count: int, once: Callable[[], object]) -> list[float]:
    taken = []
    for _ in range(WARM_UP):
        once()
    for _ in range(count):
        began = time.perf_counter()
        once()
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def main() -> None:
    raw = Raw(sys.argv[1], sys.argv[2])
    names = ("about", "save_tensor", "latency", "throughput", "decode", "pydicom_decode")
    operations = {name: getattr(raw, name) for name in names}
    answer_questions(operations | {"decode_and_infer": raw.decode_and_infer})


if __name__ == "__main__":
    main()
