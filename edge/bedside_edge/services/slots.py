"""Answer slots: when an answer leaves says nothing about what is in it.

Exact samplers take longer for larger noise, a stored answer is faster than a fresh one, and a
refusal faster than both. So every answer leaves at a boundary of a fixed grid, the first one after
a fixed compute budget, whatever it is. Work that overruns its boundary waits one whole slot more
and raises an alarm.
"""

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bedside_core.errors import BedsideError
from bedside_edge.ports import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRule:
    """When answers leave.

    Attributes:
        step_s: distance of the boundaries.
        budget_s: time that every answer is given, used or not.
    """

    step_s: float = 0.25
    budget_s: float = 0.2

    def leaves(self, began: float) -> float:
        """Return the boundary at which work that began then is answered."""
        return math.ceil((began + self.budget_s) / self.step_s) * self.step_s

    def late(self, boundary: float, done: float) -> float:
        """Return the boundary of work that missed its own: a whole slot after it was done."""
        return max(boundary, math.ceil(done / self.step_s) * self.step_s) + self.step_s


class Slots:
    """Runs work and hands its outcome out at a boundary. Safe to call from several threads."""

    def __init__(
        self,
        clock: Clock,
        rule: SlotRule | None = None,
        *,
        wait: Callable[[float], object] | None = None,
        overrun: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Take the clock.

        Args:
            clock: its monotonic seconds are the grid.
            rule: grid and budget.
            wait: sleeps for so many seconds.
            overrun: told by how many seconds a boundary was missed; raises the alarm.
        """
        self._clock, self.rule = clock, rule or SlotRule()
        self._wait = wait or threading.Event().wait
        self._overrun = overrun

    def answer(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises, at the boundary."""
        boundary = self.rule.leaves(self._clock.monotonic())
        try:
            return work()
        finally:
            self._hold(boundary)

    def _hold(self, boundary: float) -> None:
        done = self._clock.monotonic()
        if done > boundary:
            log.error("answer missed its slot", extra={"seconds": round(done - boundary, 3)})
            try:
                self._overrun(done - boundary)
            except BedsideError as error:  # the alarm must not change what is answered
                log.error("alarm not raised", extra={"code": error.code})  # noqa: TRY400
            boundary = self.rule.late(boundary, self._clock.monotonic())
        while (left := boundary - self._clock.monotonic()) > 0:
            self._wait(left)
