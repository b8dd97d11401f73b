"""The three roles as state machines: what may follow what, and what must be durable first.

The tables are the whole truth; the shell looks a step up, makes the named things durable in one
transaction, and only then lets the named message leave. A process killed at any instant finds
itself in a state of its table and goes on from there.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from bedside_core.errors import RoundRefusedError


class Box(StrEnum):
    """A box in one round."""

    IDLE = "idle"
    OPENED = "opened"  # patients are charged; nothing left the box
    SEALED = "sealed"  # the report is on the disk; its seeds exist nowhere any more
    ACKED = "acked"  # the hub's receipt is stored
    INCLUDED = "included"
    EXCLUDED = "excluded"
    WITHDRAWN = "withdrawn"
    VETOED = "vetoed"


class Helper(StrEnum):
    """A helper in one round."""

    IDLE = "idle"
    KEYED = "keyed"
    COSIGNED = "cosigned"
    RELEASED = "released"  # answers stored, round key and seeds destroyed
    SPENT = "spent"


class Hub(StrEnum):
    """The hub in one round."""

    ANNOUNCED = "announced"
    OPEN = "open"
    CLOSED = "closed"
    DIGEST = "digest"
    UNMASKING = "unmasking"
    PUBLISHED = "published"
    EXPIRED = "expired"  # a quorum signed the empty set; charges stand


State = TypeVar("State", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What must be durable before the step counts, and what may leave after it."""

    durable: tuple[str, ...]
    leaves: tuple[str, ...] = ()
    destroyed: tuple[str, ...] = ()


BOX: Final[dict[tuple[Box, Box], Step]] = {
    (Box.IDLE, Box.OPENED): Step(durable=("manifest", "charges")),
    (Box.IDLE, Box.VETOED): Step(durable=("veto",), leaves=("veto",)),
    (Box.OPENED, Box.SEALED): Step(durable=("report",), destroyed=("seeds", "noise")),
    (Box.SEALED, Box.ACKED): Step(durable=("receipt",)),
    (Box.SEALED, Box.WITHDRAWN): Step(durable=("withdrawal",), leaves=("withdrawal",)),
    (Box.OPENED, Box.WITHDRAWN): Step(durable=("withdrawal",), leaves=("withdrawal",)),
    (Box.ACKED, Box.WITHDRAWN): Step(durable=("withdrawal",), leaves=("withdrawal",)),
    (Box.ACKED, Box.INCLUDED): Step(durable=("transcript",), destroyed=("report",)),
    (Box.ACKED, Box.EXCLUDED): Step(durable=("transcript",), destroyed=("report",)),
    (Box.SEALED, Box.EXCLUDED): Step(durable=("transcript",), destroyed=("report",)),
    (Box.OPENED, Box.EXCLUDED): Step(durable=("transcript",)),
}
HELPER: Final[dict[tuple[Helper, Helper], Step]] = {
    (Helper.IDLE, Helper.KEYED): Step(durable=("round-key",), leaves=("round-key",)),
    (Helper.KEYED, Helper.COSIGNED): Step(durable=("digest",), leaves=("cosignature",)),
    (Helper.COSIGNED, Helper.RELEASED): Step(
        durable=("masks", "tables"), leaves=("masks", "tables"), destroyed=("round-key", "seeds")
    ),
    (Helper.COSIGNED, Helper.SPENT): Step(durable=("digest",), destroyed=("round-key", "seeds")),
    (Helper.RELEASED, Helper.SPENT): Step(durable=("digest",), destroyed=("masks",)),
    (Helper.KEYED, Helper.SPENT): Step(durable=("spent",), destroyed=("round-key",)),
}
HUB: Final[dict[tuple[Hub, Hub], Step]] = {
    (Hub.ANNOUNCED, Hub.OPEN): Step(durable=("manifest",), leaves=("manifest",)),
    (Hub.OPEN, Hub.CLOSED): Step(durable=("candidates",), leaves=("candidates",)),
    (Hub.CLOSED, Hub.DIGEST): Step(durable=("digest", "complaints"), leaves=("digest",)),
    (Hub.DIGEST, Hub.UNMASKING): Step(durable=("cosignatures",), leaves=("cosignatures",)),
    (Hub.UNMASKING, Hub.PUBLISHED): Step(durable=("masks", "transcript"), leaves=("transcript",)),
    (Hub.OPEN, Hub.EXPIRED): Step(durable=("transcript",), leaves=("transcript",)),
    (Hub.CLOSED, Hub.EXPIRED): Step(durable=("transcript",), leaves=("transcript",)),
    (Hub.DIGEST, Hub.EXPIRED): Step(durable=("transcript",), leaves=("transcript",)),
}


def step(table: dict[tuple[State, State], Step], now: State, wanted: State) -> Step:
    """Return what a transition asks for.

    Raises:
        RoundRefusedError: the table has no such transition.
    """
    found = table.get((now, wanted))
    if found is None:
        raise RoundRefusedError(f"no step leads from {now.value} to {wanted.value}")
    return found
