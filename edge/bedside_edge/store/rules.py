"""When a study counts as complete, which job runs next, when a failed one runs again.

Plain values and integers: no clock, no row. The SQLite store and the in-memory simulator of the
tests follow the same rules from here.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bedside_core.errors import InvalidConfigError
from bedside_edge.ports import Header, Priority, RandomBytes

CREDIT_MS: Final = {
    Priority.STAT: 30 * 60_000,
    Priority.URGENT: 5 * 60_000,
    Priority.ROUTINE: 0,
}
# (0040,1003) Requested Procedure Priority, PS3.3 C.4.11: STAT, HIGH, ROUTINE, MEDIUM, LOW
_REQUESTED: Final = {"STAT": Priority.STAT, "HIGH": Priority.URGENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRules:
    """How long a study may stay quiet, and how urgent its sender is."""

    quiet_ms: int = 5_000
    quiet_ms_by_source: Mapping[str, int] = field(default_factory=dict)
    max_wait_ms: int = 60_000
    priority_by_source: Mapping[str, Priority] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.quiet_ms, self.max_wait_ms, *self.quiet_ms_by_source.values(), 0) < 0:
            raise InvalidConfigError("completion times must not be negative")

    def due(self, source: str, now: int, created: int) -> int:
        """Return when a job that just got an instance at `now` (ms) becomes ready."""
        quiet = self.quiet_ms_by_source.get(source, self.quiet_ms)
        return max(now, min(now + quiet, created + self.max_wait_ms))

    def priority(self, header: Header, source: str) -> Priority:
        """Return the more urgent of what the header asks and what its sender is given."""
        asked = _REQUESTED.get(header.requested_priority.strip().upper(), Priority.ROUTINE)
        return min(asked, self.priority_by_source.get(source, Priority.ROUTINE))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRules:
    """How often a job is tried and how long it waits in between (milliseconds)."""

    attempts: int = 5
    backoff_ms: tuple[int, ...] = (1_000, 2_000, 4_000, 8_000)
    interruptions: int = 10

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.interruptions < 1 or not self.backoff_ms:
            raise InvalidConfigError("a job needs at least one attempt and one back-off time")
        if min(self.backoff_ms) < 0:
            raise InvalidConfigError("back-off times must not be negative")

    def wait(self, failures: int) -> int:
        """Return the milliseconds to wait after the `failures`-th failure (from 1)."""
        return self.backoff_ms[min(failures, len(self.backoff_ms)) - 1]

    def wait_interrupted(self, interruptions: int) -> int:
        """Return the milliseconds to wait after the process died for the n-th time in a job.

        The first two restarts cost nothing: they are power cuts. After that the job itself is
        suspected, and others run first, so that one study cannot keep the box from serving.
        """
        return 0 if interruptions < 3 else self.wait(interruptions - 2)


def score(created: int, priority: Priority) -> int:
    """Return the place in the queue: smallest first, so waiting earns what urgency gives."""
    return created - CREDIT_MS[priority]


def new_id(random: RandomBytes) -> str:
    """Return a random identifier: 26 characters, 128 bits, safe in URLs, logs and file names."""
    return base64.b32encode(random(16)).decode().rstrip("=").lower()
