"""From a passed trial to what serves, and back: rows, evidence and link, all durable."""

import os
import time
from pathlib import Path
from statistics import median

from bedside_edge.services.flashing import GOOD
from bench.plan import Plan
from bench.report import Row, ratio_row
from support.flash_house import FlashHouse

_KIND = "model/chest"
_TIMES = 8
# Two commits of SQLite with full sync, the second so that a start knows what is acted on, and the
# link; the bare way is one sync and tells nobody what happened
_SWITCH, _BACK = 12.0, 12.0


def bare_switch(folder: Path, times: int) -> float:
    """Return the median seconds of what a boot loader's link costs: replace it, sync its folder."""
    folder.mkdir()
    taken = []
    for number in range(times):
        began = time.perf_counter()
        made = folder / "current.tmp"
        made.symlink_to("ab"[number % 2])
        made.replace(folder / "current")
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        taken.append(time.perf_counter() - began)
    return median(taken)


def switched(bench: str, plan: Plan, folder: Path) -> list[Row]:
    """Return the rows of switching and of going back."""
    folder.mkdir()
    house = FlashHouse(folder)
    service = house.open()
    passed: list[float] = []
    house.gate.on_call = lambda: passed.append(time.perf_counter())
    switch, back = [], []
    for counter in range(1, max(_TIMES, plan.rounds) + 1):
        assert service.install(house.package(counter)).state == GOOD
        switch.append(time.perf_counter() - passed[-1])
        if counter > 1:
            began = time.perf_counter()
            service.roll_back(_KIND)
            back.append(time.perf_counter() - began)
    house.close()
    raw = bare_switch(folder / "bare", _TIMES)
    against = "a link replaced and its folder synced"
    return [
        ratio_row(
            bench, "passed trial to serving", median(switch), "s", against, raw, at_most=_SWITCH
        ),
        ratio_row(
            bench,
            "going back to the version before",
            median(back),
            "s",
            against,
            raw,
            at_most=_BACK,
        ),
    ]
