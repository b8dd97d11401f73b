"""Answers leave at a boundary of the grid, whatever they are and however long they took."""

import pytest

from bedside_core.errors import BudgetExhaustedError, DiskFullError
from bedside_edge.services.slots import SlotRule, Slots
from support.fake_clock import FakeClock


class House:
    def __init__(self) -> None:
        self.clock, self.overruns = FakeClock(), []
        self.clock.advance(1_000_037)
        self.slots = Slots(
            self.clock,
            SlotRule(step_s=0.25, budget_s=0.2),
            wait=lambda seconds: self.clock.advance(int(seconds * 1000) + 1),
            overrun=self.overruns.append,
        )

    def takes(self, ms: int, outcome: object) -> float:
        """When an answer of work that takes so long leaves."""

        def work() -> object:
            self.clock.advance(ms)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        if isinstance(outcome, Exception):
            with pytest.raises(type(outcome)):
                self.slots.answer(work)
        else:
            assert self.slots.answer(work) == outcome
        return self.clock.monotonic()


@pytest.mark.parametrize("outcome", ["cached", BudgetExhaustedError(1, 0)])
@pytest.mark.parametrize("ms", [0, 1, 50, 150, 210])
def test_fast_slow_and_refused_leave_at_the_same_moment(ms, outcome):
    house = House()
    assert house.takes(ms, outcome) == pytest.approx(1000.25, abs=0.003)
    assert house.overruns == []


def test_an_overrun_waits_a_whole_slot_and_raises_the_alarm():
    for ms in (220, 300, 450):
        house = House()
        left = house.takes(ms, "late")
        assert left == pytest.approx(round(left * 4) / 4, abs=0.003)
        assert left >= 1000.037 + ms / 1000 + 0.25
        assert len(house.overruns) == 1


def test_an_alarm_that_cannot_be_raised_changes_no_answer():
    house = House()

    def fails(_: float) -> None:
        raise DiskFullError("full")

    house.slots._overrun = fails
    assert house.takes(400, "late") > 1000.5
