"""`bedside-edge backup drill`: restore a backup beside the box, look at everything, say so."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from bedside_core.errors import BedsideError, InvalidInputError, StoreUnavailableError
from bedside_edge.cli.backup import put_keys, restore, settings
from bedside_edge.config import Config

if TYPE_CHECKING:
    from bedside_edge.store.drills import DrillReport
    from bedside_edge.store.state import State

_PATH = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FAILED = 3


@click.command("drill")
@click.argument("source", metavar="DIR|FILE", type=_PATH)
@click.option("--keys", "keys_file", type=_FILE, help="Export of the keys [default: the box's own]")
@click.option("--identity", type=_FILE, help="AGE-SECRET-KEY file, for what is encrypted with age")
@click.option("--passphrase-file", type=_FILE, help="Of the export, instead of being asked")
@click.option("--scratch", type=_PATH, help="Folder with room to restore into [default: state]")
@click.option("--config", "config_path", type=_PATH, help="Settings")
@click.option("--state", type=_PATH, help="State folder of the box, which may run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; no progress bar")
def drill(
    source: Path,
    keys_file: Path | None,
    identity: Path | None,
    passphrase_file: Path | None,
    scratch: Path | None,
    config_path: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Restore a backup into a scratch folder, check all of it, remove it, and tell the log.

    Opens the restored box, recomputes its evidence log and privacy ledger, applies erasures, and
    decrypts objects. Exits 3 when the backup would not bring the box back. The box's log gets the
    result: at once when no box runs, otherwise within a minute.

    \b
    Examples:
      bedside-edge backup drill /mnt/backup/2026-11-24
      bedside-edge backup drill 2026-11-24.age --keys box-1.keys --identity /media/recovery.txt
    """
    from bedside_edge.store.drills import leave
    from bedside_edge.system.keys import open_box_keys
    from bedside_edge.system.random_os import OsRandom

    config, folder = settings(config_path, state)
    mac = open_box_keys(folder / "keys", OsRandom(), create=False)
    error: BedsideError | None = None
    with TemporaryDirectory(prefix=".drill-", dir=_room(scratch or folder)) as name:
        place = Path(name) / "state"
        place.mkdir(mode=0o700)
        try:
            if keys_file is None:
                copytree(folder / "keys", place / "keys")
            else:
                put_keys(place, keys_file, identity, passphrase_file)
            found = restore(source, place, identity, (), shown=not as_json)
            report = _look(config, place, found.created, found.objects, keys_file is not None)
        except BedsideError as cause:
            error, report = cause, _failed(cause.code, keys_file is not None)
    leave(folder, report, mac)
    told = _tell(config, folder)
    _say(report, error, told=told, as_json=as_json)
    if error is not None:
        sys.exit(_FAILED)


def _look(config: Config, place: Path, made: int, objects: int, exported: bool) -> "DrillReport":
    """Open the restored folder as a box would, and go over everything in it."""
    from bedside_edge.state_folder import open_folder
    from bedside_edge.store import evidence_rows as rows
    from bedside_edge.store.drills import DrillReport
    from bedside_edge.store.evidence_check import check_log
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom

    plain = config.model_copy(
        update={
            "keys": type(config.keys)(),  # however the drill's copy of the keys is kept
            "privacy": config.privacy.model_copy(update={"counter_file": ""}),  # never the box's
        }
    )
    clock = SystemClock()
    state = open_folder(plain, place, clock, OsRandom())
    try:
        origin = state.evidence.origin
        checked = state.database.read(
            lambda c: check_log(c, origin, rows.known_keys(c), parse=True)
        )
        state.ledger.verify()
        return DrillReport(
            at=clock.now(),
            made=made,
            outcome="passed",
            objects=objects,
            opened=_open_objects(state),
            entries=checked.entries,
            erasures=len(state.erasure.erasures(limit=1000)),
            keys="export" if exported else "box",
        )
    finally:
        state.close()


def _open_objects(state: "State") -> int:
    """Decrypt every instance of up to 100 studies spread over the whole store; return how many."""
    studies: Sequence[tuple[str]] = state.database.read(
        lambda c: c.execute("SELECT study_id FROM studies ORDER BY study_id").fetchall()
    )
    step = max(1, len(studies) // 100)
    opened = 0
    for (study_id,) in studies[::step]:
        for held in state.studies.instances(study_id):
            state.objects.read(held.object_name, held.object_key)
            opened += 1
    return opened


def _failed(code: str, exported: bool) -> "DrillReport":
    from bedside_edge.store.drills import DrillReport
    from bedside_edge.system.clock import SystemClock

    return DrillReport(
        at=SystemClock().now(),
        made=0,
        outcome=code,
        objects=0,
        opened=0,
        entries=0,
        erasures=0,
        keys="export" if exported else "box",
    )


def _tell(config: Config, folder: Path) -> bool:
    """Tell the log at once if no box runs; a running one takes the report by itself."""
    from bedside_edge.state_folder import open_folder
    from bedside_edge.store.drills import Drills
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom

    try:
        state = open_folder(config, folder, SystemClock(), OsRandom())
    except StoreUnavailableError:
        return False
    try:
        Drills(state.database, state.keys, state.record, folder).take()
    finally:
        state.close()
    return True


def _say(report: "DrillReport", error: BedsideError | None, *, told: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(report) | {"recorded": told}, sort_keys=True))
        return
    if error is not None:
        click.echo(f"the drill failed: {error} [{error.code}]", err=True)
    else:
        click.echo(
            f"passed: {report.objects} objects restored, {report.opened} decrypted, "
            f"{report.entries} log entries recomputed, {report.erasures} erasures known"
        )
        if report.keys == "box":
            click.echo("with the box's own keys: give --keys to try the export of the keys too")
    click.echo("recorded in the evidence log" if told else "the running box records it soon")


def _room(folder: Path) -> Path:
    if not folder.is_dir():
        raise InvalidInputError(f"there is no folder {folder}")
    return folder
