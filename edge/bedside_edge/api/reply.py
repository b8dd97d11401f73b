"""An HTTP request and its answer as plain values, for the handlers that bypass the framework."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from bedside_core.access import Actor

JSON = b"application/json"

RawHeaders = list[tuple[bytes, bytes]]


class ClientGoneError(Exception):
    """The sender hung up in the middle of its body."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a raw handler needs of a request; header names are lower case."""

    path: str
    query: bytes
    headers: dict[bytes, bytes]
    receive: Receive
    request_id: str
    base_url: str
    extensions: Mapping[str, object] = field(default_factory=dict)
    actor: Actor | None = None

    @classmethod
    def of(cls, scope: Scope, headers: dict[bytes, bytes], receive: Receive, rid: str) -> "Request":
        """Return the request of an ASGI scope."""
        host = headers.get(b"host", b"").decode("latin-1")
        return cls(
            path=scope["path"],
            query=scope["query_string"],
            headers=headers,
            receive=receive,
            request_id=rid,
            base_url=f"{scope['scheme']}://{host}",
            extensions=scope.get("extensions") or {},
            actor=scope.get("state", {}).get("actor"),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: RawHeaders = field(default_factory=list)

    async def send(self, send: Send) -> None:
        """Send it."""
        start: Message = {
            "type": "http.response.start",
            "status": self.status,
            "headers": [
                (b"content-type", self.content_type),
                (b"content-length", str(len(self.body)).encode()),
                *self.headers,
            ],
        }
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


def media_type(headers: dict[bytes, bytes]) -> str:
    """Return the Content-Type without its parameters, lower case; empty when absent."""
    value = headers.get(b"content-type", b"").decode("latin-1")
    return value.partition(";")[0].strip().lower()


def content_length(headers: dict[bytes, bytes]) -> int | None:
    """Return Content-Length, or None for a chunked body; the server has checked its form."""
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() else None


Json = dict[str, Any]
