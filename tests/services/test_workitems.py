"""The performer of workitems: what it claims, what becomes of it, and what it leaves alone."""

from dataclasses import replace

import pytest

from bedside_core import workitem as rules
from bedside_core.errors import NotFoundError
from bedside_core.workitem import StepState, element, text
from bedside_edge.ports import JobState, Priority
from bedside_edge.services.holdings import Holdings
from bedside_edge.services.workitems import WorkitemPerformer, WorkitemService, date_time
from support.outputs import MemoryArchive, publishing_box
from support.ram import ram_folder
from support.synthetic import data_set, noise, part10, uid

CODE = ("110004", "DCM")
ACTOR = "token:test"


class Desk:
    """A box's store with the performer over it, driven by hand."""

    def __init__(self, box, codes=(CODE,)):
        self.box = box
        store, holdings = box.state.workitems, self._holdings(box)
        self.service = WorkitemService(store, box.clock, box.random, lambda: None)
        self.performer = WorkitemPerformer(
            store=store,
            holdings=holdings,
            queue=box.state.jobs,
            publisher=box.publisher,
            clock=box.clock,
            random=box.random,
            wake=lambda: None,
            codes=codes,
            station="BEDSIDE",
        )

    @staticmethod
    def _holdings(box):
        return Holdings(box.state.holdings, box.state.objects, box.reader)

    def order(self, study=1, number=1, **changes):
        body = {
            rules.STATE: element("CS", "SCHEDULED"),
            rules.PRIORITY: element("CS", "HIGH"),
            rules.LABEL: element("LO", "Read"),
            rules.WORKLIST: element("LO", "AI"),
            rules.START: element("DT", "20200101"),
            rules.READINESS: element("CS", "READY"),
            rules.WORKITEM_CODE: element("SQ", rules.coded(*CODE, "CAD")),
            rules.INPUT: element("SQ", {rules.STUDY_UID: element("UI", uid(study))}),
        }
        kept, _ = self.service.create(f"1.2.3.{number}", body | changes, ACTOR)
        return kept.uid

    def work(self):
        while self.performer.step():
            pass

    def state(self, name):
        return self.service.get(name).state

    def reason(self, name):
        (progress,) = rules.items(self.service.get(name).body, rules.PROGRESS)
        (code,) = rules.items(progress, "0074100E")
        return text(code, rules.CODE_VALUE), text(progress, "00741238")


@pytest.fixture
def desk():
    with ram_folder() as folder, publishing_box(folder / "state", MemoryArchive()) as box:
        yield Desk(box)


def image(study=1, number=1):
    return part10(data_set(noise(16, 12, seed=number), study=study, number=number))


def test_a_held_study_is_claimed_under_a_transaction_of_the_boxs_own(desk):
    study = desk.box.take(image())
    name = desk.order()
    desk.work()
    held = desk.service.get(name)
    assert (held.state, held.ours, held.study_id) == (StepState.IN_PROGRESS, True, study)
    assert held.owner.startswith("2.25.")
    (job,) = desk.box.state.jobs.jobs()
    assert (job.job_id, job.priority) == (held.job_id, Priority.STAT)


def test_it_is_completed_with_every_object_of_the_result(desk):
    desk.box.take(image())
    name = desk.order()
    desk.work()
    result = desk.box.finish()
    desk.work()
    held = desk.service.get(name)
    assert held.state is StepState.COMPLETED
    rules.final_ready(held.body, StepState.COMPLETED)
    (performed,) = rules.items(held.body, rules.PERFORMED)
    named = {
        text(reference, "00081155")
        for output in rules.items(performed, rules.OUTPUT)
        for reference in rules.items(output, "00081199")
    }
    made = desk.box.outputs(result)
    assert named == {output.sop_instance_uid for output in made}
    assert made


