"""`bedside-edge update`: what this site is to run, fetched, tried and taken back.

Without `--url` the commands open the state folder themselves, which works while no box has it
open; with `--url` they ask the running box.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from bedside_core.errors import NotFoundError, RefusedError
from bedside_edge.cli.access import Where, over_http, where_options, while_a_box_runs
from bedside_edge.config import Config, load_config
from bedside_edge.logs import set_up_logging

if TYPE_CHECKING:
    from bedside_edge.ports import Clock
    from bedside_edge.store.state import State
    from bedside_edge.updating import Updating

Json = dict[str, Any]
_POLL_S = 0.3
_STICK = click.option(
    "--from",
    "stick",
    type=click.Path(path_type=Path),
    help="Folder of a stick instead of the hub; with --url, as the box sees it",
)


@click.group()
def update() -> None:
    """What this site is to run: look, fetch, install, go back.

    \b
    A night by hand:  update check, update fetch, update install, update status
    """


@update.command("check")
@_STICK
@where_options
def check(stick: Path | None, as_json: bool, **where: Unpack[Where]) -> None:
    """Look what this site is to run and say of each item whether it may be installed.

    Nothing is fetched. Exits 3 when the repository or an item is refused.

    \b
    Examples:
      bedside-edge update check --state /var/lib/bedside
      bedside-edge update check --from /media/usb --url http://127.0.0.1:8642 --token-file FILE
    """
    _end(_look(stick, as_json, where, fetch=False), as_json)


@update.command("fetch")
@_STICK
@where_options
def fetch(stick: Path | None, as_json: bool, **where: Unpack[Where]) -> None:
    """Look, then fetch the content of what may be installed. Cut at any point, it goes on.

    Only pieces the box does not hold yet come over the network. Nothing is installed.

    \b
    Examples:
      bedside-edge update fetch --state /var/lib/bedside
      bedside-edge update fetch --from /media/usb --state /var/lib/bedside
    """
    _end(_look(stick, as_json, where, fetch=True), as_json)


def _look(stick: Path | None, quiet: bool, where: Where, *, fetch: bool) -> Json:
    set_up_logging(level="error", style="plain")
    if not where["url"]:
        with _offline(where) as updating:
            return _here(updating, stick, quiet, fetch=fetch)
    ask = over_http(where)
    verb = "fetch" if fetch else "check"
    found = ask("POST", f"/updates:{verb}", {"stick": str(stick)} if stick else {})
    with _bar(quiet or not fetch) as tell:
        while found["running"]:
            time.sleep(_POLL_S)
            found = ask("GET", "/updates")
            tell(found["done"], found["total"])
    return found


def _here(updating: "Updating", stick: Path | None, quiet: bool, *, fetch: bool) -> Json:
    """Look in this process, so that an error of the box is an error of the command."""
    from bedside_edge.services.access import CONSOLE

    with updating.source(stick, anywhere=True) as source:
        if fetch:
            with _bar(quiet) as tell:
                updating.service.fetch(source, CONSOLE.actor_id, tell)
        else:
            updating.service.check(source, CONSOLE.actor_id)
    return updating.told()


def _end(found: Json, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
    elif found["ended"]:
        click.echo(f"bedside-edge: {found['detail']} [{found['ended']}]", err=True)
    else:
        _table(found)
    if found["ended"] or any(item["code"] for item in found["items"]):
        sys.exit(RefusedError.exit_code)


def _table(found: Json) -> None:
    click.echo(f"site {found['site']}, assignment {found['serial']}")
    if not found["items"]:
        click.echo("nothing is assigned")
        return
    drawn = Table(box=None, pad_edge=False)
    for name in ("package", "version", "release", "MB", "", ""):
        drawn.add_column(name, overflow="fold")
    for item in found["items"]:
        state = item["code"] or ("fetched" if item["here"] else "not fetched yet")
        drawn.add_row(
            item["path"],
            item["version"] or "-",
            str(item["release_counter"] or "-"),
            f"{item['size'] / 1e6:.1f}",
            state,
            item["reason"],
        )
    Console().print(drawn)


@contextmanager
def _bar(quiet: bool) -> Iterator[Any]:
    bars = Progress(
        TextColumn("fetch"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        disable=quiet,
        transient=True,
    )
    with bars:
        task = bars.add_task("fetch", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def _offline(where: Where) -> "Iterator[Updating]":
    """Lend the updates of a folder that no box has open.

    Raises:
        NotFoundError: there is no box in the folder.
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    from bedside_edge.flashing import chunk_store, flashing_service
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.updating import Updating, update_service
    from bedside_edge.wiring import policy_service

    clock = SystemClock()
    config, folder, state = box_folder(where, clock)
    try:
        flashing = flashing_service(
            config,
            state,
            clock,
            None,
            lambda: policy_service(config.policy, folder, state.policies, clock),
        )
        chunks = chunk_store(config, folder)
        service = update_service(config, state, clock, chunks, flashing.running)
        yield Updating(service, config, state)
    finally:
        state.close()


def box_folder(where: Where, clock: "Clock") -> tuple[Config, Path, "State"]:
    """Open the folder of a box that is there; returns settings, folder and state, to be closed.

    Raises:
        NotFoundError: there is no box in the folder.
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    from bedside_edge.state_folder import open_folder
    from bedside_edge.system.random_os import OsRandom

    config, named = load_config(where["config_path"])
    folder = where["state"] or Path(named)
    if not (folder / "bedside.db").is_file():
        raise NotFoundError(f"there is no bedside.db in {folder}; name the box's with --state")
    with while_a_box_runs():
        return config, folder, open_folder(config, folder, clock, OsRandom())
