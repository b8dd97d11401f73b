"""Promises of every StudyStore: filed once, grouped by patient and study, nothing lost."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bedside_core.errors import InvalidInputError, NotFoundError, WrongStateError
from bedside_edge.ports import Filing, InstanceState, JobState
from support.ram import ram_folder
from support.state_houses import HOUSES, T0, House, arrival, opened


@pytest.fixture(params=HOUSES)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with ram_folder() as folder:
        yield HOUSES[request.param](folder)


def test_what_was_filed_is_there_after_a_restart_with_its_header_and_key(house):
    with opened(house) as state:
        sent = arrival(state, data=b"one")
        filed = state.studies.file([sent])[0]
        assert filed.outcome is Filing.STORED
    with opened(house) as state:
        (held,) = state.studies.instances(filed.study_id)
        assert held.instance_id == filed.instance_id
        assert held.header == sent.header
        assert held.digest == sent.sealed.digest
        assert held.object_name == sent.sealed.name
        assert held.state is InstanceState.HELD
        assert state.objects.read(held.object_name, held.object_key) == b"one"


def test_the_same_instance_again_is_a_duplicate_and_adds_nothing(house):
    with opened(house) as state:
        first = state.studies.file([arrival(state)])[0]
        again = state.studies.file([arrival(state)])[0]
        assert again == replace(first, outcome=Filing.DUPLICATE)
        assert len(state.studies.instances(first.study_id)) == 1


def test_a_duplicate_wakes_no_job(house):
    with opened(house) as state:
        study = state.studies.file([arrival(state)])[0].study_id
        state.jobs.complete(study, T0)
        state.jobs.cancel(state.jobs.jobs()[0].job_id, T0)
        state.studies.file([arrival(state)])
        assert [j.state for j in state.jobs.jobs()] == [JobState.CANCELLED]


def test_the_same_uid_with_other_bytes_is_kept_beside_the_first(house):
    with opened(house) as state:
        first = state.studies.file([arrival(state, data=b"one")])[0]
        second = state.studies.file([arrival(state, data=b"two")])[0]
        third = state.studies.file([arrival(state, data=b"two")])[0]
        assert second.outcome is Filing.SECOND
        assert third == replace(second, outcome=Filing.DUPLICATE)
        held = state.studies.instances(first.study_id)
        assert [i.state for i in held] == [InstanceState.HELD, InstanceState.SECOND]
        assert [i.same_as for i in held] == ["", first.instance_id]
        assert [state.objects.read(i.object_name, i.object_key) for i in held] == [b"one", b"two"]


def test_one_list_may_hold_the_same_instance_twice(house):
    with opened(house) as state:
        batch = [arrival(state, data=b"one"), arrival(state, data=b"one")]
        batch.append(arrival(state, data=b"two"))
        outcomes = [f.outcome for f in state.studies.file(batch)]
        assert outcomes == [Filing.STORED, Filing.DUPLICATE, Filing.SECOND]
        assert state.studies.file([]) == []


def test_a_study_is_its_issuer_patient_and_uid_together(house):
    with opened(house) as state:
        same = {
            state.studies.file([arrival(state, f"1.2.3.{n}", data=bytes([n]))])[0].study_id
            for n in range(3)
        }
        assert len(same) == 1
        other_patient = state.studies.file([arrival(state, "1.2.3.7", patient="P2")])[0]
        other_study = state.studies.file([arrival(state, "1.2.4.1", study="1.2.4")])[0]
        assert len(same | {other_patient.study_id, other_study.study_id}) == 3
        # ("ab", "c") and ("a", "bc") are different patients
        glued = arrival(state, "9.1", study="9")
        one = replace(glued, header=replace(glued.header, issuer="ab", patient_id="c"))
        two = replace(glued, header=replace(glued.header, issuer="a", patient_id="bc"))
        filed = state.studies.file([one, two])
        assert filed[0].study_id != filed[1].study_id


def test_one_uid_under_two_patients_is_kept_under_both_and_raises_an_alarm(house):
    with opened(house) as state:
        first = state.studies.file([arrival(state, data=b"one", patient="P1")])[0]
        other = state.studies.file([arrival(state, data=b"two", patient="P2", at=T0 + 5)])[0]
        assert other.outcome is Filing.STORED
        assert other.study_id != first.study_id
        (alarm,) = state.studies.alarms()
        assert (alarm.code, alarm.study_id, alarm.at) == (
            "instance-in-two-studies",
            other.study_id,
            T0 + 5,
        )


def test_a_conflict_is_quarantined_with_one_alarm_and_the_first_stays(house):
    with opened(house) as state:
        first = state.studies.file([arrival(state, data=b"one")])[0]
        second = state.studies.file([arrival(state, data=b"two")])[0]
        for _ in range(2):
            state.studies.settle(second.instance_id, InstanceState.CONFLICT, T0 + 9)
        held = state.studies.instances(first.study_id)
        assert [i.state for i in held] == [InstanceState.HELD, InstanceState.CONFLICT]
        assert [(a.code, a.study_id, a.at) for a in state.studies.alarms()] == [
            ("conflicting-instance", first.study_id, T0 + 9)
        ]


def test_another_encoding_of_the_same_pixels_raises_no_alarm(house):
    with opened(house) as state:
        first = state.studies.file([arrival(state, data=b"one")])[0]
        second = state.studies.file([arrival(state, data=b"two")])[0]
        state.studies.settle(second.instance_id, InstanceState.SAME, T0)
        assert state.studies.instances(first.study_id)[1].state is InstanceState.SAME
        assert state.studies.alarms() == []


def test_only_a_second_can_be_settled_and_only_once(house):
    with opened(house) as state:
        first = state.studies.file([arrival(state, data=b"one")])[0]
        second = state.studies.file([arrival(state, data=b"two")])[0]
        with pytest.raises(WrongStateError):
            state.studies.settle(first.instance_id, InstanceState.CONFLICT, T0)
        with pytest.raises(InvalidInputError):
            state.studies.settle(second.instance_id, InstanceState.HELD, T0)
        with pytest.raises(NotFoundError):
            state.studies.settle("nobody", InstanceState.SAME, T0)
        state.studies.settle(second.instance_id, InstanceState.SAME, T0)
        with pytest.raises(WrongStateError):
            state.studies.settle(second.instance_id, InstanceState.CONFLICT, T0)


def test_alarms_come_newest_first(house):
    with opened(house) as state:
        for n in range(3):
            state.studies.file([arrival(state, f"1.2.3.{n}", data=b"one")])
            second = state.studies.file([arrival(state, f"1.2.3.{n}", data=b"two")])[0]
            state.studies.settle(second.instance_id, InstanceState.CONFLICT, T0 + n)
        assert [a.at for a in state.studies.alarms()] == [T0 + 2, T0 + 1, T0]


def test_an_unknown_study_is_not_found(house):
    with opened(house) as state, pytest.raises(NotFoundError):
        state.studies.instances("nothing")


def test_every_row_names_its_object(house):
    with opened(house) as state:
        batch = [arrival(state, f"1.2.3.{n}", data=bytes([n])) for n in range(4)]
        state.studies.file(batch)
        assert state.studies.object_names() == {a.sealed.name for a in batch}
