"""The bell: no ring is missed, a flood shares one, nobody sleeps past it."""

import threading
import time

from bedside_edge.services.worker import Bell


def sleeper(bell: Bell, seen: int, seconds: float = 20.0) -> threading.Thread:
    thread = threading.Thread(target=bell.wait, args=(seen, seconds))
    thread.start()
    return thread


def test_a_ring_between_the_look_and_the_sleep_is_not_missed():
    bell = Bell()
    seen = bell.count()
    bell.ring()
    bell.wait(seen, 20.0)  # returns at once, or the test hangs
    assert bell.count() == seen + 1


def test_a_flood_shares_one_ring_and_wakes_every_sleeper():
    bell = Bell()
    seen = bell.count()
    threads = [sleeper(bell, seen) for _ in range(3)]
    started = time.monotonic()
    for _ in range(500):
        bell.ring_soon()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert time.monotonic() - started < 5
    assert bell.count() - seen < 20


def test_a_soon_that_nobody_slept_through_rings_for_the_next_to_come():
    bell = Bell()
    seen = bell.count()
    bell.ring_soon()
    bell.wait(seen, 20.0)
    assert bell.count() == seen + 1


def test_without_a_ring_the_sleeper_wakes_when_its_own_time_is_over():
    bell = Bell()
    seen = bell.count()
    thread = sleeper(bell, seen, 0.05)
    thread.join(10)
    assert not thread.is_alive()
    assert bell.count() == seen


def test_the_keeper_of_the_time_may_leave_and_another_keeps_it():
    bell = Bell()
    seen = bell.count()
    short, long = sleeper(bell, seen, 0.02), sleeper(bell, seen)
    bell.ring_soon()
    for thread in (short, long):
        thread.join(10)
        assert not thread.is_alive()
    assert bell.count() == seen + 1
