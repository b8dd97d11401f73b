"""`bedside-hub round`: from a plan to a signed round to its published sum."""

import json
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from bedside_core.errors import NotFoundError
from bedside_sync.hub import overview, upcoming
from bedside_sync.hub.cli.common import (
    EXISTING,
    FILE,
    folder_option,
    json_option,
    opened,
    read_small,
    say,
    table,
)
from bedside_sync.hub.folder import write_file
from bedside_sync.hub.plan import DELTA, manifest_of, read_plan, told, utc
from bedside_sync.hub.process import now
from bedside_sync.hub.sums import open_sum, reading_of
from bedside_sync.secagg.bodies import canonical, decode
from bedside_sync.secagg.manifest import SignedManifest, check_content
from bedside_sync.tasks.kinds import words


@click.group("round")
def rounds() -> None:
    """Rounds: propose, open, watch, close, publish."""


@rounds.command("propose")
@click.argument("plan_path", metavar="ROUND.toml", type=EXISTING)
@click.option("--out", type=FILE, required=True, help="Manifest that two administrators sign")
@folder_option
@json_option
def round_propose(plan_path: Path, out: Path, folder: Path, as_json: bool) -> None:
    """Announce a round to its helpers; once their keys are here, write the manifest to sign.

    Run it again until every helper has announced its key: boxes come by once a night, or when
    an operator asks theirs to. Prints why the sum cannot overflow, and what it costs.

    \b
    Examples:
      bedside-hub round propose census.toml --out census.manifest.json
    """

    def settings_in(name: str) -> bytes:
        path = plan_path.parent / name
        if not path.is_file():
            raise NotFoundError(f"round: there is no {name} beside {plan_path.name}")
        return read_small(path)

    plan = read_plan(read_small(plan_path).decode("utf-8"), settings_in)
    # announced as they are: a box asks for exactly these bytes
    given = settings_in(plan.settings_file) if plan.settings_file else b""
    with opened(folder) as (_, service):
        settings = service.store.keep_settings(given) if given else b""
        awaited = upcoming.announce(service.store, service.roster, plan.round, plan.helpers, now())
        if awaited:
            facts = {"round": plan.round, "awaited": awaited}
            say(as_json, facts, [f"{plan.round} is announced; keys awaited: {', '.join(awaited)}"])
            return
        keys = upcoming.keys(service.store, plan.round, now())
        manifest = manifest_of(plan, keys, service.roster, now(), settings)
        check_content(manifest, service.roster)
    write_file(out, SignedManifest(manifest=manifest, signatures=[]).encode() + b"\n")
    facts = {**told(manifest), "to_sign": str(out)}
    say(as_json, {"awaited": [], **facts} if as_json else facts)


@rounds.command("open")
@click.argument("manifest_path", metavar="MANIFEST", type=EXISTING)
@folder_option
@json_option
def round_open(manifest_path: Path, folder: Path, as_json: bool) -> None:
    """Open a round whose MANIFEST administrators of two organisations signed.

    \b
    Examples:
      bedside-hub round open census.manifest.json
    """
    signed = decode(SignedManifest, read_small(manifest_path))
    with opened(folder) as (_, service):
        service.announce(signed)
        state = service.store.state(signed.manifest.round).value
    say(as_json, {"state": state, **told(signed.manifest)})


@rounds.command("list")
@folder_option
@json_option
def round_list(folder: Path, as_json: bool) -> None:
    """Show every round: state, reports, what it waits for, epsilon.

    \b
    Examples:
      bedside-hub round list
    """
    with opened(folder) as (_, service):
        found = overview.views(service, now())
        coming = overview.awaited_keys(service)
    if as_json:
        click.echo(json.dumps({"rounds": [asdict(one) for one in found], "awaited_keys": coming}))
        return
    rows = [
        (
            one.name,
            one.state,
            str(sum(got.state == "in" for got in one.reported)),
            one.waits_for,
            utc(one.closes),
            f"{one.epsilon:.3f}",
        )
        for one in found
    ]
    columns = ("round", "state", "reports", "waits for", "closes", f"epsilon at {DELTA:g}")
    table(columns, rows, "no round has been opened yet: `bedside-hub round propose` begins")
    for name, boxes in coming.items():
        click.echo(f"{name} to come; helper keys awaited: {', '.join(boxes) or 'none, ready'}")


@rounds.command("show")
@click.argument("name")
@folder_option
@json_option
def round_show(name: str, folder: Path, as_json: bool) -> None:
    """Show one round: who reported and when, helpers, refusals, what it waits for.

    \b
    Examples:
      bedside-hub round show census-1
    """
    with opened(folder) as (_, service):
        one = overview.view(service, name, now())
        facts = told(service.store.manifest(name).manifest)
        read = reading_of(service, name)
    if as_json:
        click.echo(json.dumps(asdict(one) | {"reading": read}, sort_keys=True))
        return
    say(False, facts | {"state": one.state, "waits for": one.waits_for or "nothing: it is over"})
    rows = [(got.box, got.organisation, got.state, utc(got.at)) for got in one.reported]
    table(("box", "organisation", "report", "at"), rows, "nobody has reported yet")
    click.echo(f"silent: {', '.join(one.silent) or 'nobody'}")
    for box, said in one.helpers.items():
        click.echo(f"helper {box}: {', '.join(said) or 'nothing yet'}")
    for code, count in one.refusals.items():
        click.echo(f"refused: {code} {count} times")
    if read is not None:
        click.echo("\n".join(words(read)))


@rounds.command("close")
@click.argument("name")
@folder_option
@json_option
def round_close(name: str, folder: Path, as_json: bool) -> None:
    """Take a round as far as it may go now, and say what it waits for.

    Never earlier than signed: a round closes at its time, with its organisations, or not at all.

    \b
    Examples:
      bedside-hub round close census-1
    """
    with opened(folder) as (_, service):
        state = service.go_on(name).value
        waits = overview.view(service, name, now()).waits_for
    say(as_json, {"round": name, "state": state, "waits_for": waits})


@rounds.command("publish")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for NAME.record.json, .sum.npy, .sum.json and, of a known task, .reading.json",
)
@folder_option
@json_option
def round_publish(name: str, out: Path, folder: Path, as_json: bool) -> None:
    """Write a finished round's signed record, its sum by segment, and what the sum says.

    The sum is checked against the digest in the record before it is written.

    \b
    Examples:
      bedside-hub round publish census-1 --out results
    """
    with opened(folder) as (_, service):
        found = open_sum(service, name)
    manifest, total = found.manifest, found.total
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / f"{name}.record.json", found.record.encode() + b"\n")
    parts, at = {}, 0
    for segment in manifest.segments:
        parts[segment.name] = total[at : at + segment.length].tolist()
        at += segment.length
    write_file(out / f"{name}.sum.json", canonical({"round": name, "segments": parts}) + b"\n")
    with (out / f"{name}.sum.npy").open("wb") as file:
        np.save(file, total)
    facts: dict[str, object] = {
        **{"round": name, "boxes": found.boxes, "words": len(total)},
        **{"digest": found.record.body.total, "folder": str(out)},
    }
    read = found.reading()
    if read is not None:
        text = json.dumps(read, indent=1, sort_keys=True, allow_nan=False)
        write_file(out / f"{name}.reading.json", text.encode() + b"\n")
        facts["reading"] = read
    lines = [f"{key:<8}{value}" for key, value in facts.items() if key != "reading"]
    say(as_json, facts, [*lines, *(words(read) if read is not None else [])])
