"""Frozen rows, randomised answers and the last lines of defence, on a real state folder."""

import json
import sqlite3

import pytest

from bedside_core.errors import (
    BudgetExhaustedError,
    EvidenceDamagedError,
    KeyReusedError,
    NotFoundError,
    StoreUnavailableError,
)
from bedside_core.findings import Decision
from bedside_core.review import ReviewKind
from bedside_edge.ports import Header
from bedside_edge.ports.governance import Standing
from bedside_edge.ports.privacy import Window
from bedside_edge.services.local_answer import keep_probability, local_document
from bedside_edge.services.snapshot import Known, Signed, study_row
from bedside_edge.store.counter_file import FileCounter
from bedside_edge.store.erasable import cut_off, delete_study
from support.privacy_house import Hospital
from support.state_houses import T0, FolderHouse, arrival

BANDS = ("0-17", "18-39", "40-64", "65+")
EVER = Window(dataset="studies", epoch=1, starts=T0 - 10**9, ends=T0 + 10**9)
PERSON = "token:partner"


def header(**more) -> Header:
    uids = ("sop_class_uid", "sop_instance_uid", "study_uid", "series_uid", "transfer_syntax_uid")
    return Header(**dict.fromkeys(uids, "1.2"), **more)


# --- rows --------------------------------------------------------------------------------

RESULT = {
    "value": {"decision": "present", "probability": 0.8, "threshold": 0.5},
    "finding": {"meaning": "opacity"},
}


def known(**more) -> Known:
    fields = {"patient": "p", "arrival": 1, "received": T0, "grade": 4, "result": RESULT}
    return Known(**(fields | more))


@pytest.mark.parametrize(
    ("kind", "decision", "label", "findings"),
    [
        (ReviewKind.ACCEPT, "", "positive", ("opacity",)),
        (ReviewKind.EDIT, "absent", "negative", ()),
        (ReviewKind.REJECT, "", "", ()),
    ],
)
def test_the_label_is_what_the_reader_signed(kind, decision, label, findings):
    signed = Signed(kind=kind, at=T0 + 90_000, decision=decision)
    row = study_row(known(signed=signed), BANDS)
    assert (row.label, row.findings, row.minutes) == (label, findings, 1.5)
    assert (row.decision, row.score) == (Decision.PRESENT, 0.8)


def test_what_is_not_known_stays_missing():
    row = study_row(known(result=None, header=None), BANDS)
    assert (row.label, row.minutes, row.score, row.sex, row.findings) == ("", None, None, "", ())


@pytest.mark.parametrize(
    ("age", "born", "band"),
    [
        ("017Y", "", "0-17"),
        ("018Y", "", "18-39"),
        ("009M", "", "0-17"),
        ("120Y", "", "65+"),
        ("", "19500601", "65+"),
        ("", "20050602", "0-17"),
        ("", "20050601", "18-39"),
        ("", "20300101", ""),
        ("old", "then", ""),
    ],
)
def test_age_bands_are_whole_years_at_the_study(age, born, band):
    found = header(age=age, birth_date=born, study_date="20230601", sex="F", station="CR1")
    row = study_row(known(header=found), BANDS)
    assert (row.age_band, row.sex, row.device) == (band, "female", "CR1")


# --- snapshots --------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path):
    found = FolderHouse(tmp_path).open()
    yield found
    found.close()


def filed(state, number: int, patient: str) -> str:
    (done,) = state.studies.file(
        [arrival(state, f"1.2.{number}", study=f"1.{number}", patient=patient)]
    )
    row = state.database.read(
        lambda c: c.execute(
            "SELECT study_id FROM instances WHERE instance_id = ?", (done.instance_id,)
        ).fetchone()
    )
    return row[0]


def test_a_snapshot_holds_patients_by_keyed_hash_in_order_and_nothing_in_plain(state, tmp_path):
    for number, patient in enumerate(["Ann", "Bob", "Ann"]):
        filed(state, number, patient)
    snapshot = state.snapshots.load(state.snapshots.freeze(EVER))
    assert len(snapshot.patients) == 2
    assert sorted(snapshot.keep(1).studies_of) == [1, 1]
    assert all(len(name) == 32 for name in snapshot.patients)
    stored = b"".join(path.read_bytes() for path in state.path.glob("bedside.db*"))
    assert not any(name.encode() in stored for name in ("Ann", *snapshot.patients))


def test_a_snapshot_is_the_same_after_it_was_read_back_and_gone_when_dropped(state):
    filed(state, 1, "Ann")
    label = state.snapshots.freeze(EVER)
    frozen = state.snapshots.load(label)
    state.snapshots._last = None
    assert state.snapshots.load(label).patients == frozen.patients
    assert [(one, window) for one, window, _ in state.snapshots.labels()] == [(label, EVER)]
    state.snapshots.drop(label)
    assert state.snapshots.load(label) is None
    assert state.snapshots.window(label) is None


def test_who_withdrew_and_what_is_on_hold_is_not_in_later_snapshots(state):
    first, second = filed(state, 1, "Ann"), filed(state, 2, "Bob")
    filed(state, 3, "Cid")
    withdrawn = {state.subjects.subject_of(second): Standing(withdrawn=True)}
    before = state.snapshots.load(state.snapshots.freeze(EVER))
    state.holds.hold(first, reason="court-order", actor="person:x", review_at=T0 + 1)
    state.snapshots.standing = lambda ids: withdrawn
    after = state.snapshots.load(state.snapshots.freeze(EVER))
    assert len(after.patients) == len(before.patients) - 2


