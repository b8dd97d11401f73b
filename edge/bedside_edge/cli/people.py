"""Who stands at the console of a stopped box: each person types a password of their own."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bedside_core.access import Action, Actor
    from bedside_edge.services.access import AccessService


def persons(access: "AccessService", logins: Iterable[str], must: "Action") -> "list[Actor]":
    """Ask each of `logins` for the password; return who they are.

    Raises:
        BedsideError: a wrong password, or somebody who may not do `must`.
    """
    found = []
    for login in logins:
        password = click.prompt(f"Password of {login}", hide_input=True, err=True)
        session = access.log_in(login, password, "console")
        access.log_out(session.secret)
        session.actor.must(must)
        found.append(session.actor)
    return found
