"""Random histories of the stored log, read by independent programs that share no code with ours."""

import itertools
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedside_core.evidence.checkpoint import open_checkpoint
from bedside_core.evidence.entry import Kind
from bedside_core.evidence.merkle import (
    consistency_holds,
    inclusion_holds,
    inclusion_proof,
    leaf_hash,
    root_at,
)
from bedside_edge.ports.evidence import Event
from bedside_edge.store import evidence_rows as rows
from bedside_edge.store.evidence_check import check_log
from bedside_edge.store.evidence_offline import export, open_copy
from support.evidence_houses import SqliteHouse
from support.evidence_log import ORIGIN

reader = pytest.importorskip("tlog_scales.reader", reason="tlog-scales is not installed")
backend = pytest.importorskip("tlog_scales.backend")
signing = pytest.importorskip("tlog_scales.signing")
tlog = pytest.importorskip("tlog_scales.tlog")

# what happens to a log: so many entries, a write that fails, a checkpoint, pads, a restart
STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 70)),
    st.tuples(st.just("fail"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["checkpoint", "outgoing", "restart", "export"]), st.just(0)),
)
HISTORIES = st.lists(STEPS, min_size=1, max_size=12)
SLOW_DISK = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_NUMBERS = itertools.count()


class Run:
    """A history carried out: the log as it stands, its export, every checkpoint it signed."""

    def __init__(self, folder: Path) -> None:
        self.house = SqliteHouse(folder)
        self.tiles = folder / "tiles"
        self.log = self.house.open(nightly_quota=32)
        self.notes: list[bytes] = []

    def step(self, what: str, count: int) -> None:
        if what == "append":
            self.house.databases[-1].write(lambda c: self._append(c, count))
        elif what == "fail":
            with pytest.raises(ZeroDivisionError):
                self.house.databases[-1].write(lambda c: self._append(c, count) / 0)
        elif what == "restart":
            self.log = self.house.open(nightly_quota=32)
        elif what == "export":
            self.notes.append(self.log.checkpoint())
            self.export()
        else:
            ask = self.log.outgoing_checkpoint if what == "outgoing" else self.log.checkpoint
            self.notes.append(ask())

    def _append(self, c, count: int) -> int:
        for n in range(count):
            payload = b"x" * (n % 7) if n % 3 else None
            event = Event(kind=Kind.ADMIN, actor="service:box", payload=payload, refs={"n": n})
            self.log.record(c, event)
        return count

    def export(self) -> None:
        with open_copy(self.house.path) as c:
            export(c, self.tiles, lambda done, total: None)

    def finish(self) -> None:
        if not self.log.size():
            self.step("append", 1)
        self.step("export", 0)

    def close(self) -> None:
        self.house.close()


@pytest.fixture
def carried_out(tmp_path):
    def carry_out(history) -> Run:
        folder = tmp_path / str(next(_NUMBERS))
        folder.mkdir()
        run = Run(folder)
        for step in history:
            run.step(*step)
        run.finish()
        return run

    yield carry_out
    shutil.rmtree(tmp_path, ignore_errors=True)


@SLOW_DISK
@given(history=HISTORIES)
def test_an_independent_reader_accepts_every_checkpoint_entry_and_proof(carried_out, history):
    with closing(carried_out(history)) as run:
        theirs = reader.TilesReader(backend.LocalBackend(run.tiles))
        head = theirs.get_checkpoint()
        vkeys = [signing.Vkey.from_string(key.text) for key in run.log.keys]
        for vkey in vkeys:
            head.verify(vkey)
        assert len(signing.VkeySet(*vkeys).verify(head.signatures, head)) == 2
        assert theirs.calculate_root_hash() == head.root_hash
        size = head.size
        assert size == run.log.size()
        for index in {0, size // 3, size // 2, size - 1}:
            data = run.log.entry(index).data
            assert theirs.get_entry(index) == data
            made = theirs.get_inclusion_proof(index, size)
            made.check(leaf_hash(data), head.root_hash)
            path = made.node_hashes
            assert inclusion_holds(index, size, leaf_hash(data), path, head.root_hash)
            with open_copy(run.house.path) as c:
                ours = inclusion_proof(index, size, rows.node_reader(c))
            assert ours == path
        for note in run.notes:
            old = open_checkpoint(note, ORIGIN, run.log.keys).checkpoint
            if old.size == 0:
                continue
            made = theirs.get_consistency_proof(old.size, size)
            made.check(old.root, head.root_hash)
            ours = run.log.consistency(old.size, size)
            assert ours == made.node_hashes
            tlog.ConsistencyProof(old.size, size, ours).check(old.root, head.root_hash)
            assert consistency_holds(old.size, size, old.root, head.root_hash, ours)


@SLOW_DISK
@given(history=HISTORIES)
def test_another_merkle_library_has_the_same_root_at_every_size(carried_out, history):
    pymerkle = pytest.importorskip(
        "pymerkle", reason="pymerkle is not installed: `make oracles-env` (GPL, never part of ours)"
    )
    with closing(carried_out(history)) as run, open_copy(run.house.path) as c:
        other = pymerkle.InmemoryTree(algorithm="sha256")
        read, size = rows.node_reader(c), run.log.size()
        for index in range(size):
            other.append_entry(run.log.entry(index).data)
            if index % 13 == 0 or index == size - 1:
                assert root_at(index + 1, read) == other.get_root()
        checked = check_log(c, ORIGIN, run.log.keys, parse=True)
        assert (checked.entries, checked.root) == (size, other.get_root())
