"""`bedside-edge erase`, `hold` and `retention`: what goes for good, what must stay, and why.

Without `--url` the commands open the state folder themselves, which works while no box has it
open; with `--url` they ask the running box, with a token that may manage consent or policy. The
shipped policy lets a person erase over the network and no token: a token plans, lists and sweeps.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from bedside_core.errors import InvalidCertificateError, StoreUnavailableError
from bedside_edge.cli.access import (
    Asking,
    Where,
    over_http,
    where_options,
    while_a_box_runs,
)
from bedside_edge.cli.evidence import read_keys
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging

if TYPE_CHECKING:
    from bedside_edge.ports import Clock
    from bedside_edge.services.gate import Gate
    from bedside_edge.services.keeping import Keeping

Json = dict[str, Any]

_REASON = click.Choice(["request", "withdrawal", "administrative"])
_SHOWN = 1000
_ONE = {"studies": "study", "deliveries": "delivery"}
_DAY_MS = 86_400_000


@click.group()
def erase() -> None:
    """Destroy a study or a patient for good: keys, rows, files, and what backups could open."""


@erase.command("study")
@click.argument("study_id")
@click.option("--reason", type=_REASON, default="request", show_default=True)
@click.option("--yes", is_flag=True, help="Erase; without it the plan is shown and asked about")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the certificate here")
@where_options
def erase_study(
    study_id: str,
    reason: str,
    yes: bool,
    output: Path | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Erase one study. Shows what would go, then asks for the id to be typed again.

    \b
    Examples:
      bedside-edge erase study nw4ylfjhm6ysl2qzu3u5i5n7em --state /var/lib/bedside
      bedside-edge erase study nw4ylfjhm6ysl2qzu3u5i5n7em --yes -o certificate.json --json
    """
    with _asking(**where) as ask:
        _erase(ask, "studies", study_id, study_id, reason, yes, output, as_json)


