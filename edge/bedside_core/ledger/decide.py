"""What may be written next: each function returns an entry to append, or refuses.

A caller runs one of them and appends its entry inside one write transaction, so no two processes
decide on the same state.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bedside_core.errors import (
    ClockAlarmError,
    ClosedEpochError,
    InvalidInputError,
    LedgerLockedError,
    WitnessNeededError,
    WrongStateError,
)
from bedside_core.ledger.entries import (
    Burned,
    Entry,
    EpochClosed,
    EpochOpened,
    Finished,
    Reserved,
    Scope,
    ScopeKind,
)
from bedside_core.ledger.state import Ledger, apply, charged, epoch_scope

CLOCK_SLACK_MS = 5 * 60_000  # a clock further behind the last entry is an alarm
_ENTRIES_AN_EPOCH = 3  # opened, reserved, finished: with fewer nothing of it was answered
UNWITNESSED_SHARE = 20  # one part in 20 (5 %) of an epoch's cap may be spent unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a release wants to spend, and who asks; `strata` are the costs of the grades."""

    fingerprint: str
    dataset: str
    epoch: int
    requester: str
    purpose: str
    cost: int
    nights: int = 1
    strata: tuple[int, ...] = ()


def time_now(ledger: Ledger, clock: int) -> int:
    """Return the time to write: the clock's, never before the ledger's newest entry.

    Raises:
        ClockAlarmError: the clock is more than five minutes behind; append a `ClockAlarm`, and
            only read until it is set right.
    """
    if clock < ledger.floor - CLOCK_SLACK_MS:
        raise ClockAlarmError("the clock is behind the privacy ledger's newest entry")
    return max(clock, ledger.floor)


def check_position(ledger: Ledger, seen: Iterable[int]) -> None:
    """Return if no counter, second volume or witness has seen more entries than there are.

    Raises:
        LedgerLockedError: the ledger is behind: a restored backup or a cloned disk. Only a signed
            burn, or the missing entries from the witness, unlock it.
    """
    if max(seen, default=0) > ledger.seq:
        raise LedgerLockedError("the privacy ledger is older than what was seen of it")


def reserve(
    ledger: Ledger, ask: Ask, clock: int, *, witness_ready: bool = False
) -> Reserved | None:
    """Return the entry that charges a release, or None: it is charged already, go on or replay.

    `witness_ready` promises that a witness cosigns this entry before the answer leaves; without it
    only 5 % of an epoch's cap may be spent unseen.

    Raises:
        ClockAlarmError: see `time_now`.
        ClosedEpochError: the epoch is not the open one of its data set, or its calendar is over.
        BudgetExhaustedError: a scope has too little left; nothing is changed.
        WitnessNeededError: too much of the epoch was spent unseen.
        WrongStateError: that release was voided.
        InvalidInputError: no policy is in force, or cost or nights are no positive integers.
    """
    now = time_now(ledger, clock)
    held = ledger.charges.get(ask.fingerprint)
    if held is not None:
        if held.void:
            raise WrongStateError("this release was voided; ask with a new snapshot")
        return None
    if ledger.policy is None or type(ask.nights) is not int or ask.nights < 1:
        raise InvalidInputError("a release needs a policy in force and at least one night")
    epoch = ledger.epochs.get(ask.dataset)
    if epoch is None or epoch.number != ask.epoch or epoch.closed or now >= epoch.ends:
        raise ClosedEpochError("this epoch is not open")
    entry = Reserved(
        at=now,
        fingerprint=ask.fingerprint,
        dataset=ask.dataset,
        epoch=ask.epoch,
        requester=ask.requester,
        purpose=ask.purpose,
        policy=ledger.policy.version,
        cost=ask.cost,
        nights=ask.nights,
        strata=ask.strata,
    )
    charged(ledger, entry)
    unseen = ledger.unwitnessed.get(epoch_scope(ask.dataset, ask.epoch), 0) + ask.cost
    if not witness_ready and unseen > ledger.policy.epoch_cap // UNWITNESSED_SHARE:
        raise WitnessNeededError("a witness has to see the privacy ledger first")
    return entry


