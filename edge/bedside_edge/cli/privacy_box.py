"""`bedside-edge privacy` on a box: release, replay, ledger, report, epoch, split, answer, policy.

Without `--url` the commands open the state folder themselves, which works while no box has it open;
with `--url` they ask the running box.
"""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import click
from rich.console import Console
from rich.table import Table

from bedside_core.accounting import epsilon as epsilon_of
from bedside_core.errors import InvalidInputError
from bedside_core.planner import Schedule
from bedside_core.release_page import price_words, release_page
from bedside_core.release_words import WORDS
from bedside_core.statistics.spec import Weight
from bedside_edge.cli.access import Asking, Where, over_http, where_options
from bedside_edge.cli.privacy_files import print_document, print_rates, sampling_rates
from bedside_edge.cli.privacy_unlock import DAY_MS, day_ms
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging

Json = dict[str, Any]
_FILE = click.Path(path_type=Path)
_SPLIT = ("split-counts", "split-labels", "split-sex")


@click.command("release")
@click.argument("names", metavar="STATISTIC...", nargs=-1, required=True)
@click.option("--purpose", required=True, help="One that the policy lists")
@click.option("--epsilon", default=0.0, help="Price at delta 1e-6, for all of it")
@click.option("--rho-units", default=0, type=click.IntRange(0), help="Price in 1e-12 rho instead")
@click.option("--snapshot", default="", help="Label of a frozen snapshot  [default: freeze now]")
@click.option("--schedule", type=click.Choice([str(one) for one in Schedule]), default="one-off")
@click.option("--nights", default=1, type=click.IntRange(1, 3660), show_default=True)
@click.option("--weight", type=click.Choice([str(one) for one in Weight]), default="study")
@click.option("--strata", is_flag=True, help="Noise by grade of data; the price is of the mildest")
@click.option("-o", "--output", type=_FILE, help="Write the file that recipients verify")
@click.option("--page", type=_FILE, help="Write the readable page (HTML)")
@click.option("--language", type=click.Choice(sorted(WORDS)), default="en", show_default=True)
@where_options
def release(
    names: tuple[str, ...],
    purpose: str,
    epsilon: float,
    rho_units: int,
    snapshot: str,
    schedule: str,
    nights: int,
    weight: str,
    strata: bool,
    output: Path | None,
    page: Path | None,
    language: str,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Release STATISTICs together: charged first, then measured, signed, final, answered.

    The same question on the same snapshot is the stored answer, and free. A schedule is charged
    once and answers night by night.

    \b
    Examples:
      bedside-edge privacy release prevalence --epsilon 0.5 --purpose quality -o release.json
      bedside-edge privacy release volume --schedule running-total --nights 365 --epsilon 1 \\
        --purpose quality --url http://127.0.0.1:8642 --token-file officer.token
    """
    with _asking(**where) as ask:
        if not snapshot:
            snapshot = ask("POST", "/privacy/snapshots", {})["label"]
        body = {
            "statistics": list(names),
            "epsilon": epsilon,
            "units": rho_units,
            "schedule": schedule,
            "nights": nights,
            "weight": weight,
            "strata": strata,
            "snapshot": snapshot,
            "purpose": purpose,
        }
        found = ask("POST", "/privacy/releases", body)
        _say_answer(ask, found, output, page, language, as_json)


@click.command("replay")
@click.argument("fingerprint")
@click.option("--night", default=0, type=click.IntRange(0, 3660), help="Of a schedule, from 0")
@click.option("-o", "--output", type=_FILE, help="Write the file that recipients verify")
@click.option("--page", type=_FILE, help="Write the readable page (HTML)")
@click.option("--language", type=click.Choice(sorted(WORDS)), default="en", show_default=True)
@where_options
def replay(
    fingerprint: str,
    night: int,
    output: Path | None,
    page: Path | None,
    language: str,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Show a stored answer again: the same bytes, free.

    \b
    Examples:
      bedside-edge privacy replay 4be0fe77... -o release.json
    """
    with _asking(**where) as ask:
        found = ask("GET", f"/privacy/releases/{fingerprint}?night={night}")
        _say_answer(ask, found, output, page, language, as_json)


@click.command("ledger")
@click.option("--start", default=1, type=click.IntRange(1), help="From this entry on")
@click.option("--limit", default=100, type=click.IntRange(1, 1000), show_default=True)
@click.option("--verify", is_flag=True, help="Fold every entry anew and compare")
@where_options
def ledger(start: int, limit: int, verify: bool, as_json: bool, **where: Unpack[Where]) -> None:
    """Show the entries of the privacy ledger, or check all of them.

    \b
    Examples:
      bedside-edge privacy ledger --state /var/lib/bedside
      bedside-edge privacy ledger --verify
    """
    with _asking(**where) as ask:
        if verify:
            found = ask("GET", "/privacy/ledger:verify")
        else:
            found = ask("GET", f"/privacy/ledger?start={start}&limit={limit}")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    if verify:
        click.echo(f"{found['entries']} entries agree with scopes, answers and evidence")
        return
    for one in found["entries"]:
        body = {name: value for name, value in one["body"].items() if name not in ("at", "kind")}
        words = " ".join(f"{name}={_short(value)}" for name, value in sorted(body.items()))
        click.echo(f"{one['seq']:>6}  {_when(one['body']['at'])}  {one['kind']:<12}  {words}")
    click.echo(f"{len(found['entries'])} of {found['size']} entries")


@click.command("report")
@click.option("--hospital", default="", help="With the next four: write the transparency file")
@click.option("--region", default="")
@click.option("--author", default="")
@click.option("--intended-use", default="Quality assurance of imaging AI.", show_default=True)
@click.option("--epoch", default=0, type=click.IntRange(0), help="[default: the newest]")
@click.option("-o", "--output", type=_FILE, help="FILE.yaml; the signed summary goes beside it")
@where_options
def report(
    hospital: str,
    region: str,
    author: str,
    intended_use: str,
    epoch: int,
    output: Path | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Say what is spent and what is left; with -o publish an epoch.

    The file has the form of the public registry of differential-privacy deployments.

    \b
    Examples:
      bedside-edge privacy report --state /var/lib/bedside
      bedside-edge privacy report -o epoch-1.yaml --hospital 'St. Example' --region Germany \\
        --author 'Eva Meier'
    """
    with _asking(**where) as ask:
        found = ask("GET", "/privacy/budget")
        released = ask("GET", "/privacy/releases?limit=1000")["releases"]
        if found["epoch"] is not None and released:
            path = f"/privacy/epochs/{epoch or found['epoch']['number']}/accounting"
            found["not_the_gate"] = ask("GET", path)["not_the_gate"]
        if output is not None:
            number = epoch or (found["epoch"] or {}).get("number", 1)
            about = {
                "hospital": hospital,
                "region": region,
                "author": author,
                "intended_use": intended_use,
                "published": time.strftime("%Y-%m-%d", time.gmtime()),
            }
            made = ask("POST", f"/privacy/epochs/{number}/transparency", about)
            _write(output, made["yaml"])
            _write(output.with_suffix(".summary.json"), json.dumps(made["summary"]) + "\n")
    if as_json:
        click.echo(json.dumps(found | {"releases": released}, sort_keys=True))
        return
    _print_budget(found)
    for one in released:
        names = ", ".join(one["statistics"])
        price = f"epsilon {one['cost']['epsilon']:.4g}"
        click.echo(f"{_when(one['at'])}  {one['state']:<9} {price:<16} {one['schedule']}  {names}")
        click.echo(f"  {one['fingerprint']}")


@click.command("epoch")
@click.argument("what", type=click.Choice(["show", "open", "close"]), default="show")
@click.option("--from", "starts", help="Day the epoch begins, YYYY-MM-DD  [default: today]")
@click.option("--days", default=365, type=click.IntRange(1, 3660), show_default=True)
@where_options
def epoch(what: str, starts: str | None, days: int, as_json: bool, **where: Unpack[Where]) -> None:
    """Show, open or close the epoch whose arrivals share one budget.

    \b
    Examples:
      bedside-edge privacy epoch open --from 2026-01-01 --days 365
      bedside-edge privacy epoch close
    """
    with _asking(**where) as ask:
        if what == "open":
            first = day_ms(starts)
            body = {"starts": first, "ends": first + days * DAY_MS}
            found = ask("POST", "/privacy/epochs", body)
        elif what == "close":
            found = ask("POST", "/privacy/epochs:close", {})
        else:
            found = ask("GET", "/privacy/epochs")
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    one = found["epoch"]
    if one is None:
        click.echo("no epoch was opened")
        return
    state = "closed" if one["closed"] else "open"
    until = f"{_when(one['starts'])[:10]} to {_when(one['ends'])[:10]}"
    click.echo(f"epoch {one['number']}, {state}: arrivals from {until}")


@click.command("split")
@click.option("--purpose", required=True, help="One that the policy lists")
@click.option("--epsilon", required=True, type=float, help="Of the mildest grade, at delta 1e-6")
@click.option("--snapshot", default="", help="Label of a frozen snapshot  [default: freeze now]")
@click.option("--sigma", default=2.0, show_default=True, type=click.FloatRange(0.1, 1000))
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1, 10**7))
@click.option("--delta", default=1e-5, show_default=True, type=click.FloatRange(1e-15, 0.1))
@click.option("-o", "--output", type=_FILE, help="Write the file that recipients verify")
@where_options
def split(
    purpose: str,
    epsilon: float,
    snapshot: str,
    sigma: float,
    steps: int,
    delta: float,
    output: Path | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Release how studies divide into training, validation and test: counts, labels, sexes.

    A patient stands in one part, by a hash that only the hospital can compute: 70, 15 and 15 %.
    Every grade of data is measured with noise of its own, in proportion to what the grading rules
    allow it; the ledger is charged the price of the mildest. The second table says how often
    DP-SGD (SIGMA, STEPS, DELTA) may draw each grade; it spends nothing.

    \b
    Examples:
      bedside-edge privacy split --epsilon 0.5 --purpose research --state /var/lib/bedside
    """
    with _asking(**where) as ask:
        allowed = ask("GET", "/privacy/catalogue")["grades"]
        label = snapshot or ask("POST", "/privacy/snapshots", {})["label"]
        body = {
            "statistics": list(_SPLIT),
            "epsilon": epsilon,
            "strata": True,
            "snapshot": label,
            "purpose": purpose,
        }
        found = ask("POST", "/privacy/releases", body)
        wanted = [epsilon_of(units, delta) for _, units in sorted(allowed.items())]
        found["training"] = sampling_rates(wanted, sigma, steps, delta)
        _say_answer(ask, found, output, None, "en", as_json)
    if not as_json:
        print_rates(found["training"])


@click.command("answer")
@click.argument("study")
@click.option("--recipient", required=True, help="Who is told")
@click.option("--epsilon", required=True, type=float, help="0.5 to 4, say; the truth is hid less")
@where_options
def answer(
    study: str, recipient: str, epsilon: float, as_json: bool, **where: Unpack[Where]
) -> None:
    """Tell an outsider about one STUDY by chance: mostly the truth, the same answer for ever.

    \b
    Examples:
      bedside-edge privacy answer nw4ylfjhm6ysl2qzu3u5i5n7em --recipient insurer --epsilon 1
    """
    with _asking(**where) as ask:
        body = {"study": study, "recipient": recipient, "epsilon": epsilon}
        found = ask("POST", "/privacy/local-answers", body)
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    document = json.loads(base64.b64decode(found["payload"]))
    click.echo(f"{document['label']}: {'yes' if document['answer'] else 'no'}")
    click.echo(document["explanation"])


@click.command("policy")
@click.argument("path", type=_FILE, required=False)
@click.option("--sign", "key", type=_FILE, help="PEM file: sign PATH (TOML, or signed already)")
@click.option("--no-passphrase", is_flag=True, help="The key's file has none")
@click.option("-o", "--output", type=_FILE, help="With --sign: written to")
@where_options
def policy(
    path: Path | None,
    key: Path | None,
    no_passphrase: bool,
    output: Path | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Show the privacy policy in force, sign one, or put the signed document PATH in force.

    The first policy, and any that loosens a cap or a bound, needs two signatures.

    \b
    Examples:
      bedside-edge privacy policy budget.toml --sign officer.pem -o budget.dsse.json
      bedside-edge privacy policy budget.dsse.json --sign head.pem -o budget.dsse.json
      bedside-edge privacy policy budget.dsse.json --state /var/lib/bedside
    """
    if key is not None:
        if path is None or output is None:
            raise click.UsageError("--sign needs PATH and -o")
        click.echo(_sign(path, key, output, no_passphrase))
        return
    with _asking(**where) as ask:
        if path is None:
            found = ask("GET", "/privacy/policy")
        else:
            found = ask("PUT", "/privacy/policy", _read_json(path))
    click.echo(json.dumps(found, sort_keys=True) if as_json else found["text"], nl=as_json)


COMMANDS = (release, replay, ledger, report, epoch, split, answer, policy)


# --- inside --------------------------------------------------------------------------------------


def _sign(path: Path, key: Path, output: Path, no_passphrase: bool) -> str:
    from bedside_core.privacy_policy import PAYLOAD_TYPE, parse_privacy_policy
    from bedside_core.signatures import countersigned, seal_envelope
    from bedside_edge.system.policy_keys import load_signer

    data = _read(path)
    phrase = "" if no_passphrase else click.prompt("Passphrase", hide_input=True, err=True)
    key_id, signer = load_signer(key, "", phrase.encode() or None)
    if path.suffix == ".toml":
        parse_privacy_policy(data)
        made = seal_envelope(PAYLOAD_TYPE, data, {key_id: signer})
    else:
        made = countersigned(data, PAYLOAD_TYPE, {key_id: signer})
    _write(output, made.decode())
    return f"signed by {key_id}: {output}"


def _say_answer(
    ask: Asking,
    found: Json,
    output: Path | None,
    page: Path | None,
    language: str,
    as_json: bool,
) -> None:
    document = found["document"]
    if document is None:
        words = f"charged; the first night is answered when it is over: {found['fingerprint']}"
        click.echo(json.dumps(found, sort_keys=True) if as_json else words)
        return
    if output is not None:
        path = f"/privacy/releases/{found['fingerprint']}/file?night={found['night']}"
        _write(output, json.dumps(ask("GET", path), sort_keys=True, indent=1) + "\n")
    if page is not None:
        _write(page, release_page(document, language))
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
        return
    print_document(document)
    click.echo(f"log entry {found['entry']}")


def _print_budget(found: Json) -> None:
    one = found["epoch"]
    number = "none opened" if one is None else str(one["number"])
    click.echo(f"data set {found['dataset'] or '-'}, epoch {number}, {found['entries']} entries")
    if found["locked"]:
        click.echo(
            "LOCKED: the ledger is behind what was seen of it; two people write the epoch off at"
            " the stopped box: bedside-edge privacy unlock --login ... --with ..."
        )
    table = Table()
    for name in ("budget", "spent", "left", "of"):
        table.add_column(name, justify="left" if name == "budget" else "right")
    for scope in found["scopes"]:
        amounts = (f"{scope[part]['epsilon']:.4g}" for part in ("spent", "left", "cap"))
        table.add_row(f"{scope['kind']} {scope['name']}", *amounts)
    Console().print(table)
    click.echo("epsilon at delta 1e-6; the ledger adds rho, so epsilons here do not add up")
    for scope in found["scopes"][:1]:
        click.echo(f"left of this epoch: {price_words(scope['left'])}")
    for name, value in found["not_the_gate"].items():
        click.echo(f"not the gate, {name}: epsilon {value:.4g}")


def _when(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at / 1000))


def _short(value: object) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return f"{text[:16]}..." if len(text) > 40 else text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise InvalidInputError(f"{path} cannot be read") from cause


def _read_json(path: Path) -> Json:
    try:
        found: Json = json.loads(_read(path))
    except ValueError as cause:
        raise InvalidInputError(f"{path} is no signed document") from cause
    return found


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as cause:
        raise InvalidInputError(f"{path} cannot be written: {cause.strerror}") from cause
    click.echo(f"wrote {path}", err=True)


@contextmanager
def _asking(**where: Unpack[Where]) -> Iterator[Asking]:
    """Lend the way to ask: the running box, or its folder."""
    set_up_logging(level="error", style="plain")
    if where["url"]:
        yield over_http(where)
        return
    from bedside_edge.cli.privacy_offline import offline_privacy

    config, folder = load_config(where["config_path"])
    with offline_privacy(config, where["state"] or folder) as desk:
        yield desk