@pytest.mark.parametrize(
    "change",
    [
        {rules.WORKITEM_CODE: element("SQ", rules.coded("110001", "DCM", "Image Processing"))},
        {rules.WORKITEM_CODE: element("SQ", rules.coded("110004", "99X", "CAD"))},
        {rules.READINESS: element("CS", "INCOMPLETE")},
        {rules.START: element("DT", "29990101")},
        {rules.INPUT: element("SQ")},
        {
            rules.INPUT: element(
                "SQ",
                {rules.STUDY_UID: element("UI", uid(1))},
                {rules.STUDY_UID: element("UI", uid(2))},
            )
        },
    ],
)
def test_what_it_cannot_do_now_is_left_alone(desk, change):
    desk.box.take(image())
    name = desk.order(**change)
    desk.work()
    assert desk.state(name) is StepState.SCHEDULED


def test_without_codes_nothing_is_claimed(desk):
    desk.box.take(image())
    idle = Desk(desk.box, codes=())
    name = idle.order()
    idle.work()
    assert idle.state(name) is StepState.SCHEDULED


def test_a_refusal_is_a_coded_reason(desk):
    desk.box.refused(study=3)
    name = desk.order(study=3)
    desk.work()
    assert desk.state(name) is StepState.CANCELED
    assert desk.reason(name) == ("110522", "wrong-view")


@pytest.mark.parametrize(
    ("state", "code"), [(JobState.DEAD, "110501"), (JobState.CANCELLED, "110513")]
)
def test_a_job_that_ended_without_result_cancels_it(desk, state, code):
    desk.box.take(image())
    name = desk.order()
    desk.work()
    (job,) = desk.box.state.jobs.jobs()
    if state is JobState.CANCELLED:
        desk.box.state.jobs.cancel(job.job_id, desk.box.clock.now())
    else:
        while desk.box.state.jobs.job(job.job_id).state is not JobState.DEAD:
            leased = desk.box.state.jobs.lease(desk.box.clock.now())
            assert leased is not None
            desk.box.state.jobs.fail(leased, "engine-failed", desk.box.clock.now())
            desk.box.clock.advance(600_000)
    desk.work()
    assert desk.state(name) is StepState.CANCELED
    assert desk.reason(name)[0] == code


def test_one_that_was_not_begun_in_time_expires(desk):
    now = desk.box.clock.now()
    name = desk.order(**{rules.EXPIRES: element("DT", date_time(now + 60_000))})
    desk.work()
    assert desk.state(name) is StepState.SCHEDULED
    desk.box.clock.advance(120_000)
    desk.work()
    assert desk.reason(name) == ("110533", "not begun in time")


def test_a_late_image_makes_the_newer_result_the_outcome(desk):
    desk.box.take(image())
    name = desk.order()
    desk.work()
    leased = desk.box.state.jobs.lease(desk.box.clock.now())
    desk.box.take(image(number=2))  # while the first job runs
    desk.work()
    newest = desk.box.state.jobs.jobs()[0].job_id
    assert newest != leased.job_id
    assert desk.service.get(name).job_id == newest


def test_a_cancel_request_reaches_what_the_box_performs(desk):
    desk.box.take(image())
    name = desk.order()
    desk.work()
    desk.service.request_cancel(name, {}, ACTOR)
    assert desk.reason(name) == ("110513", "cancelled on request")
    desk.box.finish()
    desk.work()
    assert desk.state(name) is StepState.CANCELED


def test_one_that_cannot_be_helped_does_not_stop_the_others(desk):
    desk.box.take(image(1))
    first, second = desk.order(1, 1), desk.order(2, 2)
    desk.work()
    held = desk.service.get(first)
    desk.box.state.workitems.replace(replace(held, job_id="no-such-job"), ACTOR)
    desk.box.take(image(2))
    desk.work()
    assert desk.state(second) is StepState.IN_PROGRESS


def test_an_erased_study_takes_its_workitem_and_its_rows_with_it(desk):
    study = desk.box.take(image())
    name = desk.order()
    desk.work()
    assert desk.service.get(name).study_id == study
    holdings = desk._holdings(desk.box)
    (entry,) = holdings.studies()
    assert holdings.items(entry)
    erasure = desk.box.state.erasure
    erasure.erase(erasure.plan_study(study), reason="request", actor=ACTOR)
    with pytest.raises(NotFoundError):
        desk.service.get(name)
    assert holdings.studies() == []
    with pytest.raises(NotFoundError):
        holdings.find(uid(1), uid(1, 1), uid(1, 1, 1))
    desk.work()  # nothing is left to trip over
