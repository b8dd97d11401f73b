"""What changed on the box, in the order it was committed: for pages that follow along."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of state; ids of ours and states, never a name.

    Attributes:
        seq: place in the order; never given twice.
        kind: `job`, `result`, `review`, `delivery` or `night`.
        id: of the job; of the result for the other kinds.
        state: the job's or delivery's state, `stored`, or what the reader did.
        reason: code of a refusal or failure, or empty.
        at: milliseconds since 1970, UTC.
    """

    seq: int
    kind: str
    id: str
    job_id: str
    study_id: str
    state: str
    reason: str
    at: int


class ChangeFeed(Protocol):
    """The newest changes; they are kept over a restart, and only the newest 10,000."""

    def newest(self) -> Change | None:
        """Return the newest change; None before the first."""
        ...

    def known(self, seq: int, at: int) -> bool:
        """Tell whether that very change is still kept: only then nothing behind it is missing."""
        ...

    def after(self, seq: int, *, job_id: str = "", limit: int = 100) -> list[Change]:
        """Return what followed, oldest first; of one job only if asked."""
        ...
