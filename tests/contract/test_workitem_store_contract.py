"""Promises of every WorkitemStore: one per UID, changed by one at a time, gone with its study."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from bedside_core.errors import (
    AlreadyExistsError,
    NotFoundError,
    QueueFullError,
    StaleRevisionError,
)
from bedside_core.workitem import StepState
from support.memory_workitems import MemoryWorkitems
from support.ram import ram_folder
from support.state_houses import FolderHouse, arrival

S, P, D = StepState.SCHEDULED, StepState.IN_PROGRESS, StepState.COMPLETED
BODY = {"00741204": {"vr": "LO", "Value": ["Read chest"]}}
ACTOR = "token:test"


@contextmanager
def sqlite():
    with ram_folder() as folder:
        state = FolderHouse(folder).open()
        yield state.workitems
        state.close()


@contextmanager
def memory():
    yield MemoryWorkitems()


@pytest.fixture(params=[sqlite, memory])
def store(request):
    with request.param() as store:
        yield store


def test_what_was_added_is_there_and_scheduled(store):
    kept = store.add("1.2", BODY, 5, ACTOR)
    assert store.workitem("1.2") == kept
    assert (kept.state, kept.revision, kept.body, kept.created) == (S, 1, BODY, 5)
    with pytest.raises(NotFoundError):
        store.workitem("1.3")


def test_one_uid_has_one_workitem(store):
    store.add("1.2", BODY, 5, ACTOR)
    with pytest.raises(AlreadyExistsError):
        store.add("1.2", {}, 6, ACTOR)
    assert store.workitem("1.2").body == BODY


def test_of_two_changes_decided_on_one_revision_one_wins(store):
    held = store.add("1.2", BODY, 5, ACTOR)
    first = store.replace(replace(held, state=P, owner="9.9", updated=7), ACTOR)
    assert (first.revision, first.owner, first.updated) == (2, "9.9", 7)
    with pytest.raises(StaleRevisionError):
        store.replace(replace(held, state=P, owner="8.8"), ACTOR)
    assert store.workitem("1.2") == first


def test_they_are_listed_newest_first_by_state_and_performer(store):
    for uid in ("1.1", "1.2", "1.3"):
        store.add(uid, BODY, 5, ACTOR)
    store.replace(replace(store.workitem("1.2"), state=P, ours=True), ACTOR)
    assert [w.uid for w in store.workitems()] == ["1.3", "1.2", "1.1"]
    assert [w.uid for w in store.workitems((S,))] == ["1.3", "1.1"]
    assert [w.uid for w in store.workitems((P, D), ours=True)] == ["1.2"]
    assert store.workitems((P,), ours=False) == []


def test_a_flood_is_stopped(store):
    store._most_open = 2
    store.add("1.1", BODY, 5, ACTOR)
    held = store.add("1.2", BODY, 5, ACTOR)
    with pytest.raises(QueueFullError):
        store.add("1.3", BODY, 5, ACTOR)
    store.replace(replace(held, state=StepState.CANCELED), ACTOR)
    store.add("1.3", BODY, 5, ACTOR)


def test_nothing_of_a_patient_stands_in_the_rows_and_a_restart_keeps_them():
    name = "Hidden^Patient"
    with ram_folder() as folder:
        house = FolderHouse(folder)
        state = house.open()
        body = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]}}
        kept = state.workitems.add("1.2.77777", body, 5, ACTOR)
        state.close()
        for path in house.folder.rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            assert name.encode() not in data
            assert b"1.2.77777" not in data
        state = house.open()
        assert state.workitems.workitem("1.2.77777") == kept
        state.close()


def test_a_claimed_workitem_lies_under_its_studys_key():
    with ram_folder() as folder:
        state = FolderHouse(folder).open()
        study = state.studies.file([arrival(state)])[0].study_id
        held = state.workitems.add("1.2", BODY, 5, ACTOR)
        kept = state.workitems.replace(replace(held, state=P, study_id=study), ACTOR)
        assert state.workitems.workitem("1.2") == kept
        key = state.database.read(
            lambda c: c.execute("SELECT data_key FROM workitems").fetchone()[0]
        )
        assert key == b""
        state.close()


def test_a_change_of_state_leaves_evidence():
    with ram_folder() as folder:
        state = FolderHouse(folder).open()
        before = state.evidence.size()
        held = state.workitems.add("1.2", BODY, 5, ACTOR)
        state.workitems.replace(replace(held, state=P), ACTOR)
        entries = state.evidence.entries(before, state.evidence.size())
        changes = [entry.entry.refs.get("change") for entry in entries]
        assert changes == ["workitem-scheduled", "workitem-in-progress"]
        state.close()
