"""What a ReviewStore promises, held against SQLite over real results; nobody simulates it."""

import pytest

from bedside_core.errors import NotFoundError, StaleRevisionError, WrongStateError
from bedside_core.findings import Decision
from bedside_core.review import Review, ReviewKind
from bedside_edge.ports.review import NewReview, PublicationState
from support.outputs import publishing_box
from support.state_houses import T0


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def box(folder):
    with publishing_box(folder) as opened:
        yield opened


def verdict(result, kind=ReviewKind.ACCEPT, at=T0):
    return NewReview(
        result_id=result,
        review=Review(
            kind=kind,
            reader_name="Lovelace^Ada",
            reader_id="person:ada",
            reason="" if kind is ReviewKind.ACCEPT else "rib",
            at=at,
        ),
        finding="128477000",
        box_decision=Decision.PRESENT,
        model="sample",
        version="1.0.0",
    )


def test_a_verdict_survives_a_restart_word_for_word(folder):
    with publishing_box(folder) as box:
        result = box.analysed()
        stored = box.state.reviews.add(verdict(result), 0)
    with publishing_box(folder) as box:
        assert box.state.reviews.reviews(result) == [stored]
        assert box.state.reviews.pending(T0) == [stored]


def test_revisions_count_without_a_gap_and_a_stale_one_leaves_nothing(box):
    store, result = box.state.reviews, box.analysed()
    for expected in (0, 1, 2):
        assert store.add(verdict(result), expected).revision == expected + 1
    for stale in (0, 2, 4):
        with pytest.raises(StaleRevisionError):
            store.add(verdict(result), stale)
    assert [record.revision for record in store.reviews(result)] == [1, 2, 3]
    assert len({record.review.at for record in store.reviews(result)}) == 3


def test_superseded_and_unknown_results_take_none(box):
    first = box.analysed()
    box.analysed(number=2)
    with pytest.raises(WrongStateError):
        box.state.reviews.add(verdict(first), 0)
    with pytest.raises(NotFoundError):
        box.state.reviews.add(verdict("none"), 0)
    assert box.state.reviews.reviews("none") == []


def test_a_report_waits_for_the_one_before_it_and_not_for_those_of_others(box):
    store = box.state.reviews
    one, two = box.analysed(1), box.analysed(2)
    first = store.add(verdict(one), 0)
    store.add(verdict(one, ReviewKind.REJECT), 1)
    other = store.add(verdict(two), 0)
    store.not_published(first.review_id, "disk-full", T0 + 5_000)
    assert [r.review_id for r in store.pending(T0, 10)] == [other.review_id]
    assert [r.attempts for r in store.pending(T0 + 5_000, 10)] == [1, 0]
    assert store.next_pending() is not None
    store.not_published(first.review_id, "disk-full", None)  # given up: the next one passes
    assert [r.revision for r in store.pending(T0, 10)] == [2, 1]


def test_what_was_given_up_can_be_tried_again_and_nothing_else(box):
    store, result = box.state.reviews, box.analysed()
    record = store.add(verdict(result), 0)
    with pytest.raises(WrongStateError):
        store.retry(record.review_id, T0)
    store.not_published(record.review_id, "internal", None)
    assert store.next_pending() is None
    store.retry(record.review_id, T0)
    assert [r.attempts for r in store.pending(T0)] == [0]
    store.published(record.review_id)
    assert store.reviews(result)[0].publication is PublicationState.DONE
    with pytest.raises(NotFoundError):
        store.retry("none", T0)


def test_a_clock_that_was_set_back_leaves_no_report_waiting_for_a_far_day(box):
    store, result = box.state.reviews, box.analysed()
    record = store.add(verdict(result), 0)
    store.not_published(record.review_id, "internal", T0 + 400 * 86_400_000)
    assert store.pending(T0) == [store.reviews(result)[0]]


def test_labels_come_in_pages_and_what_was_erased_is_left_out(box):
    store = box.state.reviews
    results = [box.analysed(number) for number in (1, 2, 3, 4)]
    for result in results:
        store.add(verdict(result), 0)
    store.add(verdict(results[3], ReviewKind.REJECT), 1)
    box.state.database.write(
        lambda c: c.execute("UPDATE reviews SET body = x'' WHERE seq IN (1, 2)") and None
    )
    page = store.labels(limit=1)
    assert [label.result_id for label in page] == [results[2]]
    assert [label.kind for label in store.labels(after=page[0].seq)] == [ReviewKind.REJECT]
    assert [label.standing for label in store.labels(standing=False)] == [True, False, True]
    assert store.reviews(results[0]) == []
