"""The evidence log of a box, as the stores and the services see it.

Whatever changes state hands an `Event` to `Record` inside its own write function, so that the
business row and the log's entry are rows of one transaction: neither exists without the other.
Times are milliseconds since 1970, UTC, unless the name says seconds.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bedside_core.evidence.entry import Entry, Kind
from bedside_core.evidence.note import VerifierKey
from bedside_core.evidence.tiles import Tile
from bedside_core.signatures import Sign

BOX = "service:box"  # the actor of what the box does by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened and shall be provable.

    Attributes:
        kind: what it is about.
        actor: minted id, `[a-z][a-z0-9._:-]{0,63}`: `person:...`, `token:...`, `service:worker`.
        study_id: ours; finds the patient the entry is about. It never enters the log.
        subject_id: ours, for what is about a patient and no one study. It never enters the log.
        payload: what the entry commits to (canonical JSON, say), kept outside the log under the
            study's or the patient's key and gone with it. May hold our ids; None commits to
            nothing.
        refs: stands in the log for ever and in plain: indices, digests of 64 lower hex digits, or
            minted names that start with a letter (`model`, `policy`, `code`). Never an id of a
            study, result or instance: it would link two entries about one patient after erasure.
    """

    kind: Kind
    actor: str
    study_id: str = ""
    subject_id: str = ""
    payload: bytes | None = field(default=None, repr=False)
    refs: Mapping[str, int | str] = field(default_factory=dict)


# Append the event's entry inside the caller's transaction; return its index. Raises
# InvalidEntryError for an actor or a ref that cannot stand in an entry, NotFoundError for a study
# or subject without a row: let it pass, so that the business row is taken back as well.
Record = Callable[[sqlite3.Connection, Event], int]


def no_record(connection: sqlite3.Connection, event: Event) -> int:
    """Record nothing: for tests of a single store, never for a box."""
    return -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An entry with what the box still keeps about it outside the log.

    Attributes:
        index: its place in the log.
        data: the entry's bytes.
        entry: what they say.
        study_id: of which study, if the box still knows; else empty.
        subject_id: of which patient, if the box still knows; else empty.
        salt: 32 bytes, or None when there is no payload or it was erased.
        payload: what the entry commits to, or None.
    """

    index: int
    data: bytes
    entry: Entry
    study_id: str = ""
    subject_id: str = ""
    salt: bytes | None = field(default=None, repr=False)
    payload: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSigner:
    """One of the log's own keys: the public half, and a function that signs."""

    key: VerifierKey
    sign: Sign = field(repr=False)


class LogKeys(Protocol):
    """The private keys of the log: Ed25519 and ML-DSA-44; they never leave the key folder."""

    def signers(self, origin: str) -> tuple[LogSigner, ...]:
        """Return the log's keys under the name of its origin."""
        ...


class EvidenceLog(Protocol):
    """The append-only log of this box."""

    @property
    def origin(self) -> str:
        """Name of the log: `<consortium>/<site>/<device>`."""
        ...

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The public halves of the keys that sign its checkpoints."""
        ...

    @property
    def locked(self) -> bool:
        """Whether a witness showed a gap: nothing may be signed or released (docs/witness.md)."""
        ...

    def record(self, connection: sqlite3.Connection, event: Event) -> int:
        """Append inside the caller's transaction; see `Record`."""
        ...

    def append(self, event: Event) -> int:
        """Append an event that changes no other row; durable when it returns.

        Raises:
            InvalidEntryError: an actor or ref that cannot stand in an entry.
            DiskFullError, StoreUnavailableError: nothing was written.
        """
        ...

    def size(self) -> int:
        """Return the number of entries."""
        ...

    def entry(self, index: int) -> Kept:
        """Return one entry; NotFoundError."""
        ...

    def entries(self, start: int, end: int) -> list[Kept]:
        """Return entries [start, end), fewer at the end of the log, without their payloads."""
        ...

    def newest(
        self, *, limit: int = 100, before: int | None = None, kinds: Iterable[Kind] = ()
    ) -> list[Kept]:
        """Return entries newest first, without their payloads."""
        ...

    def between(
        self, since: int, until: int, *, limit: int, after: int = -1, kinds: Iterable[Kind] = ()
    ) -> list[Kept]:
        """Return entries of a time range (seconds, `until` excluded), oldest first.

        Args:
            since: seconds since 1970.
            until: seconds since 1970.
            limit: at most so many.
            after: only entries with a larger index, to go on where a page ended.
            kinds: only these; all when empty.
        """
        ...

    def about(self, *, study_id: str = "", subject_id: str = "") -> list[int]:
        """Return the indices of what is known to be about a study or a patient."""
        ...

    def checkpoint(self) -> bytes:
        """Return the signed checkpoint of the present size; durable before it is returned.

        Asked again at the same size it returns the same bytes.

        Raises:
            NotReadyError: the log was opened without its keys.
            EvidenceGapError: the log is locked.
        """
        ...

    def outgoing_checkpoint(self) -> bytes:
        """Pad the log up to its public schedule, then return the checkpoint.

        Only this one may leave the hospital: the size says how often the schedule ran, not how
        much was done.
        """
        ...

    def latest_checkpoint(self) -> bytes | None:
        """Return the newest signed checkpoint with the cosignatures it got; None before any."""
        ...

    def proof(self, index: int) -> bytes:
        """Return the proof file of an entry under the newest checkpoint that covers it.

        Signs a checkpoint when the entry is newer than the last one.

        Raises:
            NotFoundError: no such entry.
            NotReadyError: a checkpoint is needed and the log was opened without its keys.
        """
        ...

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the hashes that show that the log at `new` begins with the log at `old`.

        Raises:
            InvalidProofError: not 0 <= old <= new <= size.
        """
        ...

    def tile(self, tile: Tile) -> bytes:
        """Return a tile or bundle of the log; NotFoundError when the log is not that large."""
        ...

    def cosigned(self, size: int, lines: Sequence[bytes]) -> None:
        """Keep the cosignature lines a witness returned for the checkpoint of `size`.

        Raises:
            NotFoundError: no checkpoint of that size.
            InvalidNoteError: a line that is no signature line.
        """
        ...

    def forget(
        self, connection: sqlite3.Connection, *, study_id: str = "", subject_id: str = ""
    ) -> int:
        """Destroy payloads, salts and the local index of a study or patient; return how many.

        Runs inside the caller's transaction, together with its `erasure` entry and the
        destruction of the keys. The entries stay and say nothing more.
        """
        ...
