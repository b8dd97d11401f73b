"""`bedside-edge hardware`: what this board is, which profile fits, and whether it is accepted."""

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from bedside_core.errors import AcceptanceFailedError, InvalidInputError, ProfileMismatchError
from bedside_core.hardware.board import PROBE_LIMIT, Board, parse_board
from bedside_core.hardware.matching import Rule, choose, rules_of
from bedside_core.hardware.profile import LoadedProfile
from bedside_edge.config import load_config
from bedside_edge.logs import set_up_logging

if TYPE_CHECKING:
    from bedside_core.hardware.acceptance import AcceptanceRecord

Json = dict[str, Any]
_CONFIG = click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings")
_PROBE = click.option(
    "--probe",
    "probe_path",
    type=click.Path(path_type=Path),
    help="Facts of another board, as `hardware probe --json` wrote them",
)


@click.group()
def hardware() -> None:
    """Board, hardware profile and acceptance: what may serve here, and why."""


@hardware.command("probe")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as a probe file")
def show_probe(as_json: bool) -> None:
    """Show what this machine is, and the devices its runtimes find. No serial numbers.

    \b
    Examples:
      bedside-edge hardware probe
      bedside-edge hardware probe --json > board.json
    """
    board = _board(None, ask_engines=True)
    if as_json:
        click.echo(board.text(), nl=False)
        return
    for name, value in _facts(board):
        click.echo(f"{name:<14}{value}")


@hardware.command("explain")
@click.argument("profile_id", metavar="[PROFILE]", default="")
@_PROBE
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def explain(
    profile_id: str, probe_path: Path | None, config_path: Path | None, as_json: bool
) -> None:
    """Say which profile fits and every unmet rule of the others; of PROFILE, every rule.

    Exits 3 when no profile fits, or PROFILE does not.

    \b
    Examples:
      bedside-edge hardware explain
      bedside-edge hardware explain nvidia-l4
      bedside-edge hardware explain --probe board.json
    """
    board, profiles = _board(probe_path), _profiles(config_path)
    if profile_id:
        _explain_one(profile_id, profiles, board, as_json)
        return
    chosen = choose(profiles, board)
    if as_json:
        passed_over = [{"profile": label, "why": why} for label, why in chosen.passed_over]
        found = {"profile": chosen.loaded.label, "passed_over": passed_over}
        click.echo(json.dumps(found, sort_keys=True))
        return
    click.echo(f"{chosen.loaded.label} fits: {chosen.loaded.profile.name}")
    table = Table("profile", "why not", show_lines=False)
    for label, why in chosen.passed_over:
        table.add_row(label, why.replace("; ", "\n"))
    Console().print(table)


@hardware.command("list")
@_PROBE
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def list_profiles(probe_path: Path | None, config_path: Path | None, as_json: bool) -> None:
    """List the profiles, how far each is to be believed, and whether it fits this board.

    \b
    Examples:
      bedside-edge hardware list
      bedside-edge hardware list --json
    """
    board, profiles = _board(probe_path), _profiles(config_path)
    rows: list[Json] = [
        {
            "profile": loaded.label,
            "vendor": loaded.profile.vendor,
            "name": loaded.profile.name,
            "evidence": loaded.profile.evidence,
            "engines": [f"{e.kind} {e.device} {e.precision}" for e in loaded.profile.engines],
            "fits": not any(rule.told for rule in rules_of(loaded.profile, board)),
        }
        for loaded in profiles
    ]
    if as_json:
        click.echo(json.dumps({"profiles": rows}, sort_keys=True))
        return
    table = Table()
    table.add_column("profile", no_wrap=True)
    table.add_column("evidence", no_wrap=True)
    table.add_column("engines in order", no_wrap=True)
    table.add_column("fits")
    for row in rows:
        fits, engines = "yes" if row["fits"] else "", row["engines"]
        table.add_row(str(row["profile"]), str(row["evidence"]), "\n".join(engines), fits)
    Console().print(table)


