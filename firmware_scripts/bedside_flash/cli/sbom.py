"""`bedside-flash sbom`: what is in the software, and whether a bill still says so."""

import json
from pathlib import Path

import click

from bedside_core.errors import InvalidInputError

_LOCK = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def sbom() -> None:
    """Bills of materials: CycloneDX 1.6 of the app, and the check of any bill, offline."""


@sbom.command("app")
@click.option(
    "--lock", type=_LOCK, default=Path("requirements.txt"), show_default=True, help="With hashes"
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: standard output")
def write_app_bom(lock: Path, output: Path | None) -> None:
    """Write the bill of the installed application: versions, digests, licences, dependencies.

    Refused when something is installed in another version than is locked.

    \b
    Examples:
      bedside-flash sbom app -o bedside.cdx.json
    """
    from bedside_flash.bom import app_bom

    made = app_bom(lock.read_text(encoding="utf-8"))
    if output is None:
        click.echo(made.decode(), nl=False)
        return
    try:
        output.write_bytes(made)
    except OSError as cause:
        raise InvalidInputError(f"{output} cannot be written: {cause.strerror}") from cause
    parts = json.loads(made)["components"]
    silent = [part["name"] for part in parts if not part.get("licenses")]
    click.echo(f"wrote {output}: {len(parts)} libraries")
    if silent:
        click.echo(f"no licence in their metadata: {', '.join(silent)}")


@sbom.command("check")
@click.argument("folder", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def check_bom(folder: Path, as_json: bool) -> None:
    """Compare the bill in or beside FOLDER with what lies there.

    \b
    Examples:
      bedside-flash sbom check models/packages/cxr-opacity/1.0.0
    """
    from bedside_flash.bom import check_boms

    found = check_boms(folder)
    if as_json:
        rows = [{"bill": o.path.name, "kind": o.kind, "components": o.components} for o in found]
        click.echo(json.dumps({"bills": rows}, sort_keys=True))
        return
    for one in found:
        click.echo(f"{one.path.name}: {one.kind}, {one.components} components, as they lie there")
    if not found:
        click.echo("no bill of materials there")
