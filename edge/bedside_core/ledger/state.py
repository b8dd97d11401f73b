"""What follows from the entries: spend per scope, epochs, and where each release stands.

`fold` refuses every entry that the rules of `decide` would not have written, so a forged or torn
ledger is found when it is read.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from bedside_core.accounting import Budget, charge_all
from bedside_core.errors import InvalidEntryError
from bedside_core.ledger.entries import (
    GRADES,
    Burned,
    Entry,
    EpochClosed,
    EpochOpened,
    Finished,
    LedgerPolicy,
    PolicySet,
    Reserved,
    Scope,
    ScopeKind,
    Voided,
    Witnessed,
)

Key = TypeVar("Key")
Value = TypeVar("Value")


class Status(StrEnum):
    """Where a release stands."""

    RESERVED = "reserved"
    FINAL = "final"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A reservation with the answers it has so far, by night."""

    reserved: Reserved
    answers: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    void: bool = False

    @property
    def status(self) -> Status:
        """Whether all nights have their answer."""
        if self.void:
            return Status.VOID
        return Status.FINAL if len(self.answers) == self.reserved.nights else Status.RESERVED


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The newest epoch of a data set."""

    number: int
    starts: int
    ends: int
    opened: int
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Everything that follows from the entries.

    Attributes:
        seq: number of entries.
        floor: time of the newest entry; time never counts as earlier.
        seen: the newest witness's own time, 0 for none.
        unwitnessed: spent per data set and epoch since a witness last saw the ledger.
    """

    seq: int = 0
    floor: int = 0
    seen: int = 0
    policy: LedgerPolicy | None = None
    epochs: Mapping[str, Epoch] = field(default_factory=lambda: MappingProxyType({}))
    spent: Mapping[Scope, int] = field(default_factory=lambda: MappingProxyType({}))
    charges: Mapping[str, Charge] = field(default_factory=lambda: MappingProxyType({}))
    unwitnessed: Mapping[Scope, int] = field(default_factory=lambda: MappingProxyType({}))

    def budget(self, scope: Scope) -> Budget:
        """Return a scope's cap and spend; a cap lowered below what is spent leaves nothing."""
        spent = self.spent.get(scope, 0)
        cap = self.policy.cap(scope) if self.policy else 0
        return Budget(cap=max(cap, spent), spent=spent)

    def replay(self, fingerprint: str, night: int = 0) -> str | None:
        """Return the digest of the stored answer, or None; asking again costs nothing."""
        charge = self.charges.get(fingerprint)
        return charge.answers.get(night) if charge else None


def epoch_scope(dataset: str, epoch: int) -> Scope:
    """Return the scope of a data set's epoch."""
    return Scope(ScopeKind.DATASET_EPOCH, f"{dataset}#{epoch}")


def grade_scopes(dataset: str, epoch: int) -> tuple[Scope, ...]:
    """Return the scopes of the grades of a data set's epoch, 1 to 5."""
    return tuple(Scope(ScopeKind.GRADE, f"{dataset}#{epoch}/{grade}") for grade in GRADES)


def scopes_of(ledger: Ledger, reserved: Reserved) -> dict[Scope, int]:
    """Return every scope a reservation is charged to, and with how much.

    The grades have budgets of their own where the policy in force says so. No patient stands in
    two of them, so each pays what its own noise costs; the data set pays the largest.
    """
    scopes = (
        epoch_scope(reserved.dataset, reserved.epoch),
        Scope(ScopeKind.LIFETIME, reserved.dataset),
        Scope(ScopeKind.REQUESTER, reserved.requester),
        Scope(ScopeKind.PURPOSE, reserved.purpose),
    )
    found = dict.fromkeys(scopes, reserved.cost)
    if ledger.policy is not None and ledger.policy.grades:
        grades = grade_scopes(reserved.dataset, reserved.epoch)
        costs = reserved.strata or (reserved.cost,) * len(grades)
        found |= dict(zip(grades, costs, strict=True))
    return found


def charged(ledger: Ledger, reserved: Reserved) -> dict[Scope, int]:
    """Return what every scope has spent after a reservation; all of them must allow it.

    Raises:
        BudgetExhaustedError: one does not; nothing is changed.
    """
    wanted = scopes_of(ledger, reserved)
    plain = [scope for scope, cost in wanted.items() if scope.kind is not ScopeKind.GRADE]
    after = charge_all([ledger.budget(scope) for scope in plain], reserved.cost)
    found = {scope: budget.spent for scope, budget in zip(plain, after, strict=True)}
    for scope, cost in wanted.items():
        if scope.kind is ScopeKind.GRADE:
            found[scope] = ledger.budget(scope).charge(cost).spent
    return found


def fold(entries: Iterable[Entry], start: Ledger | None = None) -> Ledger:
    """Return the state after the entries.

    Raises:
        InvalidEntryError: an entry that no rule of this module would have written.
        BudgetExhaustedError: a reservation over its cap, which the rules never write.
    """
    ledger = _with_maps(start or Ledger(), dict)  # its own, so that entries need no copies
    for entry in entries:
        ledger = apply(ledger, entry)
    return _with_maps(ledger, MappingProxyType)


def _with_maps(ledger: Ledger, kind: Callable[[Mapping[Any, Any]], Mapping[Any, Any]]) -> Ledger:
    return replace(
        ledger,
        epochs=kind(ledger.epochs),
        spent=kind(ledger.spent),
        charges=kind(ledger.charges),
        unwitnessed=kind(ledger.unwitnessed),
    )


def _put(held: Mapping[Key, Value], more: Mapping[Key, Value]) -> Mapping[Key, Value]:
    """Return `held` with `more`: changed in place while `fold` owns it, else a new view."""
    if isinstance(held, dict):
        held.update(more)
        return held
    return MappingProxyType({**held, **more})


