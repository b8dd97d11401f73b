"""What a route asks of whoever calls it: one action, named where the route is declared.

`Shell` puts the actor into the request's state before any route runs; a request without one never
gets here unless the route is open.
"""

from typing import Any, Final

from fastapi import Depends, Request

from bedside_core.access import Action, Actor
from bedside_core.errors import UnauthenticatedError
from bedside_edge.services.access import Session

ACTION_KEY: Final = "bedside_action"  # attribute of a guarding dependency, for the role matrix


def actor_of(request: Request) -> Actor:
    """Return who asks; UnauthenticatedError when nobody was recognised."""
    actor = getattr(request.state, "actor", None)
    if not isinstance(actor, Actor):
        raise UnauthenticatedError("log in, or send a token")
    return actor


def session_of(request: Request) -> Session | None:
    """Return the session of a person in a browser; None for tokens and systems."""
    session = getattr(request.state, "session", None)
    return session if isinstance(session, Session) else None


def needs(action: Action) -> Any:  # noqa: ANN401  what Depends returns is the framework's own
    """Return the dependency of a route that only lets actors with `action` through.

    Use as `@router.get(..., dependencies=[needs(Action.VIEW_RESULT)])`.
    """

    def check(request: Request) -> None:
        actor_of(request).must(action)

    setattr(check, ACTION_KEY, action)
    return Depends(check)
