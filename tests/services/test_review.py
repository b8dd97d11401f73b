"""Sign-off: who may, what counts, what becomes of it, over a real store and simulated archives."""

import threading
from io import BytesIO

import pytest
from pydicom import dcmread

from bedside_core.access import Action, Actor, Role
from bedside_core.errors import (
    ForbiddenError,
    InvalidInputError,
    InvalidRequestError,
    NotFoundError,
    PreconditionRequiredError,
    StaleRevisionError,
    WrongStateError,
)
from bedside_core.findings import Decision
from bedside_core.review import Certainty, ReviewKind
from bedside_edge.ports.review import PublicationState, Retraction, ReviewState
from bedside_edge.services.outputs import DeliveryState, Kind, Occasion
from support.outputs import MemoryArchive, publishing_box

ADA = Actor(
    actor_id="person:ada",
    name="Lovelace^Ada",
    roles=frozenset({Role.RADIOLOGIST}),
    actions=frozenset({Action.REVIEW}),
)
BOB = Actor(actor_id="person:bob", name="Bob^Job", actions=frozenset({Action.REVIEW}))


@pytest.fixture
def pacs():
    return MemoryArchive()


@pytest.fixture
def box(tmp_path, pacs):
    with publishing_box(tmp_path / "state", pacs) as opened:
        yield opened


def sign(box, result, kind=ReviewKind.ACCEPT, *, reader=ADA, expected=0, **more):
    reason = more.pop("reason", "" if kind is ReviewKind.ACCEPT else "rib shadow")
    return box.reviews.sign(
        result, reader=reader, kind=kind, reason=reason, expected=expected, **more
    )


def test_a_result_is_unsigned_until_somebody_signs(box):
    result = box.analysed()
    found = box.reviews.state(result)
    assert (found.state, found.revision, found.publication) == (ReviewState.UNSIGNED, 0, None)
    assert found.retracted is Retraction.NOT_SENT
    record = sign(box, result)
    assert (record.revision, record.label) == (1, Decision.PRESENT)
    assert record.review.reader_name == "Lovelace^Ada"
    assert box.reviews.state(result).state is ReviewState.ACCEPTED


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"reader": Actor(actor_id="person:eve", name="Eve")}, ForbiddenError),
        (
            {"reader": Actor(actor_id="system:1", name="t", actions=frozenset({Action.REVIEW}))},
            ForbiddenError,
        ),
        ({"expected": None}, PreconditionRequiredError),
        ({"expected": 1}, StaleRevisionError),
        ({"kind": ReviewKind.REJECT, "reason": "  "}, InvalidInputError),
        ({"kind": ReviewKind.EDIT}, InvalidInputError),
        ({"kind": ReviewKind.EDIT, "decision": Decision.PRESENT}, InvalidRequestError),
        ({"decision": Decision.ABSENT}, InvalidRequestError),
    ],
)
def test_what_may_not_be_signed_leaves_nothing(box, change, error):
    result = box.analysed()
    with pytest.raises(error):
        sign(box, result, **change)
    assert box.reviews.reviews(result) == []


def test_a_reason_holds_nothing_that_an_archive_would_refuse_the_retraction_for(box):
    result = box.analysed()
    record = sign(box, result, ReviewKind.REJECT, reason="rib\x00 shadow\x1b$B")
    assert record.review.reason == "rib  shadow $B"
    with pytest.raises(InvalidInputError):
        sign(box, result, ReviewKind.REJECT, reason="\x00 \x07", expected=1)


def test_a_superseded_result_or_one_without_value_cannot_be_signed(box):
    first = box.analysed(1)
    second = box.analysed(1, number=2)
    with pytest.raises(WrongStateError):
        sign(box, first)
    with pytest.raises(WrongStateError):
        sign(box, box.refused(7))
    with pytest.raises(NotFoundError):
        sign(box, "nothing")
    sign(box, second)


