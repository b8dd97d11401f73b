"""`bedside-edge update install|status|rollback|confirm`: what is flashed, and the way back.

Without `--url` the commands open the state folder themselves, which works while no box has it
open; with `--url` they ask the running box, with a token that may manage models.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bedside_core.errors import (
    BedsideError,
    NoSlotError,
    RefusedError,
)
from bedside_edge.cli.access import Asking, Where, over_http, where_options
from bedside_edge.cli.update import box_folder
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging

if TYPE_CHECKING:
    from bedside_edge.ports.flashing import Progress as Tell
    from bedside_edge.services.flashing import FlashingService
    from bedside_edge.services.policies import PolicyService
    from bedside_sync.distribution.manifest import TargetManifest

Json = dict[str, Any]
LAUNCHER = "service:launcher"


@click.command("install")
@click.option("--dry-run", is_flag=True, help="Show each step; change nothing")
@click.option("--again", is_flag=True, help="Try once more what was found bad on this box")
@where_options
def install(dry_run: bool, again: bool, as_json: bool, **where: Unpack[Where]) -> None:
    """Install what is assigned, signed and fetched. Each is tried on this box before it serves.

    Exits 3 when something was refused or failed its trial: what served before serves on. A trial
    that was killed, or met a full disk, says nothing: the running box tries it again a little
    later, and so does this command.

    \b
    Examples:
      bedside-edge update install --dry-run
      bedside-edge update install --state /var/lib/bedside
      bedside-edge update install --again --state /var/lib/bedside
      bedside-edge update install --url http://127.0.0.1:8642 --token-file FILE
    """
    set_up_logging(level="error", style="plain")
    if dry_run or not where["url"]:
        with offline(where) as box:
            found = _plan(box, again) if dry_run else box.install(quiet=as_json, again=again)
    else:
        found = over_http(where)("POST", "/updates:install", {"again": again})["outcomes"]
    if as_json:
        click.echo(json.dumps({"outcomes": found}, sort_keys=True))
    elif not found:
        click.echo("nothing to install: what was assigned in the last 5 days and fetched serves,")
        click.echo("or was found bad here (see `update status`; `--again` tries it once more)")
    else:
        for one in found:
            _say(one)
    if any(one["state"] in ("bad", "refused") for one in found):
        sys.exit(RefusedError.exit_code)


@click.command("status")
@where_options
def status(as_json: bool, **where: Unpack[Where]) -> None:
    """Show both slots of everything that was flashed, and the newest steps.

    \b
    Examples:
      bedside-edge update status --state /var/lib/bedside
      bedside-edge update status --url http://127.0.0.1:8642 --token-file FILE --json
    """
    with _asking(where) as ask:
        found = ask("GET", "/updates/slots")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    if not found["pairs"]:
        click.echo("nothing was flashed: the box runs what it came with")
        return
    drawn = Table(box=None, pad_edge=False)
    for name in ("kind", "slot", "state", "version", "release", "note"):
        drawn.add_column(name, overflow="fold")
    for pair in found["pairs"]:
        for slot in pair["slots"]:
            serves = slot["name"] == pair["active"]
            drawn.add_row(
                pair["kind"],
                slot["name"] + (" *" if serves else ""),
                slot["state"],
                slot["version"] or "-",
                str(slot["release_counter"] or "-"),
                _note(slot, pair["waiting"] if serves else ""),
            )
        if not pair["active"]:
            drawn.add_row(pair["kind"], "*", "", "came with the box", "-", "")
    Console().print(drawn)
    click.echo("* serves")
    if found["restart"]:
        click.echo("a restart of the box goes on with it")
    for step in found["steps"][:5]:
        day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(step["at"] / 1000))
        words = f"{step['what']} {step['reason']}".strip()
        click.echo(f"{day} UTC  {step['kind']}/{step['slot']}  {words}  by {step['actor']}")


@click.command("rollback")
@click.argument("kind")
@click.option("--dry-run", is_flag=True, help="Show what would serve; change nothing")
@where_options
def rollback(kind: str, dry_run: bool, as_json: bool, **where: Unpack[Where]) -> None:
    """Call the trial of KIND off, or let the version before serve again.

    KIND is app, profile, policy or model/NAME. Counters never fall: what a confirmed version
    forbids does not come back.

    \b
    Examples:
      bedside-edge update rollback model/cxr-opacity --dry-run
      bedside-edge update rollback profile --state /var/lib/bedside
    """
    if dry_run:
        with offline(where) as box:
            found = box.plan_rollback(kind)
    else:
        with _asking(where) as ask:
            found = ask("POST", "/updates:rollback", {"kind": kind})
    _say_one(found, as_json)


@click.command("confirm")
@click.argument("kind")
@click.option("--started", is_flag=True, help="The launcher started this very software on trial")
@where_options
def confirm(kind: str, started: bool, as_json: bool, **where: Unpack[Where]) -> None:
    """Try what is on trial now; it serves if it passes the health gate.

    \b
    Examples:
      bedside-edge update confirm model/cxr-opacity --state /var/lib/bedside
    """
    if started:
        found = _confirm_itself(kind, where)
    else:
        with _asking(where) as ask:
            found = ask("POST", "/updates:confirm", {"kind": kind})
    _say_one(found, as_json)
    if found["state"] == "bad":
        sys.exit(RefusedError.exit_code)


def _confirm_itself(kind: str, where: Where) -> Json:
    """Try this very software on a copy of the database; only then open the real one."""
    from bedside_edge.api.schemas_flashing import outcome_view
    from bedside_edge.flashing import check_successor

    config, named = load_config(where["config_path"])
    verdict: Json | BedsideError
    try:
        verdict = check_successor(config, where["state"] or Path(named))
    except RefusedError as why:
        verdict = why
    with offline(where, recover=False) as box:
        outcome = box.flashing.started(kind, verdict, LAUNCHER)
        return outcome_view(outcome).model_dump(mode="json")


# --- without a running box -----------------------------------------------------------------------


class Offline:
    """Answers as the API would, over a folder that no box has open."""

    def __init__(
        self, flashing: "FlashingService", ready: Callable[[], "list[TargetManifest]"]
    ) -> None:
        self.flashing, self.ready = flashing, ready

    def __call__(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer's document."""
        from bedside_edge.api import schemas_flashing as s
        from bedside_edge.services.access import CONSOLE

        kind = s.KindBody.model_validate(body).kind if body else ""
        if path == "/updates/slots":
            return s.slots_view(self.flashing).model_dump(mode="json")
        act = self.flashing.roll_back if path == "/updates:rollback" else self.flashing.try_out
        return s.outcome_view(act(kind, CONSOLE.actor_id)).model_dump(mode="json")

    def install(self, *, quiet: bool, again: bool = False) -> list[Json]:
        """Install what is ready, with a bar for each."""
        from bedside_edge.api.schemas_flashing import outcome_view
        from bedside_edge.services.access import CONSOLE

        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=quiet,
        )

        def bar(manifest: "TargetManifest") -> "Tell":
            words = f"{manifest.slot} {manifest.version}: write, verify, try"
            task = bars.add_task(words, total=2 * manifest.size)
            return lambda done, total: bars.update(task, completed=done, total=total)

        with bars:
            found = self.flashing.install_ready(self.ready(), CONSOLE.actor_id, bar, again=again)
        return [outcome_view(one).model_dump(mode="json") for one in found]

    def plan_rollback(self, kind: str) -> Json:
        """Return what a rollback would come to; errors as it would raise them."""
        from bedside_core.slots import SlotState, roll_back

        pair = next((one for one in self.flashing.pairs() if one.kind == kind), None)
        if pair is not None and pair.idle.state is SlotState.TRIAL:
            version = self.flashing.held(kind, pair.idle.name).version
            return _dry(kind, "bad", version, "the trial would be called off")
        after = roll_back(pair) if pair is not None else None
        if after is None:
            raise NoSlotError("nothing of this kind was ever flashed")
        version = self.flashing.held(kind, after.active).version if after.active else ""
        return _dry(kind, "good", version, f"{version or 'what the box came with'} would serve")