def finish(
    ledger: Ledger, fingerprint: str, night: int, answer: str, clock: int
) -> Finished | None:
    """Return the entry that binds an answer, or None when the night has one: use the stored one.

    Raises:
        ClockAlarmError: see `time_now`.
        WrongStateError: nothing was reserved under that fingerprint, or not for that night.
    """
    now = time_now(ledger, clock)
    charge = ledger.charges.get(fingerprint)
    if charge is None or charge.void or not 0 <= night < charge.reserved.nights:
        raise WrongStateError("nothing is reserved for this answer")
    if night in charge.answers:
        return None
    return Finished(at=now, fingerprint=fingerprint, night=night, answer=answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeProof:
    """Why an epoch may be renewed although a clock can be set forward.

    Attributes:
        elapsed_ms: of a clock that only runs while the box does, since the last epoch opened.
        two_people: an operator and a second key said so.
    """

    elapsed_ms: int = 0
    two_people: bool = False


def open_epoch(
    ledger: Ledger, dataset: str, starts: int, ends: int, clock: int, proof: TimeProof
) -> EpochOpened:
    """Return the entry that opens the next epoch of a data set.

    The old one must be closed and its calendar over; a renewal also needs a sign that the time
    really passed: the box's running clock, a witness's time, or two people.

    Raises:
        ClockAlarmError: see `time_now`.
        ClosedEpochError: the old epoch is open, not over, or nothing shows that it is.
    """
    now = time_now(ledger, clock)
    before = ledger.epochs.get(dataset)
    if starts >= ends or (before is not None and starts < before.ends):
        raise ClosedEpochError("an epoch starts before it ends, and after the one before")
    if before is not None:
        if not before.closed or now < before.ends:
            raise ClosedEpochError("the epoch before is not closed, or its calendar is not over")
        length = before.ends - max(before.opened, before.starts)
        shown = proof.elapsed_ms >= length or ledger.seen >= before.ends or proof.two_people
        if not shown:
            raise ClosedEpochError("nothing but the clock says that the epoch is over")
    number = before.number + 1 if before else 1
    return EpochOpened(at=now, dataset=dataset, number=number, starts=starts, ends=ends)


def write_off(ledger: Ledger, dataset: str, clock: int, lost: int) -> tuple[Entry, ...]:
    """Return the entries that count as spent whatever lost entries may have spent.

    What is left of the open epoch, and, where its calendar is over or none is known, a whole epoch
    for each that the lost entries had room for: the lifetime pays for them too.

    Args:
        ledger: as a restored backup has it.
        dataset: whose epochs.
        clock: the time now; the ledger's newest where that is later.
        lost: entries that were seen and are gone.
    """
    now, epoch = max(clock, ledger.floor), ledger.epochs.get(dataset)
    entries: list[Entry] = []

    def write(entry: Entry) -> None:
        nonlocal ledger
        ledger = apply(ledger, entry)
        entries.append(entry)

    if epoch is not None and not epoch.closed:
        write(Burned(at=now, dataset=dataset, epoch=epoch.number))
    if epoch is not None and now < epoch.ends:
        return tuple(entries)  # no other can have followed
    most = lost // _ENTRIES_AN_EPOCH
    number, ends = (epoch.number, epoch.ends) if epoch else (0, max(0, now - most))
    lifetime = Scope(ScopeKind.LIFETIME, dataset)
    if most and epoch is not None and not epoch.closed:
        write(EpochClosed(at=now, dataset=dataset, number=number))
    for more in range(most):
        if not ledger.budget(lifetime).left:
            break
        starts, next_number = ends + more, number + more + 1
        opened = EpochOpened(
            at=now, dataset=dataset, number=next_number, starts=starts, ends=starts + 1
        )
        write(opened)
        write(Burned(at=now, dataset=dataset, epoch=next_number))
        write(EpochClosed(at=now, dataset=dataset, number=next_number))
    return tuple(entries)
