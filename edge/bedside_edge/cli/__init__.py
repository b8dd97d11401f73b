"""`bedside-edge`: read arguments, call one service, print, exit.

Exit codes: 0 done, 2 usage, 3 refused by a rule, 4 unusable input, 5 the box cannot do it now.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bedside_core.errors import BedsideError, InvalidInputError, InvalidRulesError, NoRouteError
from bedside_core.manifest import Manifest
from bedside_core.routing import Rules
from bedside_edge.cli import access as access_cli
from bedside_edge.cli import backup as backup_cli
from bedside_edge.cli import backup_drill as drill_cli
from bedside_edge.cli import data as data_cli
from bedside_edge.cli import deidentify as deidentify_cli
from bedside_edge.cli import destinations as destinations_cli
from bedside_edge.cli import evidence as evidence_cli
from bedside_edge.cli import flashing as flashing_cli
from bedside_edge.cli import hardware as hardware_cli
from bedside_edge.cli import incident as incident_cli
from bedside_edge.cli import keeping as keeping_cli
from bedside_edge.cli import keys as keys_cli
from bedside_edge.cli import overlap as overlap_cli
from bedside_edge.cli import policy as policy_cli
from bedside_edge.cli import privacy as privacy_cli
from bedside_edge.cli import rights as rights_cli
from bedside_edge.cli import sync as sync_cli
from bedside_edge.cli import update as update_cli
from bedside_edge.cli.token_file import token_options
from bedside_edge.config import Config, load_config
from bedside_edge.config import Model as ModelSettings
from bedside_edge.logs import set_up_logging

Command = Callable[..., None]

_PORT = click.IntRange(0, 65_535)

_HINTS = {
    "invalid-config": "docs/config.md lists every setting with its limits",
    "profile-mismatch": "`bedside-edge hardware explain` names every unmet rule of each profile",
    "acceptance-failed": "`bedside-edge hardware accept --dry-run` measures again",
    "golden-mismatch": "do not serve on this machine; try another engine with --engine",
    "invalid-rules": "see docs/routing.md; `bedside-edge rules check FILE` reads a rules file",
    "invalid-package": "manifest.json says what it holds; fetch a damaged one again, never edit it",
    "invalid-profile": "--profile takes a file, like hw_profiles/generic/x86-64-v3.toml",
    "store-unavailable": "the state folder is one that this user may write, for one box at a time",
    "evidence-damaged": "`bedside-edge evidence check` says where; keep the disk as it is, "
    "compare with the hub's copy, and restore",
    "evidence-gap": "docs/witness.md: decide which copy goes on, then "
    "`bedside-edge evidence continue`",
    "unknown-statistic": "`bedside-edge privacy catalogue` lists them; there are no free queries",
    "keys-sealed": "docs/keys.md; `bedside-edge keys status` says how they are kept",
    "disk-full": "free space, or lower [disk] min_free_bytes if you know why",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("bedside"), prog_name="bedside-edge")
def cli() -> None:
    """Bedside: imaging AI inside the hospital. Decision support only, not a diagnosis.

    \b
    Examples:
      bedside-edge analyze chest.dcm --overlay chest.png
      bedside-edge serve --state /var/lib/bedside
      bedside-edge profile
    """


def model_options(command: Command) -> Command:
    """Add the options that choose package, profile, engine and precision."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option("--package", default="", help="Model package folder [default: shipped]"),
        click.option(
            "--profile", default="", help="Hardware profile file [default: best that fits]"
        ),
        click.option("--engine", type=click.Choice(["onnxruntime", "openvino"]), default=None),
        click.option("--precision", type=click.Choice(["f32", "bf16", "int8"]), default=None),
    )
    for option in options:
        command = option(command)
    return command


@cli.command()
@click.argument(
    "paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document")
