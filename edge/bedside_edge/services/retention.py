"""The sweep: looks at the disk and at the studies, and erases those that may and must go.

A batch is one erasure with one entry of the evidence log. What changed between the look and the
erasure (a late image and its result, a hold) keeps the whole batch; the next sweep looks again.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bedside_core.errors import BedsideError, LegalHoldError, NotFoundError, WrongStateError
from bedside_core.retention import RetentionRules, Verdict, batches, decide, room_needed
from bedside_edge.ports import Clock
from bedside_edge.ports.retention import RetentionStore, Space
from bedside_edge.services.erasure import ErasureService

log = logging.getLogger(__name__)

ACTOR: Final = "service:retention"
_PAGE: Final = 1000
_BATCH: Final = 20  # studies whose rows go in one transaction: arrivals wait behind it
Permit = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What a sweep would do now."""

    used: int  # bytes
    total: int
    needed: int  # bytes to be freed
    verdicts: tuple[Verdict, ...]  # of every study looked at, oldest first

    @property
    def freed(self) -> int:
        """Bytes that go."""
        return sum(verdict.study.size for verdict in self.verdicts if verdict.goes)


class RetentionService:
    """Plans and runs sweeps."""

    def __init__(
        self,
        store: RetentionStore,
        erasure: ErasureService,
        space: Space,
        clock: Clock,
        rules: RetentionRules,
        *,
        permit: Permit = lambda _: True,
        remind: Callable[[], int] = lambda: 0,
        every_s: float = 900.0,
    ) -> None:
        """Put the service over its ports.

        Args:
            store: studies.
            erasure: what deletes.
            space: the disk.
            clock: ages, and when the next sweep is due.
            rules: in force.
            permit: asked for each study before it goes; False keeps it.
            remind: raises an alarm where a legal hold is to be looked at again.
            every_s: seconds between two sweeps of the box's own.
        """
        self._store, self._erasure, self._space = store, erasure, space
        self._clock, self.rules = clock, rules
        self._permit, self._remind, self._every_s = permit, remind, every_s
        self._due = clock.monotonic() + every_s
        self._one_at_a_time = threading.Lock()  # the box's own sweep, and one asked for

    def plan(self, *, whole: bool = True) -> RetentionPlan:
        """Say what a sweep would do, and why what stays stays; nothing is deleted.

        Args:
            whole: look at every study, also when no more have to go.
        """
        used, total = self._space.space()
        needed = room_needed(used, total, self.rules)
        found, after = list[Verdict](), (0, "")
        left = needed
        while whole or left > 0 or self.rules.at_most_days:
            if not (page := self._store.facts(after=after, limit=_PAGE)):
                break
            verdicts = decide(page, self.rules, self._clock.now(), left)
            found += verdicts
            left -= sum(verdict.study.size for verdict in verdicts if verdict.goes)
            after = self._store.cursor(page[-1].study_id)
        return RetentionPlan(used=used, total=total, needed=needed, verdicts=tuple(found))

    def run(self) -> int:
        """Erase what may and must go; return how many studies went.

        Raises:
            DiskFullError, StoreUnavailableError: it goes on with the next sweep.
        """
        with self._one_at_a_time:
            found = batches(self.plan(whole=False).verdicts, _BATCH)
            gone = sum(self._erase(batch) for batch in found)
        if gone:
            self._erasure.compact()
            log.info("retention sweep", extra={"count": gone})
        return gone

    def _erase(self, batch: Sequence[str]) -> int:
        """Erase a batch; return how many studies went: all that may, or none if one changed."""
        try:
            going = [study for study in batch if self._permit(study)]
            if not going:
                return 0
            plan = self._erasure.plan_batch(going)
            # The sweep's look is minutes old by now. What changed since is seen here, and what
            # changes after the plan was made is seen by the store.
            if not self._still_go(going):
                return 0
            self._erasure.erase(plan, reason="retention", actor=ACTOR)
        except (WrongStateError, NotFoundError, LegalHoldError):
            return 0  # the next sweep looks again
        return len(going)

    def _still_go(self, study_ids: Sequence[str]) -> bool:
        found = self._store.facts_of(study_ids)
        needed = 1 + sum(study.size for study in found)  # room was found to be needed
        verdicts = decide(found, self.rules, self._clock.now(), needed)
        return len(found) == len(study_ids) and all(verdict.goes for verdict in verdicts)

    # --- for the box's loop ------------------------------------------------------------------

    def step(self) -> bool:
        """Sweep when it is time; False when there is nothing to do now."""
        if self._clock.monotonic() < self._due:
            return False
        self._due = self._clock.monotonic() + self._every_s
        self._erasure.finish()  # of an erasure that a reader held up
        try:
            if overdue := self._remind():
                log.warning("legal holds to be looked at again", extra={"count": overdue})
            self.run()
        except BedsideError as error:
            log.warning("retention sweep failed", extra={"code": error.code})
        return False

    def nap(self) -> float:
        """Return the seconds to the next sweep."""
        return max(0.1, self._due - self._clock.monotonic())
