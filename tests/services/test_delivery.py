"""What the box sends arrives once, in order, at every destination, or ends as a dead letter."""

from collections import Counter
from io import BytesIO

import pytest
from pydicom import dcmread

from bedside_core.errors import NotFoundError, NotPermittedError, WrongStateError
from bedside_core.review import Review, ReviewKind
from bedside_edge.services.outputs import DeliveryState, Kind, Occasion, SendRules
from support.outputs import MemoryArchive, publishing_box
from support.ram import ram_folder
from support.synthetic import data_set, noise, part10

HOUR = 3_600_000


@pytest.fixture
def folder():
    with ram_folder() as folder:  # these laws open no new question to the disk
        yield folder


def review(box, kind=ReviewKind.REJECT):
    return Review(
        kind=kind, reader_name="Muster^Ada", reader_id="r", reason="no", at=box.clock.now()
    )


def uids(box, result_id, *occasions):
    wanted = occasions or tuple(Occasion)
    return [o.sop_instance_uid for o in box.outputs(result_id) if o.occasion in wanted]


def states(box, **filters):
    return Counter(d.state for d in box.state.outputs.deliveries(limit=1000, **filters))


def test_an_archive_down_for_an_hour_gets_everything_once_after(folder):
    down, other = MemoryArchive("down"), MemoryArchive("other")
    with publishing_box(folder / "state", down, other) as box:
        down.up = False
        results = []
        for minute in range(60):
            results.append(box.analysed(study=minute + 1))
            box.run_for(60_000)
            assert other.arrived[-2:] == uids(box, results[-1])  # nobody waits for the dead one
        assert down.arrived == []
        assert down.opened < 40  # it was left in peace between attempts
        down.up = True
        box.run_for(6 * 60_000)
        wanted = [one for result in results for one in uids(box, result)]
        assert down.arrived == wanted  # everything, once, in order
        assert other.arrived == wanted
        assert states(box) == {DeliveryState.DELIVERED: 240}


def test_a_restart_in_the_middle_loses_nothing_and_repeats_nothing(folder):
    archive = MemoryArchive()
    archive.up = False
    with publishing_box(folder / "state", archive) as box:
        first = box.analysed()
        box.run_for(60_000)
        second = box.analysed(study=2)  # stored, but its objects were never made
        clock = box.clock
    archive.up = True
    with publishing_box(folder / "state", archive, clock=clock) as box:
        box.run_for(60_000)
        assert archive.arrived == [*uids(box, first), *uids(box, second)]