@click.option(
    "--overlay",
    type=click.Path(path_type=Path),
    help="Write the saliency overlay (PNG); with several files a folder",
)
@model_options
def analyze(
    paths: tuple[Path, ...],
    as_json: bool,
    overlay: Path | None,
    package: str,
    profile: str,
    engine: str | None,
    precision: str | None,
) -> None:
    """Analyse DICOM FILEs (or folders of them) without a server; nothing is stored.

    Exits 3 when any file was refused, 4 when any could not be read as DICOM; the others are
    answered all the same.

    \b
    Examples:
      bedside-edge analyze chest.dcm
      bedside-edge analyze study/ --json > results.json
      bedside-edge analyze chest.dcm --overlay chest.png --engine openvino
    """
    from bedside_edge.analyze import analyze_files  # pulls in a runtime: only when it is needed

    set_up_logging(level="error", style="plain")
    settings = _model_settings(package, profile, engine, precision)
    files = list(_files(paths))
    if not files:
        raise InvalidInputError("no files in there")
    rows = analyze_files(files, settings, overlay)
    if as_json:
        click.echo(json.dumps({"results": rows}, sort_keys=True))
    else:
        _print_rows(rows)
    codes = [int(row["exit_code"]) for row in rows]
    if any(codes):
        sys.exit(max(codes))


@cli.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML settings")
@click.option("--state", type=click.Path(path_type=Path), help="State folder")
@click.option("--http-port", type=_PORT, help="TCP port; 0 lets the system choose")
@click.option("--dicom-port", type=_PORT, help="TCP port; 0 lets the system choose")
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    help="Write the bound addresses here (JSON) once the service is ready",
)
def serve(
    config_path: Path | None,
    state: Path | None,
    http_port: int | None,
    dicom_port: int | None,
    ready_file: Path | None,
) -> None:
    """Run the box: DICOM receiver, HTTP service, workers. Stops cleanly on SIGTERM or Ctrl-C.

    \b
    Examples:
      bedside-edge serve
      bedside-edge serve --config bedside.toml --state /var/lib/bedside
      bedside-edge serve --http-port 0 --dicom-port 0 --ready-file /run/bedside.json
    """
    from bedside_edge.box import run_box  # the whole appliance: only when it is needed

    config, folder = load_config(config_path)
    ports = {"http": http_port, "dicom": dicom_port}
    for section, port in ports.items():
        if port is not None:
            changed = getattr(config, section).model_copy(update={"port": port})
            config = config.model_copy(update={section: changed})
    config = Config.model_validate(config.model_dump())
    set_up_logging(level=config.log.level, style=config.log.style)
    run_box(config, state or folder, ready_file)


@cli.command("check-config")
@click.argument("path", type=click.Path(path_type=Path), required=False)
def check_config(path: Path | None) -> None:
    """Say what settings the box would use, as JSON.

    \b
    Examples:
      bedside-edge check-config
      bedside-edge check-config bedside.toml
    """
    config, folder = load_config(path)
    settings = config.model_dump(mode="json") | {"state_folder": str(folder)}
    click.echo(json.dumps(settings, indent=2))


@cli.command("profile")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@model_options
def show_profile(
    as_json: bool, package: str, profile: str, engine: str | None, precision: str | None
) -> None:
    """Show this board, the hardware profile that fits, and the self-test of its engine.

    \b
    Examples:
      bedside-edge profile
      bedside-edge profile --engine openvino --precision int8 --json
    """
    from bedside_edge.analyze import describe_profile  # pulls in a runtime

    set_up_logging(level="error", style="plain")
    facts = describe_profile(_model_settings(package, profile, engine, precision))
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))
        return
    for key, value in facts.items():
        for number, line in enumerate(_plain(value)):
            click.echo(f"{'' if number else key.replace('_', ' '):<17}{line}")


@cli.group()
def rules() -> None:
    """Routing rules: which model reads which study."""


