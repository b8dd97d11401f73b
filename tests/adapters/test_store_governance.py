"""Grades and policies in SQLite: what no path gets around, and evidence in the same transaction."""

import json
import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import (
    GradeFallsError,
    NotFoundError,
    StaleRevisionError,
    StoreUnavailableError,
)
from bedside_core.evidence.entry import Kind
from bedside_core.grading import Lowering, parse_grading
from bedside_edge.ports import Filing, Outcome
from bedside_edge.ports.policy import StoredPolicy
from bedside_edge.services.grading import GradingService, describe
from bedside_edge.system.policy_cedar import shipped_grading
from support.fake_clock import FakeClock
from support.memory_governance import rules, shipped
from support.state_houses import T0, FolderHouse, arrival, opened

BY = Lowering(deidentification="d1", actor="person:ada", second="person:bob")


@pytest.fixture
def house(tmp_path):
    return FolderHouse(tmp_path)


@pytest.fixture
def state(house):
    with opened(house) as found:
        yield found


def file(state, grade, uid="1.2.3.1", **header):
    one = arrival(state, uid)
    filled = replace(one.header, **header)
    (filed,) = state.studies.file([replace(one, header=filled, grade=grade)])
    return filed


def facts(state, study_id):
    return state.governance.facts([study_id], "20260101")[study_id]


def grades(state, table, key):
    query = f"SELECT {key}, grade FROM {table}"  # noqa: S608
    return dict(state.database.read(lambda c: c.execute(query).fetchall()))


def finish(state):
    job = None
    now = T0
    while job is None:
        now += 60_000
        job = state.jobs.lease(now)
    return state.jobs.finish(job, Outcome(refused=False, reason="", body=b"{}"), now)


def kinds(state, kind):
    return state.evidence.newest(limit=1000, kinds=[kind])


# --- grades ------------------------------------------------------------------------------------


def test_the_same_object_from_a_stricter_sender_raises_the_grade_and_none_lowers_it(state):
    def sent(source, grade):
        (filed,) = state.studies.file([replace(arrival(state, source=source), grade=grade)])
        return filed.outcome, facts(state, filed.study_id).grade

    assert sent("PACS", 4) == (Filing.STORED, 4)
    assert sent("CLINIC", 5) == (Filing.DUPLICATE, 5)
    assert sent("OTHER", 3) == (Filing.DUPLICATE, 5)


def test_a_study_has_the_highest_grade_of_its_instances_and_so_has_what_is_made_of_it(state):
    filed = file(state, 3)
    assert facts(state, filed.study_id).grade == 3
    first = finish(state)
    assert state.jobs.result(first).grade == 3
    file(state, 5, "1.2.3.2")
    assert facts(state, filed.study_id).grade == 5
    assert state.jobs.result(first).grade == 5  # what was made before rises too
    file(state, 1, "1.2.3.3")
    assert facts(state, filed.study_id).grade == 5
    assert state.jobs.result(finish(state)).grade == 5


def test_text_in_pixels_of_one_image_marks_the_study(state):
    filed = file(state, 4)
    assert not facts(state, filed.study_id).burned_in
    file(state, 4, "1.2.3.2", burned_in="YES")
    assert facts(state, filed.study_id).burned_in


def test_a_child_is_a_minor_until_the_birthday(state):
    filed = file(state, 4, birth_date="20120601")
    for today, minor in (("20260531", True), ("20260601", False)):
        assert state.governance.facts([filed.study_id], today)[filed.study_id].minor is minor
    other = file(state, 4, "9.9", patient_id="other", study_uid="9")
    assert not facts(state, other.study_id).minor  # no header says an age


def test_a_study_that_is_not_there_has_no_facts(state):
    assert state.governance.facts(["nothing"], "20260101") == {}
    with pytest.raises(NotFoundError):
        state.governance.study_of(result_id="nothing")


def test_a_grade_falls_with_a_recorded_deidentification_and_two_people_only(state):
    filed = file(state, 4)
    lower = state.governance.lower
    with pytest.raises(NotFoundError):
        lower(filed.instance_id, 2, BY, T0)  # nothing is recorded
    state.governance.record_deidentification("d1", filed.instance_id, "basic", "person:ada", T0)
    for alone in ({"second": "person:ada"}, {"second": "token:x"}, {"deidentification": ""}):
        with pytest.raises(GradeFallsError):
            lower(filed.instance_id, 2, replace(BY, **alone), T0)
    assert facts(state, filed.study_id).grade == 4
    lower(filed.instance_id, 2, BY, T0)
    assert facts(state, filed.study_id).grade == 2
    payloads = [
        json.loads(state.evidence.entry(kept.index).payload)
        for kept in kinds(state, Kind.ADMIN)
        if kept.entry.refs.get("what") == "grade-lowered"
    ]
    assert payloads == [
        {
            "after": 2,
            "before": 4,
            "deidentification": "d1",
            "instance": filed.instance_id,
            "second": "person:bob",
        }
    ]


def test_the_record_of_another_object_lowers_nothing(state):
    one, other = file(state, 4), file(state, 4, "1.2.3.2")
    state.governance.record_deidentification("d1", other.instance_id, "basic", "person:ada", T0)
    with pytest.raises(NotFoundError):
        state.governance.lower(one.instance_id, 2, BY, T0)


LOWERINGS = [
    "UPDATE instances SET grade = 1",
    "UPDATE studies SET grade = 1",
    "UPDATE results SET grade = 1",
    "UPDATE instances SET grade = grade - 1",
    "INSERT INTO lowerings (instance_id, before, after, deidentification_id, actor, second, at)"
    " SELECT instance_id, 4, 1, 'none', 'person:a', 'person:b', 0 FROM instances",
    "INSERT INTO lowerings (instance_id, before, after, deidentification_id, actor, second, at)"
    " SELECT instance_id, 4, 1, 'd1', 'person:a', 'person:a', 0 FROM instances",
]