@hardware.command("accept")
@click.option("--state", type=click.Path(path_type=Path), help="State folder, no box on it")
@_CONFIG
@click.option("--package", default="", help="Model package folder [default: the settings']")
@click.option("--profile", default="", help="Hardware profile file [default: best that fits]")
@click.option("--runs", type=click.IntRange(2, 100_000), help="Timed runs [default: the profile's]")
@click.option("--dry-run", is_flag=True, help="Measure and judge; keep nothing, open no folder")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON")
def accept(
    state: Path | None,
    config_path: Path | None,
    package: str,
    profile: str,
    runs: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compile, read back, warm up and run the golden cases on this very unit; keep the verdict.

    A box does this by itself before it serves for the first time, and again when package, profile,
    runtime, driver or kernel changed. Exits 3 when it is not accepted, naming each broken promise.

    \b
    Examples:
      bedside-edge hardware accept --dry-run
      bedside-edge hardware accept --dry-run --runs 1000 --json
      bedside-edge hardware accept --state /var/lib/bedside
    """
    set_up_logging(level="error", style="plain")
    config, folder = load_config(config_path)
    changes = {"package": package, "profile": profile}
    settings = config.model.model_copy(update={k: v for k, v in changes.items() if v})
    from bedside_edge.services.hardware import HardwareService  # pulls in a runtime below
    from bedside_edge.state_folder import open_folder
    from bedside_edge.store.hardware import NoVerdicts
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom
    from bedside_edge.wiring import candidate, load_model

    clock = SystemClock()
    loaded = load_model(settings)
    with closing(loaded.model.engine):
        if dry_run:
            wanted = candidate(loaded, None, runs)
            record = HardwareService(NoVerdicts(), clock).try_out(wanted)
        else:
            path = state or folder
            with closing(open_folder(config, path, clock, OsRandom())) as opened:
                service = HardwareService(opened.hardware, clock)
                record = service.keep(service.try_out(candidate(loaded, path, runs)))
    if as_json:
        click.echo(json.dumps(record.document(), sort_keys=True))
    else:
        _print_record(record, loaded.profile)
    if not record.accepted:
        sys.exit(AcceptanceFailedError.exit_code)


def _print_record(record: "AcceptanceRecord", profile: LoadedProfile) -> None:
    about, around = record.subject, record.surroundings
    verdict = "accepted" if record.accepted else "NOT ACCEPTED"
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.at / 1000))
    click.echo(f"{verdict}: {profile.label} ({profile.profile.evidence} by its file), {when}")
    click.echo(
        f"{about.engine} {about.engine_version} on {about.device}, {about.precision}, "
        f"{about.streams} x {about.threads} threads, package {about.package_digest[:19]}"
    )
    for key, value in sorted(about.properties.items()):
        click.echo(f"  read back {key} = {value}")
    table = Table("case", "runs", "p50 ms", "p99 ms", "max abs", "max rel", "decisions", "bits")
    for one in record.reports:
        table.add_row(
            one.case,
            str(one.n),
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            f"{one.max_abs:.1e}",
            f"{one.max_rel:.1e}",
            "equal" if one.argmax_equal else "DIFFER",
            "equal" if one.bit_repeatable else "DIFFER",
        )
    Console().print(table)
    told = [f"{around.rss_mib} MiB resident"]
    if around.sync_ms is not None:
        told.append(f"durable write {around.sync_ms} ms, {around.free_mib} MiB free")
    if around.temperature_c is not None:
        told.append(f"{around.temperature_c:.0f} degrees Celsius")
    click.echo(", ".join(told))
    for failure in record.failures:
        click.echo(f"  broken: {failure}")


def _explain_one(
    profile_id: str, profiles: list[LoadedProfile], board: Board, as_json: bool
) -> None:
    named = [loaded for loaded in profiles if loaded.profile.id == profile_id]
    if not named:
        known = ", ".join(loaded.profile.id for loaded in profiles)
        raise InvalidInputError(f"no profile {profile_id}; there are {known}")
    rules = rules_of(named[-1].profile, board)
    if as_json:
        found = [{"rule": rule.name, "holds": not rule.told, "told": rule.told} for rule in rules]
        click.echo(json.dumps({"profile": named[-1].label, "rules": found}, sort_keys=True))
    else:
        print_rules(named[-1].label, rules)
    if any(rule.told for rule in rules):
        sys.exit(ProfileMismatchError.exit_code)


def print_rules(label: str, rules: list[Rule]) -> None:
    """Print every rule and whether it holds."""
    click.echo(label)
    for rule in rules:
        click.echo(f"  {'no ' if rule.told else 'yes'}  {rule.name}  {rule.told}".rstrip())


def _facts(board: Board) -> list[tuple[str, str]]:
    cpu = [board.cpu_vendor or f"implementer {board.cpu_implementer}"]
    if board.cpu_family is not None:
        cpu.append(f"family {board.cpu_family} model {board.cpu_model}")
    cpu += [f"part {part}" for part in board.cpu_parts]
    found = [
        ("architecture", f"{board.arch} {board.level}".strip()),
        ("cpu", ", ".join(cpu)),
        ("cores", f"{board.cores} usable, {board.sockets} socket(s)"),
        ("memory", f"{board.memory_mib} MiB usable"),
        ("kernel", board.kernel),
    ]
    found += [(f"dmi {key}"[:13], value) for key, value in board.dmi.items()]
    found += [("devicetree", ", ".join(board.dt_compatible))] if board.dt_compatible else []
    found += [
        (
            "pci",
            f"{one.vendor}:{one.device} {one.driver or 'no driver'} {one.driver_version}".rstrip(),
        )
        for one in board.pci
    ]
    found += [("thermal zones", ", ".join(board.thermal_zones) or "none")]
    found += [
        ("engine", f"{one.kind} {one.version}: {', '.join(one.devices or ())}")
        for one in board.engines
    ]
    return [*found, ("digest", board.digest)]


def _board(path: Path | None, *, ask_engines: bool = False) -> Board:
    if path is None:
        from bedside_edge.engine.probe import probe

        return probe(ask_engines=ask_engines)
    try:
        with path.open("rb") as file:
            return parse_board(file.read(PROBE_LIMIT + 1))
    except OSError as cause:
        raise InvalidInputError(f"the probe file cannot be read: {cause.strerror}") from cause


def _profiles(config_path: Path | None) -> list[LoadedProfile]:
    from bedside_edge.wiring import profiles_of

    config, _ = load_config(config_path)
    return profiles_of(config.model)
