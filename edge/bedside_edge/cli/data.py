"""`bedside-edge data`: what rounds of the consortium mean for this hospital's own cases.

Without `--url` the commands open the state folder themselves, which works while no box has it
open; with `--url` they ask the running box.
"""

import csv
import json
from pathlib import Path
from typing import Any, Unpack

import click

from bedside_core.errors import InvalidInputError
from bedside_edge.cli.access import (
    Offliner,
    Where,
    asking,
    where_options,
)

Json = dict[str, Any]
_LARGEST = 1 << 22
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def data() -> None:
    """Cases in rounds: joint cleaning, labels to look at again, other sources, the own head."""


@data.command("clean")
@click.argument("result", required=False, type=_FILE)
@click.option("--version", "digest", default="", help="Report on this version, not the newest")
@where_options
def clean(result: Path | None, digest: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Take the RESULT of a `clean` round over, and report what it does to the cases held here.

    Gaps are filled and numbers beyond a fence moved to it wherever a later round names this
    version. Stored objects and their headers are never changed.

    \b
    Examples:
      bedside-edge data clean clean-7.json --state /var/lib/bedside
      bedside-edge data clean --url http://127.0.0.1:8642 --json
    """
    with asking(_offline, where) as ask:
        if result is not None:
            digest = ask("POST", "/cleanings", {"document": _document(result)})["digest"]
        found = ask("GET", f"/cleanings:report?version={digest}")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    click.echo(f"version {found['digest'][:16]}, {found['studies']} studies")
    words = {"filled": "filled", "fenced": "moved to a fence", "odd": "written otherwise"}
    for name, word in words.items():
        for field, count in sorted(found[name].items()):
            click.echo(f"  {field:<22} {count:>7} {word}")
    click.echo(f"{len(found['touched']) + found['more']} studies touched; originals unchanged")


@data.command("consensus")
@click.argument("result", type=_FILE)
@where_options
def consensus(result: Path, as_json: bool, **where: Unpack[Where]) -> None:
    """Take the RESULT of an `annotate` round over; list what was signed otherwise here.

    \b
    Examples:
      bedside-edge data consensus pool-3.json --state /var/lib/bedside
    """
    with asking(_offline, where) as ask:
        ask("POST", "/consensus", {"document": _document(result)})
        _print_relabel(ask("GET", "/relabel"), as_json)


@data.command("relabel")
@where_options
def relabel(as_json: bool, **where: Unpack[Where]) -> None:
    """List the studies signed here otherwise than the consensus of all sites.

    \b
    Examples:
      bedside-edge data relabel --url http://127.0.0.1:8642 --token-file reader.token
    """
    with asking(_offline, where) as ask:
        _print_relabel(ask("GET", "/relabel"), as_json)


@data.command("source")
@click.argument("name")
@click.argument("table", type=_FILE)
@where_options
def source(name: str, table: Path, as_json: bool, **where: Unpack[Where]) -> None:
    """Replace source NAME by TABLE: CSV with patient_id, value and, if there are any, issuer.

    Cross-hospital tables read it as `extra.NAME`. It is kept encrypted under each patient's key.

    \b
    Examples:
      bedside-edge data source lab crp.csv --state /var/lib/bedside
    """
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        if not {"patient_id", "value"} <= columns or columns - {"patient_id", "value", "issuer"}:
            raise InvalidInputError("the table's columns are patient_id, value and perhaps issuer")
        rows = [{key: (value or "").strip() for key, value in row.items()} for row in reader]
    with asking(_offline, where) as ask:
        found = ask("PUT", f"/sources/{name}", {"rows": rows})
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    click.echo(f"{name}: {found['known']} patients; {found['unknown']} rows of others not kept")


@data.command("own-head")
@where_options
def own_head(as_json: bool, **where: Unpack[Where]) -> None:
    """Say whether a head of the hospital's own would read its cases better than the joint model.

    It is fitted on consented, signed cases of the training part and judged on the others; it is
    not used, and nothing of it leaves the box.

    \b
    Examples:
      bedside-edge data own-head --url http://127.0.0.1:8642 --token-file auditor.token
    """
    with asking(_offline, where) as ask:
        found = ask("GET", "/own-head")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
    elif not found["enough"]:
        click.echo("too few signed cases with consent to training: 20 to fit and 20 to judge")
    elif found["joint"] is None or found["own"] is None:
        click.echo(f"the {found['judged']} cases to judge on are all of one kind")
    else:
        click.echo(f"fitted on {found['fitted']} cases, judged on {found['judged']}")
        click.echo(f"joint model AUC {found['joint']:.3f}, own head {found['own']:.3f}")
        click.echo("its own head helps" if found["helps"] else "its own head does not help")


def _document(path: Path) -> Json:
    """Return a hub's reading, or the one inside what `round show --json` prints."""
    if path.stat().st_size > _LARGEST:
        raise InvalidInputError("the result is larger than any round's")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as cause:
        raise InvalidInputError("the result is no JSON") from cause
    if not isinstance(found, dict):
        raise InvalidInputError("the result is no JSON object")
    inner = found.get("reading")
    return inner if isinstance(inner, dict) else found


def _print_relabel(found: Json, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["studies"]:
        click.echo(f"{one['study']}  here {one['here'] or 'rejected'}, others {one['consensus']}")
    click.echo(f"{len(found['studies'])} to look at again")


def _offline() -> Offliner:
    from bedside_edge.cli.data_offline import opened  # the store: only when it is needed

    return opened