@rules.command("check")
@click.argument("path", metavar="[RULES.toml]", type=click.Path(path_type=Path), required=False)
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML settings")
def rules_check(path: Path | None, config_path: Path | None) -> None:
    """Read RULES.toml, or the rules in force, and say what is in them.

    \b
    Examples:
      bedside-edge rules check
      bedside-edge rules check rules.toml
    """
    found, models = _rules(path, config_path)
    for rule in found.rules:
        lines = [("when", one) for one in rule.when] + [("unless", one) for one in rule.unless]
        told = "".join(f"\n  {word} {one.key} in {list(one.values)}" for word, one in lines)
        click.echo(f"{rule.name}: {rule.model or 'nothing runs'}{told or '  (every image)'}")
    click.echo(f"{len(found.rules)} rules, {found.digest}")
    if missing := [name for name in found.models if name not in models]:
        raise InvalidRulesError(f"not on this box: {', '.join(missing)}")


@rules.command("test")
@click.argument(
    "paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--rules", "rules_path", type=click.Path(path_type=Path), help="Rules to try")
@click.option("--source", default="", help="Calling AE title the study would come from")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML settings")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document")
def rules_test(
    paths: tuple[Path, ...],
    rules_path: Path | None,
    source: str,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Say which model would take the DICOM FILEs of one study, and why not the others.

    Nothing is sent, stored or analysed. Exits 3 when nothing would run.

    \b
    Examples:
      bedside-edge rules test chest.dcm
      bedside-edge rules test study/ --rules rules.toml --source CT1 --json
    """
    from bedside_edge.analyze import images_of  # pulls in DICOM: only when it is needed
    from bedside_edge.services.routing import dry_run

    found, models = _rules(rules_path, config_path)
    images = images_of(list(_files(paths)), source)
    accepts = {name: manifest.accepts for name, manifest in models.items()}
    run = dry_run(found, images, accepts)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(run), sort_keys=True))
    else:
        click.echo(f"{run.plan.model or 'nothing runs'}: {run.plan.reason}")
        for verdict in run.plan.verdicts:
            click.echo(f"  rule {verdict.rule}: {verdict.reason}")
        for chance in run.chances:
            word = "runs" if chance.runs else "does not run"
            click.echo(f"  model {chance.model} {word}: {chance.reason}")
    if not any(chance.runs for chance in run.chances):
        sys.exit(NoRouteError.exit_code)


def box_options(command: Command) -> Command:
    """Add the options that say which running box is asked."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option(
            "--url",
            envvar="BEDSIDE_URL",
            default="http://127.0.0.1:8642",
            show_default=True,
            help="HTTP service of the box; or BEDSIDE_URL",
        ),
        *token_options(),
        click.option("--json", "as_json", is_flag=True, help="Print JSON"),
    )
    for option in options:
        command = option(command)
    return command


@cli.group()
def models() -> None:
    """Models of a running box: which version reads, reads along, or takes a share."""


@models.command("list")
@box_options
def models_list(url: str, token: str, as_json: bool) -> None:
    """Show every loaded model: versions, shadow and its agreement, canary, threshold.

    \b
    Examples:
      bedside-edge models list
      bedside-edge models list --json
    """
    from bedside_edge import remote

    found = remote.models(url, token)
    if as_json:
        click.echo(json.dumps({"models": found}, sort_keys=True))
        return
    for one in found:
        _print_model(one)


@models.command("activate")
@click.argument("name")
@click.argument("version")
@click.option(
    "--promotion",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the consortium signed for it; checked against the package and the pinned root",
)
@box_options
def models_activate(
    name: str, version: str, promotion: Path | None, url: str, token: str, as_json: bool
) -> None:
    """Read studies with VERSION of NAME from now on; the one before stays for `rollback`.

    \b
    Examples:
      bedside-edge models activate cxr-opacity 1.1.0
      bedside-edge models activate cxr-opacity 1.1.0 --promotion cxr-opacity-1.1.0.promotion.json
    """
    body = {"version": version}
    if promotion is not None:
        body["promotion"] = promotion.read_text(encoding="utf-8")
    _change_model(name, "/active", body, url, token, as_json)


