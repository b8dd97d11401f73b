"""How the box is and what happened: states, incidents, their clocks and notices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bedside_core.incident import Cause, Duty
from bedside_core.uses import Incident


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRow:
    """How the box is since when, and who decided it."""

    state: Incident
    incident_id: str
    actor: str
    second: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticking:
    """One clock of an incident. Times in ms; `alarmed` is 0, 50, 80 or 100 per cent."""

    duty_id: str
    length: int
    due: int
    alarmed: int
    notice: str
    signed_by: str
    signed_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    """An incident with its clocks, the shortest first."""

    incident_id: str
    cause: Cause
    drill: bool
    aware_at: int
    opened_at: int
    opened_by: str
    closed_at: int
    facts: Mapping[str, str] = field(repr=False)
    clocks: tuple[Ticking, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsealAsk:
    """What one person asked for; another has to confirm it."""

    ask_id: str
    state: Incident
    reason: str = field(repr=False)
    actor: str
    at: int
    used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIncident:
    """An incident to be opened, with the duties that apply."""

    cause: Cause
    drill: bool
    aware_at: int
    facts: Mapping[str, str] = field(repr=False)
    duties: Sequence[Duty]


class IncidentStore(Protocol):
    """Keeps states and incidents; every change and its evidence are one transaction."""

    def state(self) -> StateRow:
        """Return how the box is."""
        ...

    def history(self) -> list[StateRow]:
        """Return every state, newest first."""
        ...

    def open(self, new: NewIncident, actor: str, at: int) -> str:
        """Open an incident and start its clocks; return its id."""
        ...

    def move(
        self,
        expected: Incident,
        to: Incident,
        *,
        incident_id: str,
        actor: str,
        second: str = "",
        reason: str = "",
        ask_id: str = "",
        at: int,
    ) -> None:
        """Change the state; on a full disk the room kept for it is used.

        Raises:
            WrongStateError: the box is not in `expected` any more, or the ask was used.
        """
        ...

    def learn(self, incident_id: str, facts: Mapping[str, str], actor: str, at: int) -> None:
        """Replace the facts of an open incident; NotFoundError, WrongStateError when closed."""
        ...

    def close(self, incident_id: str, actor: str, at: int) -> None:
        """Close an incident; NotFoundError, WrongStateError when it is closed."""
        ...

    def incident(self, incident_id: str) -> IncidentRow:
        """Return one incident; NotFoundError."""
        ...

    def incidents(self, *, closed: bool = True) -> list[IncidentRow]:
        """Return incidents, newest first."""
        ...

    def ask(self, state: Incident, reason: str, actor: str, at: int) -> UnsealAsk:
        """Keep what one person asks for."""
        ...

    def asked(self, ask_id: str) -> UnsealAsk:
        """Return what was asked for; NotFoundError."""
        ...

    def tick(self, now: int, elapsed: int) -> list[tuple[str, str, int]]:
        """Bring clocks up to the box's time; return (incident, duty, level) of new alarms.

        Args:
            now: the box's time, ms.
            elapsed: how long it was since the last tick at least, ms; 0 when nobody knows.
        """
        ...

    def signed(
        self, incident_id: str, duty_id: str, digest: str, text: bytes, actor: str, at: int
    ) -> None:
        """Record that a person signed a notice; NotFoundError, WrongStateError when signed."""
        ...


Check = Callable[[], bool]  # green or not; may take seconds
