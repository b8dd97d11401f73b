"""`bedside-edge policy` and `bedside-edge grade`: what may be done with data, and why."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from bedside_core.errors import InvalidInputError, InvalidPolicyError
from bedside_edge.config import load_config

if TYPE_CHECKING:
    from bedside_core.policy import Document
    from bedside_edge.ports.policy import Policy
    from bedside_edge.services.policies import Checked

_SOURCES = ("policy.toml", "policy.cedar")


@click.group()
def policy() -> None:
    """What may be done with data: check, explain, sign and activate policies."""


@policy.command("check")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="Default: shipped")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def check(path: Path, against: Path | None, as_json: bool) -> None:
    """Check a policy as before activation.

    PATH is a folder with policy.toml and policy.cedar, or a signed document. Says what it would
    permit that is denied now, and how many have to sign it.

    \b
    Examples:
      bedside-edge policy check our-policy/
      bedside-edge policy check our-policy.dsse.json --against in-force.dsse.json
    """
    from bedside_edge.services.policies import check_against
    from bedside_edge.system.policy_cedar import CedarPolicy, shipped_document

    shipped = CedarPolicy(shipped_document())
    old = CedarPolicy(_document(against)) if against else shipped
    found = check_against(CedarPolicy(_document(path)), old, shipped)
    if as_json:
        click.echo(json.dumps(_checked(found), sort_keys=True, ensure_ascii=False))
        return
    document = found.policy.document
    click.echo(f"{document.label}: {len(found.policy.rules)} rules, {len(document.golden)} golden")
    click.echo(f"decisions as written. digest {document.digest}")
    for change in found.looser:
        click.echo(f"  looser - {change}")
    for ask in found.turned[:5]:
        facts = ask.to_json()
        who = ", ".join(facts["actor"]["roles"]) or facts["actor"]["kind"]
        context = facts["context"]
        click.echo(
            f"  would permit: {who} {facts['use']} {facts['data']['thing']} of grade "
            f"{facts['data']['grade']} for {context['purpose']}, {context['incident']}"
        )
    if found.turned_count > 5:
        click.echo(f"  and {found.turned_count - 5} more of the probing asks")
    click.echo(f"needs {found.needed} signature{'s' if found.needed > 1 else ''} by trusted keys")


@policy.command("template")
@click.argument("folder", type=click.Path(path_type=Path))
def template(folder: Path) -> None:
    """Write the shipped policy into a new FOLDER, to start from.

    Its version is one above the shipped one. What is marked mandatory has to stay as it is.

    \b
    Examples:
      bedside-edge policy template our-policy/
    """
    from bedside_edge.system.policy_cedar import shipped_source

    try:
        folder.mkdir(parents=True)
        for name, data in shipped_source().items():
            if name == "policy.toml":
                data = data.replace(b"\nversion = 1\n", b"\nversion = 2\n")
            (folder / name).write_bytes(data)
    except OSError as cause:
        raise InvalidInputError(f"{folder} cannot be made, or exists") from cause
    click.echo(f"{folder}/policy.cedar and policy.toml: edit, then policy check and sign")


@policy.command("show")
@click.argument("path", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--url", envvar="BEDSIDE_URL", default="", help="What is in force on that box")
@click.option("--token", envvar="BEDSIDE_TOKEN", default="", help="With --url")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def show(path: Path | None, url: str, token: str, as_json: bool) -> None:
    """Show the rules of a policy with the reason beside each.

    Of PATH, of a running box, or of the one shipped with the box.

    \b
    Examples:
      bedside-edge policy show
      bedside-edge policy show --url http://127.0.0.1:8642
    """
    if url:
        from bedside_edge import remote

        found = remote.ask("GET", url, "/api/v1/policy", token)
        rows = [(one["rule"], one["effect"], one["en"], one["zh"]) for one in found["rules"]]
        head = f"{found['name']} {found['version']}, revision {found['revision']}"
        digest = found["digest"]
    else:
        made = _policy(path)
        told = made.document.reasons
        rows = [
            (r.rule_id, r.effect, told[r.rule_id].en, told[r.rule_id].zh)
            for r in made.rules
            if r.rule_id in told
        ]
        head, digest = made.document.label, made.document.digest
    if as_json:
        names = ("rule", "effect", "en", "zh")
        listed = [dict(zip(names, row, strict=True)) for row in rows]
        body = {"policy": head, "digest": digest, "rules": listed}
        click.echo(json.dumps(body, sort_keys=True, ensure_ascii=False))
        return
    table = Table(title=f"{head}, digest {digest[:16]}", title_justify="left")
    for name in ("rule", "effect", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name != "reason")
    for rule, effect, en, zh in rows:
        table.add_row(rule, effect, f"{en}\n{zh}")
    Console().print(table)


@policy.command("explain")
@click.argument("ask_file", type=click.Path(path_type=Path, exists=True, allow_dash=True))
@click.option("--policy", "path", type=click.Path(path_type=Path, exists=True), help="Other policy")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def explain(ask_file: Path, path: Path | None, as_json: bool) -> None:
    """Say what a policy decides on the facts in ASK_FILE (JSON; `-` reads them), rule by rule.

    \b
    Examples:
      echo '{"use": "view", "actor": {"roles": ["radiologist"]}}' | bedside-edge policy explain -
      bedside-edge policy explain ask.json --policy our-policy/
    """
    from bedside_core.policy import parse_ask

    data = sys.stdin.buffer.read() if str(ask_file) == "-" else _read(ask_file)
    ask, made = parse_ask(data), _policy(path)
    found, fired = made.decide(ask), made.explain(ask)
    if as_json:
        body = {
            "permitted": found.permitted,
            "cause": str(found.cause),
            "reasons": [dataclasses.asdict(reason) for reason in found.reasons],
            "errors": list(found.errors),
            "fired": [dataclasses.asdict(one) for one in fired],
            "policy": found.policy,
            "asked": found.asked,
        }
        click.echo(json.dumps(body, sort_keys=True, ensure_ascii=False))
        return
    click.echo(f"{'permitted' if found.permitted else 'denied'} ({found.cause})")
    for reason in found.reasons:
        click.echo(f"  {reason.rule or '-'}: {reason.en} {reason.zh}")
    for error in found.errors:
        click.echo(f"  error: {error}")
    applying = [f"{one.effect} {one.rule}" for one in fired if one.applies]
    click.echo(f"rules that apply: {', '.join(applying) or 'none'}")


@policy.command("digest")
@click.argument("path", required=False, type=click.Path(path_type=Path, exists=True))
def digest(path: Path | None) -> None:
    """Print the digest of a policy; the shipped one when no PATH is given.

    \b
    Examples:
      bedside-edge policy digest our-policy/
    """
    from bedside_edge.system.policy_cedar import shipped_document

    click.echo(_document(path).digest if path else shipped_document().digest)


@policy.command("keygen")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--no-passphrase", is_flag=True, help="Leave the file to its mode 0600")
def keygen(name: str, path: Path, no_passphrase: bool) -> None:
    """Make a key that signs policies.

    PATH.pem stays with its person, PATH.pub goes into the box's folder of trusted keys
    ([policy] trusted).

    \b
    Examples:
      bedside-edge policy keygen privacy-officer officer.pem
    """
    from bedside_edge.system.policy_keys import make_key

    if path.suffix != ".pem":
        raise InvalidInputError("the private key's file ends in .pem")
    phrase = "" if no_passphrase else click.prompt("Passphrase", hide_input=True, err=True)
    click.echo(make_key(name, path, phrase.encode() or None))


@policy.command("sign")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--key", required=True, type=click.Path(path_type=Path, exists=True), help="PEM file")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Written to")
@click.option("--no-passphrase", is_flag=True, help="The key's file has none")
def sign(path: Path, key: Path, output: Path, no_passphrase: bool) -> None:
    """Sign a policy, after checking it.

    A folder becomes a signed document; a signed document gets one signature more.

    \b
    Examples:
      bedside-edge policy sign our-policy/ --key officer.pem -o our-policy.dsse.json
      bedside-edge policy sign our-policy.dsse.json --key head.pem -o our-policy.dsse.json
    """
    from bedside_core.policy import PAYLOAD_TYPE
    from bedside_core.signatures import countersigned, seal_envelope
    from bedside_edge.services.policies import check_against
    from bedside_edge.system.policy_cedar import CedarPolicy, shipped_document
    from bedside_edge.system.policy_keys import load_signer

    document, shipped = _document(path), CedarPolicy(shipped_document())
    check_against(CedarPolicy(document), shipped, shipped)
    phrase = "" if no_passphrase else click.prompt("Passphrase", hide_input=True, err=True)
    key_id, signer = load_signer(key, "", phrase.encode() or None)
    if path.is_dir():
        signed = seal_envelope(PAYLOAD_TYPE, document.payload, {key_id: signer})
    else:
        signed = countersigned(_read(path), PAYLOAD_TYPE, {key_id: signer})
    try:
        output.write_bytes(signed)
    except OSError as cause:
        raise InvalidInputError(f"{output} cannot be written") from cause
    click.echo(f"{document.label} signed by {key_id}: {output}")


@policy.command("activate")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--url", envvar="BEDSIDE_URL", default="", help="Ask the box running there")
@click.option("--token", envvar="BEDSIDE_TOKEN", default="", help="With --url")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML settings")
@click.option("--state", type=click.Path(path_type=Path), help="State folder, no box on it")
def activate(
    path: Path, url: str, token: str, config_path: Path | None, state: Path | None
) -> None:
    """Put a signed policy in force: on the box at --url, or in a folder that no box has open.

    \b
    Examples:
      bedside-edge policy activate our-policy.dsse.json --url http://127.0.0.1:8642
      bedside-edge policy activate our-policy.dsse.json --state /var/lib/bedside
    """
    data = _read(path)
    if url:
        from bedside_edge import remote

        found = remote.put_policy(url, data, token)
        click.echo(f"{found['name']} {found['version']} in force, revision {found['revision']}")
        return
    from bedside_edge.state_folder import open_folder
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom
    from bedside_edge.wiring import policy_service

    config, folder = load_config(config_path)
    folder, clock = state or folder, SystemClock()
    opened = open_folder(config, folder, clock, OsRandom())
    try:
        service = policy_service(config.policy, folder, opened.policies, clock, repairing=True)
        service.activate(data, service.stored.revision, "service:command-line")
        label, revision = service.policy.document.label, service.stored.revision
    finally:
        opened.close()
    click.echo(f"{label} in force, revision {revision}")


# --- grades ----------------------------------------------------------------------------------


@click.group()
def grade() -> None:
    """Grades of data: the rules, and what a file would get."""


@grade.command("rules")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML settings")
@click.option("--file", "path", type=click.Path(path_type=Path, exists=True), help="Check this one")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def grade_rules(config_path: Path | None, path: Path | None, as_json: bool) -> None:
    """Show the grading rules of the settings, or check a file of rules.

    \b
    Examples:
      bedside-edge grade rules
      bedside-edge grade rules --file grading.toml
    """
    grading = _grading(config_path, path)
    listed = [
        {"name": rule.name, "grade": rule.grade, **_conditions(rule)} for rule in grading.rules
    ]
    if as_json:
        body = {"digest": grading.digest, "default": grading.default, "rules": listed}
        click.echo(json.dumps(body, sort_keys=True, ensure_ascii=False))
        return
    table = Table(title=f"grading rules, digest {grading.digest[:16]}", title_justify="left")
    for name in ("rule", "grade", "when"):
        table.add_column(name, overflow="fold")
    for rule in grading.rules:
        when = "; ".join(f"{key}: {value}" for key, value in _conditions(rule).items())
        table.add_row(rule.name, str(rule.grade), when or "always")
    table.add_row("(none of them)", str(grading.default), "")
    Console().print(table)


@grade.command("show")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML settings")
def grade_show(config_path: Path | None) -> None:
    """Show the five grades and what follows from each.

    \b
    Examples:
      bedside-edge grade show
    """
    from bedside_core.grading import EFFECTS

    grading = _grading(config_path, None)
    table = Table(title="grades of data", title_justify="left")
    for name in ("grade", "meaning", "read by", "leaves as", "rho an epoch"):
        table.add_column(name, overflow="fold")
    for level, one in EFFECTS.items():
        rho = f"{grading.stratum(level).rho / 1e12:g}"
        table.add_row(str(level), one.meaning, one.read_by, one.leaves_as, rho)
    Console().print(table)
    click.echo("Who may see and what may leave is held by the policy: bedside-edge policy show")


@grade.command("explain")
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--source", default="", help="Calling AE title or label it would come from")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML settings")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def grade_explain(file: Path, source: str, config_path: Path | None, as_json: bool) -> None:
    """Say which grade a DICOM FILE would get, and by which rule.

    \b
    Examples:
      bedside-edge grade explain chest.dcm --source CT1
    """
    from bedside_edge.dicom.header import read_header
    from bedside_edge.services.grading import describe

    grading = _grading(config_path, None)
    found = grading.grade(describe(read_header(_read(file)), source))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"rules": grading.digest}))
        return
    click.echo(f"grade {found.grade}: {found.rule or 'no rule applies, the default'}")


# --- inside ----------------------------------------------------------------------------------


def _grading(config_path: Path | None, path: Path | None) -> Any:  # noqa: ANN401
    from bedside_core.grading import parse_grading
    from bedside_edge.wiring import load_grading

    if path is not None:
        return parse_grading(_read(path))
    config, _ = load_config(config_path)
    return load_grading(config.policy)


def _conditions(rule: Any) -> dict[str, Any]:  # noqa: ANN401
    found: dict[str, Any] = {key: sorted(values) for key, values in rule.lists.items()}
    if rule.age_below is not None:
        found["age_below"] = rule.age_below
    if rule.burned_in is not None:
        found["burned_in"] = rule.burned_in
    return {key: _words(value) for key, value in found.items()}


def _words(value: Any) -> Any:  # noqa: ANN401
    return ", ".join(value) if isinstance(value, list) else value


def _policy(path: Path | None) -> "Policy":
    from bedside_edge.system.policy_cedar import CedarPolicy, shipped_document

    return CedarPolicy(_document(path) if path else shipped_document())


def _document(path: Path) -> "Document":
    """Return the document of a source folder or of a signed file; who signed is not looked at."""
    from bedside_core.policy import parse_payload, parse_source
    from bedside_core.signatures import exact_base64

    if path.is_dir():
        toml, cedar = (_read(path / name) for name in _SOURCES)
        return parse_source(toml, cedar)
    try:
        payload = exact_base64(json.loads(_read(path))["payload"])
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise InvalidPolicyError("policy: the file is no signed document") from cause
    if payload is None:
        raise InvalidPolicyError("policy: the file is no signed document")
    return parse_payload(payload)


def _checked(found: "Checked") -> dict[str, Any]:
    document = found.policy.document
    return {
        "policy": document.label,
        "digest": document.digest,
        "looser": list(found.looser),
        "needed": found.needed,
        "turned": found.turned_count,
        "examples": [ask.to_json() for ask in found.turned],
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise InvalidInputError(f"{path} cannot be read") from cause
