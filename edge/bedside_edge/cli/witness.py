"""`bedside-edge evidence witness` and `evidence continue`: who cosigns whom, and the way on.

With `--url` the commands ask the running box; without it they work on the folder of a stopped one.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from bedside_core.access import Action
from bedside_core.errors import NotFoundError
from bedside_edge.cli.access import Where, over_http, where_options
from bedside_edge.cli.people import persons
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging

if TYPE_CHECKING:
    from bedside_edge.services.access import AccessService
    from bedside_edge.store.state import State

Json = dict[str, Any]


@click.group()
def witness() -> None:
    """Witnesses: boxes that cosign each other's logs, so that no copy goes on unseen."""


@witness.command("add")
@click.argument("keys", metavar="KEY_OR_FILE...", nargs=-1, required=True)
@where_options
def add_log(keys: tuple[str, ...], as_json: bool, **where: Unpack[Where]) -> None:
    """Let this box cosign the log with these keys: what `evidence keys` prints at that box.

    Get the keys by another way than from whoever asks to be cosigned. A log is enrolled for ever;
    one that goes on after a gap has a new name and is enrolled again, by a decision of yours.

    \b
    Examples:
      bedside-edge evidence witness add box-a.vkeys --url https://box-b:8642 --token-file admin
      bedside-edge evidence witness add box-a.vkeys --state /var/lib/bedside
    """
    from bedside_edge.cli.evidence import read_keys

    texts = [key.text for key in read_keys(keys)]
    if where["url"]:
        made = over_http(where)("POST", "/witness/logs", {"keys": texts})
        origin = made["origin"]
    else:
        with _stopped(**where) as (state, _):
            from bedside_edge.services.access import CONSOLE

            origin = _service(state).enrol(texts, CONSOLE.actor_id)
    click.echo(json.dumps({"origin": origin}) if as_json else f"{origin} may be cosigned here")


@witness.command("list")
@where_options
def list_logs(as_json: bool, **where: Unpack[Where]) -> None:
    """List the logs this box cosigns, and the checkpoints it refused and keeps as proof.

    \b
    Examples:
      bedside-edge evidence witness list --state /var/lib/bedside
    """
    found = _view(**where)
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["logs"]:
        size = "never cosigned" if one["size"] is None else f"cosigned at {one['size']}"
        click.echo(f"{one['origin']}  {size}")
    for one in found["refused"]:
        click.echo(
            f"REFUSED  {one['origin']}  {one['why']}: size {one['size']} after {one['last']},"
            f" {_time(one['at'])}"
        )
    click.echo(f"{len(found['logs'])} logs, {len(found['refused'])} refused checkpoints")


@witness.command("keys")
@where_options
def show_keys(as_json: bool, **where: Unpack[Where]) -> None:
    """Print the keys this box cosigns with, one a line: what goes into the settings of others.

    \b
    Examples:
      bedside-edge evidence witness keys --url https://box-b:8642 --token-file admin > box-b.vkeys
    """
    found = _view(**where)
    if as_json:
        click.echo(json.dumps({"keys": found["keys"]}))
        return
    for key in found["keys"]:
        click.echo(key)


@witness.command("status")
@where_options
def show_status(as_json: bool, **where: Unpack[Where]) -> None:
    """Say how the log of this box stands with its witnesses; exits 5 when it is locked.

    \b
    Examples:
      bedside-edge evidence witness status --url http://127.0.0.1:8642 --token-file admin.token
      bedside-edge evidence witness status --state /var/lib/bedside
    """
    if where["url"]:
        _say_status(over_http(where)("GET", "/evidence/witnesses"), as_json)
        return
    with _stopped(**where) as (state, config):
        from bedside_edge.api.routes_witness import witnesses_view
        from bedside_edge.services.witnessing import Witnessing
        from bedside_edge.system.clock import SystemClock
        from bedside_edge.wiring import load_witnesses

        witnesses, enough = load_witnesses(config.evidence)
        service = Witnessing(state.witnessed, witnesses, SystemClock(), policy=enough)
        found = witnesses_view(service.status()).model_dump(mode="json")
    _say_status(found, as_json)


