"""The power goes at any moment and unsynced writes are lost: no acknowledged entry is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bedside_edge.store import evidence_rows as rows
from bedside_edge.store.evidence_check import check_log
from bedside_edge.store.evidence_offline import open_copy
from support import evidence_child
from support.lost_writes import Call, Disk, calls
from support.repository import ROOT

FILES = ("bedside.db", "bedside.db-wal")
ENTRIES = 160
CUTS = 10


@pytest.fixture(scope="module")
def traced(tmp_path_factory) -> list[Call]:
    """Every write and sync of a process that writes entries, and what it said when."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace (Debian package: strace)")
    folder = tmp_path_factory.mktemp("traced")
    log = folder / "calls"
    trace = "trace=pwrite64,write,fsync,fdatasync,ftruncate"
    command = ["strace", "-f", "-y", "-xx", "-s", "70000", "-e", trace, "-o", str(log)]
    child = [str(Path(evidence_child.__file__)), "run", str(folder / "state"), str(ENTRIES)]
    done = subprocess.run(
        [*command, sys.executable, *child],
        env={"PYTHONPATH": str(ROOT / "tests"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "ptrace" in done.stderr.lower():
        pytest.skip("needs the right to trace a process")
    assert done.returncode == 0, done.stderr
    return list(calls(joined(log.read_text())))


def joined(text: str) -> list[str]:
    """Put calls that strace split over two lines together, at the moment they ended.

    Only the thread that writes the database writes its files, so no write slips between the two.
    """
    begun: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        thread, call = line.split(None, 1)
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>").rstrip()
        elif call.startswith("<..."):
            lines.append(begun.pop(thread) + call.split("resumed>", 1)[1])
        else:
            lines.append(call)
    return lines


class Said:
    """What the process had acknowledged by a moment."""

    def __init__(self) -> None:
        self.entries: dict[int, str] = {}
        self.heads: dict[int, str] = {}

    def hear(self, call: Call) -> None:
        for line in call.data.decode(errors="replace").splitlines():
            word, *rest = line.split() or [""]
            if word == "entry":
                self.entries[int(rest[0])] = rest[1]
            elif word == "checkpoint":
                self.heads[int(rest[0])] = rest[1]


def replay(traced: list[Call], until: int) -> tuple[Disk, Said]:
    disk, said = Disk(FILES), Said()
    for call in traced[:until]:
        disk.follow(call)
        if call.name == "write" and call.path.startswith("pipe:"):
            said.hear(call)
    return disk, said


def moments(traced: list[Call]) -> list[int]:
    """Places after the first acknowledgement, drawn at random."""
    first = next(n for n, call in enumerate(traced) if b"entry 0" in call.data)
    span = len(traced) - first
    drawn = {first + 1 + int.from_bytes(os.urandom(4)) % span for _ in range(4 * CUTS)}
    return sorted(drawn)[:: max(1, len(drawn) // CUTS)][:CUTS]


def survives(folder: Path, said: Said) -> int:
    """Open what is left as a box would; return how many entries there are."""
    with open_copy(folder) as c:
        origin, keys = rows.meta(c, rows.ORIGIN), rows.known_keys(c)
        checked = check_log(c, origin, keys, parse=True)
        held = rows.entries(c, 0, checked.entries)
        signed = {size for (size,) in c.execute("SELECT size FROM cp")}
    marks = {one.index: str(one.entry.refs["mark"]) for one in held if "mark" in one.entry.refs}
    assert said.entries.items() <= marks.items(), "an acknowledged entry is missing"
    assert said.heads.keys() <= signed, "a checkpoint left the box and is not on its disk"
    return checked.entries


def test_power_cuts_lose_no_acknowledged_entry_and_no_checkpoint_that_left(traced, tmp_path):
    lost = 0
    for number, moment in enumerate(moments(traced)):
        disk, said = replay(traced, moment)
        lost += disk.cached()
        for how, taken in {
            "nothing unsynced survives": lambda: False,
            "any part of it survives": lambda: os.urandom(1)[0] < 128,
        }.items():
            folder = tmp_path / f"{number} {how}"
            folder.mkdir()
            disk.image(folder, taken)
            assert survives(folder, said) >= len(said.entries), (moment, how)
    assert lost > 0, "no cut fell on unsynced writes: the test lost nothing and shows nothing"


def test_a_disk_that_forgets_synced_writes_is_noticed(traced, tmp_path):
    """The test above can fail: where syncs do nothing the same cut loses acknowledged entries."""
    half = len(traced) // 2
    broken = [call for n, call in enumerate(traced) if n < half or "sync" not in call.name]
    disk, said = replay(broken, len(broken))
    assert len(said.entries) == ENTRIES
    folder = tmp_path / "left"
    folder.mkdir()
    disk.image(folder, lambda: False)
    with pytest.raises(AssertionError, match="an acknowledged entry is missing"):
        survives(folder, said)
