"""What every RequestStore promises, held against SQLite and the simulator."""

import pytest

from bedside_core.errors import KeyReusedError, RequestRunningError
from bedside_edge.store.database import Database
from bedside_edge.store.requests import KEPT_MS, SqliteRequests
from support.memory_following import MemoryRequests
from support.memory_store import MemoryKeys

NOW = 1_700_000_000_000
ONE = ("person:ada", "POST /a", "key")


@pytest.fixture(params=["sqlite", "memory"])
def reopen(request, tmp_path):
    """Return a function that gives the store, each time as after a restart."""
    if request.param == "memory":
        store = MemoryRequests()
        yield lambda: store.restart() or store
        return
    opened = []

    def again():
        for database in opened:
            database.close()
        opened.append(Database(tmp_path / "box.db"))
        return SqliteRequests(opened[-1], MemoryKeys())

    yield again
    opened[-1].close()


def test_the_first_is_carried_out_and_the_next_gets_what_came_of_it(reopen):
    store = reopen()
    assert store.begin(*ONE, b"body", NOW) == ""
    store.finish(*ONE, "review-1")
    assert store.begin(*ONE, b"body", NOW) == "review-1"
    assert reopen().begin(*ONE, b"body", NOW + KEPT_MS) == "review-1"


def test_another_request_under_the_same_key_is_refused(reopen):
    store = reopen()
    store.begin(*ONE, b"body", NOW)
    store.finish(*ONE, "review-1")
    with pytest.raises(KeyReusedError):
        store.begin(*ONE, b"other", NOW)


def test_a_running_request_is_not_started_twice(reopen):
    store = reopen()
    store.begin(*ONE, b"body", NOW)
    with pytest.raises(RequestRunningError):
        store.begin(*ONE, b"body", NOW)


def test_a_request_whose_process_died_or_that_failed_may_come_again(reopen):
    reopen().begin(*ONE, b"body", NOW)
    store = reopen()
    assert store.begin(*ONE, b"body", NOW) == ""
    store.forget(*ONE)
    assert store.begin(*ONE, b"other", NOW) == ""
    store.finish(*ONE, "x")
    store.forget(*ONE)  # too late: it has happened
    assert store.begin(*ONE, b"other", NOW) == "x"


def test_keys_belong_to_an_actor_and_a_path(reopen):
    store = reopen()
    store.begin(*ONE, b"body", NOW)
    for other in (("person:bob", *ONE[1:]), (ONE[0], "POST /b", "key"), (*ONE[:2], "key2")):
        assert store.begin(*other, b"else", NOW) == ""


@pytest.mark.parametrize("later", [KEPT_MS + 1, -KEPT_MS - 1])
def test_a_key_is_forgotten_after_a_day_also_by_a_clock_that_went_back(reopen, later):
    store = reopen()
    store.begin(*ONE, b"body", NOW)
    store.finish(*ONE, "review-1")
    assert store.begin(*ONE, b"other", NOW + later) == ""
