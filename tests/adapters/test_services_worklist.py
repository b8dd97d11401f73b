"""The worklist's order, parts and search, and how long anything decrypted is remembered."""

from dataclasses import replace

import pytest

from bedside_core.findings import Decision
from bedside_edge.ports import JobState, Priority
from bedside_edge.ports.review import ReviewState
from bedside_edge.ports.worklist import Answer
from bedside_edge.services.worklist import Show, WorklistService, WorkQuery
from support.memory_worklist import MemoryWorkRows

ANSWER = Answer(
    decision=Decision.PRESENT,
    probability=0.9,
    threshold=0.5,
    low=0.4,
    high=0.6,
    finding="F",
    model="m 1",
)


@pytest.fixture
def rows():
    return MemoryWorkRows()


@pytest.fixture
def worklist(rows):
    return WorklistService(rows)


def shown(worklist, **query):
    return [e.row.study_id for e in worklist.page(WorkQuery(**query)).entries]


def test_stat_comes_first_then_the_newest(rows, worklist):
    rows.add("old")
    rows.add("stat", priority=Priority.STAT)
    rows.add("urgent", priority=Priority.URGENT)
    rows.add("new")
    assert shown(worklist) == ["stat", "urgent", "new", "old"]


def test_what_is_signed_sinks_however_urgent_it_was(rows, worklist):
    rows.add("signed", answer=ANSWER, priority=Priority.STAT, review=ReviewState.ACCEPTED)
    rows.add("cancelled", state=JobState.CANCELLED, priority=Priority.STAT)
    rows.add("waiting")
    assert shown(worklist) == ["waiting", "cancelled", "signed"]


def test_every_study_is_in_its_part_and_the_parts_are_counted(rows, worklist):
    rows.add("collecting", state=JobState.COLLECTING)
    rows.add("refused", state=JobState.REFUSED, reason="wrong-view")
    rows.add("dead", state=JobState.DEAD)
    rows.add("read", answer=ANSWER)
    rows.add("signed", answer=ANSWER, review=ReviewState.REJECTED)
    assert shown(worklist, show=Show.OPEN) == ["collecting"]
    assert shown(worklist, show=Show.FAILED) == ["dead", "refused"]
    assert shown(worklist, show=Show.UNSIGNED) == ["read"]
    assert shown(worklist, show=Show.SIGNED) == ["signed"]
    counts = worklist.page(WorkQuery()).counts
    assert counts == {
        Show.ALL: 5,
        Show.UNSIGNED: 1,
        Show.OPEN: 1,
        Show.FAILED: 2,
        Show.SIGNED: 1,
    }


def test_late_images_put_a_signed_study_back_to_work(rows, worklist):
    rows.add("late", answer=ANSWER, review=ReviewState.ACCEPTED, state=JobState.RUNNING)
    (entry,) = worklist.page(WorkQuery(show=Show.OPEN)).entries
    assert entry.renewed
    assert entry.answer == ANSWER


@pytest.mark.parametrize(
    "text", ["doe", "JANE", "jane doe", "doe ja", "王小东", "id-other", "acc-other", " doe "]
)
def test_a_search_finds_names_ids_and_accession_numbers(rows, worklist, text):
    rows.add("other", "Doe^Jane=王^小东" if "小" not in text else "Doe^Jane=王小东")
    rows.add("third", "Muster^Ada")
    assert shown(worklist, text=text) == ["other"]


def test_a_search_for_nobody_shows_nobody(rows, worklist):
    rows.add("other")
    assert shown(worklist, text="xyz") == []
    assert shown(worklist, text="jane xyz") == []


def test_pages_follow_each_other_without_gap(rows, worklist):
    for number in range(7):
        rows.add(f"s{number}")
    pages = [shown(worklist, offset=offset, limit=3) for offset in (0, 3, 6)]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [study for page in pages for study in page] == [
        f"s{number}" for number in reversed(range(7))
    ]
    assert worklist.page(WorkQuery(limit=3)).total == 7


def test_only_what_is_shown_is_decrypted_and_only_once(rows, worklist):
    for number in range(7):
        rows.add(f"s{number}")
    shown(worklist, limit=2)
    assert rows.looked_up == 2
    shown(worklist, limit=2)
    assert rows.looked_up == 2


def test_a_new_result_is_shown_at_once(rows, worklist):
    row = rows.add("s", answer=ANSWER)
    worklist.page(WorkQuery())
    rows.held["s"] = (replace(row, result_id="second"), rows.held["s"][1])
    rows.said["second"] = replace(ANSWER, decision=Decision.ABSENT)
    assert worklist.page(WorkQuery()).entries[0].answer.decision == Decision.ABSENT


def test_names_are_forgotten_with_the_study_and_when_its_key_changes(rows, worklist):
    row = rows.add("s")
    worklist.page(WorkQuery())
    rows.held["s"] = (replace(row, key=b"another"), rows.held["s"][1])
    worklist.page(WorkQuery())
    assert rows.looked_up == 2
    del rows.held["s"]
    worklist.page(WorkQuery())
    rows.add("s", key=b"another")
    worklist.page(WorkQuery())
    assert rows.looked_up == 3


def test_others_are_told_of_a_study_that_is_gone(rows):
    told = []
    worklist = WorklistService(rows, gone=told.append)
    rows.add("s")
    rows.add("stays")
    worklist.page(WorkQuery())
    del rows.held["s"]
    worklist.page(WorkQuery())
    assert told == ["s"]


def test_forget_drops_a_study_at_once(rows, worklist):
    rows.add("s")
    worklist.page(WorkQuery())
    worklist.forget("s")
    worklist.page(WorkQuery())
    assert rows.looked_up == 2


def test_memory_is_bounded(rows):
    worklist = WorklistService(rows, kept=3)
    for number in range(5):
        rows.add(f"s{number}")
    worklist.page(WorkQuery())
    worklist.page(WorkQuery(limit=3))  # the newest three are among the last that were kept
    assert rows.looked_up <= 5 + 3


def test_one_walks_over_the_list_in_its_own_order(rows, worklist):
    rows.add("a")
    rows.add("b", priority=Priority.STAT)
    rows.add("c")
    assert worklist.neighbours("c") == ("b", "a")
    assert worklist.neighbours("b") == ("", "c")
    assert worklist.neighbours("a") == ("c", "")
    assert worklist.neighbours("none") == ("", "")


def test_a_query_does_not_show_whom_it_seeks():
    assert "Doe" not in repr(WorkQuery(text="Doe"))
