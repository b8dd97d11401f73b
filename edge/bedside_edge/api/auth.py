"""Who asks: a token, a session's cookie, or what the transport knows. And the cookie itself."""

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

from bedside_core.access import Actor
from bedside_core.errors import ForeignRequestError
from bedside_edge.api.reply import media_type
from bedside_edge.services.access import AccessService, Session

ActorFromScope = Callable[[Scope], Actor | None]
Headers = dict[bytes, bytes]

COOKIE: Final = "bedside"
COOKIE_HTTPS: Final = "__Host-bedside"  # only this host, only over TLS: RFC 6265bis 4.1.3.2
BACKGROUND: Final = b"bedside-background"
CSRF_FIELD: Final = "csrf"
LOGIN_PAGE: Final = "/login"

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_EVENTS: Final = b"text/event-stream"
_FORM: Final = "application/x-www-form-urlencoded"
_LOCAL_PATH: Final = re.compile(r"/(?![/\\])[^\x00-\x20\x7f\\]{0,2000}")
_PROGRAMS: Final = ("/api/", "/v2", "/dicom-web", "/metrics", "/openapi.json")


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, as far as it could be told.

    Attributes:
        actor: None when nobody was recognised.
        session: of a person in a browser.
        shown: whether something was shown that does not count any more.
    """

    actor: Actor | None = None
    session: Session | None = None
    shown: bool = False


_NOBODY = Who()
_STALE = Who(shown=True)


class Authenticator:
    """Recognises actors; runs on the event loop, waits for nothing."""

    def __init__(self, access: AccessService, from_scope: ActorFromScope | None = None) -> None:
        """Take the accounts, and what a transport makes of its peer (a client's certificate)."""
        self._access, self._from_scope = access, from_scope

    def who(self, headers: Headers, scope: Scope, *, used: bool = True) -> Who:
        """Return who asks. A token that does not count is not made up for by a cookie.

        A request of a page by itself (a stream of events, a poll that says so in
        `Bedside-Background`) does not count as use of the session.
        """
        authorization = headers.get(b"authorization")
        if authorization is not None:
            kind, _, secret = authorization.decode("latin-1").partition(" ")
            actor = self._access.token(secret.strip()) if kind.lower() == "bearer" else None
            return Who(actor) if actor else _STALE
        secrets = _cookies(headers, COOKIE_HTTPS if scope["scheme"] == "https" else COOKIE)
        if len(secrets) == 1:  # two of a name: one was planted, and nobody can tell which
            used = used and BACKGROUND not in headers and _EVENTS not in headers.get(b"accept", b"")
            session = self._access.session(secrets[0], used=used)
            if session is not None:
                return Who(session.actor, session)
        if self._from_scope is not None and (actor := self._from_scope(scope)) is not None:
            return Who(actor)
        return _STALE if secrets else _NOBODY


def _cookies(headers: Headers, name: str) -> list[str]:
    line = headers.get(b"cookie")
    if line is None:
        return []
    pairs = (part.strip().partition("=") for part in line.decode("latin-1").split(";"))
    return [value for found, _, value in pairs if found == name and value]


# --- cross-site request forgery ------------------------------------------------------------------


def needs_csrf(method: str, who: Who) -> bool:
    """Whether the request could have been sent by a browser on behalf of another site."""
    return who.session is not None and method not in _SAFE


async def check_csrf(who: Who, headers: Headers, receive: Receive) -> Receive:
    """Return `receive` if the request shows the session's token, in its header or form field.

    Raises:
        ForeignRequestError: it does not.
    """
    shown = headers.get(b"x-csrf-token", b"").decode("latin-1")
    if not shown and media_type(headers) == _FORM:
        body, receive = await _read(receive)
        shown = _field(body)
    if who.session is None or not _same(shown, who.session.csrf):
        raise ForeignRequestError("X-CSRF-Token, or the form's field csrf, is not the session's")
    return receive


def _field(body: bytes) -> str:
    try:
        fields = parse_qs(body.decode("latin-1"), max_num_fields=1000)
    except ValueError:  # no form of ours has so many
        return ""
    return fields.get(CSRF_FIELD, [""])[0]


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """Return the whole body, and a `receive` that gives it once more."""
    pieces: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(pieces)
    again: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return again.pop() if again else await receive()

    return body, replay


# --- browsers ------------------------------------------------------------------------------------


def wants_page(scope: Scope, headers: Headers) -> bool:
    """Whether a person's browser asks for a page, so that the log-in page is the better answer."""
    return (
        scope["method"] == "GET"
        and b"text/html" in headers.get(b"accept", b"")
        and not str(scope["path"]).startswith(_PROGRAMS)
    )


def login_address(scope: Scope) -> str:
    """Return where to log in, to come back to the page that was asked for."""
    query = scope["query_string"].decode("latin-1")
    wanted = safe_next(scope["path"] + (f"?{query}" if query else ""))
    return LOGIN_PAGE if wanted == "/" else f"{LOGIN_PAGE}?next={quote(wanted, safe='/')}"


def safe_next(wanted: str) -> str:
    """Return the page to go to after log-in: one of ours, else `/`; never another site's."""
    return wanted if _LOCAL_PATH.fullmatch(wanted) else "/"


def set_cookie(response: Response, request: Request, session: Session) -> None:
    """Hand a new session to the browser."""
    https = request.url.scheme == "https"
    name = COOKIE_HTTPS if https else COOKIE
    response.set_cookie(
        name, session.secret, path="/", secure=https, httponly=True, samesite="strict"
    )


def clear_cookie(response: Response, request: Request) -> None:
    """Take the session away from the browser."""
    https = request.url.scheme == "https"
    name = COOKIE_HTTPS if https else COOKIE
    response.delete_cookie(name, path="/", secure=https, httponly=True, samesite="strict")


def cookie_of(request: Request) -> str:
    """Return the secret in the request's cookie; empty without one."""
    headers = {b"cookie": request.headers.get("cookie", "").encode("latin-1")}
    found = _cookies(headers, COOKIE_HTTPS if request.url.scheme == "https" else COOKIE)
    return found[0] if len(found) == 1 else ""


def address_of(request: Request) -> str:
    """Return the peer's address; what a header says about it is not believed."""
    return request.client.host if request.client else "unknown"
