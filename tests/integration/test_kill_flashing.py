"""Killed, or without power, at any instant of an installation: the old or the new, never neither.

A child is forked for each kill: it installs, and dies by SIGKILL just before or just after its n-th
step that touches the disk. What an acknowledged installation changed stays changed; counters never
fall; whatever was half done is finished or forgotten at the next start.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bedside_core.errors import ChunkMismatchError, NotFoundError
from bedside_core.slots import SlotState
from bedside_edge.services.flashing import GOOD
from bedside_edge.store.database import Database
from support.durable_disk import DurableDisk
from support.flash_house import FlashHouse
from support.ram import ram_folder

KIND = "model/chest"
_DISK = ("fsync", "replace", "rename", "unlink", "mkdir", "symlink")


@pytest.fixture
def ram() -> Iterator[Path]:
    with ram_folder() as folder:
        yield folder


class Killer:
    """Counts what touches the disk in this process, and dies at one."""

    def __init__(self, at: int, before: bool) -> None:
        self.at, self.before, self.count = at, before, 0
        for name in _DISK:
            setattr(os, name, self._counted(getattr(os, name)))
        Database.write = self._counted(Database.write)

    def _counted(self, call: Callable) -> Callable:
        def counted(*args, **named):
            self.count += 1
            due = self.count == self.at
            if due and self.before:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = call(*args, **named)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return counted


def prepared(folder: Path) -> None:
    """A box that serves 2.0.0, can go back to 1.0.0, and has the pieces of 3.0.0."""
    house = FlashHouse(folder)
    service = house.open()
    for counter in (1, 2):
        assert service.install(house.package(counter)).state == GOOD
    house.package(3)
    house.close()


def install(house: FlashHouse) -> None:
    assert house.open().install(house.package(3)).state == GOOD


def go_back(house: FlashHouse) -> None:
    house.open().roll_back(KIND)


def forked(folder: Path, act: Callable[[FlashHouse], None], at: int, before: bool) -> bool:
    """Run `act` in a child that dies at its `at`-th step; returns whether it was acknowledged."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            house = FlashHouse(folder)
            killer = Killer(at, before)
            act(house)
            os.write(writable, b"%d" % killer.count)
            os._exit(0)  # as if the power went right after it
        finally:
            os._exit(9)
    os.close(writable)
    _, status = os.waitpid(child, 0)
    said = os.read(readable, 100)
    os.close(readable)
    assert os.WIFSIGNALED(status) or said, "the child failed by itself"
    if said:
        forked.steps = int(said)
    return bool(said)


def check(folder: Path, acknowledged: bool, new: str, floor: int) -> str:
    """The box starts, serves the old or the new whole, and can be flashed again."""
    house = FlashHouse(folder)
    service = house.open()
    try:
        pair = house.store.pair(KIND)
        serving = house.whole()
        assert serving in ([f"{KIND} 2.0.0"], [f"{KIND} {new}"])
        assert pair.floor >= (floor if acknowledged else 2)
        if acknowledged:
            assert serving == [f"{KIND} {new}"]
        link = folder / "slots" / "model" / "chest" / "current"
        assert str(link.readlink()) == pair.active
        service.step()  # what was under way goes on
        pair = house.store.pair(KIND)
        assert pair.idle.state in (SlotState.EMPTY, SlotState.GOOD)
        if pair.idle.state is SlotState.EMPTY:
            assert not house.folders.place(KIND, pair.idle.name).exists()
        house.whole()
        return serving[0].split()[1]
    finally:
        house.close()


def sweep(
    ram: Path, act: Callable[[FlashHouse], None], new: str, floor: int, step: int, seconds: float
) -> tuple[int, set[str]]:
    """Kill at every `step`-th place, before and after; returns how many kills and what served."""
    template = ram / "template"
    template.mkdir()
    prepared(template)
    counting = ram / "counting"
    shutil.copytree(template, counting, symlinks=True)
    assert forked(counting, act, 0, before=False)
    check(counting, True, new, floor)
    steps, kills, seen = forked.steps, 0, set()
    deadline = time.monotonic() + seconds
    for at in range(1, steps + 1, step):
        for before in (True, False):
            if time.monotonic() > deadline:
                return kills, seen
            place = ram / f"{at}{before}"
            shutil.copytree(template, place, symlinks=True)
            acknowledged = forked(place, act, at, before)
            seen.add(check(place, acknowledged, new, floor))
            kills += not acknowledged
            shutil.rmtree(place)
    return kills, seen


