"""Objects as files: closed to others, refused before the disk is full, durable after a flush."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bedside_core.errors import DiskFullError, InvalidConfigError, StoreUnavailableError
from bedside_edge.store.objects import DiskLimits, FileObjects
from bedside_edge.system.clock import SystemClock
from support.fake_clock import FakeClock, SeededBytes

ANY_DISK = DiskLimits(high_watermark=1.0, min_free_bytes=0)


@pytest.fixture
def store(tmp_path: Path):
    opened = FileObjects(tmp_path / "objects", SeededBytes(), ANY_DISK, SystemClock())
    yield opened
    opened.close()


def put(store: FileObjects, data: bytes = b"x") -> str:
    sink = store.create()
    sink.write(data)
    return sink.seal("d").name


class SlowClock(FakeClock):
    """Every look at it costs a second, as on a disk that takes its time."""

    def monotonic(self) -> float:
        self.advance(1000)
        return super().monotonic()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def files(store: FileObjects) -> list[Path]:
    return [path for path in store.folder.rglob("*") if path.is_file()]


def test_folders_and_files_are_closed_to_everyone_else(store):
    old = os.umask(0)
    try:
        put(store)
        unfinished = store.create()
    finally:
        os.umask(old)
    for path in [store.folder, *store.folder.rglob("*")]:
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0
    unfinished.abort()


def test_nothing_plain_is_written_at_any_moment(store):
    sink = store.create()
    for _ in range(40):
        sink.write(b"Muster^Ada" * 10_000)
        assert all(b"Muster" not in path.read_bytes() for path in files(store))
    sink.seal("d")
    assert all(b"Muster" not in path.read_bytes() for path in files(store))


def test_above_the_watermark_nothing_is_taken_in(tmp_path):
    for limits in (
        DiskLimits(high_watermark=1e-9, min_free_bytes=0),
        DiskLimits(high_watermark=1.0, min_free_bytes=2**62),
    ):
        store = FileObjects(tmp_path / "objects", SeededBytes(), limits, SystemClock())
        assert store.above_watermark()
        with pytest.raises(DiskFullError):
            store.create()
        assert files(store) == []
        store.close()


def test_used_fraction_is_what_the_file_system_says(store):
    used = store.used_fraction()
    assert 0 < used < 1


@pytest.mark.parametrize("limits", [{"high_watermark": 0.0}, {"high_watermark": 1.5}])
def test_absurd_limits_are_refused(limits):
    with pytest.raises(InvalidConfigError):
        DiskLimits(**limits)


FILL = """
import sys
from pathlib import Path
from bedside_core.errors import DiskFullError
from bedside_edge.store.objects import DiskLimits, FileObjects
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom

limits = DiskLimits(high_watermark=1, min_free_bytes=0)
store = FileObjects(Path(sys.argv[1]), OsRandom(), limits, SystemClock())
kept = []
for _ in range(1000):
    sink = store.create()
    try:
        sink.write(bytes(300_000))
        kept.append(sink.seal("d"))
        store.flush()
    except DiskFullError:
        break
else:
    sys.exit("never full")
assert kept and len(list(store.names())) == len(kept), "a refused object left a name"
assert not list((Path(sys.argv[1]) / "tmp").iterdir()), "a refused object left a file"
for done in kept:
    assert store.read(done.name, done.object_key) == bytes(300_000)
store.delete(kept[0].name)
sink = store.create()
sink.write(b"again")
sink.seal("d")
store.flush()
print("full after", len(kept))
"""


def test_a_really_full_disk_refuses_keeps_what_it_has_and_goes_on_when_there_is_room(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)],  # noqa: S607
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        done = subprocess.run(
            [sys.executable, "-c", FILL, str(tmp_path / "objects")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)  # noqa: S607
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full after")


@pytest.mark.parametrize("clock", [SystemClock, FakeClock, "slow"])
def test_an_object_is_flushed_before_flush_returns_whoever_did_the_work(
    tmp_path, monkeypatch, clock
):
    # the clock decides whether syncs run side by side: always, never, or as it comes
    store = FileObjects(
        tmp_path / "objects", SeededBytes(), ANY_DISK, SlowClock() if clock == "slow" else clock()
    )
    synced: set[int] = set()
    real = os.fsync

    def recorded(fd: int) -> None:
        real(fd)
        synced.add(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", recorded)
    missing: list[str] = []

    def work() -> None:
        for _ in range(20):
            name = put(store, b"x" * 1000)
            store.flush()
            shelf = store.folder / name[:2]
            if not {(shelf / name).stat().st_ino, shelf.stat().st_ino} <= synced:
                missing.append(name)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert len(list(store.names())) == 120
    store.close()


def test_after_a_failed_fsync_nothing_is_acknowledged_until_the_store_is_opened_again(tmp_path):
    store = FileObjects(tmp_path / "objects", SeededBytes(), ANY_DISK, SystemClock())
    name = put(store)
    (store.folder / name[:2]).rename(tmp_path / "gone")  # the disk lost the folder
    with pytest.raises(StoreUnavailableError):
        store.flush()
    for attempt in (store.flush, store.create):
        with pytest.raises(StoreUnavailableError):
            attempt()
    store.close()
    again = FileObjects(tmp_path / "objects", SeededBytes("2"), ANY_DISK, SystemClock())
    put(again)
    again.flush()
    again.close()


def test_many_objects_wait_for_one_flush_without_running_out_of_files(store):
    before = open_files()
    for _ in range(300):
        put(store)
        assert open_files() < before + 80
    store.flush()
    assert open_files() == before
    assert len(list(store.names())) == 300


def test_objects_sealed_together_lie_together(store):
    shelves = {put(store)[:2] for _ in range(20)}
    assert len(shelves) <= 2


def test_leftovers_of_a_dead_process_are_cleared(store):
    left = [store.create() for _ in range(3)]
    assert store.clear_temporary() == 3
    assert store.clear_temporary() == 0
    for sink in left:
        sink.abort()


def test_a_closed_store_takes_nothing_in(tmp_path):
    store = FileObjects(tmp_path / "objects", SeededBytes(), ANY_DISK, SystemClock())
    name = put(store)
    store.close()
    assert list(store.names()) == [name]
    for attempt in (store.create, store.flush):
        with pytest.raises(StoreUnavailableError):
            attempt()


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError):
        FileObjects(tmp_path / "file" / "objects", SeededBytes(), ANY_DISK, SystemClock())
