"""Witnesses, both ways: this box asks others to cosign its log, and cosigns the logs of others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bedside_core.evidence.checkpoint import Checkpoint
from bedside_core.evidence.note import VerifierKey
from bedside_core.evidence.witness import Seen, Verdict
from bedside_edge.ports.evidence import Event, LogSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a witness answered: status, media type and body of tlog-witness, over any transport."""

    status: int
    content_type: str
    body: bytes = field(repr=False)


class WitnessLink(Protocol):
    """The way to one witness. Calls block; nothing is tried twice."""

    def add_checkpoint(self, request: bytes) -> Answer:
        """Send an add-checkpoint request.

        Raises:
            DestinationUnavailableError: it does not answer, or not in time.
        """
        ...

    def last_checkpoint(self, origin: str) -> Answer:
        """Ask for what it cosigned last of a log: 200 with a note, 404 for nothing.

        Raises:
            DestinationUnavailableError: it does not answer, or not in time.
        """
        ...


class WitnessKeys(Protocol):
    """The private keys this box cosigns other logs with."""

    def signers(self, name: str) -> tuple[LogSigner, ...]:
        """Return the keys under the name of the witness: types 0x04 and 0x06."""
        ...


# --- this box as a witness -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A log this box may cosign.

    Attributes:
        origin: its name.
        keys: its keys; every one must have signed a checkpoint.
        added_by: who enrolled it.
        added_at: when, ms.
        seen: what was cosigned last; None before the first time.
    """

    origin: str
    keys: tuple[VerifierKey, ...]
    added_by: str
    added_at: int
    seen: Seen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A checkpoint that a log signed and that speaks against it; kept as proof."""

    origin: str
    why: str
    size: int
    last: int
    note: bytes = field(repr=False)
    at: int


Judge = Callable[[Callable[[str], Sequence[VerifierKey]], Callable[[str], Seen | None]], Verdict]


class WitnessStore(Protocol):
    """What this box knows of other logs; every change and its evidence are one transaction."""

    def watch(self, origin: str, keys: Sequence[VerifierKey], actor: str, at: int) -> None:
        """Enrol a log; the same log with the same keys again changes nothing.

        Raises:
            WrongStateError: it is enrolled with other keys. A log has one set for ever: one that
                goes on under new keys has a new name.
        """
        ...

    def watched(self) -> list[Watched]:
        """Return every enrolled log, by name."""
        ...

    def decide(self, judge: Judge, at: int) -> tuple[Verdict, bool]:
        """Judge a request and persist what follows from it, in one transaction.

        Returns:
            The verdict, durable; and whether it is the first proof against that log.
        """
        ...

    def last_note(self, origin_digest: str) -> bytes | None:
        """Return the note last cosigned, by the SHA-256 of the origin in lower hex."""
        ...

    def refused(self) -> list[Refused]:
        """Return the checkpoints kept as proof, newest first."""
        ...


# --- this box as a log -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """This log is not the one a witness saw.

    Attributes:
        found_at: when, ms.
        witness: who showed it.
        size: size of this log when it was found.
        root: its root then.
        witnessed: the checkpoint that this log's own keys signed and that does not fit.
        note: the same, signed.
        incident: id of the incident opened for it; empty until there is one.
    """

    found_at: int
    witness: str
    size: int
    root: bytes
    witnessed: Checkpoint
    note: bytes = field(repr=False)
    incident: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How this log stands with one witness. Times in ms; 0 for never.

    Attributes:
        name: the witness's name in the settings.
        size: size it cosigned last.
        cosigned_at: when.
        tried_at: when it was asked last.
        failures: tries that failed since it answered last.
        said: how the last try ended: a word of ours.
    """

    name: str
    size: int = 0
    cosigned_at: int = 0
    tried_at: int = 0
    failures: int = 0
    said: str = ""


class WitnessedLog(Protocol):
    """The part of the evidence log that deals with its witnesses."""

    @property
    def origin(self) -> str:
        """Name of the log."""
        ...

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The public halves of its keys."""
        ...

    @property
    def locked(self) -> bool:
        """Whether a gap was found and the log does not go on under a new name yet."""
        ...

    def outgoing_checkpoint(self) -> bytes:
        """Pad the log to its public schedule and return a new checkpoint; EvidenceGapError."""
        ...

    def last_outgoing(self) -> tuple[int, bytes] | None:
        """Return size and note of the checkpoint that went out last; None before any."""
        ...

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the hashes that show that the log at `new` begins with the log at `old`."""
        ...

    def root_at(self, size: int) -> bytes | None:
        """Return the root the log had at a size; None when it never was that large."""
        ...

    def size(self) -> int:
        """Return the size of the log under its name in force."""
        ...

    def cosigned(self, size: int, lines: Sequence[bytes]) -> None:
        """Keep cosignature lines for the checkpoint of `size`."""
        ...

    def cosigners(self, size: int) -> list[tuple[str, bytes]]:
        """Return name and key id of every cosignature kept for a size."""
        ...

    def cosignatures(self, size: int) -> bytes:
        """Return the cosignature lines kept for a size."""
        ...

    def charged_since(self, size: int) -> bool:
        """Whether the privacy ledger charged anything from `size` on."""
        ...

    def stirred_since(self, size: int) -> bool:
        """Whether an incident, update, policy change, seal or release was logged from `size` on."""
        ...

    def gap(self) -> Gap | None:
        """Return the gap that locks this log."""
        ...

    def lock(self, gap: Gap) -> None:
        """Stop signing; durable with its entry when it returns. A locked log stays as it is."""
        ...

    def gap_told(self, incident: str) -> None:
        """Keep the id of the incident that was opened for the gap."""
        ...

    def standings(self) -> dict[str, Standing]:
        """Return how the log stands with each witness that was ever asked."""
        ...

    def stands(self, standing: Standing) -> None:
        """Keep how the log stands with a witness."""
        ...

    def tell(self, event: Event) -> None:
        """Append an entry; durable when it returns."""
        ...
