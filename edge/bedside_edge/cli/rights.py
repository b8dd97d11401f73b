"""`bedside-edge consent` and `request`: what patients agreed to, took back, and ask for.

The commands ask the running box. Answers are given by a person: `--login`.
"""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import click

from bedside_core.consent import PURPOSES, Giver
from bedside_edge.cli.access import ASK_THE_BOX, Asking, Where, over_http, where_options
from bedside_edge.logs import set_up_logging
from bedside_edge.ports.rights import Ask

Json = dict[str, Any]

_PURPOSE = click.Choice(sorted(PURPOSES))
_login = click.option("--login", default="", help="Ask as this person; the password is asked for")


@click.group()
def consent() -> None:
    """Consents on record: give, withdraw, list, as FHIR."""


@consent.command("notice")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_login
@where_options
def add_notice(path: Path, login: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Keep a notice: a JSON object of its parts. Says what is missing.

    \b
    Examples:
      bedside-edge consent notice notice.json --url http://127.0.0.1:8642 --login officer
    """
    with _asking(login, **where) as ask:
        made = ask("POST", "/notices", {"parts": json.loads(path.read_text(encoding="utf-8"))})
    click.echo(json.dumps(made, sort_keys=True) if as_json else made["digest"])


@consent.command("give")
@click.argument("subject_id")
@click.argument("purpose", type=_PURPOSE)
@click.option("--notice", required=True, help="Digest of the notice that was read")
@click.option("--by", type=click.Choice(list(Giver)), default="patient", show_default=True)
@click.option("--separate", is_flag=True, help="Given apart from every other consent")
@click.option("--document", default="", help="SHA-256 of the signed paper")
@_login
@where_options
def give(
    subject_id: str,
    purpose: str,
    notice: str,
    by: str,
    separate: bool,
    document: str,
    login: str,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Put a consent on record. SUBJECT_ID: see `bedside-edge request find`.

    \b
    Examples:
      bedside-edge consent give 5v2mpx6gnq3cjgm4kx3cldsnty training --notice 9f2c...
    """
    body = {
        "purpose": purpose,
        "notice": notice,
        "given_by": by,
        "separate": separate,
        "document": document,
    }
    with _asking(login, **where) as ask:
        made = ask("POST", f"/subjects/{subject_id}/consents", body)
    click.echo(json.dumps(made, sort_keys=True) if as_json else made["id"])


@consent.command("withdraw")
@click.argument("subject_id")
@click.argument("purpose", type=click.Choice([*sorted(PURPOSES), "all"]), default="all")
@_login
@where_options
def withdraw(
    subject_id: str, purpose: str, login: str, as_json: bool, **where: Unpack[Where]
) -> None:
    """Take consent back, from the next use on.

    \b
    Examples:
      bedside-edge consent withdraw 5v2mpx6gnq3cjgm4kx3cldsnty
    """
    with _asking(login, **where) as ask:
        made = ask("POST", f"/subjects/{subject_id}/consents:withdraw", {"purpose": purpose})
    if as_json:
        click.echo(json.dumps(made, sort_keys=True))
        return
    click.echo(f"withdrawn: {made['purpose']}; running jobs stopped: {made['stopped_jobs']}")
    click.echo(made["note"])


@consent.command("list")
@click.argument("subject_id")
@click.option("--fhir", is_flag=True, help="As a FHIR R4B Bundle")
@_login
@where_options
def list_consents(
    subject_id: str, fhir: bool, login: str, as_json: bool, **where: Unpack[Where]
) -> None:
    """List a patient's consents.

    \b
    Examples:
      bedside-edge consent list 5v2mpx6gnq3cjgm4kx3cldsnty --fhir
    """
    with _asking(login, **where) as ask:
        found = ask("GET", f"/subjects/{subject_id}/consents" + ("/fhir" if fhir else ""))
    if as_json or fhir:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["consents"]:
        state = "withdrawn" if one["withdrawn_at"] else "on record"
        click.echo(f"{one['id']}  {one['purpose']}  {one['given_by']}  {state}")


@click.group()
def request() -> None:
    """The request desk: know, copy, correct, delete, explain, object; each with its day."""


@request.command("find")
@click.argument("patient_id")
@click.option("--issuer", default="", help="Issuer of the patient id (0010,0021)")
@_login
@where_options
def find(patient_id: str, issuer: str, login: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Print the box's own id of a patient.

    \b
    Examples:
      bedside-edge request find 4711 --issuer HOSPITAL
    """
    with _asking(login, **where) as ask:
        found = ask("POST", "/subjects:find", {"patient_id": patient_id, "issuer": issuer})
    click.echo(json.dumps(found, sort_keys=True) if as_json else found["id"])


@request.command("receive")
@click.argument("subject_id")
@click.argument("kind", type=click.Choice(list(Ask)))
@_login
@where_options
def receive(subject_id: str, kind: str, login: str, as_json: bool, **where: Unpack[Where]) -> None:
    """Take a request in; its time runs from now.

    \b
    Examples:
      bedside-edge request receive 5v2mpx6gnq3cjgm4kx3cldsnty copy
    """
    with _asking(login, **where) as ask:
        _say(ask("POST", f"/subjects/{subject_id}/requests", {"kind": kind}), as_json)


@request.command("list")
@click.option("--open", "only_open", is_flag=True, help="Only what is not answered")
@_login
@where_options
def list_requests(only_open: bool, login: str, as_json: bool, **where: Unpack[Where]) -> None:
    """List requests, the first due first.

    \b
    Examples:
      bedside-edge request list --open
    """
    with _asking(login, **where) as ask:
        found = ask("GET", "/requests" + ("?open=true" if only_open else ""))
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["requests"]:
        _say(one, as_json=False)


@request.command("answer")
@click.argument("request_id")
@click.option("--identity", default="", help="How the person was recognised: passport, in-person")
@click.option("--note", default="done", help="With `correct`: what became of it, a word")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write what is handed over")
@_login
@where_options
def answer(
    request_id: str,
    identity: str,
    note: str,
    output: Path | None,
    login: str,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Do what was asked for. Copies leave as a zip file with proofs.

    \b
    Examples:
      bedside-edge request answer q7ae6xd3k2 --identity passport -o copy.zip --login officer
    """
    with _asking(login, **where) as ask:
        if identity:
            ask("POST", f"/requests/{request_id}:identify", {"how": identity})
        made = ask("POST", f"/requests/{request_id}:answer", {"note": note})
    if output is not None:
        output.write_bytes(base64.b64decode(made["file"]))
    click.echo(json.dumps(made, sort_keys=True) if as_json else f"answered: {made['sha256']}")


@request.command("refuse")
@click.argument("request_id")
@click.argument("why")
@_login
@where_options
def refuse(request_id: str, why: str, login: str, as_json: bool, **where: Unpack[Where]) -> None:
    """End a request without what was asked for; WHY is a word.

    \b
    Examples:
      bedside-edge request refuse q7ae6xd3k2 not-recognised
    """
    with _asking(login, **where) as ask:
        _say(ask("POST", f"/requests/{request_id}:refuse", {"note": why}), as_json)


def _say(one: Json, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(one, sort_keys=True))
        return
    late = "  OVERDUE" if one["overdue"] else ""
    day = time.strftime("%Y-%m-%d", time.gmtime(one["due_at"] / 1000))
    click.echo(f"{one['id']}  {one['kind']}  {one['state']}  due {day} ({one['text']}){late}")


@contextmanager
def _asking(login: str, **where: Unpack[Where]) -> Iterator[Asking]:
    set_up_logging(level="error", style="plain")
    if not where["url"]:
        raise click.UsageError(f"these commands ask the running box: {ASK_THE_BOX}, or --login")
    if not login:
        yield over_http(where)
        return
    from bedside_edge import remote

    password = click.prompt(f"Password of {login}", hide_input=True, err=True)
    with remote.person(where["url"], login, password) as ask:
        yield ask
