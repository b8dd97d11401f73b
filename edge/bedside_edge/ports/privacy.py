"""What releases need from the outside: snapshots of studies, and a ledger that never forgets.

The rules are in `bedside_core.ledger` and `bedside_core.release`. A store only keeps them: it runs
one decision and appends its entry inside one write transaction with the evidence entry, and it is
durable before it returns. The answer is computed between `reserve` and `finish`, from a frozen
snapshot, outside any transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bedside_core.ledger.decide import Ask
from bedside_core.ledger.entries import Entry
from bedside_core.ledger.state import Ledger
from bedside_core.statistics.rows import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Arrivals to put into a snapshot: from `starts` up to, not including, `ends`."""

    dataset: str
    epoch: int
    starts: int
    ends: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A stored answer: the bytes that are sent, to everyone who asks, every time.

    Attributes:
        document: canonical JSON of the release.
        signature: envelope of the device key over it.
        index: of the evidence entry that binds the answer's digest.
    """

    fingerprint: str
    night: int
    document: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    index: int


class SnapshotStore(Protocol):
    """Frozen study rows. A snapshot never changes and has a random label."""

    def freeze(self, window: Window) -> str:
        """Freeze the studies of a window, patients who withdrew left out; return the label."""
        ...

    def load(self, label: str) -> Snapshot | None:
        """Return the snapshot; None when it is gone (its reservation is then voided)."""
        ...


class LedgerStore(Protocol):
    """The durable privacy ledger; one writer, every call one transaction."""

    def ledger(self) -> Ledger:
        """Return the state that follows from all entries, checked when the box starts."""
        ...

    def reserve(self, ask: Ask) -> bool:
        """Charge a release; False when it is charged already. Durable when it returns.

        Raises what `bedside_core.ledger.decide.reserve` raises; then nothing was written, except a
        clock alarm.
        """
        ...

    def finish(
        self,
        fingerprint: str,
        night: int,
        document: bytes,
        signature: bytes,
        used: Mapping[str, int],
    ) -> Release:
        """Store an answer and return what is stored: another worker's if that one was first.

        `used` are the patients' used-up studies of the epoch; they are written in the same
        transaction, because a counter that is rolled back alone breaks the bound.
        """
        ...

    def replay(self, fingerprint: str, night: int = 0) -> Release | None:
        """Return the stored answer; None when there is none. Costs nothing."""
        ...

    def unfinished(self) -> tuple[str, ...]:
        """Return fingerprints reserved and not final: finished, or voided, when the box starts."""
        ...

    def used(self, dataset: str, epoch: int) -> Mapping[str, int]:
        """Return each patient's used-up studies of an epoch."""
        ...

    def append(self, entry: Entry) -> int:
        """Append an entry that is no reservation and no answer; return its number, from 1."""
        ...
