"""What a round of the consortium needs from the box: its cases, its memory, its agreements.

The night (`services/sync.py`) decides who is charged; a `Material` says who could take part and
adds up those who were charged. There is one for each task name a manifest may carry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_sync.agent import Diary
from bedside_sync.journal import Journal
from bedside_sync.secagg.manifest import Manifest


class Material(Protocol):
    """One task on this box's own studies. Synchronous; called from the night's thread only."""

    def patients(self, manifest: Manifest, settings: bytes) -> Sequence[str]:
        """Return the subject ids that could take part, in order of arrival.

        Reads no pixel and charges nothing. The policy is asked here for each patient
        (`Use.TRAIN` where cases train); who may not take part is left out.

        Raises:
            InvalidInputError: the settings are not ones of this task, or do not fit the manifest
                (segments, bounds, ring). The round is then refused on this box.
        """
        ...

    def vector(
        self, manifest: Manifest, settings: bytes, patients: Sequence[str]
    ) -> NDArray[np.int64]:
        """Return the exact bounded sum over exactly these patients, without noise.

        Returns:
            (manifest.length,); no patient moves it by more than `sensitivity2` (squared L2) in
            all or `largest` in one word. A patient who was erased since counts as zero.

        Raises:
            InvalidInputError: as above.
        """
        ...


Materials = Mapping[str, Material]  # by `manifest.task`


# --- what the box keeps --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """This box in its consortium, or on the way there.

    Attributes:
        identity: Ed25519 seed, 32 bytes.
        transport: EC P-256 private key (PEM) of the certificate in the welcome.
        pending: transport key of a request that is not answered yet; empty for none.
        request: the request file that waits for an answer; empty for none.
        welcome: canonical JSON of a `bedside_sync.joining.Welcome`; empty until approved.
    """

    box: str
    organisation: str
    helper: bool
    identity: bytes = field(repr=False)
    transport: bytes = field(repr=False)
    pending: bytes = field(default=b"", repr=False)
    request: bytes = b""
    welcome: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What one patient may pay for rounds, in units of 1e-12 rho."""

    lifetime: int
    day: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a round costs each patient, and under which assumption."""

    round: str
    cost: int  # units of 1e-12 rho
    honest: int  # boxes assumed to add their noise
    most: int  # patients of this box at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """An agreement of this hospital with its consortium; times in ms.

    Attributes:
        purposes: of `bedside_sync.secagg.manifest.Purpose`.
        document: SHA-256 of the signed text, which lies with the hospital.
        ended_at: when somebody ended it early; 0 otherwise.
    """

    agreement_id: str
    title: str
    purposes: tuple[str, ...]
    same_region: bool
    document: bytes
    starts: int
    ends: int
    actor: str
    at: int
    ended_at: int = 0

    def holds(self, purpose: str, now: int) -> bool:
        """Whether it covers a purpose now."""
        return purpose in self.purposes and self.starts <= now < self.ends and not self.ended_at


@dataclass(frozen=True, slots=True, kw_only=True)
class NightEvent:
    """One line of a night's timeline; times in ms."""

    seq: int
    night: int
    step: str
    round: str
    task: str
    started: int
    ended: int
    outcome: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """A round that was charged here."""

    round: str
    cost: int
    at: int
    patients: int
    void: bool


class SyncStore(Diary, Protocol):
    """Everything a box remembers of its consortium; every write is durable with its evidence."""

    @property
    def facts(self) -> Journal:
        """Facts of the box's own part in rounds."""
        ...

    @property
    def help_facts(self) -> Journal:
        """Facts of its part as a helper."""
        ...

    def member(self) -> Member | None:
        """Return the membership; None before keys were made."""
        ...

    def keep_member(self, member: Member, actor: str, what: str) -> None:
        """Keep the membership; `what` says in the evidence what changed."""
        ...

    def note(self, actor: str, what: str, round_name: str) -> None:
        """Leave evidence that somebody decided something about a round."""
        ...

    def set_back(self) -> bool:
        """Whether the database is older than what was seen of it: a restored backup."""
        ...

    def recover(self, actor: str, second: str, caps: Caps) -> None:
        """Believe the database as it is; patients who came before now take part no more.

        Who comes later owes what rounds that the backup does not know can have cost under `caps`.
        """
        ...

    def charge(self, price: Price, subjects: Sequence[str], caps: Caps) -> int:
        """Charge a round to those of the patients who have room, in order; return how many.

        Charged before, it changes nothing. Patients without an id of their own are left out:
        several of them may be one person. SealedError, LedgerLockedError: nothing is charged.
        WrongStateError: the round was charged at another cost, or its charge became void.
        """
        ...

    def charged(self, round_name: str, subjects: Sequence[str]) -> list[str]:
        """Return those of the patients who were charged for a round, in the order given."""
        ...

    def charges(self, limit: int = 100) -> list[Charged]:
        """Return charged rounds, newest first."""
        ...

    def agreements(self) -> list[Agreement]:
        """Return all agreements, newest first."""
        ...

    def agree(self, agreement: Agreement) -> None:
        """Record an agreement; AlreadyExistsError."""
        ...

    def end_agreement(self, agreement_id: str, actor: str, at: int) -> None:
        """End an agreement; NotFoundError, WrongStateError when it has ended."""
        ...

    def begin_night(self, at: int) -> None:
        """What is told from now on belongs to a night that began at `at` (ms)."""
        ...

    def nights(self, limit: int = 14) -> list[int]:
        """Return when the newest nights began, newest first."""
        ...

    def events(self, night: int) -> list[NightEvent]:
        """Return a night's events in order."""
        ...
