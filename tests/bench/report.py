"""What a benchmark found: one row per comparison, printed as ratios and written as JSON."""

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_PACKAGES = ("bedside", "numpy", "onnxruntime", "openvino", "pydicom", "pynetdicom", "uvicorn")
_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "sha_ni", "vaes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of ours beside the one it is held against.

    Attributes:
        bench: engine, dicom-body, cstore, stow, start.
        case: what was measured, with its parameters.
        ours: our figure, in `unit`.
        against: what `reference` is; empty for a figure that stands alone.
        reference: the other figure of the same run, in `unit`.
        value: the ratio or difference the target speaks about.
        target: the target in words; empty for information.
        met: whether it was met; None for information.
    """

    bench: str
    case: str
    ours: float
    unit: str
    against: str = ""
    reference: float | None = None
    value: str = ""
    target: str = ""
    met: bool | None = None


def ratio_row(
    bench: str,
    case: str,
    ours: float,
    unit: str,
    against: str,
    reference: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """Return a row whose target is a ratio ours : reference."""
    ratio = ours / reference if reference else float("inf")
    target, met = "", None
    if at_least is not None:
        target, met = f">= {at_least:g}x", ratio >= at_least
    if at_most is not None:
        target, met = f"<= {at_most:g}x", ratio <= at_most
    return Row(
        bench=bench,
        case=case,
        ours=ours,
        unit=unit,
        against=against,
        reference=reference,
        value=f"{ratio:.2f}x",
        target=target,
        met=met,
    )


def limit_row(
    bench: str,
    case: str,
    ours: float,
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """Return a row whose target is an absolute figure."""
    target, met = "", None
    if at_least is not None:
        target, met = f">= {at_least:g} {unit}", ours >= at_least
    if at_most is not None:
        target, met = f"<= {at_most:g} {unit}", ours <= at_most
    return Row(bench=bench, case=case, ours=ours, unit=unit, target=target, met=met)


def difference_row(
    bench: str,
    case: str,
    ours: Sequence[float],
    unit: str,
    against: str,
    reference: Sequence[float],
    at_most: float | None = None,
) -> Row:
    """Return a row whose target is what we add to the reference, round against round.

    Where the rounds scatter more than the target allows, the row says so instead of a verdict: on
    a busy machine neither a met nor a missed target would mean anything.
    """
    added = [a - b for a, b in zip(ours, reference, strict=True)]
    middle = median(added)
    scatter = median([abs(one - middle) for one in added])
    target = "" if at_most is None else f"<= +{at_most:g} {unit}"
    met = None if at_most is None else middle <= at_most
    if at_most is not None and scatter > at_most:
        target, met = f"{target}, too noisy to tell", None
    return Row(
        bench=bench,
        case=case,
        ours=median(ours),
        unit=unit,
        against=against,
        reference=median(reference),
        value=f"{middle:+.2f} ±{scatter:.2f} {unit}",
        target=target,
        met=met,
    )


def median(values: Sequence[float]) -> float:
    """The median, so that one disturbed round does not speak for all."""
    return statistics.median(values)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    lines = dict(
        (part.strip() for part in line.split(":", 1)) for line in info.splitlines() if ":" in line
    )
    flags = set(lines.get("flags", "").split())
    return {
        "cpu": lines.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def print_machine(console: Console, facts: dict[str, Any]) -> None:
    """Say where the figures come from, before they come."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    console.print(
        f"{facts['cores']} cores, {facts['cpu']}, {facts['memory_gib']} GiB; "
        f"{' '.join(facts['flags'])}; load average {facts['load_average']}\n"
        f"Python {facts['python']}, {versions}",
        highlight=False,
    )


def print_rows(console: Console, title: str, rows: Sequence[Row]) -> None:
    """Print one benchmark's table."""
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    for name, side in (
        ("what", "left"),
        ("ours", "right"),
        ("unit", "left"),
        ("other", "right"),
        ("against", "left"),
        ("ratio", "right"),
        ("target", "left"),
        ("met", "left"),
    ):
        table.add_column(name, justify=side, overflow="fold")
    for row in rows:
        met = {True: "yes", False: "[red]no[/red]", None: ""}[row.met]
        other = "" if row.reference is None else _number(row.reference)
        cells = (_number(row.ours), row.unit, other, row.against, row.value, row.target, met)
        table.add_row(row.case, *cells)
    console.print(table)


def write_json(path: Path, facts: dict[str, Any], rows: Sequence[Row], notes: list[str]) -> None:
    """Write everything for later comparison."""
    document = {
        "machine": facts,
        "load_average_after": [round(load, 2) for load in os.getloadavg()],
        "rows": [dataclasses.asdict(row) for row in rows],
        "notes": notes,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
