"""`make bench`: the box against raw engines, DCMTK and Orthanc, side by side in one run.

Every comparison alternates between us and the other (A, B, A, B ...) and takes medians, because
absolute milliseconds of a shared machine say little. What is not installed is named and skipped.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench import (
    dicomweb,
    engines,
    evidence,
    flash,
    outputs,
    pages,
    policy,
    privacy,
    receive,
    secure_sum,
    start,
)
from bench.plan import FULL, QUICK, Plan
from bench.report import Row, machine, print_machine, print_rows, write_json

Bench = Callable[[Plan, list[str]], list[Row]]

BENCHES: dict[str, tuple[str, Bench]] = {
    "engine": ("Engine loop and service, binary tensor", lambda plan, _: engines.run(plan)),
    "dicom-body": ("DICOM body to answer", lambda plan, _: engines.run_dicom(plan)),
    "cstore": ("C-STORE received per second, durable before the answer", receive.run_cstore),
    "stow": ("STOW-RS stored per second, durable before the answer", receive.run_stow),
    "dicomweb": ("DICOMweb, one request at a time", dicomweb.run),
    "outputs": ("DICOM objects of a result", lambda plan, _: outputs.run(plan)),
    "pages": ("Pages for people, server time", lambda plan, _: pages.run(plan)),
    "evidence": ("Evidence log", lambda plan, _: evidence.run(plan)),
    "policy": ("Policy decisions", lambda plan, _: policy.run(plan)),
    "privacy": ("Statistics that leave: 30,762 studies of 10,000 patients", privacy.run),
    "secure-sum": ("Secure sum on a real hub", lambda plan, _: secure_sum.run(plan)),
    "flash": ("Packages from a real hub", lambda plan, _: flash.run(plan)),
    "start": ("Start and memory", lambda plan, _: start.run(plan)),
}


def measure(plan: Plan, only: list[str], console: Console) -> tuple[list[Row], list[str]]:
    """Run the benches and print each table as soon as it is complete."""
    rows: list[Row] = []
    notes: list[str] = []
    for name, (title, bench) in BENCHES.items():
        if only and name not in only:
            continue
        began = time.monotonic()
        load = os.getloadavg()[0]
        found = bench(plan, notes)
        rows += found
        span = f"{time.monotonic() - began:.0f} s, load {load:.1f} to {os.getloadavg()[0]:.1f}"
        if found:
            print_rows(console, f"{title} ({span})", found)
    for note in dict.fromkeys(notes):
        console.print(f"note: {note}", highlight=False)
    return rows, notes


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BENCHES), help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer cases, about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row here")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    facts = machine()
    print_machine(console, facts)
    began = time.monotonic()
    plan = QUICK if arguments.quick else FULL
    rows, notes = measure(plan, arguments.only or [], console)
    missed = [row for row in rows if row.met is False]
    console.print(
        f"{time.monotonic() - began:.0f} s; {sum(row.met is True for row in rows)} targets met, "
        f"{len(missed)} missed" + ("" if not missed else ":"),
        highlight=False,
    )
    for row in missed:
        words = f"  {row.bench}: {row.case}: {row.value or f'{row.ours:.2f} {row.unit}'}"
        console.print(f"{words}, target {row.target} {row.against}", highlight=False)
    if arguments.json:
        write_json(arguments.json, facts, rows, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
