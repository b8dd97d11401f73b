"""Erasing studies and patients for good: what the service asks of the store.

An erasure is a row that walks through three states: *intended* (nothing new can reach the study, no
key is destroyed yet), *removed* (keys destroyed, rows gone, the log has its entry), *done* (files
gone, nothing left in the write-ahead log). Whatever interrupts it, it is taken up again from there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from bedside_core.erasure import Destroyed


class ErasureScope(StrEnum):
    """What is erased."""

    STUDY = "study"
    SUBJECT = "subject"  # the patient: all studies, and the key the log commits with
    RETENTION = "retention"  # a batch of studies whose time is up


class ErasureState(StrEnum):
    """How far an erasure has come."""

    INTENDED = "intended"
    REMOVED = "removed"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Copies that are not the box's to erase.

    `objects` are SOP Instance UIDs, told when asked and not kept after the erasure.
    """

    destination: str
    count: int
    arrived: bool  # False: sent, and never acknowledged
    objects: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasurePlan:
    """What an erasure would destroy, before anything is."""

    scope: ErasureScope
    target: str  # study id or subject id; empty for a batch
    studies: tuple[str, ...]
    objects: int  # encrypted files
    size: int  # bytes
    results: int
    open_jobs: int  # end without a result
    open_deliveries: int  # are cancelled
    elsewhere: tuple[Elsewhere, ...]
    held: tuple[str, ...]  # studies under legal hold: they forbid it


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An erasure begun; `slots` and `files` are what remains to be destroyed."""

    erasure_id: str
    scope: ErasureScope
    target: str
    state: ErasureState
    reason: str
    actor: str
    at: int
    done_at: int
    studies: tuple[str, ...]
    slots: tuple[int, ...]
    objects: tuple[Destroyed, ...]  # empty before `removed`
    elsewhere: tuple[Elsewhere, ...]
    entry: int  # place in the evidence log, -1 before `removed`


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A legal hold on a study: it is stored, not processed, and not erased."""

    hold_id: str
    study_id: str
    reason: str
    actor: str
    at: int
    review_at: int
    released_at: int = 0
    released_by: str = ""


class ErasureStore(Protocol):
    """Erasures; every method is one transaction."""

    def plan(self, scope: ErasureScope, target: str, studies: Sequence[str] = ()) -> ErasurePlan:
        """Say what an erasure would destroy; NotFoundError. `studies` for a batch."""
        ...

    def intend(
        self, plan: ErasurePlan, *, reason: str, actor: str, at: int, despite_holds: bool = False
    ) -> Erasure:
        """Begin: cut the studies off from what arrives, cancel their jobs and deliveries.

        Raises:
            LegalHoldError: a study is under hold; nothing was changed.
            NotFoundError: a study is gone; nothing was changed.
            WrongStateError: an erasure of it has begun, or the patient has a study that the plan
                does not name; nothing was changed.
        """
        ...

    def files(self, erasure_id: str) -> list[str]:
        """Return the names of the files of an erasure whose rows are still there."""
        ...

    def remove(self, erasure_id: str, objects: Sequence[Destroyed], at: int) -> Erasure:
        """Delete every row of the studies and write the log's entry, in one transaction."""
        ...

    def scrub(self) -> bool:
        """Leave nothing of deleted rows in the database's files; False: a reader is in the way."""
        ...

    def compact(self, *, always: bool = False) -> bool:
        """Leave nothing of deleted rows in unused parts of pages, if that is quick, or always.

        Returns:
            False when it was left out or a reader is in the way: keyed hashes of what was erased
            may remain until it is done; nothing that is encrypted can be read.
        """
        ...

    def end(self, erasure_id: str, at: int) -> Erasure:
        """Everything is gone."""
        ...

    def unfinished(self) -> list[Erasure]:
        """Return erasures that are not done, oldest first."""
        ...

    def erasure(self, erasure_id: str) -> Erasure:
        """Return one erasure; NotFoundError."""
        ...

    def erasures(self, *, target: str = "", limit: int = 100) -> list[Erasure]:
        """Return erasures, newest first."""
        ...

    def out_of_step(self) -> bool:
        """Tell whether database and key slots were not written by the same past (a restore)."""
        ...

    def destroyed_slots(self) -> list[int]:
        """Return the slots the database knows to be destroyed."""
        ...

    def without_key(self) -> tuple[list[str], list[str]]:
        """Return studies and subjects whose slot is destroyed while their rows are here."""
        ...

    def in_step(self) -> None:
        """Note that database and key slots agree."""
        ...


class HoldStore(Protocol):
    """Legal holds; every method is one transaction."""

    def hold(self, study_id: str, *, reason: str, actor: str, at: int, review_at: int) -> Hold:
        """Put a study under legal hold; a running job ends without a result.

        Raises:
            NotFoundError: no such study.
            WrongStateError: its erasure has begun.
        """
        ...

    def release(self, hold_id: str, *, actor: str, at: int) -> Hold:
        """End a hold; NotFoundError, WrongStateError when it is released already."""
        ...

    def remind(self, now: int) -> int:
        """Raise an alarm for each hold whose day to look again has come; return how many.

        One alarm a hold, until it is released.
        """
        ...

    def holds(self, *, study_id: str = "", released: bool = False) -> list[Hold]:
        """Return holds, oldest first; released ones only if asked."""
        ...


class Files(Protocol):
    """The encrypted files, as an erasure sees them."""

    def fingerprint(self, name: str) -> tuple[str, int] | None:
        """Return SHA-256 (hex) and size of a file as it lies there; None when it is gone."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; durable when it returns. No error when they are gone already."""
        ...
