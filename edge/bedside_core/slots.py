"""Two slots for each thing that can be flashed, and what may follow what.

    empty -> staging -> staged -> verified -> trial -> good | bad

The row is the truth; links and folders are made to agree with it. The slot in service is never
touched: a new one is filled beside it, tried a few times, and either becomes the one in service or
is left as bad. Release counters never fall, and going back is allowed to a slot that was good and
whose counter is not below the lowest one that what was confirmed since still permits.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from bedside_core.errors import (
    FlashRefusedError,
    InvalidInputError,
    NoSlotError,
    RollbackRefusedError,
    WrongStateError,
)

TRIES: Final = 3
_KINDS: Final = ("app", "profile", "policy")
_MODEL: Final = "model/"


class SlotState(StrEnum):
    """Where a slot is on its way."""

    EMPTY = "empty"
    STAGING = "staging"
    STAGED = "staged"
    VERIFIED = "verified"
    TRIAL = "trial"
    GOOD = "good"
    BAD = "bad"


_AFTER: Final = {
    SlotState.STAGING: frozenset({SlotState.EMPTY, SlotState.BAD, SlotState.GOOD}),
    SlotState.STAGED: frozenset({SlotState.STAGING}),
    SlotState.VERIFIED: frozenset({SlotState.STAGED}),
    SlotState.TRIAL: frozenset({SlotState.VERIFIED}),
    SlotState.GOOD: frozenset({SlotState.TRIAL}),
    SlotState.BAD: frozenset(
        {SlotState.STAGING, SlotState.STAGED, SlotState.VERIFIED, SlotState.TRIAL}
    ),
    SlotState.EMPTY: frozenset(
        {SlotState.STAGING, SlotState.STAGED, SlotState.VERIFIED, SlotState.BAD}
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One of two places.

    Attributes:
        digest: sha256 hex of the manifest in it; empty when empty.
        release_counter: as its manifest has it.
        min_counter: once this was in service, nothing below this counter may serve again.
        tries: starts left in trial.
        deadline: seconds since the epoch by which a trial must be confirmed; 0 outside a trial.
        reason: stable code that says why it is bad.
    """

    name: str
    state: SlotState = SlotState.EMPTY
    digest: str = ""
    release_counter: int = 0
    min_counter: int = 0
    tries: int = 0
    deadline: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both slots of a kind, which one serves, and the counters that never fall.

    Attributes:
        kind: `app`, `profile`, `policy` or `model/<name>`.
        active: `a`, `b`, or empty before anything was good.
        floor: nothing below this counter is installed.
        lowest: nothing below this counter serves, not even after a fall back.
    """

    kind: str
    a: Slot
    b: Slot
    active: str = ""
    floor: int = 0
    lowest: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS and not self.kind.startswith(_MODEL):
            raise InvalidInputError(f"a slot holds {', '.join(_KINDS)} or model/<name>")
        serving = self.serving
        if serving is not None and (
            serving.state is not SlotState.GOOD or serving.release_counter < self.lowest
        ):
            raise InvalidInputError("the slot in service is a good one that is still permitted")

    def slot(self, name: str) -> Slot:
        """Return a slot by name."""
        if name not in ("a", "b"):
            raise InvalidInputError("a slot is a or b")
        return self.a if name == "a" else self.b

    @property
    def serving(self) -> Slot | None:
        """The slot that serves; None while what the box came with does."""
        return self.slot(self.active) if self.active else None

    @property
    def idle(self) -> Slot:
        """The slot that does not serve: where the next version goes."""
        return self.b if self.active == "a" else self.a

    def with_slot(self, slot: Slot) -> "Pair":
        """Return the pair with one slot changed."""
        return replace(self, a=slot) if slot.name == "a" else replace(self, b=slot)


def fresh(kind: str) -> Pair:
    """Return the pair of a box that holds nothing of a kind."""
    return Pair(kind=kind, a=Slot(name="a"), b=Slot(name="b"))


def _move(slot: Slot, wanted: SlotState) -> Slot:
    if slot.state not in _AFTER[wanted]:
        raise WrongStateError(f"a slot does not go from {slot.state.value} to {wanted.value}")
    return replace(slot, state=wanted)


# --- installing ------------------------------------------------------------------------------


def begin(pair: Pair, digest: str, release_counter: int, min_counter: int = 0) -> Pair:
    """Take the idle slot for a new version; its old content is given up.

    Raises:
        RollbackRefusedError: the counter is below the floor.
        FlashRefusedError: that very version serves already, or is on its way.
    """
    if release_counter < pair.floor:
        raise RollbackRefusedError(
            f"release {release_counter} is older than {pair.floor}, which was in service"
        )
    if pair.active and pair.slot(pair.active).digest == digest:
        raise FlashRefusedError("this version is in service")
    idle = pair.idle
    if idle.state in (SlotState.VERIFIED, SlotState.TRIAL) and idle.digest == digest:
        raise FlashRefusedError("this version is on its way")
    if idle.state is SlotState.TRIAL:
        raise FlashRefusedError("another version is on trial; wait for its end or roll it back")
    cleared = idle
    if idle.state in (SlotState.STAGING, SlotState.STAGED, SlotState.VERIFIED):
        cleared = _move(idle, SlotState.EMPTY)
    taken = _move(cleared, SlotState.STAGING)
    return pair.with_slot(
        Slot(
            name=taken.name,
            state=taken.state,
            digest=digest,
            release_counter=release_counter,
            min_counter=min_counter,
        )
    )


def staged(pair: Pair) -> Pair:
    """All files of the idle slot are there and durable."""
    return pair.with_slot(_move(pair.idle, SlotState.STAGED))


def verified(pair: Pair) -> Pair:
    """Every file was read back from the disk and is what the manifest says."""
    return pair.with_slot(_move(pair.idle, SlotState.VERIFIED))


def try_out(pair: Pair, now: int, within: int) -> Pair:
    """Start the trial: so many starts, and until then."""
    slot = replace(_move(pair.idle, SlotState.TRIAL), tries=TRIES, deadline=now + within)
    return pair.with_slot(slot)


def charge_try(pair: Pair, now: int) -> tuple[Pair, bool]:
    """Return the pair with one start charged, and whether the trial may start.

    The caller makes the pair durable before it starts anything: a start that kills the machine
    has been counted.
    """
    slot = pair.idle
    if slot.state is not SlotState.TRIAL:
        return pair, False
    if slot.tries <= 0:
        return fail(pair, "tries-used-up"), False
    if now >= slot.deadline:
        return fail(pair, "not-confirmed-in-time"), False
    return pair.with_slot(replace(slot, tries=slot.tries - 1)), True


def confirm(pair: Pair, now: int) -> Pair:
    """The trial passed its health gate: the slot serves from here on, and the floor rises.

    Raises:
        WrongStateError: nothing is on trial, or its time was over.
    """
    slot = pair.idle
    if slot.state is SlotState.TRIAL and now >= slot.deadline:
        raise WrongStateError("the trial was not confirmed in time")
    good = replace(_move(slot, SlotState.GOOD), tries=0, deadline=0)
    return replace(
        pair.with_slot(good),
        active=good.name,
        floor=max(pair.floor, good.release_counter),
        lowest=max(pair.lowest, good.min_counter),
    )


def fail(pair: Pair, reason: str) -> Pair:
    """The idle slot is bad; the one in service was never touched."""
    slot = replace(_move(pair.idle, SlotState.BAD), tries=0, deadline=0, reason=reason)
    return pair.with_slot(slot)


# --- starting and going back -----------------------------------------------------------------


def after_start(pair: Pair) -> Pair:
    """What a crash left half done is emptied; staged files are verified again."""
    slot = pair.idle
    if slot.state is SlotState.STAGING:
        return pair.with_slot(Slot(name=slot.name))
    if slot.state is SlotState.VERIFIED:
        return pair.with_slot(replace(slot, state=SlotState.STAGED))
    return pair


def roll_back(pair: Pair) -> Pair:
    """Let the other good slot serve again, else what the box came with; no counter falls.

    Raises:
        NoSlotError: nothing was installed, or there is nothing to go back to that may serve.
        RollbackRefusedError: the other slot's release is no longer permitted.
    """
    if not pair.active:
        raise NoSlotError("what the box came with is in service")
    other = pair.idle
    if other.state is not SlotState.GOOD:
        if pair.lowest:
            raise NoSlotError("there is no other good version, and older ones are not permitted")
        return replace(pair, active="")
    if other.release_counter < pair.lowest:
        raise RollbackRefusedError(
            f"release {other.release_counter} is no longer permitted, {pair.lowest} is the lowest"
        )
    return replace(pair, active=other.name)
