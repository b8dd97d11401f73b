"""`bedside-edge privacy plan`: what a release costs and how good it is, before data is touched."""

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bedside_core.accounting import UNITS_PER_RHO, cap_units
from bedside_core.errors import InvalidInputError
from bedside_core.plan_picture import error_picture
from bedside_core.planner import (
    DELTA,
    ChoicePlan,
    Plan,
    Schedule,
    plan,
    plan_choice,
    plan_strata,
    strata_for,
)
from bedside_core.statistics.catalogue import CATALOGUE, Public, spec_of
from bedside_core.statistics.choice import compile_choice
from bedside_core.statistics.query import Query, compile_query
from bedside_core.statistics.spec import Kind, StatSpec, Weight
from bedside_edge.cli import privacy_box, privacy_files, privacy_unlock


@click.group()
def privacy() -> None:
    """Statistics that may leave the hospital."""


privacy.add_command(privacy_files.verify)
privacy.add_command(privacy_files.rates)
privacy.add_command(privacy_unlock.unlock)
privacy.add_command(privacy_unlock.renew)
for one in privacy_box.COMMANDS:
    privacy.add_command(one)


@privacy.command("catalogue")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def privacy_catalogue(as_json: bool) -> None:
    """List the statistics that can be released; there are no free queries.

    \b
    Examples:
      bedside-edge privacy catalogue
    """
    public = _public(3, 2, 4, 2, 600, 20, 1)
    found = {name: str(spec_of(name, public).kind) for name in CATALOGUE}
    if as_json:
        click.echo(json.dumps({"statistics": found}, sort_keys=True))
        return
    for name, kind in found.items():
        click.echo(f"{name:<24}{kind}")


