"""Sessions in which two hospitals count how many patients they share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class OverlapState(StrEnum):
    """How far a session is, as this side sees it."""

    INVITED = "invited"  # asker: the invitation is out
    ACCEPTED = "accepted"  # answerer: its points are out
    RETURNED = "returned"  # asker: both sides' points are out
    COUNTED = "counted"  # this side has its count


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """One session.

    Attributes:
        role: asker or answerer.
        partner: name of the other side's log.
        at: of its first letter, milliseconds since 1970, UTC.
        body: what this side keeps: secrets until it counted, then only the count and the letter
            that answers a repeated one.
    """

    session: str
    role: str
    partner: str
    state: OverlapState
    at: int
    actor: str
    body: Mapping[str, str | int] = field(repr=False)


class OverlapStore(Protocol):
    """Keeps sessions, secrets encrypted; each change with its evidence in one transaction."""

    def overlaps(self, *, partner: str = "", since: int = 0) -> list[Overlap]:
        """Return sessions, newest first: of one partner or all, begun at or after a time."""
        ...

    def overlap(self, session: str) -> Overlap | None:
        """Return a session, or None."""
        ...

    def keep(self, one: Overlap, before: OverlapState | None) -> None:
        """Keep a session that was in state `before` (None: new); WrongStateError otherwise."""
        ...
