"""The outermost layer: who may ask, under which id, how it ended; and the way of the hot routes.

A pure ASGI application around FastAPI. It refuses requests that name another machine, mints the
request id, turns every error into an answer, counts, and hands bulk routes to raw handlers that
never build a framework request.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bedside_core.access import Action
from bedside_core.errors import (
    BedsideError,
    ForbiddenError,
    ForeignRequestError,
    InvalidInputError,
    NotReadyError,
    TimedOutError,
    TooLargeError,
    UnauthenticatedError,
)
from bedside_edge.api.auth import (
    Authenticator,
    Who,
    check_csrf,
    login_address,
    needs_csrf,
    wants_page,
)
from bedside_edge.api.doors import Door, Doors
from bedside_edge.api.errors import error_reply
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.reply import ClientGoneError, RawHeaders, Reply, Request, content_length
from bedside_edge.ports import RandomBytes

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Reply]]

ErrorPage = Callable[[Scope, BedsideError], Reply]  # for people; programs get a problem

UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MAX_PLAIN_BODY = 4 << 20  # bytes of a request that is no upload: a few fields of JSON
_CLIENT_GONE = 499  # nobody sees it; it counts uploads that broke off
_OWN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HERE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_ONCE: Final = frozenset(
    {
        b"host",
        b"origin",
        b"authorization",
        b"cookie",
        b"content-type",
        b"content-length",
        b"x-csrf-token",
        b"idempotency-key",
        b"sec-fetch-site",
    }
)
_SAME_SITE = {b"same-origin", b"none"}

# Results are about patients: no proxy and no browser keeps them, no page of another site frames
# them or runs a script beside them.
_KEPT_BY_NOBODY: Final = (b"cache-control", b"no-store")
_ALWAYS: Final[RawHeaders] = [
    _KEPT_BY_NOBODY,
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        b"object-src 'none'",
    ),
    (b"x-frame-options", b"DENY"),
    # not no-referrer: browsers would then send `Origin: null` with our own forms
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")


class HotRoute:
    """A POST route that goes to a raw handler, and the action it needs."""

    def __init__(
        self, template: str, path: re.Pattern[str], handler: Handler, action: Action
    ) -> None:
        self.template, self.path, self.handler, self.action = template, path, handler, action


class _Exchange:
    """Adds the standing headers to an answer and remembers how it went.

    A stream of events goes on while whoever opened it may still read it: `still` is asked before
    each event, and the heartbeat makes it at most 15 seconds until a log-out ends the stream.
    """

    __slots__ = ("_echo", "_https", "_send", "_streams", "ended", "status", "still")

    def __init__(self, send: Send, echo: bytes, https: bool) -> None:
        self._send, self._echo, self._https = send, echo, https
        self.status = 0
        self.still: Callable[[], bool] | None = None
        self._streams = self.ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", ())
            self._streams = any(
                name == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in given
            )
            headers = [*given, (b"x-request-id", self._echo), *_ALWAYS]
            if any(
                name == b"cache-control" and value.startswith(b"public") for name, value in given
            ):
                headers.remove(_KEPT_BY_NOBODY)  # files of the pages: nothing of a patient
            if self._https:
                headers.append(_HSTS)
            message = {**message, "headers": headers}
        elif self._streams and self.still is not None and not self.still():
            self.ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            raise ConnectionAbortedError
        await self._send(message)


class Shell:
    """ASGI middleware; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hot: Sequence[HotRoute],
        doors: Doors,
        authenticator: Authenticator,
        metrics: Metrics,
        random: RandomBytes,
        stopping: Callable[[], bool],
        names: Iterable[str] = (),
        error_page: ErrorPage | None = None,
        idle_s: float = 30.0,
    ) -> None:
        self._idle_s = idle_s
        self._error_page = error_page
        self._app, self._hot, self._doors, self._authenticator = app, hot, doors, authenticator
        self._metrics, self._random, self._stopping = metrics, random, stopping
        self._names = frozenset(name.lower() for name in names)

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
        echo = echo if _OWN_ID.fullmatch(echo) else request_id.encode()
        exchange = _Exchange(send, echo, scope["scheme"] == "https")
        scope.setdefault("state", {})["request_id"] = request_id
        hot = self._find(scope)
        door = self._doors.find(scope) if hot is None else None
        try:
            self._admit(scope, headers)
            who = self._let_in(scope, headers, hot, door)
            exchange.still = lambda: self._still(scope, headers, door, who)
            if hot is None:
                plain = _bounded(receive, headers, self._idle_s)
                if needs_csrf(scope["method"], who):
                    plain = await check_csrf(who, headers, plain)
                await self._app(scope, plain, exchange)
            else:
                if needs_csrf(scope["method"], who):  # a form is read for it: no upload is one
                    await check_csrf(who, headers, _bounded(receive, {}, self._idle_s))
                reply = await hot.handler(Request.of(scope, headers, receive, request_id))
                await reply.send(exchange)
        except ClientGoneError:
            exchange.status = exchange.status or _CLIENT_GONE
        except Exception as error:  # the boundary: whatever happened, the client gets an answer
            if not exchange.ended:
                await self._failed(error, scope, headers, exchange, request_id)
        template = hot.template if hot else door.template if door else UNMATCHED
        method = scope["method"] if scope["method"] in _METHODS else "other"
        seconds = time.perf_counter() - started
        self._metrics.request(template, method, exchange.status or 500, seconds)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        check_once(scope["headers"])
        check_origin(headers, self._names, navigates=_navigates(scope, headers))
        if self._stopping():
            raise NotReadyError("the service is stopping")

    def _let_in(
        self, scope: Scope, headers: dict[bytes, bytes], hot: HotRoute | None, door: Door | None
    ) -> Who:
        """Recognise who asks and check that they may; deny by default.

        Raises:
            UnauthenticatedError: nobody was recognised, and the route is not open. Said of paths
                that do not exist, too: who is nobody learns nothing.
            ForbiddenError: they may not, or the route names no action.
        """
        who = self._authenticator.who(headers, scope)
        scope["state"]["actor"], scope["state"]["session"] = who.actor, who.session
        if door is not None and door.open:
            return Who()  # nothing there is done in anybody's name
        if who.actor is None:
            shown = "what was shown does not count, or not any more"
            raise UnauthenticatedError(shown if who.shown else "log in, or send a token")
        action = hot.action if hot else door.action if door else Action.VIEW_OWN
        if action is None:
            log.error("route without an action", extra={"route": door.template if door else ""})
            raise ForbiddenError("nobody may do this: the route names no action")
        if hot or door:  # without either the framework answers that there is no such resource
            who.actor.must(action)
        return who

    def _still(
        self, scope: Scope, headers: dict[bytes, bytes], door: Door | None, who: Who
    ) -> bool:
        """Whether whoever opened a stream may still read it; a log-out ends it as well."""
        if who.actor is None or door is None or door.action is None:
            return True
        now = self._authenticator.who(headers, scope, used=False).actor
        return now is not None and now.may(door.action)

    def _find(self, scope: Scope) -> HotRoute | None:
        if scope["method"] == "POST":
            for route in self._hot:
                if route.path.fullmatch(scope["path"]):
                    return route
        return None

    async def _failed(
        self,
        error: Exception,
        scope: Scope,
        headers: dict[bytes, bytes],
        exchange: _Exchange,
        request_id: str,
    ) -> None:
        reply = error_reply(error, scope["path"], request_id)
        if isinstance(error, UnauthenticatedError):
            reply = _to_log_in(reply, scope, headers)
        elif self._error_page and isinstance(error, BedsideError) and in_browser(scope, headers):
            reply = self._error_page(scope, error)
        if not isinstance(error, BedsideError):
            log.error("unforeseen error", extra={"request": request_id}, exc_info=error)
        elif reply.status >= 500:
            log.warning("request failed", extra={"request": request_id, "code": error.code})
        if exchange.status:  # half an answer is out: only a broken connection tells the client
            raise ConnectionAbortedError
        await reply.send(exchange)