def test_killed_here_and_there_in_an_installation_the_old_or_the_new_serves(ram):
    kills, seen = sweep(ram, install, "3.0.0", 3, step=2, seconds=60)
    assert kills >= 20
    assert seen == {"2.0.0", "3.0.0"}


def test_killed_while_going_back_either_of_the_two_serves(ram):
    kills, seen = sweep(ram, go_back, "1.0.0", 2, step=1, seconds=60)
    assert kills >= 10
    assert seen == {"2.0.0", "1.0.0"}


@pytest.mark.slow
def test_a_thousand_kills_of_installations_and_going_back(ram):
    deadline, kills, rounds = time.monotonic() + 75, 0, 0
    while time.monotonic() < deadline and kills < 1000:
        for number, (act, new, floor) in enumerate(((install, "3.0.0", 3), (go_back, "1.0.0", 2))):
            place = ram / f"{rounds}-{number}"
            place.mkdir()
            left = max(0.0, deadline - time.monotonic())
            kills += sweep(place, act, new, floor, step=1, seconds=left)[0]
            shutil.rmtree(place)
        rounds += 1
    print(f"{kills} kills")  # noqa: T201  said in the report of the run
    assert kills >= 300


def sync_all(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def cuts(ram: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> tuple[int, set[str]]:
    """Install once, and at every event look at what a power cut would have left."""
    folder = ram / "box"
    folder.mkdir()
    disk = DurableDisk(folder, monkeypatch)
    prepared(folder)
    sync_all(folder)  # what was there before this night is on the disk
    house = FlashHouse(folder)
    service = house.open()
    package = house.package(3)
    write = house.database.write

    def committed(fn):
        answer = write(fn)
        disk.committed()
        return answer

    monkeypatch.setattr(house.database, "write", committed)
    state = {"n": 0, "acknowledged": False, "looking": False}
    seen = set()

    def cut() -> None:
        if state["looking"]:
            return
        state["n"] += 1
        if state["n"] % every:
            return
        state["looking"] = True  # what the check itself syncs is no event
        place = ram / f"cut{state['n']}"
        disk.restore(place)
        seen.add(check(place, state["acknowledged"], "3.0.0", 3))
        shutil.rmtree(place)
        state["looking"] = False

    disk.committed()
    disk.on_event = cut
    assert service.install(package).state == GOOD
    state["acknowledged"] = True
    state["n"] = every - 1
    cut()
    house.close()
    monkeypatch.undo()
    return state["n"], seen


def test_without_power_at_any_moment_nothing_unsynced_was_needed(ram, monkeypatch):
    _, seen = cuts(ram, monkeypatch, every=1)
    assert seen == {"2.0.0", "3.0.0"}


def test_the_simulated_cut_does_find_a_file_that_was_never_synced(ram, monkeypatch):
    folder = ram / "box"
    folder.mkdir()
    prepared(folder)
    disk = DurableDisk(folder, monkeypatch)
    recorded = os.fsync

    def forgets(descriptor: int) -> None:
        if "/chest/a/" not in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            recorded(descriptor)

    sync_all(folder)
    monkeypatch.setattr(os, "fsync", forgets)
    house = FlashHouse(folder)
    assert house.open().install(house.package(3)).state == GOOD
    house.close()
    disk.committed()
    disk.restore(ram / "cut")
    monkeypatch.undo()
    shutil.rmtree(ram / "cut" / "slots" / "chunks")  # or the start would heal it from them
    with pytest.raises((NotFoundError, ChunkMismatchError)):
        check(ram / "cut", True, "3.0.0", 3)
