"""Promises of every SubjectStore: one subject a patient, nobody merged by a guess, keys apart."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bedside_core.errors import NotFoundError
from bedside_edge.ports.subjects import SubjectFacts
from support.ram import ram_folder
from support.state_houses import HOUSES, T0, House, arrival, opened


@pytest.fixture(params=HOUSES)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with ram_folder() as folder:
        yield HOUSES[request.param](folder)


def file(state, uid="1.2.3.1", *, study="1.2.3", patient="P1", at=T0, **header):
    """File one instance whose header says `header`; return the study."""
    one = arrival(state, uid, study=study, patient=patient, data=uid.encode(), at=at)
    one = replace(one, header=replace(one.header, **header))
    return state.studies.file([one])[0].study_id


def test_studies_of_one_patient_id_belong_to_one_subject_after_a_restart_too(house):
    with opened(house) as state:
        first = file(state)
    with opened(house) as state:
        second = file(state, "1.2.4.1", study="1.2.4", at=T0 + 1)
        subject = state.subjects.subject_of(first)
        assert state.subjects.subject_of(second) == subject
        assert state.subjects.studies_of(subject) == [first, second]
        assert state.subjects.find("", "P1") == subject
        assert state.subjects.subject(subject).identified


def test_another_patient_id_or_another_issuer_is_another_subject(house):
    with opened(house) as state:
        studies = [
            file(state),
            file(state, "1.2.4.1", study="1.2.4", patient="P2"),
            file(state, "1.2.5.1", study="1.2.5", issuer="HOSPITAL-B"),
        ]
        assert len({state.subjects.subject_of(study) for study in studies}) == 3
        other = state.subjects.find("HOSPITAL-B", "P1")
        assert other == state.subjects.subject_of(studies[2])


def test_studies_without_a_patient_id_are_never_taken_for_one_person(house):
    with opened(house) as state:
        one = file(state, patient="")
        two = file(state, "1.2.4.1", study="1.2.4", patient="")
        first, second = state.subjects.subject_of(one), state.subjects.subject_of(two)
        assert first != second
        assert not state.subjects.subject(first).identified
        assert file(state, "1.2.3.2", patient="") == one
        with pytest.raises(NotFoundError):
            state.subjects.find("", "")


def test_every_subject_has_a_key_of_its_own_that_stays(house):
    with opened(house) as state:
        one = state.subjects.subject_of(file(state))
        two = state.subjects.subject_of(file(state, "1.2.4.1", study="1.2.4", patient="P2"))
        key = state.subjects.commitment_key(one)
        assert len(key) == 32
        assert key != state.subjects.commitment_key(two)
    with opened(house) as state:
        assert state.subjects.commitment_key(one) == key


def test_facts_are_the_newest_that_a_header_gave(house):
    with opened(house) as state:
        study = file(state, birth_date="20150301", sex="F")
        subject = state.subjects.subject_of(study)
        assert state.subjects.facts(subject) == SubjectFacts(birth_date="20150301", sex="F")
        file(
            state,
            "1.2.4.1",
            study="1.2.4",
            birth_date="20150302",
            age="010Y",
            study_date="20260101",
        )
        assert state.subjects.facts(subject) == SubjectFacts(
            birth_date="20150302", sex="F", age="010Y", age_on="20260101"
        )


def test_what_is_not_there_is_not_found(house):
    with opened(house) as state:
        for ask in (
            state.subjects.subject_of,
            state.subjects.studies_of,
            state.subjects.subject,
            state.subjects.facts,
            state.subjects.commitment_key,
        ):
            with pytest.raises(NotFoundError):
                ask("nobody")


@pytest.mark.parametrize(
    ("facts", "years"),
    [
        (SubjectFacts(birth_date="20080630"), 17),
        (SubjectFacts(birth_date="20080601"), 18),
        (SubjectFacts(age="017Y", age_on="20260601"), 17),
        (SubjectFacts(age="017Y", age_on="20240601"), 19),
        (SubjectFacts(age="017Y", age_on="20250602"), 17),
        (SubjectFacts(age="030M", age_on="20260601"), 2),
        (SubjectFacts(age="010D"), 0),
        (SubjectFacts(age="017Y"), 17),
        (SubjectFacts(birth_date="nonsense", age="???Y"), None),
        (SubjectFacts(birth_date="20300101"), None),
        (SubjectFacts(), None),
    ],
)
def test_an_age_in_doubt_is_the_lowest_that_fits(facts, years):
    assert facts.years("20260601") == years