@erase.command("subject")
@click.argument("subject_id", required=False, default="")
@click.option("--patient-id", default="", help="Instead of SUBJECT_ID: Patient ID (0010,0020)")
@click.option("--issuer", default="", help="With --patient-id: its issuer (0010,0021)")
@click.option("--reason", type=_REASON, default="request", show_default=True)
@click.option("--yes", is_flag=True, help="Erase; without it the plan is shown and asked about")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the certificate here")
@where_options
def erase_subject(
    subject_id: str,
    patient_id: str,
    issuer: str,
    reason: str,
    yes: bool,
    output: Path | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Erase a patient: every study, and the key with which log entries can be shown to be theirs.

    \b
    Examples:
      bedside-edge erase subject --patient-id 4711 --issuer HOSPITAL
      bedside-edge erase subject 5v2mpx6gnq3cjgm4kx3cldsnty --reason withdrawal
    """
    if bool(subject_id) is bool(patient_id):
        raise click.UsageError("give SUBJECT_ID or --patient-id")
    with _asking(**where) as ask:
        if patient_id:
            body = {"patient_id": patient_id, "issuer": issuer}
            subject_id = ask("POST", "/subjects:find", body)["id"]
        typed = patient_id or subject_id
        _erase(ask, "subjects", subject_id, typed, reason, yes, output, as_json)


@erase.command("list")
@where_options
def list_erasures(as_json: bool, **where: Unpack[Where]) -> None:
    """List erasures, newest first.

    \b
    Examples:
      bedside-edge erase list --state /var/lib/bedside
    """
    with _asking(**where) as ask:
        found = ask("GET", "/erasures")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["erasures"]:
        day = _day(one["done_at"] or one["at"])
        words = f"{_went(one)}, log entry {one['entry']}"
        click.echo(f"{one['id']}  {day}  {one['state']}  {one['reason']}  {words}")


@erase.command("certificate")
@click.argument("erasure_id")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: standard output")
@where_options
def write_certificate(
    erasure_id: str, output: Path | None, as_json: bool, **where: Unpack[Where]
) -> None:
    """Write the deletion certificate of an erasure, and its .tlog-proof beside it.

    \b
    Examples:
      bedside-edge erase certificate 7l2q -o certificate.json
    """
    with _asking(**where) as ask:
        found = ask("GET", f"/erasures/{erasure_id}/certificate")
    if output is None or as_json:
        click.echo(json.dumps(found, sort_keys=True))
    if output is not None:
        _write(found, output)


@erase.command("verify")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--vkey", "vkeys", multiple=True, help="Key of the log, or a file of keys; repeat")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def verify_certificate(path: Path, vkeys: tuple[str, ...], as_json: bool) -> None:
    """Check a deletion certificate offline: the list, the log's entry, the proof, the signatures.

    \b
    Examples:
      bedside-edge erase verify certificate.json --vkey box.vkeys
    """
    from bedside_core.erasure import check_entry, parse_certificate
    from bedside_core.evidence.proof import verify_proof

    keys = read_keys(vkeys)
    names = {key.name for key in keys}
    if len(names) != 1:
        raise click.UsageError("--vkey takes the keys of one log: without them nothing is proven")
    certificate = parse_certificate(path.read_bytes())
    proven = verify_proof(certificate.proof.encode(), names.pop(), keys, [])
    if proven.index != certificate.index:
        raise InvalidCertificateError("the certificate names another entry than its proof")
    entry = check_entry(certificate, proven.entry)
    facts = {
        "index": certificate.index,
        "actor": entry.actor,
        "reason": certificate.reason,
        "studies": certificate.studies,
        "objects": len(certificate.objects),
        "at": certificate.at,
    }
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))
        return
    click.echo(f"verified: log entry {certificate.index} says that on {_day(certificate.at)}")
    click.echo(f"  {_went(facts)} went")
    click.echo(f"  by {entry.actor}, reason {certificate.reason}")


@erase.command("compact")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings")
@click.option("--state", type=click.Path(path_type=Path), help="State folder, no box on it")
def compact_database(config_path: Path | None, state: Path | None) -> None:
    """Write the database of a stopped box anew: unused parts of its pages then hold nothing.

    An erasure does so itself while the database is below 256 MB.

    \b
    Examples:
      bedside-edge erase compact --state /var/lib/bedside
    """
    set_up_logging(level="error", style="plain")
    with _open_folder(config_path, state) as (keeping, _, _):
        if not keeping.erasure.compact(always=True):
            raise StoreUnavailableError("the database was not rewritten: no room, or it is in use")
    click.echo("written anew")


# --- legal hold ----------------------------------------------------------------------------------


@click.group()
def hold() -> None:
    """Legal holds: a study is kept and not processed, whoever asks for its erasure."""


@hold.command("add")
@click.argument("study_id")
@click.argument("reason")
@click.option(
    "--review-days", type=click.IntRange(1), default=90, show_default=True, help="Look again then"
)
@where_options
def add_hold(
    study_id: str, reason: str, review_days: int, as_json: bool, **where: Unpack[Where]
) -> None:
    """Hold STUDY_ID for a REASON: one word, like `litigation`.

    \b
    Examples:
      bedside-edge hold add nw4ylfjhm6ysl2qzu3u5i5n7em litigation --review-days 30
    """
    at = int(time.time() * 1000) + review_days * _DAY_MS
    with _asking(**where) as ask:
        made = ask("POST", f"/studies/{study_id}/hold", {"reason": reason, "review_at": at})
    if as_json:
        click.echo(json.dumps(made, sort_keys=True))
        return
    click.echo(f"{made['id']} holds {made['study']}, to be looked at on {_day(made['review_at'])}")


@hold.command("release")
@click.argument("hold_id")
@where_options
def release_hold(hold_id: str, as_json: bool, **where: Unpack[Where]) -> None:
    """End a legal hold; jobs of the study go on.

    \b
    Examples:
      bedside-edge hold release q7ae6xd3k2
    """
    with _asking(**where) as ask:
        made = ask("POST", f"/holds/{hold_id}:release")
    click.echo(json.dumps(made, sort_keys=True) if as_json else f"{made['study']} is released")


@hold.command("list")
@where_options
def list_holds(as_json: bool, **where: Unpack[Where]) -> None:
    """List the legal holds in force, oldest first.

    \b
    Examples:
      bedside-edge hold list --state /var/lib/bedside
    """
    with _asking(**where) as ask:
        found = ask("GET", "/holds")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    for one in found["holds"]:
        note = "  overdue" if one["overdue"] else ""
        click.echo(f"{one['id']}  {one['study']}  {one['reason']}  {_day(one['review_at'])}{note}")


# --- retention -----------------------------------------------------------------------------------


@click.group()
def retention() -> None:
    """Which studies go when room is needed, and why the others stay."""


@retention.command("plan")
@where_options
def plan_retention(as_json: bool, **where: Unpack[Where]) -> None:
    """Say what a sweep would erase now. Nothing is deleted.

    \b
    Examples:
      bedside-edge retention plan --state /var/lib/bedside
      bedside-edge retention plan --url http://127.0.0.1:8642 --token-file officer.token --json
    """
    with _asking(**where) as ask:
        found = ask("GET", f"/retention/plan?limit={_SHOWN}")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
    else:
        _print_retention(found)


@retention.command("run")
@click.option("--yes", is_flag=True, help="Erase; without it the plan is shown and asked about")
@where_options
def run_retention(yes: bool, as_json: bool, **where: Unpack[Where]) -> None:
    """Sweep now: erase what `plan` says goes.

    \b
    Examples:
      bedside-edge retention run --state /var/lib/bedside
    """
    with _asking(**where) as ask:
        if not yes:
            found = ask("GET", f"/retention/plan?limit={_SHOWN}")
            _print_retention(found)
            if not found["goes"]:
                return
            click.confirm(f"Erase {_count(found['goes'], 'studies')} for good?", abort=True)
        made = ask("POST", "/retention:run")
    click.echo(
        json.dumps(made, sort_keys=True)
        if as_json
        else f"{_count(made['erased'], 'studies')} erased"
    )


# --- inside --------------------------------------------------------------------------------------


def _erase(
    ask: Asking,
    kind: str,
    target: str,
    typed: str,
    reason: str,
    yes: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    plan = ask("GET", f"/{kind}/{target}/erasure")
    if not yes:
        _print_plan(plan)
        if click.prompt("Type the id again to erase for good", default="") != typed:
            raise click.Abort
    done = ask("DELETE", f"/{kind}/{target}?reason={reason}")
    if as_json:
        # objects in archives are named here and nowhere else: the box forgets their UIDs
        click.echo(json.dumps({"plan": plan, "erasure": done}, sort_keys=True))
    else:
        click.echo(f"{done['state']}: {_went(done)}, log entry {done['entry']}")
        _print_elsewhere(plan)
        click.echo(f"certificate: bedside-edge erase certificate {done['id']}")
    if output is not None:
        _write(ask("GET", f"/erasures/{done['id']}/certificate"), output)


def _write(certificate: Json, output: Path) -> None:
    output.write_text(json.dumps(certificate, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    proof = output.with_suffix(".tlog-proof")
    proof.write_text(certificate["proof"], encoding="utf-8")
    click.echo(f"wrote {output} and {proof}", err=True)


def _print_plan(plan: Json) -> None:
    words = _went({"studies": len(plan["studies"]), "objects": plan["objects"]})
    click.echo(f"{words}, {_size(plan['bytes'])}; {_count(plan['results'], 'results')}")
    click.echo(f"ending without a result: {_count(plan['open_jobs'], 'jobs')}")
    click.echo(f"cancelled: {_count(plan['open_deliveries'], 'deliveries')}")
    _print_elsewhere(plan)
    if plan["held"]:
        click.echo(f"legal hold on {', '.join(plan['held'])}: erasing is refused")


def _went(one: Json) -> str:
    return f"{_count(one['studies'], 'studies')} with {_count(one['objects'], 'files')}"


def _print_elsewhere(plan: Json) -> None:
    for one in plan["elsewhere"]:
        how = "has" if one["arrived"] else "may have"
        click.echo(f"{one['destination']} {how} {_count(one['objects'], 'objects')} of the box:")
        for uid in one["sop_instance_uids"]:
            click.echo(f"  {uid}")
    if plan["note"]:
        click.echo(plan["note"])


def _print_retention(found: Json) -> None:
    used = found["used"] / found["total"] if found["total"] else 0
    click.echo(f"disk {used:.0%} used, {_size(found['needed'])} to be freed")
    for one in found["studies"]:
        word = "goes " if one["goes"] else "stays"
        size = _size(one["bytes"])
        click.echo(f"{word}  {one['study']}  {_day(one['received'])}  {size:>9}  {one['reason']}")
    stays = ", ".join(f"{count} {reason}" for reason, count in sorted(found["stays"].items()))
    click.echo(f"{found['goes']} go ({_size(found['freed'])}); stay: {stays or 'none'}")


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count != 1 else f"1 {_ONE.get(what, what[:-1])}"


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _day(at: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at / 1000))


@contextmanager
def _asking(**where: Unpack[Where]) -> Iterator[Asking]:
    """Lend the way to ask: the running box, or its folder."""
    set_up_logging(level="error", style="plain")
    if where["url"]:
        yield over_http(where)
        return
    from bedside_edge.cli.keeping_offline import Offline

    with ExitStack() as stack:
        with while_a_box_runs():
            found = stack.enter_context(_open_folder(where["config_path"], where["state"]))
        yield Offline(*found)


def _open_folder(
    config_path: Path | None, state: Path | None
) -> AbstractContextManager[tuple["Keeping", Callable[[], "Gate"], "Clock"]]:
    from bedside_edge.cli.keeping_offline import gate_over  # the store: only when it is needed
    from bedside_edge.state_folder import offline_keeping

    config, default = load_config(config_path)
    folder = state or default
    return offline_keeping(config, folder, partial(gate_over, config, folder))
