"""`bedside-edge deidentify`: pictures without what identifies, for outside the hospital.

Works on a folder that no box has open: pseudonyms are made with its key. A study goes only if the
policy permits its export: consent to export, and, above grade 2, two people who looked.
"""

import json
from pathlib import Path
from typing import Any

import click

from bedside_core.errors import InvalidInputError
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging


@click.command()
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder")
@click.option("--login", default="", help="Who exports; the password is asked for")
@click.option("--with", "second", default="", help="Another person who looked at it")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings")
@click.option("--state", type=click.Path(path_type=Path), help="State folder, no box on it")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def deidentify(
    source: str,
    output: Path,
    login: str,
    second: str,
    config_path: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """De-identify SOURCE, a DICOM file or a study of the box, into a folder.

    What cannot be cleaned is refused: text in the pixels, reports, private SOP Classes.

    \b
    Examples:
      bedside-edge deidentify chest.dcm -o clean/ --state /var/lib/bedside
      bedside-edge deidentify nw4ylfjhm6ysl2qzu3u5i5n7em -o clean/ --login ada --with bert
    """
    from bedside_edge.outside import offline_deidentifier  # the store: only when it is needed

    set_up_logging(level="error", style="plain")
    config, folder = load_config(config_path)
    with offline_deidentifier(config, state or folder) as lent:
        if Path(source).is_file():
            made = [lent.clean(Path(source).read_bytes())]
        else:
            if not login:
                raise click.UsageError("--login: who exports a study")
            made = lent.study(source, *(_person(lent, one) for one in (login, second)))
    output.mkdir(parents=True, exist_ok=True)
    report = []
    for one in made:
        path = output / f"{one.name}.dcm"
        try:
            path.write_bytes(one.data)
        except OSError as cause:
            raise InvalidInputError(f"{path} cannot be written") from cause
        report.append(
            {
                "file": path.name,
                "kept": one.kept,
                "replaced": one.replaced,
                "dropped": one.dropped,
                "private": one.private,
            }
        )
    if as_json:
        click.echo(json.dumps({"profile": lent.profile, "objects": report}, sort_keys=True))
        return
    for row in report:
        click.echo(
            f"{row['file']}: {row['kept']} kept, {row['replaced']} replaced,"
            f" {row['dropped']} dropped ({row['private']} private)"
        )


def _person(lent: Any, login: str) -> Any:  # noqa: ANN401  Session, imported late
    if not login:
        return None
    password = click.prompt(f"Password of {login}", hide_input=True, err=True)
    return lent.person(login, password)
