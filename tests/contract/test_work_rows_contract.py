"""What every `WorkRows` promises, held against SQLite over a state folder and the simulator."""

import json

import pytest

from bedside_core.findings import Decision
from bedside_core.review import Review, ReviewKind
from bedside_edge.ports import JobState, Outcome, Priority
from bedside_edge.ports.review import NewReview, ReviewState
from bedside_edge.ports.worklist import Answer
from bedside_edge.store.erasable import delete_study
from support.memory_worklist import MemoryWorkRows
from support.sample_result import entry, result_body
from support.state_houses import T0, FolderHouse, arrival

ANSWER = Answer(
    decision=Decision.PRESENT,
    probability=0.9,
    threshold=0.5,
    low=0.4,
    high=0.6,
    finding="Abnormal opacity",
    model="sample 1.0.0",
)


class Folder:
    """Studies as they really arrive, are read, signed and erased."""

    def __init__(self, path) -> None:
        self.state = FolderHouse(path).open()
        self.rows = self.state.work_rows
        self.count = 0

    def arrive(self, patient, priority=""):
        self.count += 1
        study = f"1.2.{self.count}"
        one = arrival(
            self.state,
            f"{study}.1",
            study=study,
            patient=patient,
            priority=priority,
            at=T0 + self.count,
            data=patient.encode(),
        )
        return self.state.studies.file([one])[0].study_id

    def read(self, study_id, *, refused=""):
        now = T0 + 10_000_000
        self.state.jobs.complete(study_id, now)
        while (job := self.state.jobs.lease(now)).study_id != study_id:
            self.state.jobs.fail(job, "internal", now)
        body = {"value": None, "reason": {"code": refused, "detail": ""}, "images": []}
        if not refused:
            body = result_body([entry("image-1")])
        outcome = Outcome(refused=bool(refused), reason=refused, body=json.dumps(body).encode())
        return self.state.jobs.finish(job, outcome, now)

    def sign(self, result_id, kind, expected=0):
        review = Review(kind=kind, reader_name="A^B", reader_id="person:1", reason="because", at=T0)
        new = NewReview(
            result_id=result_id,
            review=review,
            finding="1",
            box_decision=Decision.PRESENT,
            model="sample",
            version="1.0.0",
        )
        self.state.reviews.add(new, expected)

    def erase(self, study_id):
        self.state.database.write(lambda c: delete_study(c, study_id))

    def close(self):
        self.state.close()


class Memory:
    """The same steps on the simulator."""

    def __init__(self, _path) -> None:
        self.rows = MemoryWorkRows()

    def _change(self, study_id, **changes):
        row, names = self.rows.held[study_id]
        self.rows.held[study_id] = (
            type(row)(**{f: getattr(row, f) for f in row.__slots__} | changes),
            names,
        )

    def arrive(self, patient, priority=""):
        study_id = f"study-{len(self.rows.held)}"
        level = Priority.STAT if priority == "STAT" else Priority.ROUTINE
        self.rows.add(study_id, "Muster^Ada", state=JobState.COLLECTING, priority=level)
        names = self.rows.held[study_id][1]
        fields = {f: getattr(names, f) for f in names.__slots__} | {"patient_id": patient}
        self.rows.held[study_id] = (self.rows.held[study_id][0], type(names)(**fields))
        return study_id

    def read(self, study_id, *, refused=""):
        result_id = f"result-of-{study_id}"
        state = JobState.REFUSED if refused else JobState.DONE
        self._change(study_id, state=state, reason=refused, result_id=result_id)
        if not refused:
            self.rows.said[result_id] = ANSWER
        return result_id

    def sign(self, result_id, kind, expected=0):
        states = {ReviewKind.ACCEPT: ReviewState.ACCEPTED, ReviewKind.REJECT: ReviewState.REJECTED}
        self._change(result_id.removeprefix("result-of-"), review=states[kind])

    def erase(self, study_id):
        del self.rows.held[study_id]
        self.rows.said.pop(f"result-of-{study_id}", None)

    def close(self):
        pass


@pytest.fixture(params=[Folder, Memory], ids=["sqlite", "memory"])
def box(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.close()


def test_a_box_without_studies_has_no_rows(box):
    assert box.rows.rows() == []


def test_a_study_has_one_row_from_its_first_image_on_the_newest_first(box):
    first, second = box.arrive("P1"), box.arrive("P2", "STAT")
    rows = box.rows.rows()
    assert [row.study_id for row in rows] == [second, first]
    assert [row.priority for row in rows] == [Priority.STAT, Priority.ROUTINE]
    assert {row.state for row in rows} == {JobState.COLLECTING}
    assert all(row.key and row.job_id and row.images == 1 and not row.result_id for row in rows)
    assert len({row.key for row in rows}) == 2


def test_names_come_for_the_studies_asked_for_and_no_others(box):
    first, _ = box.arrive("P1"), box.arrive("P2")
    names = box.rows.names([first, "unknown"])
    assert set(names) == {first}
    assert (names[first].patient_id, names[first].patient_name) == ("P1", "Muster^Ada")
    assert "Muster" not in repr(names)


def test_what_the_box_said_comes_with_the_result(box):
    study = box.arrive("P1")
    result = box.read(study)
    (row,) = box.rows.rows()
    assert (row.state, row.result_id, row.review) == (JobState.DONE, result, ReviewState.UNSIGNED)
    assert box.rows.answers([result, "unknown"]) == {result: ANSWER}


def test_a_refused_study_has_a_reason_and_no_answer(box):
    study = box.arrive("P1")
    result = box.read(study, refused="wrong-modality")
    (row,) = box.rows.rows()
    assert (row.state, row.reason) == (JobState.REFUSED, "wrong-modality")
    assert box.rows.answers([result]) == {}


def test_the_last_verdict_stands(box):
    study = box.arrive("P1")
    result = box.read(study)
    box.sign(result, ReviewKind.ACCEPT)
    assert box.rows.rows()[0].review is ReviewState.ACCEPTED
    box.sign(result, ReviewKind.REJECT, expected=1)
    assert box.rows.rows()[0].review is ReviewState.REJECTED


def test_of_an_erased_study_nothing_is_left(box):
    study, other = box.arrive("P1"), box.arrive("P2")
    result = box.read(study)
    box.erase(study)
    assert [row.study_id for row in box.rows.rows()] == [other]
    assert box.rows.names([study]) == {}
    assert box.rows.answers([result]) == {}