def _plan(box: Offline, again: bool) -> list[Json]:
    """Return the steps of each installation that would be made."""
    found = []
    for manifest in box.ready():
        if not box.flashing.due(manifest, again=again):
            continue
        pair = next((p for p in box.flashing.pairs() if p.kind == manifest.slot), None)
        slot = pair.idle.name if pair else "a"
        try:
            box.flashing.check(manifest)
        except BedsideError as why:
            found.append(_dry(manifest.slot, "refused", manifest.version, str(why), why.code))
            continue
        steps = (
            f"empty slot {slot}",
            f"write {len(manifest.files)} files, {manifest.size} bytes, from pieces that are here",
            "read every byte back and compare",
            "trial: " + _TRIALS[manifest.kind],
            f"then serve from slot {slot}; the floor becomes {manifest.release_counter}",
        )
        found.append(_dry(manifest.slot, "would install", manifest.version, "; ".join(steps)))
    return found


_TRIALS = {
    "model": "compile, read back, golden cases, one made-up study, in a process of its own",
    "profile": "compile under it, read back, golden cases, one made-up study; in force at restart",
    "policy": "signatures of the site's own keys, golden cases, mandatory rules",
    "app": "by the launcher at the next start, at most three starts",
}


def _dry(kind: str, state: str, version: str, detail: str, code: str = "") -> Json:
    facts = {"kind": kind, "state": state, "version": version, "code": code, "detail": detail}
    return facts | {"record": None}


@contextmanager
def offline(where: Where, *, recover: bool = True) -> Iterator[Offline]:
    """Lend the slots of a folder that no box has open.

    Raises:
        NotFoundError: there is no box in the folder.
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    from bedside_edge.flashing import chunk_store, flashing_service
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.updating import update_service
    from bedside_edge.wiring import policy_service

    set_up_logging(level="error", style="plain")
    clock = SystemClock()
    config, folder, state = box_folder(where, clock)
    try:

        def policies() -> "PolicyService":
            return policy_service(config.policy, folder, state.policies, clock)

        flashing = flashing_service(config, state, clock, None, policies)
        if recover:
            flashing.recover()
        chunks = chunk_store(config, folder)
        updates = update_service(config, state, clock, chunks, flashing.running)
        yield Offline(flashing, updates.ready)
    finally:
        state.close()


@contextmanager
def _asking(where: Where) -> Iterator[Asking]:
    if where["url"]:
        set_up_logging(level="error", style="plain")
        yield over_http(where)
        return
    with offline(where) as box:
        yield box


def _note(slot: Json, waiting: str) -> str:
    if slot["state"] == "trial":
        until = time.strftime("%H:%M", time.gmtime(slot["deadline"]))
        return f"{slot['tries']} starts left, until {until} UTC"
    return slot["reason"] or (f"not in use yet: {waiting}" if waiting else "")


def _say(one: Json) -> None:
    words = f"{one['kind']} {one['version'] or 'as it came'}: {one['state']}"
    if one["code"]:
        words += f" [{one['code']}]"
    click.echo(words)
    for line in filter(None, one["detail"].split("; ")):
        click.echo(f"  {line}")
    for name, value in sorted((one["record"] or {}).items()):
        click.echo(f"  {name.replace('_', ' ')}: {value}")


def _say_one(one: Json, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(one, sort_keys=True))
    else:
        _say(one)
