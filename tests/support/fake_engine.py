"""An engine without a runtime: a few sums in numpy, with every promise of the Engine port."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import EngineFailedError
from bedside_core.manifest import IoContract
from bedside_edge.engine.tensor import Build, check_tensor
from bedside_edge.ports import EngineInfo, Outputs

TINY_IO = IoContract.model_validate(
    {
        "input": {"name": "image", "shape": [1, 1, 32, 32]},
        "logit": {"name": "logit", "shape": [1, 1]},
        "features": {"name": "features", "shape": [1, 16]},
        "cam": {"name": "cam", "shape": [1, 8, 8]},
    }
)


class FakeEngine:
    """Brighter images get higher logits; `failing` stands for a runtime that breaks."""

    census: Mapping[str, int]
    readback: Mapping[str, str]

    def __init__(
        self, io: IoContract = TINY_IO, *, precision: str = "f32", failing: bool = False
    ) -> None:
        self._io, self._open, self.failing = io, True, failing
        self.census = {f"Sum {precision}": 1}
        self.readback = {}
        self.info = EngineInfo(
            engine="onnxruntime",
            version="0",
            device="CPU",
            precision=precision,
            threads=1,
            model_sha256="sha256:" + "0" * 64,
        )

    @classmethod
    def compile(cls, build: Build) -> "FakeEngine":
        """Stand in for a runtime in `open_engine(..., runtimes=...)`."""
        return cls(build.io, precision=build.precision)

    def run(self, tensor: NDArray[np.float32]) -> Outputs:
        if not self._open:
            raise EngineFailedError("the engine is closed")
        check_tensor(tensor, tuple(self._io.input.shape))
        if self.failing:
            raise EngineFailedError("the fake was told to fail")
        height, width = self._io.cam.shape[-2:]
        rows, columns = (tensor.shape[2] // height, tensor.shape[3] // width)
        plane = tensor[0, 0, : height * rows, : width * columns].astype(np.float64)
        cam = plane.reshape(height, rows, width, columns).mean(axis=(1, 3)) + 0.25
        features = np.resize(plane.mean(axis=1), self._io.features.shape[-1])
        return Outputs(
            logit=float(cam.mean()),
            features=features.astype(np.float32),
            cam=cam.astype(np.float32),
        )

    @property
    def closed(self) -> bool:
        return not self._open

    def close(self) -> None:
        self._open = False
