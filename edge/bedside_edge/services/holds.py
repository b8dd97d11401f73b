"""Legal hold: stop processing a study and keep it, with a reason and a day to look again."""

from bedside_edge.ports import Clock
from bedside_edge.ports.erasure import Hold, HoldStore


class HoldService:
    """Holds with a clock; who may put and release them is the caller's question."""

    def __init__(self, store: HoldStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def hold(self, study_id: str, *, reason: str, actor: str, review_at: int) -> Hold:
        """Stop processing a study and keep it: neither request nor retention erases it."""
        return self._store.hold(
            study_id, reason=reason, actor=actor, at=self._clock.now(), review_at=review_at
        )

    def release(self, hold_id: str, *, actor: str) -> Hold:
        """End a hold; NotFoundError, WrongStateError."""
        return self._store.release(hold_id, actor=actor, at=self._clock.now())

    def holds(self, *, study_id: str = "", released: bool = False) -> list[Hold]:
        """Return holds, oldest first; released ones only if asked."""
        return self._store.holds(study_id=study_id, released=released)

    def remind(self) -> int:
        """Raise an alarm, once a hold, where the day to look again has come; return how many."""
        return self._store.remind(self._clock.now())

    def overdue(self) -> list[Hold]:
        """Return holds whose day to look again has come."""
        now = self._clock.now()
        return [hold for hold in self._store.holds() if hold.review_at <= now]
