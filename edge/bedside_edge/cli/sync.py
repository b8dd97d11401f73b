"""`bedside-edge sync`: the box in its consortium: join, visit the hub, veto, withdraw, agreements.

Without `--url` the commands open the state folder themselves, which works while no box has it open;
with `--url` they ask the running box.
"""

import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import click

from bedside_core.errors import InvalidInputError, RefusedError
from bedside_edge.cli.access import (
    Asking,
    Offliner,
    Where,
    asking,
    where_options,
)
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging

Json = dict[str, Any]
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PURPOSES = ("train", "clean", "collect", "annotate", "validate", "fuse")
_DAY_MS = 86_400_000


@click.group()
def sync() -> None:
    """Rounds of a consortium: join it, visit its hub, say no, see what a night did."""


@sync.command("join")
@click.option("--box", help="Name this box asks for")
@click.option("--organisation", help="Whose box it is")
@click.option("--helper", is_flag=True, help="Offer to serve as helper: open sums, never parts")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Request file to write")
@click.option("--welcome", type=_FILE, help="What the administrators sent back")
@where_options
def join(
    box: str | None,
    organisation: str | None,
    helper: bool,
    output: Path | None,
    welcome: Path | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Make this box's keys and a request file; then take the welcome that comes back.

    Read the fingerprint of the request to an administrator of the consortium over the phone, and
    compare that of the welcome with theirs. A member that asks again renews its certificate.

    \b
    Examples:
      bedside-edge sync join --box box-7 --organisation north -o box-7.request.json
      bedside-edge sync join --welcome box-7.welcome.json
    """
    if welcome is not None:
        if welcome.stat().st_size > 1 << 20:
            raise InvalidInputError("the file is too long for a welcome")
        text = welcome.read_text(encoding="utf-8")
        with asking(_offline, where) as ask:
            found = ask("POST", "/sync:welcome", {"welcome": text})
        words = (
            f"{found['box']} belongs to {found['consortium']}; its hub is {found['url']}\n"
            f"fingerprint of the consortium: {found['fingerprint']}\n"
            "compare it with what an administrator reads out; if it differs, seal the box"
        )
        click.echo(json.dumps(found, sort_keys=True) if as_json else words)
        return
    if not box or not organisation or output is None:
        raise click.UsageError("--box, --organisation and -o make a request; --welcome takes one")
    with asking(_offline, where) as ask:
        body = {"box": box, "organisation": organisation, "helper": helper}
        found = ask("POST", "/sync:request", body)
    output.write_text(found["request"] + "\n", encoding="utf-8")
    if as_json:
        facts = {"request": str(output), "fingerprint": found["fingerprint"]}
        click.echo(json.dumps(facts, sort_keys=True))
        return
    click.echo(f"{output}: send it to the hub's operator; nothing in it is secret")
    click.echo(f"fingerprint, to read out over the phone: {found['fingerprint']}")


@sync.command("now")
@click.option(
    "--wait",
    default=0,
    metavar="SECONDS",
    help="Visit again while a round has something to do here",
)
@where_options
def now(wait: int, as_json: bool, **where: Unpack[Where]) -> None:
    """Visit the hub now, whatever the hour; print what was done.

    Words tell what came since the command began; `--json` has the whole night, as `sync nights`.

    \b
    Examples:
      bedside-edge sync now --url http://127.0.0.1:8642 --token-file admin.token
      bedside-edge sync now --state /var/lib/bedside --wait 600
    """
    deadline = time.monotonic() + wait
    with asking(_offline, where) as ask:
        before = {} if as_json else _newest(ask)
        found = ask("POST", "/sync:now")
        while (found["waits"] or found["failed"]) and time.monotonic() < deadline:
            time.sleep(min(2.0, max(0.0, deadline - time.monotonic())))
            found = ask("POST", "/sync:now")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    _say_night(since(before, found["night"]))
    if found["waits"]:
        click.echo(
            "a round is open: what comes next waits for others or for its close; visit again then"
        )


@sync.command("status")
@where_options
def status(as_json: bool, **where: Unpack[Where]) -> None:
    """Show membership, rounds with their epsilon and the assumption behind it, and agreements.

    \b
    Examples:
      bedside-edge sync status --state /var/lib/bedside
    """
    with asking(_offline, where) as ask:
        found = ask("GET", "/sync") | ask("GET", "/sync/agreements")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    if not found["box"]:
        click.echo("in no consortium; `bedside-edge sync join` begins")
    elif not found["consortium"]:
        click.echo(f"{found['box']} has asked to join: {found['request_fingerprint']}")
    else:
        role = ", a helper" if found["helper"] else ""
        click.echo(f"{found['box']} of {found['organisation']}{role} in {found['consortium']}")
        click.echo(f"hub {found['url']}, roster {found['roster']}, records {found['records']}")
    if found["locked"]:
        click.echo("LOCKED: set back to a backup; `bedside-edge sync recover`")
    for one in found["rounds"]:
        price = f"epsilon {one['epsilon']:.3f} at delta 1e-6" if one["rho"] else one["reason"]
        if one["honest_boxes"]:
            price += f" if {one['honest_boxes']} boxes add their noise"
        click.echo(f"  {one['round']:<24} {one['task']:<10} {one['state']:<10} {price}")
    for one in found["agreements"]:
        until = "ended" if one["ended_at"] else f"until {_day(one['ends'])}"
        click.echo(f"agreement {one['name']}: {', '.join(one['purposes'])}, {until}")
    if not found["agreements"]:
        click.echo("no agreement is on record: no round is joined (`sync agreement add`)")


@sync.command("nights")
@where_options
def nights(as_json: bool, **where: Unpack[Where]) -> None:
    """Show what the newest nights did.

    \b
    Examples:
      bedside-edge sync nights --url http://127.0.0.1:8642 --token-file admin.token
    """
    with asking(_offline, where) as ask:
        found = ask("GET", "/sync/nights")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["nights"]:
        _say_night(one)
    if not found["nights"]:
        click.echo("no night yet")


@sync.command("veto")
@click.argument("name", metavar="ROUND")
@click.option("--reason", required=True, help="Why; stays on the box, its digest is evidence")
@where_options
def veto(name: str, reason: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Refuse ROUND for good, before this box has answered it.

    \b
    Examples:
      bedside-edge sync veto census-2027-02 --reason "ethics board decides in March"
    """
    with asking(_offline, where) as ask:
        ask("POST", f"/sync/rounds/{name}:veto", {"reason": reason})
    click.echo(json.dumps({"round": name}) if as_json else f"{name} is refused for good")


@sync.command("withdraw")
@click.argument("name", metavar="ROUND")
@where_options
def withdraw(name: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Take this box out of ROUND; the hub is told now, or by the next visit.

    Works until the round closes; it shows in the round's record. Patients were charged all the
    same, until that record proves that nothing of this box was opened.

    \b
    Examples:
      bedside-edge sync withdraw census-2027-02 --url http://127.0.0.1:8642
    """
    with asking(_offline, where) as ask:
        found = ask("POST", f"/sync/rounds/{name}:withdraw")
    told = "the hub was told" if found["told"] else "the hub is told by the next visit"
    click.echo(json.dumps(found, sort_keys=True) if as_json else f"withdrawn from {name}; {told}")


@sync.command("recover")
@click.option("--login", required=True, help="Who decides")
@click.option("--with", "other", default="", help="The other person; an administrator needs none")
@where_options
def recover(login: str, other: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Let a box go on after a restored backup: its helper keys go, today's patients sit out.

    What the patients held paid in rounds the backup does not know is lost. So who is held now takes
    part in no further round; who comes from now on does.

    \b
    Examples:
      bedside-edge sync recover --login ada --with bert --state /var/lib/bedside
    """
    if where["url"]:
        raise click.UsageError("--url: stop the box first; people log in at the box")
    from bedside_edge.cli.sync_offline import recover_folder

    set_up_logging(level="error", style="plain")
    config, default = load_config(where["config_path"])
    recover_folder(config, where["state"] or default, login, other)
    click.echo(json.dumps({"recovered": True}) if as_json else "the box takes part again")


@sync.group("agreement")
def agreement() -> None:
    """Agreements with the consortium: without a valid one there is no round."""


@agreement.command("add")
@click.argument("name")
@click.argument("document", type=_FILE)
@click.option("--title", required=True, help="What it is called")
@click.option("--purpose", "purposes", multiple=True, required=True, type=click.Choice(_PURPOSES))
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3660))
@click.option("--same-region", is_flag=True, help="The other side lies in the hospital's region")
@where_options
def add_agreement(
    name: str,
    document: Path,
    title: str,
    purposes: tuple[str, ...],
    days: int,
    same_region: bool,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Record agreement NAME; DOCUMENT is the signed text, of which the box keeps the SHA-256.

    \b
    Examples:
      bedside-edge sync agreement add lungs-2027 agreement.pdf --title "Lungs consortium" \\
        --purpose collect --purpose train --same-region
    """
    with document.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    starts = time.time_ns() // 1_000_000
    body = {
        "name": name,
        "title": title,
        "purposes": list(purposes),
        "same_region": same_region,
        "document_sha256": digest,
        "starts": starts,
        "ends": starts + days * _DAY_MS,
    }
    with asking(_offline, where) as ask:
        found = ask("POST", "/sync/agreements", body)
    words = f"{name} holds until {_day(found['ends'])} for {', '.join(found['purposes'])}"
    click.echo(json.dumps(found, sort_keys=True) if as_json else words)


@agreement.command("end")
@click.argument("name")
@where_options
def end_agreement(name: str, as_json: bool, **where: Unpack[Where]) -> None:
    """End agreement NAME: no round is joined under it any more.

    \b
    Examples:
      bedside-edge sync agreement end lungs-2027
    """
    with asking(_offline, where) as ask:
        ask("POST", f"/sync/agreements/{name}:end")
    click.echo(json.dumps({"name": name}) if as_json else f"{name} has ended")


def _offline() -> Offliner:
    from bedside_edge.cli.sync_offline import opened  # the store: only when it is needed

    return opened


def since(before: Json, night: Json) -> Json:
    """Return a night without the events that `before`, an earlier look at the nights, has."""
    if before.get("night") != night["night"]:
        return night
    return night | {"events": [one for one in night["events"] if one not in before["events"]]}


def _newest(ask: Asking) -> Json:
    try:
        return next(iter(ask("GET", "/sync/nights")["nights"]), {})
    except RefusedError:  # a token may be allowed to visit and not to read
        return {}


def _say_night(night: Json) -> None:
    click.echo(f"night of {_moment(night['night'])}")
    for one in night["events"]:
        took = (one["ended"] - one["started"]) / 1000
        words = " ".join(filter(None, (one["round"], one["code"])))
        click.echo(
            f"  {_moment(one['started'])}  {one['step']:<10} {one['outcome']:<8} "
            f"{took:>5.0f} s  {words}"
        )
    if not night["events"]:
        click.echo("  nothing to do")


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _day(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d")
