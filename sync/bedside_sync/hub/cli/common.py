"""What the hub's commands share: options, answers as text or JSON, passphrases."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from bedside_core.errors import InvalidInputError
from bedside_sync.hub.folder import Hub, read_hub
from bedside_sync.hub.process import open_service
from bedside_sync.hub.service import HubService
from bedside_sync.hub.store_sqlite import HubStore

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
_LARGEST_FILE = 1 << 20  # bytes

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON")
folder_option = click.option(
    "--folder",
    envvar="BEDSIDE_HUB",
    default="hub",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The hub's folder; or BEDSIDE_HUB",
)
passphrase_option = click.option(
    "--passphrase-file",
    type=EXISTING,
    help="First line of this file instead of asking",
)


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Hub, HubService]]:
    """Open a hub beside the process that may serve it."""
    hub = read_hub(folder)
    store = HubStore(folder)
    try:
        yield hub, open_service(hub, store)
    finally:
        store.close()


def read_small(path: Path, limit: int = _LARGEST_FILE) -> bytes:
    """Return a file's bytes without its last newline; InvalidInputError when it is too long."""
    data = path.read_bytes()
    if len(data) > limit:
        raise InvalidInputError("the file is too long for what it should be")
    return data.rstrip(b"\n")


def passphrase(path: Path | None, *, confirm: bool = False) -> str:
    """Return the passphrase from a file, or asked for without showing it."""
    if path is not None:
        try:
            return path.read_text(encoding="utf-8").split("\n", 1)[0]
        except (OSError, UnicodeDecodeError) as cause:
            raise InvalidInputError("the file of the passphrase is no text") from cause
    answer: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
    return answer


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


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], empty: str) -> None:
    """Print a table, or what to say when there is nothing."""
    if not rows:
        click.echo(empty)
        return
    drawn = Table(box=None, pad_edge=False, show_header=any(columns))
    for name in columns:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    Console(soft_wrap=False).print(drawn)
