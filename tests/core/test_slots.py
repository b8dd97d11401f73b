"""Slots under any history of installs, starts, failures and crashes."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bedside_core import slots
from bedside_core.errors import (
    BedsideError,
    FlashRefusedError,
    InvalidInputError,
    NoSlotError,
    RollbackRefusedError,
    WrongStateError,
)
from bedside_core.slots import TRIES, Pair, Slot, SlotState

NOW = 1_800_000_000


def installed(pair: Pair, digest: str, counter: int, now: int = NOW, lowest: int = 0) -> Pair:
    pair = slots.begin(pair, digest, counter, lowest)
    pair = slots.try_out(slots.verified(slots.staged(pair)), now, 600)
    pair, may = slots.charge_try(pair, now)
    assert may
    return slots.confirm(pair, now)


def test_a_version_goes_all_the_way_and_the_other_slot_stays_to_go_back_to():
    pair = installed(slots.fresh("model/cxr"), "v1", 1)
    assert (pair.active, pair.floor) == ("a", 1)
    pair = installed(pair, "v2", 2)
    assert (pair.active, pair.floor) == ("b", 2)
    back = slots.roll_back(pair)
    assert back.serving.digest == "v1"
    assert back.floor == 2
    with pytest.raises(RollbackRefusedError):
        slots.begin(back, "v1-again", 1)


def test_what_a_confirmed_version_forbids_never_serves_again():
    pair = installed(slots.fresh("app"), "v1", 1)
    pair = installed(pair, "v2", 2, lowest=2)
    assert pair.lowest == 2
    with pytest.raises(RollbackRefusedError, match="no longer permitted"):
        slots.roll_back(pair)
    pair = slots.begin(pair, "v3", 3, 1)  # a later release that permits more takes nothing back
    with pytest.raises(NoSlotError, match="not permitted"):
        slots.roll_back(pair)
    pair = slots.try_out(slots.verified(slots.staged(pair)), NOW, 600)
    assert slots.confirm(pair, NOW).lowest == 2
    with pytest.raises(InvalidInputError):
        replace(pair, lowest=3)


def test_the_first_version_gives_way_to_what_the_box_came_with():
    pair = installed(slots.fresh("profile"), "v1", 1)
    back = slots.roll_back(pair)
    assert back.serving is None
    assert back.floor == 1
    with pytest.raises(NoSlotError, match="came with"):
        slots.roll_back(back)
    assert installed(back, "v2", 2).serving.digest == "v2"


def test_nothing_older_is_installed_again():
    pair = installed(slots.fresh("app"), "v5", 5)
    with pytest.raises(RollbackRefusedError):
        slots.begin(pair, "v4", 4)
    with pytest.raises(FlashRefusedError):
        slots.begin(pair, "v5", 5)


def test_three_starts_without_a_confirmation_and_the_old_one_serves():
    pair = installed(slots.fresh("app"), "v1", 1)
    pair = slots.begin(pair, "v2", 2)
    pair = slots.try_out(slots.verified(slots.staged(pair)), NOW, 600)
    for _ in range(TRIES):
        pair, may = slots.charge_try(pair, NOW)
        assert may
    pair, may = slots.charge_try(pair, NOW)
    assert not may
    assert pair.idle.state is SlotState.BAD
    assert pair.idle.reason == "tries-used-up"
    assert pair.serving.digest == "v1"


def test_a_trial_that_is_not_confirmed_in_time_falls_back_by_itself():
    pair = installed(slots.fresh("app"), "v1", 1)
    pair = slots.begin(pair, "v2", 2)
    pair = slots.try_out(slots.verified(slots.staged(pair)), NOW, 600)
    with pytest.raises(WrongStateError, match="in time"):
        slots.confirm(pair, NOW + 600)
    pair, may = slots.charge_try(pair, NOW + 600)
    assert not may
    assert pair.idle.reason == "not-confirmed-in-time"


def test_only_one_version_is_on_its_way():
    pair = slots.begin(slots.fresh("app"), "v1", 1)
    pair = slots.begin(pair, "v2", 2)  # one that was being fetched is given up for another
    pair = slots.verified(slots.staged(pair))
    with pytest.raises(FlashRefusedError, match="on its way"):
        slots.begin(pair, "v2", 2)
    pair = slots.try_out(pair, NOW, 600)
    with pytest.raises(FlashRefusedError, match="on trial"):
        slots.begin(pair, "v3", 3)


def test_a_start_that_has_no_trial_charges_nothing():
    pair = slots.fresh("app")
    assert slots.charge_try(pair, NOW) == (pair, False)
    for wrong in (slots.staged, slots.verified, lambda p: slots.confirm(p, NOW)):
        with pytest.raises(WrongStateError):
            wrong(pair)
    assert pair.serving is None
    with pytest.raises(NoSlotError):
        slots.roll_back(pair)
    assert slots.after_start(pair) == pair


def test_pairs_that_cannot_be_are_refused():
    with pytest.raises(InvalidInputError):
        slots.fresh("kernel")
    with pytest.raises(InvalidInputError):
        Pair(kind="app", a=Slot(name="a"), b=Slot(name="b"), active="a")
    with pytest.raises(InvalidInputError):
        slots.fresh("app").slot("c")


class History(RuleBasedStateMachine):
    """Whatever happens, the slot in service is good and whole, and counters never fall."""

    def __init__(self):
        super().__init__()
        self.pair = slots.fresh("app")
        self.now = NOW
        self.highest = (0, 0)
        self.number = 0
        self.confirmed: set[str] = set()

    def attempt(self, change):
        try:
            self.pair = change(self.pair)
        except BedsideError:
            return False
        return True

    @rule(step=st.integers(-2, 3))
    def fetch(self, step):
        self.number += 1
        counter = max(0, self.pair.floor + step)
        lowest = max(0, counter - 2)
        self.attempt(lambda p: slots.begin(p, f"v{self.number}", counter, lowest))

    @rule()
    def go_on(self):
        self.attempt(slots.staged) or self.attempt(slots.verified) or self.attempt(
            lambda p: slots.try_out(p, self.now, 600)
        )

    @rule()
    def start(self):
        self.pair = slots.after_start(self.pair)
        self.pair, _ = slots.charge_try(self.pair, self.now)

    @rule(seconds=st.integers(-400, 700))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def pass_the_gate(self):
        digest = self.pair.idle.digest
        if self.attempt(lambda p: slots.confirm(p, self.now)):
            self.confirmed.add(digest)

    @rule()
    def break_it(self):
        self.attempt(lambda p: slots.fail(p, "golden-mismatch"))

    @precondition(lambda self: self.pair.active)
    @rule()
    def go_back(self):
        self.attempt(slots.roll_back)

    @invariant()
    def service_is_never_in_doubt(self):
        counters = (self.pair.floor, self.pair.lowest)
        assert counters[0] >= self.highest[0]
        assert counters[1] >= self.highest[1]
        self.highest = counters
        serving = self.pair.serving
        if serving is None:
            assert self.pair.lowest == 0
        else:
            assert serving.state is SlotState.GOOD
            assert serving.digest in self.confirmed
            assert serving.release_counter >= self.pair.lowest


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