@models.command("rollback")
@click.argument("name")
@box_options
def models_rollback(name: str, url: str, token: str, as_json: bool) -> None:
    """Read studies with the version of NAME before the last change; canary and shadow end.

    \b
    Examples:
      bedside-edge models rollback cxr-opacity
    """
    _change_model(name, ":rollback", None, url, token, as_json)


@models.command("shadow")
@click.argument("name")
@click.argument("version")
@box_options
def models_shadow(name: str, version: str, url: str, token: str, as_json: bool) -> None:
    """Let VERSION of NAME read along, never shown; `off` ends it.

    \b
    Examples:
      bedside-edge models shadow cxr-opacity 1.1.0
      bedside-edge models shadow cxr-opacity off
    """
    body = {"version": None if version == "off" else version}
    _change_model(name, "/shadow", body, url, token, as_json)


@models.command("canary")
@click.argument("name")
@click.argument("version")
@click.argument("percent", type=click.IntRange(0, 99), default=0)
@box_options
def models_canary(
    name: str, version: str, percent: int, url: str, token: str, as_json: bool
) -> None:
    """Let VERSION of NAME read PERCENT of the studies; `off` ends it.

    \b
    Examples:
      bedside-edge models canary cxr-opacity 1.1.0 10
      bedside-edge models canary cxr-opacity off
    """
    body = {"version": None if version == "off" else version, "percent": percent}
    _change_model(name, "/canary", body, url, token, as_json)


@models.command("threshold")
@click.argument("name")
@click.argument("values", nargs=-1, type=click.FloatRange(0, 1), metavar="[LOW THRESHOLD HIGH]")
@box_options
def models_threshold(
    name: str, values: tuple[float, ...], url: str, token: str, as_json: bool
) -> None:
    """Decide by the hospital's own threshold with the version now active.

    Between LOW and HIGH the answer is undetermined. Without values the package's own rule holds.

    \b
    Examples:
      bedside-edge models threshold cxr-opacity 0.35 0.6 0.7
      bedside-edge models threshold cxr-opacity
    """
    if len(values) not in (0, 3):
        raise InvalidInputError("give LOW, THRESHOLD and HIGH, or none of them")
    rule = dict(zip(("low", "threshold", "high"), values, strict=True)) if values else None
    _change_model(name, "/threshold", {"rule": rule}, url, token, as_json)


def _change_model(
    name: str, part: str, body: dict[str, Any] | None, url: str, token: str, as_json: bool
) -> None:
    from bedside_edge import remote

    found = remote.change_model(url, name, part, body, token)
    if as_json:
        click.echo(json.dumps(found, sort_keys=True))
    else:
        _print_model(found)


def _print_model(one: dict[str, Any]) -> None:
    click.echo(f"{one['name']} {one['active']} reads (revision {one['revision']})")
    if one["canary"]:
        click.echo(f"  canary {one['canary']} reads {one['percent']} % of the studies")
    if one["shadow"]:
        click.echo(f"  shadow {one['shadow']} reads along")
    if one["previous"]:
        click.echo(f"  rollback returns to {one['previous']}")
    if one["threshold"]:
        rule = one["threshold"]
        click.echo(
            f"  site threshold {rule['threshold']:g}, undetermined {rule['low']:g} to "
            f"{rule['high']:g}, for {one['threshold_version']}"
        )
    click.echo(f"  on this box: {', '.join(one['versions'])}")
    for tally in one["agreement"]:
        click.echo(
            f"  {tally['version']} {tally['decision']}, shadow {tally['shadow']} "
            f"{tally['shadow_decision']}: {tally['studies']} studies"
        )