@privacy.command("plan")
@click.argument("names", metavar="STATISTIC...", nargs=-1, required=True)
@click.option("--size", required=True, type=click.IntRange(1, 10**9), help="Studies per release")
@click.option("--epsilon", default=1.0, show_default=True, help="At delta 1e-6, for all of it")
@click.option("--rho-units", type=click.IntRange(1), help="Price in units of 1e-12 rho instead")
@click.option(
    "--schedule",
    type=click.Choice([str(one) for one in Schedule]),
    default=str(Schedule.ONE_OFF),
    show_default=True,
)
@click.option("--nights", default=0, type=click.IntRange(0, 3660), help="[default: 1, or a year]")
@click.option("--weight", type=click.Choice([str(one) for one in Weight]), default="study")
@click.option("--c", "bound", default=3, show_default=True, help="Studies per patient and epoch")
@click.option("--devices", default=2, show_default=True, help="Devices in the registry")
@click.option("--age-bands", default=4, show_default=True)
@click.option("--findings", default=14, show_default=True, help="Findings in the registry")
@click.option("--minutes", default=600, show_default=True, help="Longest turnaround")
@click.option("--bins", default=20, show_default=True, help="Bins of score histograms")
@click.option("--touch", default=1, show_default=True, help="Findings of one study that count")
@click.option("--truncation/--no-truncation", default=True, help="Cell of patients at the bound")
@click.option("--strata", is_flag=True, help="Noise by grade, as the shipped grading rules share")
@click.option("--picture", type=click.Path(path_type=Path), help="Write error over epsilon (SVG)")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def privacy_plan(
    names: tuple[str, ...],
    size: int,
    epsilon: float,
    rho_units: int | None,
    schedule: str,
    nights: int,
    weight: str,
    bound: int,
    devices: int,
    age_bands: int,
    findings: int,
    minutes: int,
    bins: int,
    touch: int,
    truncation: bool,
    strata: bool,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Price STATISTICs released together and say how far off they will be. Touches no data.

    SIZE is a public guess of the studies of one release, or of one night of a schedule.

    \b
    Examples:
      bedside-edge privacy plan volume prevalence --size 3000
      bedside-edge privacy plan prevalence device-counts --schedule nightly-disjoint --size 100
      bedside-edge privacy plan auc --size 9000 --epsilon 0.5 --picture auc.svg
    """
    public = _public(bound, devices, age_bands, findings, minutes, bins, touch)
    specs = [spec_of(name, public, Weight(weight)) for name in names]
    units = rho_units or _units(epsilon)
    if any(spec.kind is Kind.QUANTILE for spec in specs):
        _show_choice(_one(specs, schedule, picture, strata), units, size, as_json)
        return
    kind = Schedule(schedule)
    nights = nights or (1 if kind is Schedule.ONE_OFF else 365)
    query = compile_query(specs, truncation=truncation)
    shares = privacy_files.shipped_shares() if strata else None
    if shares is None:
        found = plan(query, units, size, kind, nights)
    elif kind is Schedule.ONE_OFF:
        found = plan_strata(strata_for(query, units, shares), size)
    else:
        raise InvalidInputError("noise by grade is released once, not nightly")
    if picture is not None:
        drawn = error_picture(query, size, kind, nights, found, shares)
        picture.write_text(drawn, encoding="utf-8")
    if as_json:
        click.echo(json.dumps(asdict(found) | {"units_per_rho": UNITS_PER_RHO}, sort_keys=True))
        return
    _show(query, found)


def _units(epsilon: float) -> int:
    if epsilon == 0:
        raise InvalidInputError("an epsilon of 0 buys nothing")
    return cap_units(epsilon, DELTA)


def _one(specs: list[StatSpec], schedule: str, picture: Path | None, strata: bool) -> StatSpec:
    plain = picture is None and not strata
    if len(specs) != 1 or schedule != str(Schedule.ONE_OFF) or not plain:
        raise InvalidInputError("a quantile is planned alone, once, without a picture")
    return specs[0]


def _public(
    c: int, devices: int, age_bands: int, findings: int, minutes: int, bins: int, touch: int
) -> Public:
    """Return bounds with made-up names: a plan depends on how many keys there are, not which."""
    return Public(
        c=c,
        devices=tuple(f"device {n + 1}" for n in range(devices)),
        age_bands=tuple(f"band {n + 1}" for n in range(age_bands)),
        findings=tuple(f"finding {n + 1}" for n in range(findings)),
        minutes=minutes,
        bins=bins,
        l2_cells=touch,
    )


def _show(query: Query, found: Plan) -> None:
    table = Table(title=f"{found.schedule}, {found.nights} x {found.size} studies")
    for name in ("cell", "std of noise", "95 % half width", "std / studies"):
        table.add_column(name, justify="left" if name == "cell" else "right")
    for line in found.lines:
        relative = "" if line.relative is None else f"{100 * line.relative:.1f} %"
        table.add_row(line.cell, f"{line.deviation:.4g}", f"{line.half_width:.4g}", relative)
    Console().print(table)
    _show_price(found.cost, found.epsilon)
    click.echo(f"sensitivity: L2 squared {query.l2sq}, at most {query.c} studies of a patient")
    if found.weekly is not None and found.weekly_release is not None:
        click.echo(
            f"a week of nights added up: {100 * found.weekly:.1f} %; "
            f"released weekly instead: {100 * found.weekly_release:.1f} %"
        )
    for warning in found.warnings:
        click.echo(f"warning: {warning}")


def _show_choice(spec: StatSpec, units: int, size: int, as_json: bool) -> None:
    found: ChoicePlan = plan_choice(compile_choice(spec), units, size)
    if as_json:
        click.echo(json.dumps(asdict(found) | {"units_per_rho": UNITS_PER_RHO}, sort_keys=True))
        return
    quantiles = ", ".join(str(float(q)) for q in spec.probabilities)
    click.echo(f"{spec.name}: quantiles {quantiles}")
    click.echo(f"rank error at most {found.rank_error:.0f} studies, {100 * found.relative:.1f} %")
    _show_price(found.cost, found.epsilon)
    for warning in found.warnings:
        click.echo(f"warning: {warning}")


def _show_price(cost: int, epsilon: float) -> None:
    click.echo(f"price: {cost:,} units of 1e-12 rho, epsilon {epsilon:.4f} at delta 1e-6, once")
