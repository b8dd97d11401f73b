"""POST /v2/models/{model}[/versions/{version}]/infer, the hot path: one hop to a worker thread.

A tensor goes to the bare network and its raw outputs come back. An `application/dicom` body is our
extension: the full result document, and nothing is stored.
"""

import json
import re
import time

from bedside_core.errors import NotFoundError, UnsupportedMediaTypeError
from bedside_edge.api import body, oip
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.reply import JSON, Reply, Request, content_length, media_type
from bedside_edge.api.services import Analysis, ServedModel
from bedside_edge.config import Http

PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
DICOM = "application/dicom"
_TENSORS = ("", "application/json", "application/octet-stream")


def require_model(model: ServedModel, name: str, version: str = "") -> ServedModel:
    """Return the served model if the path names it.

    Raises:
        NotFoundError: another name or version.
    """
    manifest = model.manifest
    if name != manifest.name or version not in ("", manifest.version):
        raise NotFoundError("no such model is served")
    return model


class InferHandler:
    """Answers inference requests without the framework in between."""

    def __init__(
        self, analysis: Analysis, pool: WorkPool, metrics: Metrics, settings: Http
    ) -> None:
        self._analysis, self._pool = analysis, pool
        self._metrics, self._settings = metrics, settings

    async def __call__(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            BedsideError: the leaf that says what is wrong.
        """
        named = PATH.fullmatch(request.path)
        if named is None:
            raise NotFoundError("no such model is served")
        require_model(self._analysis.model, named[1], named[2] or "")
        if request.headers.get(b"content-encoding", b"identity") != b"identity":
            raise UnsupportedMediaTypeError("compressed bodies are not taken")
        kind = media_type(request.headers)
        idle_s = self._settings.upload_idle_s
        if kind == DICOM:
            data = await body.whole(request, self._settings.max_body_bytes, idle_s)
            return await self._pool.run(self._dicom, data)
        if kind not in _TENSORS:
            raise UnsupportedMediaTypeError(
                "an inference body is JSON, JSON with binary tensors, or application/dicom"
            )
        head = oip.json_length(request.headers, content_length(request.headers))
        data = await body.whole(request, self._settings.max_tensor_bytes, idle_s, head or 0)
        return await self._pool.run(self._tensor, data, head)

    def _tensor(self, data: memoryview, head: int | None) -> Reply:
        started = time.perf_counter()
        manifest = self._analysis.model.manifest
        call = oip.read_call(data, head, manifest.io)
        reply = oip.write_reply(call, self._analysis.infer_tensor(call.tensor), manifest)
        self._metrics.inferred("tensor", time.perf_counter() - started)
        return reply

    def _dicom(self, data: memoryview) -> Reply:
        started = time.perf_counter()
        document = self._analysis.analyse_object(bytes(data))
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        self._metrics.inferred("dicom", time.perf_counter() - started)
        return Reply(status=200, body=text, content_type=JSON)
