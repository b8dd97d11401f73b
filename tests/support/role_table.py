"""The routes of the application with the action each needs, read from the application itself."""

import re
from dataclasses import dataclass

from fastapi import FastAPI

from bedside_core.access import ALLOWED, Action, Role
from bedside_edge.api.shell import Shell


@dataclass(frozen=True)
class Way:
    """One method of one route."""

    method: str
    template: str
    action: Action | None
    open: bool

    @property
    def path(self) -> str:
        """A path that leads there; what fills the braces names nothing."""
        return re.sub(r"\{[^}]*\}", "x", self.template.replace("{change}", "load"))


def shell_of(app: FastAPI) -> dict:
    """What the application hands its shell: hot routes, doors and the rest."""
    return next(one.kwargs for one in app.user_middleware if one.cls is Shell)


def ways(app: FastAPI) -> list[Way]:
    """Every method of every route, the hot ones too."""
    shell = shell_of(app)
    hot = [Way("POST", one.template, one.action, open=False) for one in shell["hot"]]
    plain = [
        Way(method, door.template, door.action, door.open)
        for door in shell["doors"].all()
        for method in sorted(door.methods or {"GET"})
        if method != "HEAD"
    ]
    return sorted(hot + plain, key=lambda way: (way.template, way.method))


def roles_table() -> str:
    """Which role may do what, as in docs/access.md."""
    head = "| action | " + " | ".join(role.value for role in Role) + " |"
    rows = [
        f"| `{action.value}` | "
        + " | ".join("yes" if action in ALLOWED[role] else "" for role in Role)
        + " |"
        for action in Action
    ]
    return "\n".join([head, "| --- " * (len(Role) + 1) + "|", *rows])


def routes_table(app: FastAPI) -> str:
    """What every route needs, as in docs/access.md."""
    rows = [
        f"| `{way.method} {way.template}` | {'open' if way.open else f'`{way.action}`'} |"
        for way in ways(app)
    ]
    return "\n".join(["| route | needs |", "| --- | --- |", *rows])
