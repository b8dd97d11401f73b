"""Acceptance on this very unit: a verdict of before holds for its tuple, else it is measured anew.

Whatever a profile's file says of itself, a box serves only what was accepted here.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bedside_core.errors import AcceptanceFailedError, RollbackRefusedError
from bedside_core.hardware.acceptance import (
    AcceptanceRecord,
    CaseRuns,
    Subject,
    Surroundings,
    judge,
)
from bedside_core.hardware.board import Board
from bedside_core.hardware.profile import LoadedProfile
from bedside_edge.ports import Clock
from bedside_edge.ports.hardware import AcceptanceStore

log = logging.getLogger(__name__)

MEASURED_ON_SITE = "measured-on-site"
Measured = tuple[Sequence[CaseRuns], Surroundings]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A compiled engine that wants to serve.

    Attributes:
        profile: the profile that named it.
        board: what the probe found.
        subject: what it is, as read back.
        tolerance: the package's own tolerance of a logit.
        measure: runs the cases; takes seconds.
    """

    profile: LoadedProfile
    board: Board
    subject: Subject
    tolerance: float
    measure: Callable[[], Measured] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What serves here, as people and programs are told.

    Attributes:
        profile: in force.
        board: what the probe found at start.
        record: the verdict it serves under.
        passed_over: every other profile and why it was not taken.
        refused: engines of the profile that were refused, and why.
    """

    profile: LoadedProfile
    board: Board
    record: AcceptanceRecord
    passed_over: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def level(self) -> str:
        """Return how far the figures are to be believed here."""
        return MEASURED_ON_SITE if self.record.accepted else self.profile.profile.evidence


class HardwareService:
    """Accepts engines; synchronous, its caller waits while cases run."""

    def __init__(self, store: AcceptanceStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.serving: Serving | None = None

    def ensure(self, candidate: Candidate) -> AcceptanceRecord:
        """Return the verdict under which the engine may serve; measure when there is none.

        Raises:
            RollbackRefusedError: a newer revision of the profile was accepted here before.
            AcceptanceFailedError: it does not keep what the profile promises; names each.
        """
        about = candidate.subject
        if about.profile_seq < (floor := self._store.floor(about.profile_id)):
            raise RollbackRefusedError(
                f"profile {candidate.profile.label} is older than revision {floor}, accepted here"
            )
        known = self._store.find(about.key)
        if known is not None and known.accepted:
            return known
        return self.run(candidate)

    def run(self, candidate: Candidate) -> AcceptanceRecord:
        """Measure, keep the verdict and return it; AcceptanceFailedError when it is a refusal."""
        record = self.keep(self.try_out(candidate))
        about = record.subject
        fields = {"engine": about.engine, "precision": about.precision}
        if not record.accepted:
            log.warning("engine not accepted", extra=fields)
            told = "; ".join(record.failures)
            raise AcceptanceFailedError(f"{about.engine} {about.precision} on this unit: {told}")
        log.info("engine accepted", extra=fields)
        return record

    def keep(self, record: AcceptanceRecord) -> AcceptanceRecord:
        """Keep a verdict with its evidence entry, whatever it says, and return it."""
        self._store.add(record)
        return record

    def try_out(self, candidate: Candidate) -> AcceptanceRecord:
        """Measure and return the verdict without keeping it."""
        runs, surroundings = candidate.measure()
        return judge(
            candidate.profile,
            candidate.subject,
            runs,
            surroundings,
            at=self._clock.now(),
            probe_digest=candidate.board.digest,
            tolerance=candidate.tolerance,
        )

    def verdicts(self, limit: int = 50) -> list[AcceptanceRecord]:
        """Return the verdicts of this unit, newest first."""
        return self._store.newest(limit)
