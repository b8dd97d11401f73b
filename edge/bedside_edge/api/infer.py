"""POST /v2/models/{model}[/versions/{version}]/infer, the hot path: one hop to a worker thread.

A tensor goes to the bare network and its raw outputs come back. An `application/dicom` body is our
extension: the full result document, and nothing is stored.
"""

import json
import re
import time

from bedside_core.access import Actor
from bedside_core.errors import NotFoundError, UnauthenticatedError, UnsupportedMediaTypeError
from bedside_edge.api import body, oip
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.reply import JSON, Reply, Request, content_length, media_type
from bedside_edge.api.room import Room
from bedside_edge.api.services import Analysis, Models
from bedside_edge.config import Http
from bedside_edge.services.gate import Gate, asker_of

PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
DICOM = "application/dicom"
_TENSORS = ("", "application/json", "application/octet-stream")


class InferHandler:
    """Answers inference requests without the framework in between."""

    path = PATH

    def __init__(
        self,
        models: Models,
        gate: Gate,
        pool: WorkPool,
        metrics: Metrics,
        settings: Http,
        room: Room,
    ) -> None:
        self._room = room
        self._models, self._pool, self._gate = models, pool, gate
        self._metrics, self._settings = metrics, settings

    async def __call__(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            BedsideError: the leaf that says what is wrong.
        """
        named = self.path.fullmatch(request.path)
        if named is None:
            raise NotFoundError("no such model is loaded")
        name, version = named[1], named[2] or ""
        self._models.model(name, version)  # no body is read for a model that is not there
        if request.headers.get(b"content-encoding", b"identity") != b"identity":
            raise UnsupportedMediaTypeError("compressed bodies are not taken")
        kind = media_type(request.headers)
        idle_s = self._settings.upload_idle_s
        if kind == DICOM:
            limit = min(self._settings.max_body_bytes, self._room.most_bytes)
            with self._room.body() as take:
                data = await body.whole(request, limit, idle_s, take=take)
                return await self._pool.run(self._on_dicom, request.actor, name, version, data)
        if kind not in _TENSORS:
            raise UnsupportedMediaTypeError(
                "an inference body is JSON, JSON with binary tensors, or application/dicom"
            )
        head = oip.json_length(request.headers, content_length(request.headers))
        data = await body.whole(request, self._settings.max_tensor_bytes, idle_s, head or 0)
        return await self._pool.run(self._on_tensor, request.actor, name, version, data, head)

    def answer_tensor(self, analysis: Analysis, data: memoryview, head: int | None) -> Reply:
        """Return the raw outputs for a tensor."""
        manifest = analysis.model.manifest
        call = oip.read_call(data, head, manifest.io)
        return oip.write_reply(call, analysis.infer_tensor(call.tensor), manifest)

    def answer_dicom(self, analysis: Analysis, data: bytes) -> Reply:
        """Return the result document for a Part 10 object."""
        document = analysis.analyse_object(data)
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        return Reply(status=200, body=text, content_type=JSON)

    def _ask(self, actor: Actor | None) -> None:
        """Return when the policy lets a model read what this caller hands it."""
        if actor is None:
            raise UnauthenticatedError("log in, or send a token")
        self._gate.request(asker_of(actor)).must()

    def _on_tensor(
        self, actor: Actor | None, name: str, version: str, data: memoryview, head: int | None
    ) -> Reply:
        started = time.perf_counter()
        self._ask(actor)
        with self._models.use(name, version) as analysis:
            reply = self.answer_tensor(analysis, data, head)
        self._metrics.inferred("tensor", time.perf_counter() - started)
        return reply

    def _on_dicom(self, actor: Actor | None, name: str, version: str, data: memoryview) -> Reply:
        started = time.perf_counter()
        self._ask(actor)
        with self._models.use(name, version) as analysis:
            reply = self.answer_dicom(analysis, bytes(data))
        self._metrics.inferred("dicom", time.perf_counter() - started)
        return reply
