"""`bedside-flash install|status|rollback`: in the field, by the box's own program.

One program owns the box's database. What a technician types here runs `bedside-edge update` of the
same environment, with the same rules, the same trial and the same evidence.
"""

import subprocess
import sys
from pathlib import Path

import click

from bedside_core.errors import NotReadyError

_UNPROCESSED = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_REST = click.argument("options", nargs=-1, type=click.UNPROCESSED)


def box_program() -> list[str]:
    """Return how the box's program of this environment is started; NotReadyError without one."""
    script = Path(sys.executable).with_name("bedside-edge")
    if not script.is_file():
        raise NotReadyError("bedside-edge is not beside this program: run it on the box")
    return [str(script)]


def _run(*words: str) -> None:
    done = subprocess.run([*box_program(), "update", *words], check=False)  # noqa: S603  our own
    if done.returncode:
        sys.exit(done.returncode)


@click.command("install", context_settings=_UNPROCESSED)
@click.option(
    "--from",
    "stick",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a stick: look and fetch from it first",
)
@click.option("--dry-run", is_flag=True, help="Show each step; install nothing")
@_REST
def install(stick: Path | None, dry_run: bool, options: tuple[str, ...]) -> None:
    """Install on this box what is assigned to it, signed, and on the stick or fetched already.

    OPTIONS go to `bedside-edge update`: --state, --config, --url, --token-file, --json.

    \b
    Examples:
      bedside-flash install --from /media/usb --dry-run --state /var/lib/bedside
      bedside-flash install --from /media/usb --state /var/lib/bedside
      bedside-flash install --url http://127.0.0.1:8642 --token-file FILE
    """
    if stick is not None:
        _run("fetch", "--from", str(stick.absolute()), *options)
    _run("install", *(["--dry-run"] if dry_run else []), *options)


@click.command("status", context_settings=_UNPROCESSED)
@_REST
def status(options: tuple[str, ...]) -> None:
    """Show both slots of everything that was flashed on this box.

    \b
    Examples:
      bedside-flash status --state /var/lib/bedside
    """
    _run("status", *options)


@click.command("rollback", context_settings=_UNPROCESSED)
@click.argument("kind")
@click.option("--dry-run", is_flag=True, help="Show what would serve; change nothing")
@_REST
def rollback(kind: str, dry_run: bool, options: tuple[str, ...]) -> None:
    """Call the trial of KIND off, or let the version before serve again.

    \b
    Examples:
      bedside-flash rollback profile --dry-run --state /var/lib/bedside
      bedside-flash rollback model/cxr-opacity --state /var/lib/bedside
    """
    _run("rollback", kind, *(["--dry-run"] if dry_run else []), *options)
