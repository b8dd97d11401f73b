"""Looks for reports of restore drills, and for their absence."""

import logging
from typing import Final, Protocol

from bedside_edge.ports import Clock

log = logging.getLogger(__name__)

_NAP_S: Final = 60.0


class DrillReports(Protocol):
    """What the store offers."""

    def take(self) -> int:
        """Tell the evidence log of the reports that wait; return how many."""
        ...

    def overdue(self, now: int, days: int) -> bool:
        """Raise the alarm, once in `days`, when no drill passed for so long; tell whether so."""
        ...


class DrillWatch:
    """Steps for `Loop`."""

    def __init__(self, reports: DrillReports, clock: Clock, days: int) -> None:
        """Put it together.

        Args:
            reports: the store.
            clock: what time it is.
            days: at most so many between two drills that passed; 0 never alarms.
        """
        self._reports, self._clock, self._days = reports, clock, days

    def step(self) -> bool:
        """Look once; never busy."""
        if taken := self._reports.take():
            log.info("restore drills recorded", extra={"count": taken})
        if self._days and self._reports.overdue(self._clock.now(), self._days):
            log.error("restore drill overdue", extra={"code": "drill-overdue"})
        return False

    def nap(self) -> float:
        """Return the pause to the next look."""
        return _NAP_S