def test_a_late_image_leaves_the_review_with_its_result_and_says_so(box):
    first = box.analysed(1)
    sign(box, first)
    second = box.analysed(1, number=2)
    found = box.reviews.state(first)
    assert (found.state, found.superseded_by) == (ReviewState.ACCEPTED, second)
    assert box.reviews.state(second).state is ReviewState.UNSIGNED


def test_of_two_readers_at_once_one_wins(box):
    result = box.analysed()
    barrier, outcomes = threading.Barrier(2), []

    def race(reader):
        barrier.wait()
        try:
            outcomes.append(sign(box, result, reader=reader).review.reader_id)
        except StaleRevisionError:
            outcomes.append("stale")

    threads = [threading.Thread(target=race, args=(reader,)) for reader in (ADA, BOB)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("stale") == 1
    assert [r.review.reader_id for r in box.reviews.reviews(result)] == [
        name for name in outcomes if name != "stale"
    ]


def test_a_second_verdict_is_a_later_revision_and_the_first_is_kept(box, pacs):
    result = box.analysed()
    sign(box, result)
    box.settle()
    sign(box, result, ReviewKind.EDIT, reader=BOB, decision=Decision.ABSENT, expected=1)
    box.run_for(5)
    found = box.reviews.reviews(result)
    assert [(r.revision, r.review.kind, r.publication) for r in found] == [
        (1, ReviewKind.ACCEPT, PublicationState.DONE),
        (2, ReviewKind.EDIT, PublicationState.DONE),
    ]
    first, second = [o for o in box.outputs(result) if o.occasion is not Occasion.RESULT]
    assert [first.occasion, second.occasion] == [Occasion.ACCEPTED, Occasion.EDITED]
    # the report of the edit was made over that of the acceptance
    earlier = dcmread(BytesIO(box.writer.drafts[-1].earlier)).SOPInstanceUID
    assert earlier == first.sop_instance_uid
    assert pacs.arrived[-2:] == [first.sop_instance_uid, second.sop_instance_uid]


def test_verdicts_of_one_moment_both_become_reports(box):
    # the publisher tells verdicts of a result apart by their time, and the clock stands still
    result = box.analysed()
    sign(box, result)
    sign(box, result, reader=BOB, expected=1)
    box.settle()
    signed = [o for o in box.outputs(result) if o.occasion is Occasion.ACCEPTED]
    assert len(signed) == 2


def test_rejection_says_retracted_only_after_the_archive_has_acknowledged(box, pacs):
    result = box.analysed()
    box.settle()
    pacs.up = False
    sign(box, result, ReviewKind.REJECT)
    assert box.reviews.state(result).retracted is Retraction.PENDING
    box.settle()
    assert box.reviews.state(result).retraction == {"pacs": Retraction.PENDING}
    pacs.up = True
    box.run_for(10_000)
    found = box.reviews.state(result)
    assert (found.retraction, found.retracted) == ({"pacs": Retraction.ARRIVED}, Retraction.ARRIVED)


def test_a_retraction_that_an_archive_refuses_has_failed_until_it_is_sent_again(box, pacs):
    result = box.analysed()
    box.settle()
    sign(box, result, ReviewKind.REJECT)
    while box.reviews.step():
        pass
    key = next(o for o in box.outputs(result) if o.kind is Kind.KO)
    pacs.refuses.add(key.sop_instance_uid)
    box.run_for(2 * 3_600_000)
    assert box.reviews.state(result).retracted is Retraction.FAILED
    pacs.refuses.clear()
    (dead,) = box.state.outputs.deliveries(states=[DeliveryState.DEAD])
    box.deliveries.retry(dead.delivery_id)
    box.settle()
    assert box.reviews.state(result).retracted is Retraction.ARRIVED


def test_what_never_left_needs_no_retraction(tmp_path):
    with publishing_box(tmp_path / "state") as box:
        result = box.analysed()
        sign(box, result, ReviewKind.REJECT)
        assert box.reviews.state(result).retracted is Retraction.PENDING
        box.settle()
        assert box.reviews.state(result).retracted is Retraction.NOT_SENT


def test_a_report_that_cannot_be_made_is_tried_again_then_given_up_until_retried(box):
    result = box.analysed()
    box.settle()
    sign(box, result, ReviewKind.REJECT)
    work, box.writer.review_objects = box.writer.review_objects, None
    box.run_for(120_000)
    found = box.reviews.state(result)
    assert (found.publication, found.retracted) == (PublicationState.DEAD, Retraction.FAILED)
    (record,) = box.reviews.reviews(result)
    assert (record.attempts, record.failure) == (5, "internal")
    box.writer.review_objects = work
    box.reviews.retry(result)
    box.settle()
    assert box.reviews.state(result).retracted is Retraction.ARRIVED
    with pytest.raises(WrongStateError):
        box.reviews.retry(result)


def test_a_report_noted_and_not_made_is_made_once_after_a_restart(tmp_path, pacs):
    folder = tmp_path / "state"
    with publishing_box(folder, pacs) as box:
        result = box.analysed()
        box.settle()
        sign(box, result, ReviewKind.REJECT)
        one = box.state.reviews.pending(box.clock.now())[0]
        box.publisher.publish_review(result, one.review)  # and the process dies before it says so
    with publishing_box(folder, pacs) as box:
        box.settle()
        assert [o.kind for o in box.outputs(result) if o.occasion is Occasion.REJECTED] == [
            Kind.KO,
            Kind.SR,
        ]
        assert box.reviews.state(result).retracted is Retraction.ARRIVED
    assert len(pacs.arrived) == len(set(pacs.arrived)) == 4


def test_labels_keep_what_was_said_by_whom_of_which_version(box):
    results = [box.analysed(n) for n in (1, 2, 3)]
    sign(box, results[0], certainty=Certainty.PROBABLE)
    sign(box, results[1], ReviewKind.REJECT)
    sign(box, results[2])
    sign(box, results[2], ReviewKind.EDIT, reader=BOB, decision=Decision.ABSENT, expected=1)
    found = box.reviews.labels()
    assert [(x.result_id, x.decision, x.reader_id, x.certainty, x.version) for x in found] == [
        (results[0], Decision.PRESENT, "person:ada", Certainty.PROBABLE, "1.0.0"),
        (results[1], None, "person:ada", Certainty.CERTAIN, "1.0.0"),
        (results[2], Decision.ABSENT, "person:bob", Certainty.CERTAIN, "1.0.0"),
    ]
    assert {x.finding for x in found} == {"128477000"}
    assert box.reviews.labels(after=found[0].seq, limit=1) == found[1:2]


def test_agreement_counts_a_readers_own_last_word_and_a_versions_standing_one(box):
    results = [box.analysed(n) for n in (1, 2, 3)]
    for result in results:
        sign(box, result)
    sign(box, results[2], ReviewKind.EDIT, reader=BOB, decision=Decision.ABSENT, expected=1)
    figures = box.reviews.agreement()
    assert figures.by_reader["person:ada"].share == 1.0
    assert figures.by_reader["person:ada"].pairs == 3
    assert figures.by_reader["person:bob"].share == 0.0
    assert figures.by_version["sample 1.0.0"].pairs == 3
    assert figures.overall.table[Decision.PRESENT, Decision.ABSENT] == 1


def test_reason_and_name_are_on_the_disk_only_encrypted(box):
    result = box.analysed()
    sign(box, result, ReviewKind.REJECT, reason="Pneumothorax overlooked")
    found = b"".join(path.read_bytes() for path in box.state.path.rglob("*") if path.is_file())
    assert b"person:ada" in found  # the search does see rows
    for secret in (b"Pneumothorax overlooked", b"Lovelace"):
        assert secret not in found
