"""Incidents: which state of the box may follow which, who has to agree, and clocks that run out.

A state is left only as the table says. A clock is a promise to an authority: it starts at the
earliest moment at which the hospital may have known, and whatever the box's time does afterwards,
it never ends later. All values of clocks are data, with one of two marks that say whether the
wording of the law was read.
"""

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from bedside_core.errors import InvalidRequestError, UnsealRefusedError, WrongStateError
from bedside_core.uses import Incident

MARKS: Final = frozenset({"verified text", "unverified - have it checked"})
ALARMS: Final = (50, 80, 100)  # per cent of a clock
HOUR_MS: Final = 3_600_000
STOPPED: Final = frozenset({Incident.SEALED, Incident.SHUTDOWN})  # no use of data but looking
_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")


class Cause(StrEnum):
    """What an incident is about."""

    LEAK = "leak"  # somebody may have seen data who must not
    TAMPERING = "tampering"  # data, model, log or device changed by somebody
    LOSS = "loss"  # data gone
    MALFUNCTION = "malfunction"  # the model or the device did harm, or might have
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a change of state asks for."""

    people: int = 1
    remote: int = 1  # people when it is asked for over the network
    automatic: bool = False  # the box may do it by itself
    checks: bool = False  # every check has to be green
    local: bool = False  # only at the box, not over the network


_BEGIN: Final = Need(automatic=True)
_REOPEN: Final = Need(people=2, remote=2, checks=True)
# (from, to) -> what it asks for; everything else cannot be done
MOVES: Final[Mapping[tuple[Incident, Incident], Need]] = MappingProxyType(
    {
        (Incident.NORMAL, Incident.ALARM): _BEGIN,
        (Incident.NORMAL, Incident.SEALED): _BEGIN,
        (Incident.NORMAL, Incident.SHUTDOWN): Need(remote=2),
        (Incident.NORMAL, Incident.PATCHING): Need(),
        (Incident.NORMAL, Incident.DRILL): Need(),
        (Incident.ALARM, Incident.NORMAL): Need(),
        (Incident.ALARM, Incident.SEALED): _BEGIN,
        (Incident.ALARM, Incident.SHUTDOWN): Need(remote=2),
        (Incident.ALARM, Incident.PATCHING): Need(),
        (Incident.PATCHING, Incident.NORMAL): Need(checks=True),
        (Incident.PATCHING, Incident.ALARM): _BEGIN,
        (Incident.PATCHING, Incident.SEALED): _BEGIN,
        (Incident.PATCHING, Incident.SHUTDOWN): Need(remote=2),
        (Incident.DRILL, Incident.NORMAL): _BEGIN,
        (Incident.DRILL, Incident.ALARM): _BEGIN,
        (Incident.DRILL, Incident.SEALED): _BEGIN,
        (Incident.DRILL, Incident.SHUTDOWN): Need(remote=2),
        (Incident.SEALED, Incident.NORMAL): _REOPEN,
        (Incident.SEALED, Incident.PATCHING): _REOPEN,
        (Incident.SEALED, Incident.SHUTDOWN): Need(remote=2),
        (Incident.SHUTDOWN, Incident.SEALED): Need(people=2, remote=2, local=True),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A wish to change the state.

    Attributes:
        to: the state wanted.
        people: ids of the persons who want it; empty when the box does it by itself.
        reason: why, in a person's words; needed where two people are.
        remote: asked for over the network.
        checks: name -> green; asked only where the table says so.
    """

    to: Incident
    people: Collection[str] = ()
    reason: str = ""
    remote: bool = True
    checks: Mapping[str, bool] = field(default_factory=dict)


def allow(now: Incident, move: Move) -> None:
    """Return when the state may change so.

    Raises:
        WrongStateError: no such change exists.
        UnsealRefusedError: people, reason, presence or green checks are missing.
    """
    need = MOVES.get((now, move.to))
    if need is None:
        raise WrongStateError(f"a box that is {now} does not become {move.to}")
    persons = {one for one in move.people if one.startswith("person:")}
    if not move.people:
        if not need.automatic:
            raise UnsealRefusedError("a person has to decide that")
        return
    if need.local and move.remote:
        raise UnsealRefusedError("that is done at the box, not over the network")
    if (wanted := need.remote if move.remote else need.people) > 1:
        if len(persons) < wanted:
            raise UnsealRefusedError("two different persons have to agree")
        if not move.reason.strip():
            raise UnsealRefusedError("a reason is needed")
    if need.checks and (not move.checks or not all(move.checks.values())):
        red = sorted(name for name, green in move.checks.items() if not green)
        raise UnsealRefusedError(f"not green: {', '.join(red) or 'nothing was checked'}")


