"""`bedside-hub settings`: a task's settings as people write them, and as rounds name them."""

import tomllib
from pathlib import Path

import click
from pydantic import ValidationError

from bedside_core.errors import InvalidInputError
from bedside_sync.hub.cli.common import EXISTING, FILE, json_option, read_small, say
from bedside_sync.hub.folder import write_file
from bedside_sync.tasks.kinds import KINDS, plan_lines, read_settings


@click.command()
@click.argument("task", type=click.Choice(sorted(KINDS)))
@click.argument("source", type=EXISTING)
@click.option("--out", required=True, type=FILE, help="Settings file that ROUND.toml names")
@json_option
def settings(task: str, source: Path, out: Path, as_json: bool) -> None:
    """Turn SOURCE, the settings of TASK in TOML, into the one spelling a round names.

    \b
    Examples:
      bedside-hub settings collect census-settings.toml --out census.json
    """
    try:
        given = tomllib.loads(read_small(source).decode("utf-8"))
        made = KINDS[task].model_validate(given)
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise InvalidInputError(f"settings: {where}: {first['msg']}") from cause
    except ValueError as cause:
        raise InvalidInputError(f"settings: {cause}") from cause
    write_file(out, made.encode())
    bounds = plan_lines(read_settings(task, made.encode()))
    say(
        as_json,
        bounds,
        [
            f"wrote {out}",
            f"{sum(one['length'] for one in bounds['segments'])} words in "
            f"{len(bounds['segments'])} segments",
            f"one patient: at most {bounds['largest']} in a word, norm "
            f"{bounds['sensitivity2'] ** 0.5:.1f}, scale {bounds['scale']}",
        ],
    )
