"""What every AcceptanceStore promises, held against SQLite and the simulator."""

import sqlite3

import pytest

from bedside_core.errors import StoreUnavailableError
from bedside_core.evidence.entry import Kind
from bedside_edge.store.database import Database
from bedside_edge.store.hardware import SqliteHardware
from support.memory_hardware import MemoryHardware, subject, verdict


@pytest.fixture(params=["sqlite", "memory"])
def reopen(request, tmp_path):
    """Return a function that gives the store, each time as after a restart."""
    if request.param == "memory":
        store = MemoryHardware()
        yield lambda: store
        return
    opened = []

    def again():
        for database in opened:
            database.close()
        opened.append(Database(tmp_path / "box.db"))
        return SqliteHardware(opened[-1], lambda connection, event: 7)

    yield again
    opened[-1].close()


def test_a_unit_that_was_never_tried_has_no_verdict(reopen):
    store = reopen()
    assert (store.find(subject().key), store.floor("acme-box"), store.newest()) == (None, 0, [])


def test_a_verdict_is_found_by_its_tuple_after_a_restart(reopen):
    store = reopen()
    store.add(verdict())
    again = reopen()
    assert again.find(subject().key) == verdict()
    assert again.find(subject(kernel="6.12.10").key) is None


def test_the_newest_verdict_on_a_tuple_holds_and_all_are_kept(reopen):
    store = reopen()
    refused = verdict(at=2_000, failures=("p99 9 ms, 5 allowed",))
    store.add(verdict())
    store.add(refused)
    assert store.find(subject().key) == refused
    assert store.newest() == [refused, verdict()]
    assert store.newest(1) == [refused]


def test_the_revision_of_a_profile_never_falls_and_only_acceptance_raises_it(reopen):
    store = reopen()
    store.add(verdict(profile_seq=3))
    store.add(verdict(profile_seq=2))
    store.add(verdict(profile_seq=9, failures=("no",)))
    assert reopen().floor("acme-box") == 3
    assert reopen().floor("other") == 0


# --- SQLite alone ------------------------------------------------------------------------------


def test_a_verdict_and_its_evidence_entry_are_one_transaction(tmp_path):
    database = Database(tmp_path / "box.db")
    events = []

    def refuse(connection, event):
        events.append(event)
        raise StoreUnavailableError("no room in the log")

    store = SqliteHardware(database, refuse)
    with pytest.raises(StoreUnavailableError):
        store.add(verdict())
    assert store.newest() == []
    (event,) = events
    assert (event.kind, event.refs["what"]) == (Kind.ACCEPTANCE, "accepted")
    assert event.refs["record"] == verdict().digest
    assert event.payload == verdict().data()
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM hardware_acceptances",
        "UPDATE hardware_acceptances SET accepted = 0",
        "DELETE FROM hardware_floors",
        "UPDATE hardware_floors SET seq = 1",
    ],
)
def test_the_database_itself_refuses_to_forget_or_to_go_back(tmp_path, statement):
    database = Database(tmp_path / "box.db")
    SqliteHardware(database, lambda connection, event: 0).add(verdict())
    with pytest.raises((sqlite3.Error, StoreUnavailableError)):
        database.write(lambda c: c.execute(statement) and None)
    database.close()
