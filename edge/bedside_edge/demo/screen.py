"""The summary on a terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

_NARROWEST = 100  # columns where nothing says how wide the output is


def console() -> Console:
    """Return the console for standard output; a pipe or a log file gets readable columns."""
    standard = Console(highlight=False)
    return standard if standard.is_terminal else Console(highlight=False, width=_NARROWEST)


def print_summary(console: Console, summary: Json, out: Path) -> None:
    """Print the studies, the encodings, the claims and where the files are."""
    console.print()
    console.print(Text(summary["notice"], style="bold"))
    console.print(_studies(summary, console.width))
    for study in summary["studies"]:
        if study["value"]:
            console.print()
            console.print(Text(f"{study['title']}, image by image", style="bold"))
            console.print(_encodings(study, console.width))
    console.print()
    for claim in summary["claims"]:
        mark = ("held  ", "green") if claim["held"] else ("BROKEN", "bold red")
        console.print(Text.assemble(mark, "  ", claim["promise"]))
        console.print(Padding(Text(claim["seen"], style="dim"), (0, 0, 0, 8)))
    console.print()
    for line in _closing(summary, out):
        console.print(Text(line), soft_wrap=True)


def _studies(summary: Json, width: int) -> Table:
    table = _table(width)
    table.add_column("study", min_width=10)
    _columns(table, ("way in", ""), ("images", "right"), ("probability", "right"), ("decision", ""))
    table.add_column("reason", min_width=18)
    for study in summary["studies"]:
        value, reason = study["value"], study["reason"]
        if value:
            low, high = value["undetermined"]
            why = f"threshold {value['threshold']:.3f}, undetermined {low:.3f} to {high:.3f}"
            said = (f"{value['probability']:.3f}", value["decision"], why)
        else:
            word = "not read" if study["result"] else "not taken in"
            said = ("", word, f"{reason['code']}: {reason['detail']}")
        _add(table, [study["title"], study["route"], str(len(study["images"])), *said])
    again = summary["repeated"]
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(again["outcomes"].items()))
    same = "no new job" if again["jobs_unchanged"] else "new job"
    _add(table, [again["title"], again["route"], str(len(again["answers"])), "", same, outcomes])
    return table


def _encodings(study: Json, width: int) -> Table:
    table = _table(width)
    _columns(table, ("file", ""))
    table.add_column("encoding", min_width=10)
    _columns(table, ("MB", "right"), ("answer", ""), ("probability", "right"))
    table.add_column("decision", min_width=12)
    for image in study["images"]:
        if image["probability"] is not None:
            said = (f"{image['probability']:.6f}", image["decision"])
        elif image["same_as"]:
            said = ("", f"same pixels as {image['same_as']}")
        else:
            said = ("", image["reason"]["code"])
        size = f"{image['bytes'] / 1e6:.2f}"
        _add(table, [image["name"], image["about"], size, image["answer"], *said])
    return table


def _closing(summary: Json, out: Path) -> list[str]:
    model = summary["model"]
    engine = model["engine"]
    folder = "kept in the output folder" if summary["kept"] else "removed"
    return [
        f"{model['name']} {model['version']} on {engine['name']} {engine['version']} "
        f"{engine['precision']}, profile {model['profile']}",
        f"ready in {summary['ready_s']:.1f} s, all in {summary['took_s']:.1f} s; "
        f"the box's state folder is {folder}",
        f"report: {out / 'report.html'}",
    ]


def _table(width: int) -> Table:
    gap = 1 if width >= _NARROWEST else 0
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap))


def _columns(table: Table, *columns: tuple[str, str]) -> None:
    """Add columns that never wrap: a number or a code broken in two is misread."""
    for name, side in columns:
        table.add_column(name, no_wrap=True, justify="right" if side == "right" else "left")


def _add(table: Table, cells: Sequence[str]) -> None:
    table.add_row(*(Text(cell) for cell in cells))