@witness.command("sync")
@where_options
def sync(as_json: bool, **where: Unpack[Where]) -> None:
    """Let a running box send a new checkpoint to every witness now.

    \b
    Examples:
      bedside-edge evidence witness sync --url http://127.0.0.1:8642 --token-file admin.token
    """
    if not where["url"]:
        raise click.UsageError("--url: a running box asks its witnesses")
    _say_status(over_http(where)("POST", "/evidence/witnesses:sync"), as_json)


@click.command("continue")
@click.option("--login", required=True, help="Who decides: an administrator, or one of two")
@click.option("--with", "other", default="", help="The other person")
@click.option("--reason", required=True, help="Why the copies differ, in a sentence")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings")
@click.option("--state", type=click.Path(path_type=Path), help="State folder, no box on it")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def continue_log(
    login: str,
    other: str,
    reason: str,
    config_path: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Let the locked log of a stopped box go on under a new name.

    For a box that a witness caught as restored, cloned or changed. Do it on one copy and destroy
    the others. The old log stays, readable and provable; the first entry of the new one names
    where it ended. Witnesses enrol the new keys, and those this box is witness of trust it anew.

    \b
    Examples:
      bedside-edge evidence continue --login admin --reason "restored after a disk failure"
      bedside-edge evidence continue --login ada --with bert --reason "clone destroyed"
    """
    if not reason.strip():
        raise click.UsageError("--reason: in a sentence")
    where = Where(config_path=config_path, state=state, url="", token="", token_file=None)
    with _stopped(**where) as (opened, config):
        from bedside_edge.state_folder import access_service
        from bedside_edge.state_folder import continue_log as go_on
        from bedside_edge.system.clock import SystemClock
        from bedside_edge.system.random_os import OsRandom

        clock, random = SystemClock(), OsRandom()
        access = access_service(config, opened, clock, random)
        people = deciders(access, login, other)
        name = go_on(opened, clock, random, people, reason)
    if as_json:
        click.echo(json.dumps({"origin": name}))
        return
    click.echo(f"the log goes on as {name}; hand its keys (`evidence keys`) to its witnesses")


def deciders(access: "AccessService", login: str, other: str) -> list[str]:
    """Return who decides: one administrator, or two persons who manage incidents."""
    from bedside_core.access import Role

    found = persons(access, [login, *filter(None, [other])], Action.MANAGE_INCIDENT)
    if len({actor.actor_id for actor in found}) < 2 and Role.ADMINISTRATOR not in found[0].roles:
        raise click.UsageError("--with: two persons, or one administrator")
    return [actor.actor_id for actor in found]


@contextmanager
def _stopped(**where: Unpack[Where]) -> "Iterator[tuple[State, Any]]":
    from bedside_edge.state_folder import open_folder
    from bedside_edge.store.state import DATABASE
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom

    set_up_logging(level="error", style="plain")
    config, folder = load_config(where["config_path"])
    path = where["state"] or folder
    if not (path / DATABASE).is_file():
        raise NotFoundError(f"there is no {DATABASE} in {path}")
    state = open_folder(config, path, SystemClock(), OsRandom())
    try:
        yield state, config
    finally:
        state.close()


def _service(state: "State") -> Any:  # noqa: ANN401  WitnessService, imported late
    from bedside_edge.state_folder import witness_service
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom

    return witness_service(state, SystemClock(), OsRandom(), lambda reason: None)


def _view(**where: Unpack[Where]) -> Json:
    if where["url"]:
        return over_http(where)("GET", "/witness")
    from bedside_edge.api.routes_witness import witness_view

    with _stopped(**where) as (state, _):
        return dict(witness_view(_service(state)).model_dump(mode="json"))


def _say_status(found: Json, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
    else:
        click.echo(f"{found['origin']}: {found['size']} entries, sent at {found['sent']}")
        for one in found["witnesses"]:
            when = f", {_time(one['cosigned_at'])}" if one["cosigned_at"] else ""
            trouble = f"; {one['failures']} tries failed" if one["failures"] else ""
            said = one["said"] or "not asked yet"
            click.echo(f"  {one['name']}  cosigned at {one['size']}{when}  ({said}{trouble})")
        click.echo(f"  enough of them have seen size {found['witnessed']}")
        if gap := found["gap"]:
            click.echo(
                f"LOCKED: {gap['witness']} showed size {gap['witnessed_size']} signed by this box,"
                f" which has {gap['size']} entries of its own; see docs/witness.md"
            )
    if found["locked"]:
        raise click.exceptions.Exit(5)


def _time(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at / 1000))
