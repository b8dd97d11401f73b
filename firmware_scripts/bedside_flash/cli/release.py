"""`bedside-flash release`: a folder that installs on a fresh Debian machine."""

from pathlib import Path

import click

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("release")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--wheel", type=_FILE, required=True, help="Made by `make wheel`")
@click.option(
    "--lock", type=_FILE, default=Path("requirements.txt"), show_default=True, help="With hashes"
)
@click.option(
    "--scripts",
    type=_FOLDER,
    default=Path("firmware_scripts"),
    show_default=True,
    help="Folder with install.sh and systemd/",
)
def release(out: Path, wheel: Path, lock: Path, scripts: Path) -> None:
    """Put wheel, lock, bill of materials, installer and units into the folder OUT.

    Copy it to the machine and run `sudo ./install.sh` there.

    \b
    Examples:
      bedside-flash release dist/release --wheel dist/bedside-0.1.0-py3-none-any.whl
    """
    from bedside_flash.release import write_release

    names = write_release(wheel, lock, scripts, out)
    click.echo(f"wrote {len(names)} files into {out}; on the machine: sudo ./install.sh")
