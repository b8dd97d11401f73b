"""POST /v2/repository/...: which packages the box holds, and loading and unloading them.

Source: Open Inference Protocol; Triton Inference Server, model repository extension.
"""

import json
import re
from typing import Any

from bedside_core.errors import InvalidInputError, NotFoundError
from bedside_edge.api import body, oip
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.reply import Reply, Request
from bedside_edge.api.services import Models
from bedside_edge.config import Http

INDEX_PATH = re.compile(r"/v2/repository/index")
CHANGE_PATH = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")

_MOST_BYTES = 64 << 10
_READY = "READY"
# Files of a package never come in this way: only what lies on the box, checked against its
# manifest, is ever compiled.
_NOT_TAKEN = "a package comes with its own configuration; none is taken with the request"


class IndexHandler:
    """Answers POST /v2/repository/index."""

    def __init__(self, models: Models, pool: WorkPool, settings: Http) -> None:
        self._models, self._pool, self._settings = models, pool, settings

    async def __call__(self, request: Request) -> Reply:
        """Answer one request; `{"ready": true}` leaves out what is not loaded."""
        asked = await _document(request, self._settings)
        ready = asked.get("ready", False)
        if not isinstance(ready, bool):
            raise InvalidInputError("ready must be true or false")
        found = await self._pool.run(self._models.index)
        entries = [
            {
                "name": entry.model.name,
                "version": entry.model.version,
                "state": entry.state,
                "reason": entry.reason,
            }
            for entry in found
            if entry.state == _READY or not ready
        ]
        return Reply(status=200, body=json.dumps(entries).encode())


class ChangeHandler:
    """Answers POST /v2/repository/models/{model}/load and /unload."""

    def __init__(self, models: Models, pool: WorkPool, settings: Http) -> None:
        self._models, self._pool, self._settings = models, pool, settings

    async def __call__(self, request: Request) -> Reply:
        """Answer one request; `parameters.version` names one version.

        Raises:
            NotFoundError: the box holds no such package, or it is not loaded.
            WrongStateError: the model reads the box's studies, or too many are loaded.
            BedsideError: why the package may not serve.
        """
        named = CHANGE_PATH.fullmatch(request.path)
        if named is None:
            raise NotFoundError("no such model")
        asked = oip.parameters(await _document(request, self._settings))
        if any(key == "config" or key.startswith("file:") for key in asked):
            raise InvalidInputError(_NOT_TAKEN)
        version = asked.get("version", "")
        if not isinstance(version, str):
            raise InvalidInputError("parameters.version must be text")
        change = self._models.load if named[2] == "load" else self._models.unload
        await self._pool.run(change, named[1], version)
        return Reply(status=200, body=b"{}")


async def _document(request: Request, settings: Http) -> dict[str, Any]:
    """Return the body as an object; an empty body is an empty one."""
    data = await body.whole(request, _MOST_BYTES, settings.upload_idle_s)
    return oip.json_object(data) if len(data) else {}