# --- clocks ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """A duty to tell somebody within a time, as data.

    Attributes:
        duty_id: stable, never reused.
        regime: name of the law.
        regions: where the hospital has to lie for it to apply.
        operators: kinds of operator it applies to; empty: every one.
        causes: kinds of incident it applies to; empty: every one.
        hours: time allowed; 0 is at once.
        words: the wording of the delay.
        to: who has to be told.
        mark: whether the wording was read; one of `MARKS`.
        contents: what the notice has to hold, in order.
    """

    duty_id: str
    regime: str
    regions: tuple[str, ...]
    operators: tuple[str, ...]
    causes: tuple[Cause, ...]
    hours: int
    words: str
    to: str
    mark: str
    contents: tuple[str, ...]

    def applies(self, region: str, operator: str, cause: Cause) -> bool:
        """Whether a hospital of that region and kind has this duty for such an incident."""
        return (
            region in self.regions
            and (not self.operators or operator in self.operators)
            and (not self.causes or cause in self.causes)
        )


# Parts of a notice: field of the facts -> heading
PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "types": "Types of data",
        "number": "Number of persons",
        "causes": "Causes",
        "harm": "Possible harm",
        "remedy": "Remedy taken",
        "self_help": "What persons can do themselves",
        "contact": "Contact",
    }
)
_DUTY_KEYS: Final = frozenset(
    {"id", "regime", "regions", "operators", "causes", "hours", "words", "to", "text", "contents"}
)


def parse_duties(data: bytes) -> tuple[Duty, ...]:
    """Return the duties of a file.

    Raises:
        InvalidRequestError: unknown or missing keys, an unknown mark, part or cause, or an id
            that stands there twice.
    """
    try:
        rows = tomllib.loads(data.decode())["duty"]
        duties = tuple(_duty(row) for row in rows)
    except (ValueError, KeyError, TypeError) as cause:
        raise InvalidRequestError(f"the duties cannot be read: {cause}") from cause
    if len({duty.duty_id for duty in duties}) != len(duties):
        raise InvalidRequestError("two duties have one id")
    return duties


def _duty(row: Mapping[str, Any]) -> Duty:
    if set(row) != _DUTY_KEYS or row["text"] not in MARKS or not _ID.fullmatch(row["id"]):
        raise ValueError("a duty has other keys, another mark or another id than it must")
    if not set(row["contents"]) <= set(PARTS) or not 0 <= int(row["hours"]) <= 24 * 366:
        raise ValueError(f"contents or hours of {row['id']} are not as they must be")
    return Duty(
        duty_id=row["id"],
        regime=row["regime"],
        regions=tuple(row["regions"]),
        operators=tuple(row["operators"]),
        causes=tuple(Cause(one) for one in row["causes"]),
        hours=int(row["hours"]),
        words=row["words"],
        to=row["to"],
        mark=row["text"],
        contents=tuple(row["contents"]),
    )


def began(now: int, aware_at: int, earliest: int) -> int:
    """Return when the clocks of an incident start, ms: the earliest moment of those known.

    Args:
        now: the box's time.
        aware_at: when somebody says that they noticed; 0: now.
        earliest: the earliest moment it can have been when the box's time is doubtful; 0: none.
    """
    return min(moment for moment in (now, aware_at, earliest) if moment > 0)


def lost(wall_before: int, wall: int, elapsed: int) -> int:
    """Return by how many ms the box's time fell behind between two looks; never negative.

    Args:
        wall_before: the box's time at the earlier look, ms.
        wall: the box's time now, ms.
        elapsed: how long it really was at least, ms (monotonic; 0 over a restart).
    """
    return max(0, elapsed - (wall - wall_before))


def alarmed(length: int, due: int, now: int) -> int:
    """Return the highest alarm (0, 50, 80, 100) a clock of `length` ms has reached."""
    used = 100 if length <= 0 else 100 - (due - now) * 100 // length
    return max((level for level in ALARMS if used >= level), default=0)


# --- notices ---------------------------------------------------------------------------------

_BLANK: Final = "[to be filled in by a person]"


def notice(duty: Duty, facts: Mapping[str, str], *, incident: str, aware: str, due: str) -> str:
    """Return the draft of a notice from facts; it is sent by a person or not at all.

    Args:
        duty: whom it is for and what it has to hold.
        facts: part -> words; what is missing is marked as such.
        incident: its id.
        aware: when the clocks started, as text.
        due: when it has to be there, as text.
    """
    lines = [
        f"# Incident notice: {duty.regime}",
        "",
        f"To: {duty.to}. Incident {incident}, known since {aware}.",
        f"Due {due} ({duty.words}). Legal text: {duty.mark}.",
        "",
    ]
    for part in duty.contents:
        lines += [f"## {PARTS[part]}", "", facts.get(part, "").strip() or _BLANK, ""]
    return "\n".join(lines)


def missing(duty: Duty, facts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the parts a notice has to hold and the facts lack; none may be missing to sign it."""
    return tuple(part for part in duty.contents if not facts.get(part, "").strip())
