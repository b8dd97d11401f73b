"""What every page shares: templates, words, the frame around the content, pages of errors.

A page is a template below `templates/` rendered with the request's language and actor. Handlers
return what `Site.page` gives back; what they raise becomes a page that says what to do.
"""

import hashlib
import importlib.resources
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bedside_core.access import Action, Actor
from bedside_core.errors import BedsideError, InvalidRequestError
from bedside_edge.api.errors import retry_headers, status_of
from bedside_edge.web import language, people

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_YEAR_S: Final = 31_536_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NavItem:
    """One entry of the main navigation, shown to actors who may do `action`."""

    path: str
    key: str  # of the catalogue
    action: Action


# in the order shown; add a page of your own here (docs/pages.md)
NAVIGATION: Final[tuple[NavItem, ...]] = (
    NavItem(path="/", key="nav.worklist", action=Action.VIEW_WORKLIST),
    NavItem(path="/models", key="nav.models", action=Action.MONITOR),
    NavItem(path="/queues", key="nav.queues", action=Action.MANAGE_JOBS),
    NavItem(path="/routes", key="nav.routes", action=Action.MANAGE_RULES),
    NavItem(path="/accounts", key="nav.accounts", action=Action.MANAGE_ACCOUNTS),
    NavItem(path="/agreement", key="nav.agreement", action=Action.READ_AUDIT),
    NavItem(path="/patients", key="nav.patients", action=Action.MANAGE_CONSENT),
    NavItem(path="/privacy", key="nav.privacy", action=Action.READ_PRIVACY),
    NavItem(path="/nights", key="nav.nights", action=Action.READ_PRIVACY),
    NavItem(path="/incidents", key="nav.incidents", action=Action.READ_AUDIT),
    NavItem(path="/system", key="nav.system", action=Action.READ_AUDIT),
)


class PageRoute(APIRoute):
    """A route for people: what goes wrong is a page, not a problem document."""

    def get_route_handler(self) -> _Handler:
        """Wrap the framework's handler, the guard of the route included."""
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                return site().error(request, InvalidRequestError("the address cannot be read"))
            except BedsideError as error:
                return site().error(request, error)

        return page


class Site:
    """Renders pages; made once, safe to use from the event loop."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("bedside_edge.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["asset"] = asset
        self._environment.globals["languages"] = language.LANGUAGES
        self._environment.filters["moment"] = moment
        self._environment.filters["digest"] = grouped
        self._environment.filters["hour"] = hour

    def page(
        self, request: Request, template: str, *, status: int = 200, **values: object
    ) -> HTMLResponse:
        """Return a page or, for a template without a frame, a fragment of one."""
        return HTMLResponse(self.text(request, template, **values), status)

    def text(self, request: Request, template: str, **values: object) -> str:
        """Return a rendered template."""
        actor = person(request)
        return self._environment.get_template(template).render(
            t=words_of(request),
            actor=actor,
            csrf=csrf_of(request),
            here=here(request),
            day=people.date,
            person=lambda name: people.shown(name, words_of(request).language),
            navigation=[item for item in NAVIGATION if actor and actor.may(item.action)],
            start=start_of(actor),
            may=lambda name: actor is not None and actor.may(Action(name)),
            **values,
        )

    def error(self, request: Request, error: BedsideError) -> Response:
        """Return the page of an error: what happened, what to do, and the code for the log."""
        status = status_of(error.code)
        if status == 401 and not is_htmx(request):
            return RedirectResponse("/login?next=" + quote(here(request), safe=""), 303)
        template = "error_part.html" if is_htmx(request) else "error.html"
        response = self.page(
            request, template, status=status, code=error.code, family=family(error), title=status
        )
        for name, value in retry_headers(error.code, status):
            response.headers[name.decode()] = value.decode()
        return response


@cache
def site() -> Site:
    """Return the one site; its templates are read when first needed."""
    return Site()


def family(error: BedsideError) -> str:
    """Return the words an error falls back to: refused, invalid-input or unavailable."""
    codes = [kind.code for kind in type(error).__mro__ if issubclass(kind, BedsideError)]
    return codes[-2] if len(codes) > 1 else codes[-1]


def person(request: Request) -> Actor | None:
    """Return who looks at the page, or None before log-in."""
    actor = getattr(request.state, "actor", None)
    return actor if isinstance(actor, Actor) else None


def start_of(actor: Actor | None) -> str:
    """Return the page an actor begins with: the first of the navigation they may see."""
    if actor is None:
        return "/"
    return next((item.path for item in NAVIGATION if actor.may(item.action)), "/account")


def csrf_of(request: Request) -> str:
    """Return the token that forms of this session carry; empty where there is no session."""
    session = getattr(request.state, "session", None)
    return str(session.csrf) if session is not None else ""


def words_of(request: Request) -> language.Words:
    """Return the catalogue for a request."""
    cookie = request.cookies.get(language.COOKIE, "")
    return language.words(language.choose(cookie, request.headers.get("accept-language", "")))


def is_htmx(request: Request) -> bool:
    """Tell whether a script on the page asks, for a fragment."""
    return request.headers.get("hx-request") == "true"


def here(request: Request) -> str:
    """Return the path and query of the page the person is on, for coming back to it."""
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


def moment(stamp: int) -> Markup:
    """Write a time (ms since 1970) as UTC; the page's script rewrites it in local time."""
    when = datetime.fromtimestamp(stamp / 1000, UTC)
    text = when.strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}">{}</time>').format(when.isoformat(), text)


def hour(stamp: int) -> str:
    """Write the time of day (ms since 1970) in UTC, for drawings that no script rewrites."""
    return datetime.fromtimestamp(stamp / 1000, UTC).strftime("%H:%M UTC")


def grouped(value: str) -> str:
    """Write a digest in groups of eight, as people compare them."""
    kind, _, digits = value.rpartition(":")
    groups = " ".join(digits[start : start + 8] for start in range(0, len(digits), 8))
    return f"{kind} {groups}" if kind else groups


# --- files of the pages ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asset:
    """A file the pages load."""

    body: bytes
    content_type: str
    digest: str


_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@cache
def assets() -> Mapping[str, Asset]:
    """Return every file below `static/` by its path there; only these can be asked for."""
    found: dict[str, Asset] = {}
    root = importlib.resources.files("bedside_edge.web") / "static"
    for folder, prefix in ((root, ""), (root / "vendor", "vendor/")):
        for file in folder.iterdir():
            kind = _TYPES.get("." + file.name.rpartition(".")[2])
            if kind and file.is_file():
                body = file.read_bytes()
                digest = hashlib.sha256(body).hexdigest()[:16]
                found[prefix + file.name] = Asset(body, kind, digest)
    return found


def asset(name: str) -> str:
    """Return the address of a static file; it changes with the content, so it may be kept."""
    return f"/static/{name}?v={assets()[name].digest}"


def asset_response(name: str, version: str) -> Response | None:
    """Return a static file, or None when there is none of that name."""
    found = assets().get(name)
    if found is None:
        return None
    # a stale address still gets the file, but nobody keeps it under the wrong name
    kept = f"public, max-age={_YEAR_S}, immutable" if version == found.digest else "no-cache"
    headers = {"Cache-Control": kept, "ETag": f'"{found.digest}"'}
    return Response(
        found.body, media_type=None, headers={"Content-Type": found.content_type} | headers
    )
