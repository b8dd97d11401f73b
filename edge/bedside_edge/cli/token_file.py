"""Where a command finds its API token: a file, or BEDSIDE_TOKEN."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from bedside_core.errors import InvalidConfigError

Command = Callable[..., None]

VARIABLE = "BEDSIDE_TOKEN"


def read_token(path: Path | None) -> str:
    """Return the token in the file, else the one in the environment, else nothing.

    Raises:
        InvalidConfigError: the file cannot be read.
    """
    if path is None:
        return os.environ.get(VARIABLE, "")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidConfigError("the token file cannot be read") from cause


def _keep(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.meta[VARIABLE] = read_token(path)


def _choose(context: click.Context, _: click.Parameter, token: str) -> str:
    return str(context.meta.get(VARIABLE, token))


def token_options() -> tuple[Callable[[Command], Command], ...]:
    """Return `--token-file` and `--token` as one argument `token` of the command."""
    return (
        click.option(
            "--token", envvar=VARIABLE, default="", callback=_choose, help=f"or {VARIABLE}"
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            expose_value=False,
            is_eager=True,  # read before --token is decided
            callback=_keep,
            help="File with the token: an argument shows in the process list",
        ),
    )
