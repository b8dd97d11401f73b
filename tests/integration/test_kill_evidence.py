"""A writer is killed at any moment: rows equal entries, and no signed checkpoint is ever denied."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bedside_core.evidence.merkle import consistency_holds, consistency_proof, root_at
from bedside_edge.store import evidence_rows as rows
from bedside_edge.store.evidence_check import check_log
from bedside_edge.store.evidence_offline import open_copy
from support import evidence_child
from support.repository import ROOT

_LONGEST_MS = 120


class Writers:
    """One process that forks a writer for each round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        command = [sys.executable, str(Path(evidence_child.__file__)), "loop"]
        self._errors = (folder / "errors").open("w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        )
        self._late = threading.Timer(600, self.process.kill)
        self._late.start()

    def round(self, number: int, delay_s: float) -> list[list[str]]:
        """Let a writer run for `delay_s`, SIGKILL it; return the lines it said."""
        self._send(f"{self.folder} {number}\n")
        word, writer = self._line()
        assert word == "open"
        threading.Event().wait(delay_s)
        os.kill(int(writer), signal.SIGKILL)
        said = []
        while (line := self._line()) != ["ended"]:
            said.append(line)
        return said

    def close(self) -> None:
        self._late.cancel()
        self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            stream.close()

    def _send(self, text: str) -> None:
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def _line(self) -> list[str]:
        line = self.process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise AssertionError(self._errors.read()[-4000:])
        return line.split()


@pytest.fixture
def writers(tmp_path) -> Iterator[Writers]:
    writers = Writers(tmp_path)
    yield writers
    writers.close()


class Promises:
    """Everything any writer ever acknowledged."""

    def __init__(self) -> None:
        self.entries: dict[int, str] = {}
        self.filed: set[str] = set()
        self.heads: dict[int, bytes] = {}

    def add(self, said: list[list[str]]) -> None:
        for word, *rest in said:
            if word == "entry":
                self.entries[int(rest[0])] = rest[1]
            elif word == "filed":
                self.filed.add(rest[0])
            elif word == "checkpoint":
                size, root = int(rest[0]), bytes.fromhex(rest[1])
                assert self.heads.setdefault(size, root) == root, "two roots for one size"

    def hold(self, folder: Path) -> int:
        """Compare with what is on the disk; return how many entries there are."""
        with open_copy(folder) as c:
            origin, keys = rows.meta(c, rows.ORIGIN), rows.known_keys(c)
            checked = check_log(c, origin, keys, parse=True)
            held = {i for (i,) in c.execute("SELECT instance_id FROM instances")}
            marks: dict[int, str] = {}
            received = 0
            for one in rows.entries(c, 0, checked.entries):
                if one.entry.refs.get("what") == "received":
                    received += 1
                elif "mark" in one.entry.refs:
                    marks[one.index] = str(one.entry.refs["mark"])
            read = rows.node_reader(c)
            for size, root in self.heads.items():
                assert root_at(size, read) == root
                proof = consistency_proof(size, checked.entries, read)
                if 0 < size < checked.entries:
                    new = checked.root
                    assert consistency_holds(size, checked.entries, root, new, proof)
        assert self.filed <= held
        assert len(held) == received, "instances without an entry, or entries without an instance"
        assert self.entries.items() <= marks.items()
        assert len(set(marks.values())) == len(marks), "an entry stands twice"
        return checked.entries


def kills(writers: Writers, count: int) -> Promises:
    promises = Promises()
    for number in range(count):
        wait = int.from_bytes(os.urandom(2)) / 65_536 * _LONGEST_MS / 1000
        promises.add(writers.round(number, wait))
        promises.hold(writers.folder)
    assert len(promises.entries) > 2 * count, "the writers were killed before they wrote"
    assert len(promises.filed) > count
    assert len(promises.heads) > count
    return promises


def test_25_kills_leave_rows_equal_to_entries_and_every_checkpoint_true(writers):
    kills(writers, 25)


@pytest.mark.slow
def test_200_kills_leave_rows_equal_to_entries_and_every_checkpoint_true(writers):
    promises = kills(writers, 200)
    said = f"{len(promises.entries)} entries, {len(promises.heads)} checkpoints acknowledged"
    print(said)  # noqa: T201  the figure, with -s
