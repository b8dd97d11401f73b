"""The power goes at any moment: what was acknowledged is whole, nothing refers to what is gone."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bedside_core.errors import BedsideError, NotFoundError
from bedside_edge.ports import Arrival, Filed, Outcome
from bedside_edge.store.state import State
from support.durable_disk import DurableDisk
from support.ram import ram_folder
from support.repository import ROOT
from support.state_houses import T0, FolderHouse, arrival


@pytest.fixture
def ram() -> Iterator[Path]:
    with ram_folder() as folder:
        yield folder


@dataclass
class Promises:
    """What callers were told so far."""

    filed: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> "Promises":
        return Promises(dict(self.filed), dict(self.results))


def check(house: FolderHouse, promises: Promises) -> None:
    """The folder opens, every promise is kept and every row's object opens."""
    state = house.open()
    for instance_id, (study_id, data) in promises.filed.items():
        held = {i.instance_id: i for i in state.studies.instances(study_id)}
        instance = held[instance_id]
        assert state.objects.read(instance.object_name, instance.object_key) == data
    for result_id, body in promises.results.items():
        assert state.jobs.result(result_id).body == body
    assert set(state.objects.names()) == state.studies.object_names()
    for job in state.jobs.jobs(limit=10_000):
        for instance in state.studies.instances(job.study_id):
            state.objects.read(instance.object_name, instance.object_key)
    state.close()


class Run:
    """Drives a state and cuts the power at every event: each fsync, each commit, each promise."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.house = FolderHouse(folder)
        self.house.folder.mkdir(mode=0o700)
        self.disk = DurableDisk(self.house.folder, monkeypatch)
        self.promises = Promises()
        self.cuts = 0
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._one_at_a_time = threading.Lock()
        self.disk.on_event = self.cut

    def open(self) -> State:
        state = self.house.open()
        self.disk.committed()
        write = state.database.write

        def recorded(fn: Callable) -> object:
            answer = write(fn)
            self.disk.committed()
            return answer

        self._monkeypatch.setattr(state.database, "write", recorded, raising=True)
        return state

    def cut(self) -> None:
        """See what a power cut here would leave; the run itself goes on."""
        with self._one_at_a_time:
            self.cuts += 1
            place = self._folder / f"cut{self.cuts}"
            after = FolderHouse(place)
            place.mkdir()
            self.disk.restore(after.folder)
            check(after, self.promises.copy())
            shutil.rmtree(place)


def file(run: Run, state: State, batch: list[tuple[str, str, bytes]]) -> list[Filed]:
    arrivals: list[Arrival] = []
    for study, uid, data in batch:
        sink = state.objects.create()
        sink.write(data)
        sent = arrival(state, uid, study=study, data=b"", at=T0)
        state.objects.delete(sent.sealed.name)
        done = sink.seal(f"digest of {uid}")
        arrivals.append(
            Arrival(header=sent.header, sealed=done, way=sent.way, source=sent.source, at=T0)
        )
    state.objects.flush()
    filed = state.studies.file(arrivals)
    for receipt, (_, _, data) in zip(filed, batch, strict=True):
        run.promises.filed[receipt.instance_id] = (receipt.study_id, data)
    run.cut()
    return filed


def test_a_power_cut_at_every_moment_keeps_every_promise(ram, monkeypatch):
    run = Run(ram, monkeypatch)
    state = run.open()
    for n in range(4):
        batch = [(f"1.{n}", f"1.{n}.{i}", f"pixels {n} {i}".encode() * 50) for i in range(1 + n)]
        filed = file(run, state, batch)
        state.jobs.complete(filed[0].study_id, T0)
        job = state.jobs.lease(T0)
        assert job is not None
        if n == 1:
            state.jobs.fail(job, "engine-failed", T0)
            continue
        body = f"result {n}".encode()
        run.promises.results[
            state.jobs.finish(job, Outcome(refused=False, reason="", body=body), T0)
        ] = body
        run.cut()
    state.close()
    run.cut()
    assert run.cuts >= 40


def test_the_simulated_cut_does_lose_what_was_never_flushed(ram, monkeypatch):
    run = Run(ram, monkeypatch)
    state = run.open()
    run.disk.on_event = lambda: None
    monkeypatch.setattr(state.objects, "flush", lambda: None)
    filed = file_without_cut(state)
    after = FolderHouse(ram / "cut")
    (ram / "cut").mkdir()
    run.disk.restore(after.folder)
    with pytest.raises(NotFoundError):
        check(after, Promises({filed.instance_id: (filed.study_id, b"pixels")}))
    monkeypatch.undo()
    state.close()


def file_without_cut(state: State) -> Filed:
    return state.studies.file([arrival(state)])[0]


TRACED = """
import sys
from pathlib import Path
from support.state_houses import FolderHouse, arrival

house = FolderHouse(Path(sys.argv[1]))
state = house.open()
state.studies.file([arrival(state, "1.0")])
for n in range(1, 6):
    sent = arrival(state, f"1.{n}", data=b"x" * 600_000)
    state.studies.file([sent])
    print("acknowledged", sent.sealed.name, flush=True)
"""


def test_the_kernel_sees_file_and_folder_synced_before_the_row_and_the_row_before_the_answer(
    tmp_path,
):
    if shutil.which("strace") is None:
        pytest.skip("needs strace (Debian package: strace)")
    log = tmp_path / "calls"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,write"
    command = ["strace", "-f", "-y", "-s", "120", "-e", calls, "-o", str(log)]
    done = subprocess.run(
        [*command, sys.executable, "-c", TRACED, str(tmp_path / "state")],
        env={"PYTHONPATH": str(ROOT / "tests"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "ptrace" in done.stderr.lower():
        pytest.skip("needs the right to trace a process")
    assert done.returncode == 0, done.stderr
    lines = joined(log.read_text())
    names = [n for line in lines for n in re.findall(r'write\(1<.*"acknowledged (\w{64})', line)]
    assert len(names) == 5
    before = 0
    for name in names:
        shelf = re.escape(f"/objects/{name[:2]}")
        said = first(lines, rf'write\(1<.*"acknowledged {name}', before)
        renamed = first(lines, rf"rename.*{name}", before)
        file_synced = first(lines, rf"fsync\(\d+<.*{shelf}/{name}>\) += 0", before)
        folder_synced = first(lines, rf"fsync\(\d+<.*{shelf}>\) += 0", renamed)
        row_synced = first(
            lines, r"f(data)?sync\(\d+<.*bedside\.db-wal>\) += 0", max(file_synced, folder_synced)
        )
        assert renamed < file_synced < row_synced < said
        assert folder_synced < row_synced
        before = said


def joined(text: str) -> list[str]:
    """Put calls that strace split over two lines together, at the moment they ended."""
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


def first(lines: list[str], pattern: str, after: int) -> int:
    """Return the number of the first line from `after` on that matches."""
    found = [n for n, line in enumerate(lines) if n >= after and re.search(pattern, line)]
    assert found, f"never seen: {pattern}"
    return found[0]


def test_a_row_whose_object_was_torn_is_an_error_not_other_bytes(tmp_path):
    house = FolderHouse(tmp_path)
    state = house.open()
    filed = file_without_cut(state)
    (held,) = state.studies.instances(filed.study_id)
    path = house.folder / "objects" / held.object_name[:2] / held.object_name
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BedsideError):
            state.objects.read(held.object_name, held.object_key)
    state.close()