def _rules(path: Path | None, config_path: Path | None) -> tuple[Rules, dict[str, Manifest]]:
    """Return the rules of a file or those in force, and the models of this box."""
    from bedside_edge.wiring import known_manifests, load_rules, served_manifest

    config, _ = load_config(config_path)
    settings = config.routing.model_copy(update={"rules": str(path)}) if path else config.routing
    served = served_manifest(config.model)
    return load_rules(settings, served), known_manifests(config.model) | {served.name: served}


def _model_settings(
    package: str, profile: str, engine: str | None, precision: str | None
) -> ModelSettings:
    return ModelSettings.model_validate(
        {
            "package": package,
            "profile": profile,
            "engine": engine or "",
            "precision": precision or "",
        }
    )


def _plain(value: object) -> list[str]:
    """Return a fact as lines for a person; long digests stay whole."""
    if isinstance(value, list | tuple):
        return [line for one in value for line in _plain(one)] or ["none"]
    if isinstance(value, dict):
        return [f"{key.replace('_', ' ')} {_word(one)}" for key, one in value.items()]
    return [_word(value)]


def _word(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_word(one) for one in value) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*") if found.is_file())
        else:
            yield path


def _print_rows(rows: list[dict[str, Any]]) -> None:
    table = Table(title="AI decision support only - not a diagnosis", title_justify="left")
    for name in ("file", "probability", "decision", "why"):
        table.add_column(
            name, overflow="fold", justify="right" if name == "probability" else "left"
        )
    for row in rows:
        result, name = row.get("result") or {}, Path(row["file"]).name
        value = result.get("value")
        if value:
            band = value["undetermined"]
            why = f"threshold {value['threshold']:.2f}, undetermined {band[0]:.2f} to {band[1]:.2f}"
            table.add_row(name, f"{value['probability']:.3f}", value["decision"], why)
        else:
            reason = result.get("reason") or row["error"]
            table.add_row(name, "", "not processed", f"{reason['code']}: {reason['detail']}")
    Console().print(table)
    first = next((row["result"] for row in rows if row.get("result")), None)
    if first:
        model, engine = first["model"], first["engine"]
        click.echo(
            f"{model['name']} {model['version']} on {engine['engine']} {engine['version']} "
            f"{engine['precision']}, pipeline {first['pipeline']['digest'][:19]}, "
            f"profile {first['profile']['name']}"
        )


cli.add_command(destinations_cli.destinations)
cli.add_command(destinations_cli.deliveries)
cli.add_command(privacy_cli.privacy)
cli.add_command(access_cli.accounts)
cli.add_command(access_cli.token)
cli.add_command(evidence_cli.evidence)
cli.add_command(policy_cli.policy)
cli.add_command(policy_cli.grade)
cli.add_command(backup_cli.backup)
backup_cli.backup.add_command(drill_cli.drill)
cli.add_command(keys_cli.keys)
cli.add_command(keeping_cli.erase)
cli.add_command(keeping_cli.hold)
cli.add_command(keeping_cli.retention)
cli.add_command(hardware_cli.hardware)
cli.add_command(incident_cli.seal)
cli.add_command(incident_cli.unseal)
cli.add_command(incident_cli.incident)
cli.add_command(data_cli.data)
cli.add_command(sync_cli.sync)
cli.add_command(overlap_cli.overlap)
cli.add_command(deidentify_cli.deidentify)
cli.add_command(rights_cli.consent)
cli.add_command(rights_cli.request)
cli.add_command(update_cli.update)
for command in (
    flashing_cli.install,
    flashing_cli.status,
    flashing_cli.rollback,
    flashing_cli.confirm,
):
    update_cli.update.add_command(command)


def main() -> None:
    """Run the command line; every deliberate error ends in its exit code and a way forward."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as usage:
        usage.show()
        sys.exit(usage.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except BedsideError as error:
        click.echo(f"bedside-edge: {error} [{error.code}]", err=True)
        if hint := _HINTS.get(error.code):
            click.echo(f"  {hint}", err=True)
        sys.exit(error.exit_code)
