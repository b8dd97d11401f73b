"""What releases need from the outside: snapshots of studies, and a ledger that never forgets.

The rules are in `bedside_core.ledger` and `bedside_core.release`. A store only keeps them: it runs
one decision and appends its entry inside one write transaction with the evidence entry, and it is
durable before it returns. The answer is computed between `reserve` and `finish`, from a frozen
snapshot, outside any transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bedside_core.ledger.decide import Ask
from bedside_core.ledger.entries import Entry
from bedside_core.ledger.state import Ledger
from bedside_core.release import ReleaseRequest
from bedside_core.statistics.rows import Snapshot

BOX_ACTOR = "service:privacy"  # of what the ledger does by itself


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
        signature: envelope of the device key over it (DSSE, JSON; holds the document too).
        index: of the evidence entry that binds the answer's digest.
    """

    fingerprint: str
    night: int
    document: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A charged release, as much as is needed to finish or list it.

    Attributes:
        state: reserved, final or void.
        seq: ledger entries up to and with the reservation.
        answered: nights that have an answer, ascending.
    """

    fingerprint: str
    state: str
    cost: int
    seq: int
    at: int
    requester: str
    request: ReleaseRequest
    answered: tuple[int, ...]


class SnapshotStore(Protocol):
    """Frozen study rows. A snapshot never changes and has a random label."""

    def freeze(self, window: Window) -> str:
        """Freeze the studies of a window, patients who withdrew left out; return the label."""
        ...

    def load(self, label: str) -> Snapshot | None:
        """Return the snapshot; None when it is gone (its reservation is then voided)."""
        ...

    def window(self, label: str) -> Window | None:
        """Return what a snapshot covers; None when it is gone."""
        ...

    def labels(self) -> list[tuple[str, Window, int]]:
        """Return every snapshot with its window and when it was frozen, newest first."""
        ...

    def drop(self, label: str) -> None:
        """Destroy a snapshot's content."""
        ...


class LedgerStore(Protocol):
    """The durable privacy ledger; one writer at a time, every call one transaction."""

    def ledger(self) -> Ledger:
        """Return the state that follows from all entries."""
        ...

    def verify(self) -> int:
        """Fold every entry anew and compare with scopes, answers and evidence; return their number.

        Raises:
            EvidenceDamagedError: something was changed or is missing.
        """
        ...

    def locked(self) -> bool:
        """Whether the ledger is behind what was seen of it, or its evidence log is."""
        ...

    def reserve(self, ask: Ask, request: ReleaseRequest) -> bool:
        """Charge a release; False when it is charged already. Durable when it returns.

        Raises what `bedside_core.ledger.decide.reserve` and `check_position` raise; then nothing
        was written, except a clock alarm.
        """
        ...

    def finish(
        self,
        fingerprint: str,
        night: int,
        document: bytes,
        signature: bytes,
        used: Mapping[str, int],
        exact: Sequence[int] = (),
    ) -> Release:
        """Store an answer and return what is stored: another worker's if that one was first.

        `used` are the patients' used-up studies of a schedule; they are written in the same
        transaction, because a counter that is rolled back alone breaks the bound. `exact` is the
        night's vector of a running total, which later nights need; it is kept encrypted.
        """
        ...

    def replay(self, fingerprint: str, night: int = 0) -> Release | None:
        """Return the stored answer; None when there is none. Costs nothing."""
        ...

    def held(self, fingerprint: str) -> Held | None:
        """Return a charged release."""
        ...

    def releases(self, *, limit: int = 100, before: int | None = None) -> list[Held]:
        """Return charged releases, newest first; `before` is a `seq`."""
        ...

    def unfinished(self) -> tuple[str, ...]:
        """Return fingerprints reserved and not final: finished, or voided, when the box starts."""
        ...

    def used(self, fingerprint: str) -> Mapping[str, int]:
        """Return each patient's studies that a running schedule has used up."""
        ...

    def carried(self, fingerprint: str) -> list[tuple[int, ...]]:
        """Return the exact vectors of a running total's nights so far, in order."""
        ...

    def entries(self, start: int, end: int) -> list[tuple[int, Entry, int]]:
        """Return (number from 1, entry, evidence index) of entries [start, end)."""
        ...

    def append(self, entry: Entry, actor: str = BOX_ACTOR) -> int:
        """Append an entry that is no reservation and no answer; return its number, from 1."""
        ...

    def keep_policy(self, entry: Entry, document: bytes, envelope: bytes, actor: str) -> int:
        """Append a `PolicySet` with the document it stands for; return its number."""
        ...

    def policy_document(self, version: str) -> bytes | None:
        """Return the text of a policy that came into force."""
        ...

    def unlock(self, dataset: str, actor: str, second: str) -> None:
        """Write off what lost entries may have spent (`decide.write_off`); believe the rest.

        `dataset` is empty while no policy is in force: then nothing can be written off.
        """
        ...

    def burned_until(self) -> int:
        """Return the time of the last unlocking, 0 for none; what arrived before stays unasked."""
        ...