def check_once(headers: RawHeaders) -> None:
    """Refuse a request that says twice what it can say once (RFC 9112, 3.2; RFC 9110, 5.3).

    One part of the service would look at the first, another at the last: who passes the check of
    `Host` with one must not be answered under the other.

    Raises:
        InvalidInputError: it does.
    """
    names = [name for name, _ in headers if name in _ONCE]
    if len(names) != len(set(names)):
        raise InvalidInputError("a header that may come once comes twice")


def check_origin(
    headers: dict[bytes, bytes], names: frozenset[str] = frozenset(), *, navigates: bool = False
) -> None:
    """Refuse what a foreign web page could make a browser send.

    A name of the attacker's that resolves to the box (DNS rebinding) shows in Host; a form or
    script of another site shows in Origin or Sec-Fetch-Site.

    Args:
        headers: of the request.
        names: host names of the box beside those of this machine, lower case.
        navigates: a person followed a link to a page; that may come from another site.

    Raises:
        ForeignRequestError: one of them names another machine.
    """
    if not _ours(headers.get(b"host", b"").decode("latin-1"), names):
        raise ForeignRequestError("Host does not name this machine")
    origin = headers.get(b"origin")
    if origin is not None:
        scheme, _, host = origin.decode("latin-1").partition("://")
        if scheme not in ("http", "https") or not _ours(host, names):
            raise ForeignRequestError("Origin is another site")
    if headers.get(b"sec-fetch-site", b"none") not in _SAME_SITE and not navigates:
        raise ForeignRequestError("the request comes from another site")