def test_an_erasure_takes_the_snapshot_away_that_the_study_is_in(state):
    study = filed(state, 1, "Ann")
    label = state.snapshots.freeze(EVER)
    assert state.snapshots.load(label) is not None
    state.database.write(lambda c: (cut_off(c, study), delete_study(c, study)))
    assert state.snapshots.load(label) is None


# --- single results ------------------------------------------------------------------------------


def test_an_answer_is_remembered_and_costs_add_up_to_a_cap(state):
    study, store = filed(state, 1, "Ann"), state.local_answers
    assert store.reserve(study, "l", "north", 1_000_000, 1_500_000, PERSON) is None
    assert store.reserve(study, "l", "north", 1_000_000, 1_500_000, PERSON) is None  # not drawn yet
    assert store.finish(study, "l", "north", b"first", PERSON) == b"first"
    assert store.finish(study, "l", "north", b"second", PERSON) == b"first"
    assert store.reserve(study, "l", "north", 1_000_000, 1_500_000, PERSON) == b"first"
    with pytest.raises(KeyReusedError):
        store.reserve(study, "l", "north", 400_000, 1_500_000, PERSON)
    with pytest.raises(BudgetExhaustedError):
        store.reserve(study, "l", "south", 600_000, 1_500_000, PERSON)
    assert store.reserve(study, "l", "south", 500_000, 1_500_000, PERSON) is None
    assert store.spent(study) == 1_500_000
    with pytest.raises(NotFoundError):
        store.reserve("nobody", "l", "north", 1, 10, PERSON)
    with pytest.raises(NotFoundError):
        store.truth(study)
    with pytest.raises(NotFoundError):
        store.finish(study, "l", "east", b"x", PERSON)


def test_a_study_that_is_erased_and_sent_again_gets_no_second_draw(state):
    study = filed(state, 1, "Ann")
    state.local_answers.reserve(study, "l", "north", 10, 10, PERSON)
    state.local_answers.finish(study, "l", "north", b"first", PERSON)
    state.database.write(lambda c: (cut_off(c, study), delete_study(c, study)))
    again = filed(state, 1, "Ann")
    assert again != study
    assert state.local_answers.reserve(again, "l", "north", 10, 10, PERSON) == b"first"


def test_the_document_says_how_likely_it_is_the_truth():
    assert keep_probability(1_000_000) == pytest.approx(0.731, abs=5e-4)
    assert keep_probability(4_000_000) == pytest.approx(0.982, abs=5e-4)
    said = json.loads(local_document(True, "north", 1_000_000))
    assert said["truth_probability"] == pytest.approx(0.731, abs=5e-4)
    assert "0.731" in said["explanation"]


# --- last lines of defence -----------------------------------------------------------------------


@pytest.fixture
def house(tmp_path):
    made = Hospital(tmp_path).founded()
    made.release("volume")
    yield made
    made.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE privacy_scopes SET spent = cap + 1",
        "UPDATE privacy_scopes SET spent = spent - 1",
        "UPDATE privacy_scopes SET spent = -1",
        "DELETE FROM privacy_scopes",
        "DELETE FROM privacy_entries",
        "UPDATE privacy_entries SET at = 0",
        "DELETE FROM privacy_answers",
        "UPDATE privacy_answers SET document = x'00'",
        "DELETE FROM privacy_releases",
        "UPDATE privacy_releases SET state = 'reserved'",
    ],
)
def test_the_database_itself_refuses_what_no_rule_would_write(house, statement):
    with pytest.raises((StoreUnavailableError, sqlite3.Error)):
        house.database.write(lambda c: c.execute(statement))
    assert house.ledger.verify() > 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE privacy_scopes SET spent = spent + 1",
        "INSERT INTO privacy_entries SELECT seq + 1, kind, at, body, entry + 1000"
        " FROM privacy_entries ORDER BY seq DESC LIMIT 1",
        "UPDATE privacy_releases SET state = 'reserved'",
        "UPDATE privacy_answers SET document = x'7b7d'",
        "DELETE FROM privacy_answers",
        "DELETE FROM privacy_entries WHERE seq = (SELECT max(seq) FROM privacy_entries)",
    ],
)
def test_somebody_who_takes_the_triggers_away_is_found_when_the_box_starts(house, statement):
    def forge(c: sqlite3.Connection) -> None:
        names = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'privacy_%'"
        for (name,) in c.execute(names).fetchall():
            c.execute(f"DROP TRIGGER {name}")
        c.execute(statement)

    house.database.write(forge)
    house.open()
    with pytest.raises(EvidenceDamagedError):
        house.ledger.verify()


def test_a_counter_survives_a_torn_write_and_is_never_ahead(tmp_path):
    path = tmp_path / "on" / "another" / "counter"
    counter = FileCounter(path)
    assert counter.seen() == 0
    for number in (3, 7, 5):
        counter.saw(number)
    counter.close()
    counter = FileCounter(path)
    assert counter.seen() == 7
    whole = path.read_bytes()
    for place in (0, 4096):
        path.write_bytes(whole[:place] + bytes(20) + whole[place + 20 :])
        assert FileCounter(path).seen() in (3, 7)
    path.write_bytes(whole)
    counter.reset(2)
    assert counter.seen() == 2
