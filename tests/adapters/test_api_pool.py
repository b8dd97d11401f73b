import asyncio
import threading
import time

import pytest

from bedside_core.errors import NotReadyError, QueueFullError
from bedside_edge.api.pool import WorkPool, close_pools


def run(coroutine):
    return asyncio.run(coroutine)


@pytest.fixture
def pool():
    made = WorkPool("test", threads=2, max_waiting=1)
    yield made
    made.close()
    assert made.join(5)


def test_work_runs_in_a_thread_of_the_pool_and_its_value_comes_back(pool):
    async def ask():
        return await pool.run(lambda a, b: (a + b, threading.current_thread().name), 1, 2)

    value, name = run(ask())
    assert value == 3
    assert name.startswith("test-")


def test_an_error_comes_back_as_it_was_raised(pool):
    async def ask():
        await pool.run(int, "no number")

    with pytest.raises(ValueError, match="no number"):
        run(ask())


def test_one_task_too_many_is_refused_and_the_others_finish(pool):
    gate = threading.Event()

    async def ask():
        waiting = [pool.run(gate.wait, 5) for _ in range(3)]
        assert pool.open == 3
        with pytest.raises(QueueFullError):
            pool.run(int)
        gate.set()
        done = await asyncio.gather(*waiting)
        return done, pool.open, await pool.run(int)

    assert run(ask()) == ([True] * 3, 0, 0)


def test_work_goes_on_to_its_end_when_nobody_waits_any_more(pool):
    begun, done = threading.Event(), threading.Event()

    def work():
        begun.set()
        time.sleep(0.05)
        done.set()

    async def ask():
        future = pool.run(work)
        assert await asyncio.to_thread(begun.wait, 5)
        future.cancel()

    run(ask())
    assert done.wait(5)


def test_a_closed_pool_takes_nothing_but_finishes_what_it_has():
    pool = WorkPool("test", threads=1)

    async def ask():
        last = pool.run(time.sleep, 0.05)
        assert close_pools([pool], 5)
        with pytest.raises(NotReadyError):
            pool.run(int)
        return await last

    assert run(ask()) is None


def test_closing_does_not_wait_for_ever():
    pool = WorkPool("test", threads=1)
    gate = threading.Event()

    async def ask():
        pool.run(gate.wait, 5)
        return close_pools([pool], 0.05)

    assert run(ask()) is False
    gate.set()
    assert pool.join(5)