def in_browser(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether a person sees the answer: a page they asked for, or a form they sent."""
    return wants_page({**scope, "method": "GET"}, headers)


def _ours(host: str, names: frozenset[str]) -> bool:
    if _HERE.fullmatch(host):
        return True
    name, _, port = host.partition(":")
    return name.lower() in names and (not port or (port.isdecimal() and len(port) <= 5))


def _navigates(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    return (
        headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
        and wants_page(scope, headers)
    )


def _to_log_in(reply: Reply, scope: Scope, headers: dict[bytes, bytes]) -> Reply:
    """Return the answer that leads a person to the log-in page, and a program's as it is."""
    where = login_address(scope).encode()
    if wants_page(scope, headers) and b"hx-request" not in headers:
        return Reply(status=303, body=b"", headers=[(b"location", where)])
    if b"hx-request" not in headers:
        return reply
    return Reply(
        status=reply.status,
        body=reply.body,
        content_type=reply.content_type,
        headers=[*reply.headers, (b"hx-redirect", b"/login")],
    )


def _bounded(receive: Receive, headers: dict[bytes, bytes], idle_s: float) -> Receive:
    """Return `receive` with an end: the framework gathers a whole body before it looks at it.

    Nobody has to be known to begin a request, so one that does not go on must not hold a
    connection: silence ends it after `idle_s`, a trickle after four times that.

    Raises:
        TooLargeError: more is announced; on reading, when more comes.
        TimedOutError: on reading, when nothing comes.
    """
    if (content_length(headers) or 0) > _MAX_PLAIN_BODY:
        raise TooLargeError(f"the body is larger than {_MAX_PLAIN_BODY} bytes")
    seen, more = 0, True
    latest = asyncio.get_running_loop().time() + 4 * idle_s

    async def bounded() -> Message:
        nonlocal seen, more
        if not more:  # what comes now is the end of the connection, whenever that is
            return await receive()
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now + idle_s, latest)):
                message = await receive()
        except TimeoutError as cause:
            raise TimedOutError("the sender fell silent in the middle of the body") from cause
        more = bool(message.get("more_body", False))
        seen += len(message.get("body", b""))
        if seen > _MAX_PLAIN_BODY:
            raise TooLargeError(f"the body is larger than {_MAX_PLAIN_BODY} bytes")
        return message

    return bounded