def test_a_box_sealed_in_the_middle_of_a_batch_sends_nothing_more_until_it_is_opened(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        results = [box.analysed(study=number) for number in (1, 2)]

        def sealed_after_the_first(_study_id):
            if archive.arrived:
                raise NotPermittedError("the box is sealed", ("sealed",))

        box.permit = sealed_after_the_first
        box.run_for(30_000)
        assert len(archive.arrived) == 1
        box.permit = lambda _study_id: None
        box.run_for(120_000)
        assert archive.arrived == [one for result in results for one in uids(box, result)]


def test_an_answer_that_got_lost_is_asked_for_again_under_the_same_uid(folder):
    archive = MemoryArchive()
    archive.loses_answers = 1
    with publishing_box(folder / "state", archive) as box:
        result = box.analysed()
        box.run_for(60_000)
        sr, sc = uids(box, result)
        assert archive.arrived == [sr, sr, sc]  # the archive keeps one instance per UID
        assert len(archive.data) == 2
        assert states(box) == {DeliveryState.DELIVERED: 2}


def test_a_refused_object_is_a_dead_letter_and_the_next_passes(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        result = box.analysed()
        box.publisher.step()
        sr, sc = uids(box, result)
        archive.refuses.add(sr)
        box.run_for(1_000)
        assert archive.arrived == []  # the order of a study is kept while there is hope
        box.run_for(2 * HOUR)
        assert archive.arrived == [sc]
        (dead,) = box.state.outputs.deliveries(states=[DeliveryState.DEAD])
        assert dead.reason == "delivery-refused"
        assert dead.attempts == 1 + len(SendRules().refusal_waits_ms)
        archive.refuses.clear()
        box.deliveries.retry(dead.delivery_id)
        box.settle()
        assert archive.arrived == [sc, sr]
        with pytest.raises(WrongStateError):
            box.deliveries.retry(dead.delivery_id)
        with pytest.raises(NotFoundError):
            box.deliveries.retry("nothing")


def test_an_archive_silent_for_days_ends_in_dead_letters_that_a_person_sends_again(folder):
    archive = MemoryArchive()
    archive.up = False
    with publishing_box(folder / "state", archive) as box:
        results = [box.analysed(study=n) for n in (1, 2)]
        box.run_for(60_000)
        box.clock.advance(71 * HOUR)
        box.run_for(600_000)
        assert states(box) == {DeliveryState.WAITING: 4}
        box.clock.advance(HOUR)
        box.run_for(600_000)
        assert states(box) == {DeliveryState.DEAD: 4}
        archive.up = True
        box.run_for(600_000)
        assert archive.arrived == []
        for dead in reversed(box.state.outputs.deliveries(states=[DeliveryState.DEAD])):
            box.deliveries.retry(dead.delivery_id)
        box.settle()
        assert archive.arrived == [one for result in results for one in uids(box, result)]


def test_a_retry_does_not_wait_for_the_pause(folder):
    archive = MemoryArchive()
    archive.up = False
    with publishing_box(folder / "state", archive) as box:
        box.analysed()
        box.run_for(20 * 60_000)
        archive.up = True
        box.settle()
        assert archive.arrived == []
        box.workers["pacs"].kick()
        box.settle()
        assert len(archive.arrived) == 2


def test_nothing_is_sent_to_the_old_patient_after_a_corrected_header_came(folder):
    archive = MemoryArchive()
    archive.up = False
    with publishing_box(folder / "state", archive) as box:
        wrong = box.analysed()
        box.run_for(1_000)
        box.take(part10(data_set(noise(16, 12), PatientID="RIGHT")))  # the same image
        right = box.finish()
        archive.up = True
        box.run_for(HOUR)
        assert archive.arrived == uids(box, right)
        held = box.state.outputs.deliveries(result_id=wrong)
        assert {(d.state, d.reason) for d in held} == {(DeliveryState.DEAD, "patient-mismatch")}


def test_a_rejection_follows_where_the_result_went_and_withdraws_what_had_not_left(folder):
    reached, down = MemoryArchive("reached"), MemoryArchive("down")
    with publishing_box(folder / "state", reached, down) as box:
        down.up = False
        result = box.analysed()
        box.run_for(1_000)
        made = box.publisher.publish_review(result, review(box))
        assert [o.kind for o in made] == [Kind.KO, Kind.SR]
        down.up = True
        box.run_for(HOUR)
        rejection = uids(box, result, Occasion.REJECTED)
        assert reached.arrived == [*uids(box, result, Occasion.RESULT), *rejection]
        assert down.arrived == []  # it never got the result: nothing to take back
        assert states(box, destination="down") == {DeliveryState.WITHDRAWN: 2}


def test_a_review_that_is_faster_than_the_publisher_keeps_the_order(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        accepted = box.analysed(study=1)
        box.publisher.publish_review(accepted, review(box, ReviewKind.ACCEPT))
        rejected = box.analysed(study=2)
        box.publisher.publish_review(rejected, review(box))
        box.run_for(60_000)
        assert archive.arrived == uids(box, accepted)  # first the result, then the signed report
        assert len(archive.arrived) == 3
        assert len(uids(box, rejected)) == 4  # made and kept, and never left the box


def test_the_same_review_again_makes_nothing_new(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        result = box.analysed()
        box.settle()
        first = review(box, ReviewKind.ACCEPT)
        made = box.publisher.publish_review(result, first)
        assert box.publisher.publish_review(result, first) == made
        box.settle()
        assert len(archive.arrived) == 3
        assert box.writer.drafts[-1].earlier == archive.data[archive.arrived[0]]


def test_a_newer_result_names_the_report_it_replaces(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        box.analysed()
        box.settle()
        newer = box.analysed(number=2, probability=0.7)
        box.settle()
        assert archive.arrived[2:] == uids(box, newer)
        assert box.writer.drafts[-1].earlier == archive.data[archive.arrived[0]]


def test_a_newer_result_takes_the_place_of_one_that_never_left(folder):
    archive = MemoryArchive()
    archive.up = False
    with publishing_box(folder / "state", archive) as box:
        older = box.analysed()
        box.run_for(1_000)
        newer = box.analysed(number=2, probability=0.7)
        box.run_for(1_000)
        archive.up = True
        box.run_for(HOUR)
        assert archive.arrived == uids(box, newer)
        assert states(box, result_id=older) == {DeliveryState.WITHDRAWN: 2}
        assert box.writer.drafts[-1].earlier == b""  # nobody has it


def test_a_refused_study_becomes_no_object(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        result = box.refused(study=7)
        box.run_for(60_000)
        assert box.outputs(result) == []
        with pytest.raises(WrongStateError):
            box.publisher.result_objects(result)


def test_without_destinations_objects_are_made_when_asked_for_and_only_once(folder):
    with publishing_box(folder / "state") as box:
        result = box.analysed()
        assert not box.publisher.step()
        assert box.outputs(result) == []
        made = box.publisher.result_objects(result)
        assert [o.kind for o in made] == [Kind.SR, Kind.SC]
        assert box.publisher.result_objects(result) == made
        read = dcmread(BytesIO(box.publisher.data(made[0])))
        assert read.SOPInstanceUID == made[0].sop_instance_uid
        clock = box.clock
    archive = MemoryArchive()  # configured later: the past stays at home
    with publishing_box(folder / "state", archive, clock=clock) as box:
        box.run_for(60_000)
        assert archive.arrived == []
        second = box.analysed(study=2)
        box.settle()
        assert archive.arrived == uids(box, second)


def test_what_was_made_on_demand_is_what_is_sent(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        result = box.analysed()
        made = box.publisher.result_objects(result)
        box.settle()
        assert archive.arrived == [o.sop_instance_uid for o in made]


def test_a_destination_gets_only_the_kinds_it_takes(folder):
    captures = MemoryArchive("captures", frozenset({Kind.SC}))
    with publishing_box(folder / "state", captures) as box:
        result = box.analysed()
        box.settle()
        box.publisher.publish_review(result, review(box))
        box.settle()
        kinds = {o.sop_instance_uid: o.kind for o in box.outputs(result)}
        assert [kinds[one] for one in captures.arrived] == [Kind.SC, Kind.KO]


def test_an_own_object_that_comes_back_starts_nothing(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        box.analysed()
        box.settle()
        before = len(box.state.jobs.jobs())
        for data in archive.data.values():
            box.take(data)
        assert len(box.state.jobs.jobs()) == before
        assert box.state.jobs.lease(box.clock.now()) is None


def test_a_report_that_arrives_late_changes_nothing_that_was_sent(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        box.analysed()
        box.settle()
        box.take(part10(data_set(noise(16, 12), number=5, Modality="SR")))
        job = box.state.jobs.lease(box.clock.now())
        body = box.state.jobs.result(box.state.jobs.jobs()[1].result_id).body
        from bedside_edge.ports import Outcome

        box.state.jobs.finish(job, Outcome(refused=False, reason="", body=body), box.clock.now())
        box.settle()
        assert len(archive.arrived) == 2


def test_a_writer_that_fails_is_tried_again_and_given_up_in_time(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        box.writer.fails = 2
        result = box.analysed()
        box.run_for(60_000)
        assert archive.arrived == uids(box, result)
        box.writer.fails = 100
        box.analysed(study=2)
        box.run_for(HOUR)
        assert box.writer.fails == 95
        assert box.publisher.outputs.next_pending() is None


def test_an_unclean_stop_sweeps_no_object_that_has_a_row(folder):
    with publishing_box(folder / "state") as box:
        result = box.analysed()
        made = box.publisher.result_objects(result)
        named = box.state.studies.object_names()
        assert {o.object_name for o in made} < named
        assert set(box.state.objects.names()) == named


@pytest.mark.parametrize("back", [HOUR, 400 * 24 * HOUR])
def test_a_clock_that_is_set_back_holds_nothing_that_waits_for_an_archive(folder, back):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        result = box.analysed(study=1)
        archive.up = False
        box.settle()
        unpublished = box.analysed(study=2)
        box.clock.jump(-back)
        archive.up = True
        box.run_for(60_000)
        assert archive.arrived == [*uids(box, result), *uids(box, unpublished)]


def test_a_clock_that_is_set_back_holds_no_object_behind_a_refused_one(folder):
    archive = MemoryArchive()
    with publishing_box(folder / "state", archive) as box:
        result = box.analysed(study=1)
        box.publisher.step()
        archive.refuses.add(uids(box, result)[0])
        box.settle()
        box.clock.jump(-400 * 24 * HOUR)
        archive.refuses.clear()
        box.run_for(60_000)
        assert archive.arrived == uids(box, result)
