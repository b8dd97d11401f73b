"""Which action a request needs, before anything of it is read. What names none stays shut.

The table is made from the routes themselves: a route says `dependencies=[needs(Action.X)]`, is in
`OPEN`, or nobody gets in. The framework checks `needs` a second time when the route runs.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute
from starlette.types import Scope

from bedside_core.access import Action
from bedside_edge.api.guard import ACTION_KEY

# Templates that answer whoever asks: health for orchestrators, the way in, and what the way in
# looks like. Nothing here tells of a patient.
OPEN: Final = frozenset(
    {
        "/livez",
        "/readyz",
        "/v2/health/live",
        "/v2/health/ready",
        "/api/v1/login",
        "/api/v1/setup",
        "/login",
        "/login/oidc",
        "/login/oidc/callback",
        "/setup",
        "/static/{name}",
        "/language/{code}",
    }
)
# Routes the framework adds by itself.
OF_FRAMEWORK: Final[Mapping[str, Action]] = {"/openapi.json": Action.MONITOR}


@dataclass(frozen=True, slots=True)
class Door:
    """A route as seen from outside."""

    template: str
    path: re.Pattern[str]
    methods: frozenset[str] | None  # None: any
    action: Action | None  # None: open, or undeclared
    open: bool


class Doors:
    """The doors of an application, read anew when routes are added."""

    def __init__(self, routes: Callable[[], Sequence[BaseRoute]]) -> None:
        self._routes = routes
        self._count = -1
        self._doors: tuple[Door, ...] = ()

    def all(self) -> tuple[Door, ...]:
        """Return every door in the order in which the framework tries them."""
        routes = self._routes()
        if len(routes) != self._count:
            self._doors, self._count = tuple(_doors(routes)), len(routes)
        return self._doors

    def find(self, scope: Scope) -> Door | None:
        """Return the door a request comes to; None when no route has its path.

        A path with another method than its routes answer leads to the first of them.
        """
        other: Door | None = None
        path, method = scope["path"], scope["method"]
        for door in self.all():
            if door.path.match(path):
                if door.methods is None or method in door.methods:
                    return door
                other = other or door
        return other


def _doors(routes: Sequence[BaseRoute]) -> Iterator[Door]:
    for context in iter_route_contexts(routes):
        template, regex = context.path_format or context.path, getattr(context, "path_regex", None)
        if template is None or regex is None:
            continue  # a host or a websocket: the shell takes neither
        methods = getattr(context, "methods", None)
        if methods is None:  # a mount answers everything below it
            template = template.removesuffix("/{path}")
        yield Door(
            template=template,
            path=regex,
            methods=frozenset(methods) if methods else None,
            action=OF_FRAMEWORK.get(template) or _declared(context),
            open=template in OPEN,
        )


def _declared(context: RouteContext) -> Action | None:
    """Return the one action the route names; None when it names none, or several."""
    found = {
        getattr(one.dependency, ACTION_KEY)
        for one in getattr(context, "dependencies", None) or ()
        if hasattr(one.dependency, ACTION_KEY)
    }
    return found.pop() if len(found) == 1 else None