def apply(ledger: Ledger, entry: Entry) -> Ledger:
    """Return the state after one entry; raises as `fold` does."""
    if type(entry.at) is not int or entry.at < ledger.floor:
        raise InvalidEntryError("an entry of the privacy ledger goes back in time")
    ledger = replace(ledger, seq=ledger.seq + 1, floor=entry.at)
    match entry:
        case PolicySet():
            return _apply_policy(ledger, entry)
        case EpochOpened():
            return _apply_opened(ledger, entry)
        case EpochClosed():
            epoch = _open_epoch(ledger, entry.dataset, entry.number)
            closed = {entry.dataset: replace(epoch, closed=True)}
            return replace(ledger, epochs=_put(ledger.epochs, closed))
        case Reserved():
            return _apply_reserved(ledger, entry)
        case Finished():
            return _apply_finished(ledger, entry)
        case Voided():
            charge = _charge(ledger, entry.fingerprint)
            return _with_charge(ledger, replace(charge, void=True))
        case Burned():
            return _apply_burned(ledger, entry)
        case Witnessed():
            seen = max(ledger.seen, entry.seen)
            return replace(ledger, seen=seen, unwitnessed=MappingProxyType({}))
    return ledger  # a clock alarm changes no budget


def _apply_policy(ledger: Ledger, entry: PolicySet) -> Ledger:
    before = ledger.policy
    needed = 2 if before is None or entry.policy.loosens(before) else 1
    if entry.signers < needed:
        raise InvalidEntryError("a policy that loosens a cap needs two signatures")
    spent = ledger.spent
    if entry.policy.grades and not (before and before.grades):
        # what was spent before grades were counted may have been spent on any of them
        for dataset, epoch in ledger.epochs.items():
            whole = spent.get(epoch_scope(dataset, epoch.number), 0)
            if whole:
                scopes = grade_scopes(dataset, epoch.number)
                spent = _put(spent, dict.fromkeys(scopes, whole))
    return replace(ledger, policy=entry.policy, spent=spent)


def _apply_opened(ledger: Ledger, entry: EpochOpened) -> Ledger:
    before = ledger.epochs.get(entry.dataset)
    follows = entry.number == 1 if before is None else entry.number == before.number + 1
    apart = before is None or (before.closed and entry.starts >= before.ends)
    if not follows or not apart or entry.starts >= entry.ends:
        raise InvalidEntryError("epochs follow one another, closed first, and never overlap")
    epoch = Epoch(number=entry.number, starts=entry.starts, ends=entry.ends, opened=entry.at)
    return replace(ledger, epochs=_put(ledger.epochs, {entry.dataset: epoch}))


def _apply_reserved(ledger: Ledger, entry: Reserved) -> Ledger:
    if entry.fingerprint in ledger.charges or entry.nights < 1:
        raise InvalidEntryError("a fingerprint is charged once, for at least one night")
    if entry.strata and not _one_each(entry):
        raise InvalidEntryError("each grade has a cost, and the release costs the largest")
    _open_epoch(ledger, entry.dataset, entry.epoch)
    after, epoch = charged(ledger, entry), epoch_scope(entry.dataset, entry.epoch)
    unseen = ledger.unwitnessed.get(epoch, 0) + entry.cost
    ledger = replace(
        ledger,
        spent=_put(ledger.spent, after),
        unwitnessed=_put(ledger.unwitnessed, {epoch: unseen}),
    )
    return _with_charge(ledger, Charge(reserved=entry))


def _one_each(entry: Reserved) -> bool:
    plain = all(type(cost) is int and cost >= 1 for cost in entry.strata)
    return plain and len(entry.strata) == len(GRADES) and max(entry.strata) == entry.cost


def _apply_finished(ledger: Ledger, entry: Finished) -> Ledger:
    charge = _charge(ledger, entry.fingerprint)
    if entry.night in charge.answers or not 0 <= entry.night < charge.reserved.nights:
        raise InvalidEntryError("a night has one answer, and only the nights charged have one")
    answers = MappingProxyType({**charge.answers, entry.night: entry.answer})
    return _with_charge(ledger, replace(charge, answers=answers))


def _apply_burned(ledger: Ledger, entry: Burned) -> Ledger:
    _open_epoch(ledger, entry.dataset, entry.epoch)
    scope, lifetime = epoch_scope(entry.dataset, entry.epoch), ScopeKind.LIFETIME
    whole = Scope(lifetime, entry.dataset)
    left = min(ledger.budget(scope).left, ledger.budget(whole).left)
    spent = {scope: ledger.budget(scope).cap, whole: ledger.spent.get(whole, 0) + left}
    if ledger.policy is not None and ledger.policy.grades:
        scopes = grade_scopes(entry.dataset, entry.epoch)
        spent |= {one: ledger.budget(one).cap for one in scopes}
    return replace(ledger, spent=_put(ledger.spent, spent))


def _with_charge(ledger: Ledger, charge: Charge) -> Ledger:
    put = {charge.reserved.fingerprint: charge}
    return replace(ledger, charges=_put(ledger.charges, put))


def _charge(ledger: Ledger, fingerprint: str) -> Charge:
    charge = ledger.charges.get(fingerprint)
    if charge is None or charge.void:
        raise InvalidEntryError("no reservation under that fingerprint, or it was voided")
    return charge


def _open_epoch(ledger: Ledger, dataset: str, number: int) -> Epoch:
    epoch = ledger.epochs.get(dataset)
    if epoch is None or epoch.number != number or epoch.closed:
        raise InvalidEntryError("an entry names an epoch that is not open")
    return epoch
