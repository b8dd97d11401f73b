"""`Journal`: files and the box's database keep the same promises."""

import os

import pytest

from bedside_core.errors import NotFoundError, WrongStateError
from bedside_core.evidence.entry import Kind
from bedside_edge.store.state import open_state
from bedside_edge.system.keys import open_box_keys
from bedside_sync.helper import ROUND_KEY
from bedside_sync.journal import FileJournal
from support.fake_clock import FakeClock

LONG = os.urandom(1_500_000)


class Files:
    def __init__(self, folder):
        self.folder = folder

    def open(self):
        return FileJournal(self.folder)

    def bytes(self):
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())

    def close(self):
        pass


class Rows:
    """The box's database with real slots and evidence."""

    def __init__(self, folder):
        self.folder, self.state = folder, None

    def open(self):
        self.close()
        self.state = open_state(
            self.folder / "state",
            FakeClock(1_800_000_000_000),
            os.urandom,
            open_box_keys,
            privacy_counter=self.folder / "counter",
        )
        return self.state.sync.facts

    def bytes(self):
        where = self.folder / "state"
        return b"".join(path.read_bytes() for path in where.rglob("*") if path.is_file())

    def close(self):
        if self.state is not None:
            self.state.close()
            self.state = None


@pytest.fixture(params=[Files, Rows])
def house(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.close()


def test_a_fact_is_there_after_a_restart_and_never_changes(house):
    journal = house.open()
    for fact, data in (("report", LONG), ("manifest", b"m"), (ROUND_KEY, b"k" * 60), ("veto", b"")):
        journal.keep("r-1", fact, data)
        journal.keep("r-1", fact, data)  # no news
        with pytest.raises(WrongStateError):
            journal.keep("r-1", fact, data + b"x")
    journal.keep("r-2", "manifest", b"other")
    again = house.open()
    assert again.read("r-1", "report") == LONG
    assert again.read("r-1", ROUND_KEY) == b"k" * 60
    assert again.read("r-1", "veto") == b""
    assert again.has("r-1", "veto")
    assert not again.has("r-2", "report")
    assert again.rounds() == ["r-1", "r-2"]
    with pytest.raises(NotFoundError):
        again.read("r-2", "report")


def test_what_was_destroyed_is_nowhere_on_the_disk(house):
    journal = house.open()
    secret = b"a secret that is found by its bytes" * 2
    journal.keep("r-1", "manifest", secret)
    assert secret in house.bytes()
    for fact, data in (("manifest", secret), ("report", LONG), (ROUND_KEY, secret)):
        journal.keep("r-1", fact, data)
        journal.destroy("r-1", fact)
        journal.destroy("r-1", fact)  # no error
        assert not journal.has("r-1", fact)
    found = house.bytes()
    assert secret not in found
    assert LONG[:64] not in found
    assert not house.open().has("r-1", ROUND_KEY)


class TestInTheDatabase:
    def test_every_fact_is_an_entry_of_the_evidence_log(self, tmp_path):
        house = Rows(tmp_path)
        journal = house.open()
        journal.keep("r-1", "manifest", b"m")
        journal.destroy("r-1", "manifest")
        entries = house.state.evidence.newest(kinds=[Kind.SYNC_ROUND])
        assert [one.entry.refs["what"] for one in entries] == [
            "box-manifest-destroyed",
            "box-manifest",
        ]
        house.close()

    def test_a_round_key_does_not_come_back_with_a_backup(self, tmp_path):
        house = Rows(tmp_path)
        house.open()
        helper = house.state.sync.help_facts
        helper.keep("r-1", ROUND_KEY, b"k" * 60)
        house.state.database.copy_to(tmp_path / "copy.db")
        helper.destroy("r-1", ROUND_KEY)
        house.close()
        for name in ("bedside.db-wal", "bedside.db-shm"):
            (tmp_path / "state" / name).unlink(missing_ok=True)
        (tmp_path / "copy.db").replace(tmp_path / "state" / "bedside.db")
        house.open()
        assert house.state.sync.set_back()
        assert house.state.sync.help_facts.has("r-1", ROUND_KEY)
        with pytest.raises(NotFoundError):
            house.state.sync.help_facts.read("r-1", ROUND_KEY)
        house.close()

    def test_a_file_without_a_row_is_swept(self, tmp_path):
        house = Rows(tmp_path)
        house.open().keep("r-1", "report", LONG)
        stray = tmp_path / "state" / "sync" / "ab"
        stray.write_bytes(b"half a report")
        assert house.open().read("r-1", "report") == LONG
        assert not stray.exists()
        house.close()
