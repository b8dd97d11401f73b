"""`bedside-flash init` and `lint`: for whoever writes a hardware profile."""

import json
import sys
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from bedside_core.errors import InvalidInputError, InvalidProfileError, ProfileMismatchError
from bedside_core.hardware.board import PROBE_LIMIT, Board, parse_board
from bedside_core.hardware.matching import rules_of
from bedside_core.hardware.profile import LoadedProfile, parse_profile
from bedside_flash.profile_draft import advice, draft

_LIMIT = 1 << 20  # bytes
_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("probe", type=_FILE)
@click.argument("out", type=_FILE)
@click.option("--vendor", required=True, help="Your name in lower case; also the folder")
@click.option("--id", "profile_id", default="", help="Id [default: VENDOR and the file's name]")
@click.option("--name", default="", help="For people [default: the id]")
def init(probe: Path, out: Path, vendor: str, profile_id: str, name: str) -> None:
    """Write OUT, a commented profile that the board in PROBE meets.

    PROBE is what `bedside-edge hardware probe --json` printed on that board. A file that is there
    already is left alone.

    \b
    Examples:
      bedside-edge hardware probe --json > board.json
      bedside-flash init board.json hw_profiles/acme/board-3.toml --vendor acme
    """
    board = _board(probe)
    profile_id = profile_id or f"{vendor}-{out.stem}"
    text = draft(board, vendor, profile_id, name or profile_id)
    parse_profile(text.encode())  # an id or a name that does not fit ends here
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as cause:
        raise InvalidInputError(f"{out.name} cannot be written: {cause.strerror}") from cause
    click.echo(f"wrote {out}; now measure, narrow, and `bedside-flash lint {out}`")


@click.command()
@click.argument("path", metavar="PROFILE", type=_FILE)
@click.option("--probe", type=_FILE, help="Try it against the facts of a board")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def lint(path: Path, probe: Path | None, as_json: bool) -> None:
    """Check PROFILE: every key, every claim, and what a careful eye would ask.

    With --probe also every rule of its [match] against that board. Exits 4 when it is no profile,
    3 when the board does not meet it.

    \b
    Examples:
      bedside-flash lint hw_profiles/acme/board-3.toml
      bedside-flash lint hw_profiles/acme/board-3.toml --probe board.json
    """
    try:
        loaded = parse_profile(_read(path, _LIMIT))
    except InvalidProfileError as refusal:
        _say_problems(refusal, as_json)
        sys.exit(refusal.exit_code)
    profile = loaded.profile
    notes = advice(profile)
    if profile.vendor != path.absolute().parent.name:
        notes.append(f"the folder is not named {profile.vendor}: a box refuses it there")
    rules = rules_of(profile, _board(probe)) if probe else []
    if as_json:
        _say_json(loaded, notes, [(rule.name, rule.told) for rule in rules])
    else:
        click.echo(f"{loaded.label} is a profile: {profile.name}, {loaded.digest[:23]}")
        for note in notes:
            click.echo(f"  note  {note}")
        for rule in rules:
            click.echo(f"  {'no  ' if rule.told else 'yes '}  {rule.name}  {rule.told}".rstrip())
    if any(rule.told for rule in rules):
        sys.exit(ProfileMismatchError.exit_code)


def _say_problems(refusal: InvalidProfileError, as_json: bool) -> None:
    cause = refusal.__cause__
    found: list[dict[str, str]] = [{"where": "", "problem": str(refusal)}]
    if isinstance(cause, ValidationError):
        found = [
            {"where": ".".join(map(str, one["loc"])), "problem": one["msg"]}
            for one in cause.errors()
        ]
    if as_json:
        click.echo(json.dumps({"valid": False, "problems": found}, sort_keys=True))
        return
    click.echo("not a profile:", err=True)
    for one in found:
        click.echo(f"  {one['where'] or 'file'}: {one['problem']}", err=True)


def _say_json(loaded: LoadedProfile, notes: list[str], rules: list[tuple[str, str]]) -> None:
    document: dict[str, Any] = {
        "valid": True,
        "profile": loaded.label,
        "digest": loaded.digest,
        "notes": notes,
        "rules": [{"rule": name, "holds": not told, "told": told} for name, told in rules],
    }
    click.echo(json.dumps(document, sort_keys=True))


def _board(path: Path) -> Board:
    return parse_board(_read(path, PROBE_LIMIT))


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as cause:
        raise InvalidInputError(f"{path.name} cannot be read: {cause.strerror}") from cause
    if len(data) > limit:
        raise InvalidInputError(f"{path.name} is too large")
    return data
