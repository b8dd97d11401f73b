"""What the commands share: options, answers as text or JSON, passphrases, a progress bar."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bedside_core.errors import InvalidInputError

FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON")
passphrase_option = click.option(
    "--passphrase-file", type=EXISTING, help="First line of this file instead of asking"
)


def passphrase(path: Path | None, *, confirm: bool = False) -> str:
    """Return the passphrase from a file, or asked for without showing it."""
    if path is not None:
        try:
            return path.read_text(encoding="utf-8").split("\n", 1)[0]
        except (OSError, UnicodeDecodeError) as cause:
            raise InvalidInputError("the file of the passphrase is no text") from cause
    answer: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def read_small(path: Path, limit: int = 1 << 20) -> bytes:
    """Return a file's bytes without its last newline; InvalidInputError when it is too long."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidInputError("the file is too long for what it should be")
    return data.rstrip(b"\n")


def say(as_json: bool, facts: dict[str, Any], lines: list[str] | None = None) -> None:
    """Print facts as JSON, or the lines, or the facts one a line."""
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))
    elif lines is not None:
        click.echo("\n".join(lines))
    else:
        width = max(map(len, facts), default=0) + 2
        for name, value in facts.items():
            click.echo(f"{name:<{width}}{value}")


@contextmanager
def bar(words: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Lend a function that shows bytes done of bytes in all; on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    shown = Progress(
        TextColumn(words),
        BarColumn(),
        DownloadColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )
    with shown:
        task = shown.add_task(words)
        yield lambda done, of: shown.update(task, completed=done, total=of)
