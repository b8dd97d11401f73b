"""`bedside-edge overlap`: how many patients this hospital shares with another, by letters.

Without `--url` the commands open the state folder themselves, which works while no box has it
open; with `--url` they ask the running box.
"""

import json
import time
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, Unpack

import click

from bedside_core.errors import InvalidKeyError, PreconditionRequiredError
from bedside_core.evidence.note import SignatureType
from bedside_edge.cli.access import (
    Offliner,
    Where,
    asking,
    where_options,
)
from bedside_edge.cli.evidence import read_keys

Json = dict[str, Any]
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, path_type=Path)
_KEY = click.option(
    "--vkey", "vkeys", multiple=True, required=True, help="Key of the partner's log, or a file"
)


@click.group()
def overlap() -> None:
    """Count the patients shared with another hospital; neither learns who they are.

    \b
    Four letters, each sealed to the reader; carry them as you like:
      here   overlap invite --vkey theirs.vkeys --purpose "study 12" -o 1.letter
      there  overlap answer 1.letter --vkey ours.vkeys -o 2.letter
      here   overlap answer 2.letter --vkey theirs.vkeys -o 3.letter
      there  overlap answer 3.letter --vkey ours.vkeys -o 4.letter     (their count)
      here   overlap answer 4.letter --vkey theirs.vkeys               (our count)
    """


@overlap.command("invite")
@_KEY
@click.option("--purpose", required=True, help="What the count is for; the other side reads it")
@click.option(
    "--identifier",
    type=click.Choice(["patient-id", "patient-id+birth-date"]),
    default="patient-id",
    show_default=True,
    help="What is compared",
)
@click.option(
    "--sigma2", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Noise variance"
)
@click.option("-o", "--output", required=True, type=_OUT, help="Letter to send")
@where_options
def invite(
    vkeys: tuple[str, ...],
    purpose: str,
    identifier: str,
    sigma2: int,
    output: Path,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Invite the hospital whose log has this key; you agree for this one.

    \b
    Examples:
      bedside-edge overlap invite --vkey north.vkeys --purpose "study 12" -o 1.letter
    """
    body = {
        "partner": _partner(vkeys),
        "purpose": purpose,
        "identifier": identifier,
        "sigma2": sigma2,
    }
    with asking(_offline, where) as ask:
        found = ask("POST", "/overlaps", body)
    _say(found, output, as_json)


@overlap.command("answer")
@click.argument("letter", type=_FILE)
@_KEY
@click.option("-o", "--output", type=_OUT, help="Letter to send back; the last has none")
@click.option("--yes", is_flag=True, help="Agree to an invitation without being asked")
@where_options
def answer(
    letter: Path,
    vkeys: tuple[str, ...],
    output: Path | None,
    yes: bool,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Answer LETTER. An invitation is shown, and asks for your agreement.

    \b
    Examples:
      bedside-edge overlap answer 1.letter --vkey south.vkeys -o 2.letter
      bedside-edge overlap answer 4.letter --vkey north.vkeys
    """
    body: Json = {
        "partner": _partner(vkeys),
        "letter": b64encode(letter.read_bytes()).decode(),
        "agree": yes,
    }
    with asking(_offline, where) as ask:
        try:
            found = ask("POST", "/overlaps:answer", body)
        except PreconditionRequiredError as invited:
            click.confirm(f"{invited}?", abort=True, err=True)
            found = ask("POST", "/overlaps:answer", body | {"agree": True})
    _say(found, output, as_json)


@overlap.command("list")
@where_options
def list_overlaps(as_json: bool, **where: Unpack[Where]) -> None:
    """List the sessions with their counts, newest first.

    \b
    Examples:
      bedside-edge overlap list --state /var/lib/bedside
    """
    with asking(_offline, where) as ask:
        found = ask("GET", "/overlaps")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["overlaps"]:
        day = time.strftime("%Y-%m-%d", time.gmtime(one["at"] / 1000))
        told = one["state"] if one["count"] is None else f"about {max(0, one['count'])} shared"
        click.echo(f"{one['session'][:16]}  {day}  {one['partner']}  {one['role']}  {told}")


def _partner(given: tuple[str, ...]) -> str:
    """Return the one Ed25519 log key among the given."""
    found = [key for key in read_keys(given) if key.kind is SignatureType.ED25519]
    if len(found) != 1:
        raise InvalidKeyError("name the one Ed25519 key of the partner's log")
    return found[0].text


def _say(found: Json, output: Path | None, as_json: bool) -> None:
    letter = found.pop("letter")
    if letter is not None and output is None:
        raise click.UsageError(
            "there is a letter to send back: say where with -o, and run it again"
        )
    if letter is not None and output is not None:
        output.write_bytes(b64decode(letter))
        click.echo(f"wrote {output}; send it to {found['partner']}", err=True)
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
    elif found["count"] is not None:
        click.echo(f"about {max(0, found['count'])} patients shared with {found['partner']}")


def _offline() -> Offliner:
    from bedside_edge.cli.data_offline import letters  # the store: only when it is needed

    return letters