@pytest.mark.parametrize("statement", LOWERINGS)
def test_the_database_itself_lowers_no_grade_without_the_record(state, statement):
    filed = file(state, 4)
    finish(state)
    state.governance.record_deidentification("d1", filed.instance_id, "basic", "person:ada", T0)
    with pytest.raises(StoreUnavailableError) as raised:
        state.database.write(lambda c: c.execute(statement))
    assert isinstance(raised.value.__cause__, sqlite3.IntegrityError)
    assert set(grades(state, "instances", "instance_id").values()) == {4}
    assert set(grades(state, "studies", "study_id").values()) == {4}
    assert set(grades(state, "results", "result_id").values()) == {4}


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["file", "raise", "lower", "finish"]), st.integers(1, 5)),
        max_size=12,
    )
)
def test_no_path_lowers_a_grade_without_the_record(tmp_path_factory, steps):
    with opened(FolderHouse(tmp_path_factory.mktemp("grades"))) as state:
        names = [file(state, 2).instance_id]
        highest = {names[0]: 2}
        for count, (what, grade) in enumerate(steps):
            if what == "file":
                filed = file(state, grade, f"1.2.3.{count + 10}")
                names.append(filed.instance_id)
                highest[filed.instance_id] = grade
            elif what == "raise":
                state.governance.raise_grades([(names[-1], grade)])
                highest[names[-1]] = max(highest[names[-1]], grade)
            elif what == "lower":
                before = highest[names[0]]
                try:
                    state.governance.lower(names[0], grade, BY, T0)
                except (GradeFallsError, NotFoundError):
                    assert grade < before
            elif state.jobs.next_due() is not None:
                finish(state)
            assert grades(state, "instances", "instance_id") == highest
            assert set(grades(state, "studies", "study_id").values()) == {max(highest.values())}


STRICTER = shipped_grading().replace(b"default = 4", b"default = 5")


def test_new_rules_grade_held_instances_again_and_only_upwards(house):
    with opened(house) as state:
        low, high = file(state, 2), file(state, 5, "1.2.3.2")
        service = GradingService(rules(), state.governance, FakeClock(T0))
        assert service.regrade() == 1  # the default is 4
        assert grades(state, "instances", "instance_id") == {
            low.instance_id: 4,
            high.instance_id: 5,
        }
        assert service.regrade() == 0  # once per change of rules
        stricter = GradingService(parse_grading(STRICTER), state.governance, FakeClock(T0))
        assert stricter.regrade() == 1
        assert set(grades(state, "instances", "instance_id").values()) == {5}
    with opened(house) as state:
        assert state.governance.graded_by() == parse_grading(STRICTER).digest
        assert [
            k.entry.refs["raised"] for k in kinds(state, Kind.ADMIN) if "raised" in k.entry.refs
        ] == [1, 1]


def test_what_rules_look_at_comes_from_the_header(state):
    header = replace(
        arrival(state).header,
        modality="DX",
        age="006M",
        codes=("B20",),
        study_description="Chest",
        burned_in="YES",
    )
    seen = describe(header, "CT1")
    assert (seen.modality, seen.age_years, seen.codes, seen.burned_in) == ("DX", 0, ("B20",), "YES")
    assert (seen.texts, seen.source) == (("Chest",), "CT1")
    for age, years in (("012Y", 12), ("", None), ("12", None), ("012Q", None), ("xxxY", None)):
        assert describe(replace(header, age=age), "").age_years == years


# --- policies ----------------------------------------------------------------------------------


def stored(revision, actor="person:officer"):
    return StoredPolicy(
        revision=revision,
        payload=shipped().payload,
        envelope=b"{}",
        signers=("ada",),
        actor=actor,
        at=T0,
    )


def test_a_policy_is_kept_with_its_evidence_over_a_restart(house):
    with opened(house) as state:
        assert state.policies.active() is None
        state.policies.activate(stored(1), shipped().digest, "default")
        with pytest.raises(StaleRevisionError):
            state.policies.activate(stored(1), shipped().digest, "default")
        state.policies.activate(stored(2), shipped().digest, "default")
    with opened(house) as state:
        assert state.policies.active() == stored(2)
        assert state.policies.active().document == shipped()
        assert [one.revision for one in state.policies.history()] == [2, 1]
        entries = kinds(state, Kind.POLICY)
        assert [kept.entry.refs["revision"] for kept in entries] == [2, 1]
        assert entries[0].entry.refs["policy"] == shipped().digest


def test_without_its_evidence_no_policy_comes_into_force(state, monkeypatch):
    def broken(*_):
        raise sqlite3.OperationalError("no evidence")

    monkeypatch.setattr(state.policies, "_record", broken)
    with pytest.raises(StoreUnavailableError):
        state.policies.activate(stored(1), shipped().digest, "default")
    assert state.policies.active() is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE policies SET actor = 'x'",
        "DELETE FROM policies",
        "INSERT OR REPLACE INTO policies"
        " SELECT revision, digest, payload, envelope, signers, 'x', at FROM policies",
    ],
)
def test_what_was_in_force_stays_in_the_history(state, statement):
    state.policies.activate(stored(1), shipped().digest, "default")
    with pytest.raises(StoreUnavailableError):
        state.database.write(lambda c: c.execute(statement))
    assert state.policies.active() == stored(1)
