"""Folders of version 0.2 move into key slots when they are opened, also when that is cut short."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from bedside_core.errors import StoreUnavailableError
from bedside_edge.store import reslot
from bedside_edge.store.state import State, open_state
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.state_houses import ANY_DISK, arrival, put_back_to_version_3


def open_at(path: Path) -> State:
    return open_state(path, SystemClock(), OsRandom(), open_box_keys, disk=ANY_DISK)


@pytest.fixture
def old(tmp_path):
    """A folder of version 0.2 with three studies of two patients."""
    state = open_at(tmp_path / "state")
    for number, patient in enumerate(("P1", "P1", "P2")):
        uid = f"1.2.{number + 3}"
        state.studies.file(
            [arrival(state, f"{uid}.1", study=uid, patient=patient, data=uid.encode())]
        )
    state.close()
    put_back_to_version_3(tmp_path / "state")
    return tmp_path / "state"


def contents(state: State) -> dict[str, bytes]:
    studies = state.database.read(lambda c: c.execute("SELECT study_id FROM studies").fetchall())
    return {
        i.header.study_uid: state.objects.read(i.object_name, i.object_key)
        for (study_id,) in studies
        for i in state.studies.instances(study_id)
    }


def test_every_study_is_readable_under_a_slot_and_has_its_patient(old):
    state = open_at(old)
    assert contents(state) == {uid: uid.encode() for uid in ("1.2.3", "1.2.4", "1.2.5")}
    assert len(state.subjects.studies_of(state.subjects.find("", "P1"))) == 2
    assert len(state.subjects.studies_of(state.subjects.find("", "P2"))) == 1
    slots = state.database.read(lambda c: c.execute("SELECT slot FROM studies").fetchall())
    assert all(slot > 0 for (slot,) in slots)
    state.close()
    state = open_at(old)
    assert len(contents(state)) == 3
    state.close()


def test_no_page_holds_a_key_wrapped_the_old_way_afterwards(old):
    with sqlite3.connect(old / "bedside.db") as c:
        wrapped = [row[0] for row in c.execute("SELECT data_key FROM studies")]
    assert any(wrapped[0] in path.read_bytes() for path in old.glob("bedside.db*"))
    state = open_at(old)
    held = b"".join(path.read_bytes() for path in old.glob("bedside.db*"))
    assert not any(key in held for key in wrapped)
    state.close()


def test_a_kill_half_way_leaves_the_rest_to_the_next_opening(old, monkeypatch):
    monkeypatch.setattr(reslot, "_BATCH", 1)
    moves = []
    real = reslot._first_header

    def dies(c, box, study_id):
        moves.append(study_id)
        if len(moves) == 2:
            raise KeyboardInterrupt
        return real(c, box, study_id)

    with monkeypatch.context() as patch:
        patch.setattr(reslot, "_first_header", dies)
        with pytest.raises(KeyboardInterrupt):
            open_at(old)
    state = open_at(old)
    assert len(contents(state)) == 3
    assert len(state.subjects.studies_of(state.subjects.find("", "P1"))) == 2
    state.close()


def test_slots_of_another_folder_or_older_than_the_database_are_refused(tmp_path):
    for name in ("one", "two"):
        state = open_at(tmp_path / name)
        state.studies.file([arrival(state)])
        state.close()
    one = tmp_path / "one" / "keys"
    early = tmp_path / "early"
    shutil.copytree(one, early)
    state = open_at(tmp_path / "one")
    state.studies.file([arrival(state, "1.2.9.1", study="1.2.9", patient="P9")])
    state.close()
    shutil.copy(early / "slots", one / "slots")
    with pytest.raises(StoreUnavailableError, match="older"):
        open_at(tmp_path / "one")
    shutil.copytree(tmp_path / "two" / "keys", tmp_path / "box-two")
    for name in ("slots", "slots.journal"):
        (tmp_path / "box-two" / name).replace(one / name)
    with pytest.raises(StoreUnavailableError):
        open_at(tmp_path / "one")
