"""The outermost layer: who may ask, under which id, how it ended; and the way of the hot routes.

A pure ASGI application around FastAPI. It refuses requests that name another machine, mints the
request id, turns every error into an answer, counts, and hands bulk routes to raw handlers that
never build a framework request.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bedside_core.access import Action, Actor
from bedside_core.errors import BedsideError, ForeignRequestError, NotReadyError, TooLargeError
from bedside_edge.api.errors import error_reply
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.reply import ClientGoneError, RawHeaders, Reply, Request, content_length
from bedside_edge.ports import RandomBytes

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Reply]]

UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MAX_PLAIN_BODY = 4 << 20  # bytes of a request that is no upload: a few fields of JSON
_CLIENT_GONE = 499  # nobody sees it; it counts uploads that broke off
_OWN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HERE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_ORIGIN_HERE = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_LOCAL = Actor(actor_id="system:local", name="local", actions=frozenset(Action))
_SAME_SITE = {b"same-origin", b"none"}

# results are about patients: no proxy and no browser keeps them
_ALWAYS: RawHeaders = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class HotRoute:
    """A POST route that goes to a raw handler."""

    def __init__(self, template: str, path: re.Pattern[str], handler: Handler) -> None:
        self.template, self.path, self.handler = template, path, handler


class _Exchange:
    """Adds the standing headers to an answer and remembers how it went."""

    __slots__ = ("_echo", "_send", "status")

    def __init__(self, send: Send, echo: bytes) -> None:
        self._send, self._echo = send, echo
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self._echo), *_ALWAYS]
            message = {**message, "headers": headers}
        await self._send(message)


class Shell:
    """ASGI middleware; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hot: Sequence[HotRoute],
        metrics: Metrics,
        random: RandomBytes,
        stopping: Callable[[], bool],
    ) -> None:
        self._app, self._hot = app, hot
        self._metrics, self._random, self._stopping = metrics, random, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        started = time.perf_counter()
        request_id = self._random(8).hex()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        echo = headers.get(b"x-request-id", b"")
        exchange = _Exchange(send, echo if _OWN_ID.fullmatch(echo) else request_id.encode())
        scope.setdefault("state", {})["request_id"] = request_id
        scope["state"]["actor"] = _LOCAL
        hot = self._find(scope)
        try:
            self._admit(headers)
            if hot is None:
                await self._app(scope, _bounded(receive, headers), exchange)
            else:
                reply = await hot.handler(Request.of(scope, headers, receive, request_id))
                await reply.send(exchange)
        except ClientGoneError:
            exchange.status = exchange.status or _CLIENT_GONE
        except Exception as error:  # the boundary: whatever happened, the client gets an answer
            await self._failed(error, scope, exchange, request_id)
        template = hot.template if hot else _template(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        seconds = time.perf_counter() - started
        self._metrics.request(template, method, exchange.status or 500, seconds)

    def _admit(self, headers: dict[bytes, bytes]) -> None:
        check_origin(headers)
        if self._stopping():
            raise NotReadyError("the service is stopping")

    def _find(self, scope: Scope) -> HotRoute | None:
        if scope["method"] == "POST":
            for route in self._hot:
                if route.path.fullmatch(scope["path"]):
                    return route
        return None

    async def _failed(
        self, error: Exception, scope: Scope, exchange: _Exchange, request_id: str
    ) -> None:
        reply = error_reply(error, scope["path"], request_id)
        if not isinstance(error, BedsideError):
            log.error("unforeseen error", extra={"request": request_id}, exc_info=error)
        elif reply.status >= 500:
            log.warning("request failed", extra={"request": request_id, "code": error.code})
        if exchange.status:  # half an answer is out: only a broken connection tells the client
            raise ConnectionAbortedError
        await reply.send(exchange)


def check_origin(headers: dict[bytes, bytes]) -> None:
    """Refuse what a foreign web page could make a browser on this machine send.

    A name that resolves to 127.0.0.1 (DNS rebinding) shows in Host; a form or script of another
    site shows in Origin or Sec-Fetch-Site.

    Raises:
        ForeignRequestError: one of them names another machine.
    """
    if not _HERE.fullmatch(headers.get(b"host", b"").decode("latin-1")):
        raise ForeignRequestError("Host does not name this machine")
    origin = headers.get(b"origin")
    if origin is not None and not _ORIGIN_HERE.fullmatch(origin.decode("latin-1")):
        raise ForeignRequestError("Origin is another site")
    if headers.get(b"sec-fetch-site", b"none") not in _SAME_SITE:
        raise ForeignRequestError("the request comes from another site")


def _bounded(receive: Receive, headers: dict[bytes, bytes]) -> Receive:
    """Return `receive` with an end: the framework gathers a whole body before it looks at it.

    Raises:
        TooLargeError: more is announced; on reading, when more comes.
    """
    if (content_length(headers) or 0) > _MAX_PLAIN_BODY:
        raise TooLargeError(f"the body is larger than {_MAX_PLAIN_BODY} bytes")
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > _MAX_PLAIN_BODY:
            raise TooLargeError(f"the body is larger than {_MAX_PLAIN_BODY} bytes")
        return message

    return bounded


def _template(scope: Scope) -> str:
    """Return the template of the route that answered: a path itself may hold a UID."""
    return str(getattr(scope.get("route"), "path", UNMATCHED))
