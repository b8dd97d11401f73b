"""Incidents: seal the box, open it again with two people, keep the clocks, write the notices.

Sealing is one transaction and asks nobody: no hub, no network, no room on the disk beyond what is
kept for it. Nothing here sends anything: a notice is a draft until a person signs it, and leaves
by a person's hand.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from time import gmtime, strftime
from typing import Final

from bedside_core.errors import (
    InvalidRequestError,
    NotFoundError,
    UnsealRefusedError,
    WrongStateError,
)
from bedside_core.evidence.entry import as_actor
from bedside_core.incident import (
    HOUR_MS,
    PARTS,
    STOPPED,
    Cause,
    Duty,
    Move,
    allow,
    began,
    missing,
    notice,
)
from bedside_core.uses import Incident
from bedside_edge.ports import Clock
from bedside_edge.ports.evidence import BOX
from bedside_edge.ports.incidents import Check, IncidentRow, IncidentStore, NewIncident, UnsealAsk

log = logging.getLogger(__name__)

ASK_MS: Final = HOUR_MS  # the second person has to confirm within
DRILL_MS: Final = 4 * HOUR_MS
_TICK_S: Final = 15.0


class IncidentService:
    """States and incidents with a clock; safe to call from several threads."""

    def __init__(
        self,
        store: IncidentStore,
        duties: Sequence[Duty],
        clock: Clock,
        *,
        region: str,
        operator: str,
        contact: str = "",
        checks: Mapping[str, Check] | None = None,
        changed: Callable[[Incident], None] = lambda _: None,
    ) -> None:
        """Stand on the ports.

        Args:
            store: keeps everything.
            duties: every duty known; those of the site are chosen when an incident opens.
            clock: the box's time.
            region: where the hospital lies: `cn`, `eu`, `us`.
            operator: kind of operator, as the duties name them.
            contact: whom to ask, for notices.
            checks: what has to be green before a sealed box opens.
            changed: told every new state.
        """
        self._store, self._clock = store, clock
        self._duties = {duty.duty_id: duty for duty in duties}
        self._region, self._operator, self._contact = region, operator, contact
        self._checks, self._changed = dict(checks or {}), changed
        self._ticking = threading.Lock()
        self._ticked: float | None = None

    @property
    def store(self) -> IncidentStore:
        """What keeps states and incidents."""
        return self._store

    @property
    def duties(self) -> Mapping[str, Duty]:
        """Every duty known, by id."""
        return self._duties

    # --- the state -----------------------------------------------------------------------------

    def seal(
        self,
        actor: str,
        *,
        cause: Cause = Cause.LEAK,
        reason: str = "",
        aware_at: int = 0,
        shutdown: bool = False,
        remote: bool = True,
    ) -> str:
        """Seal the box, or shut it down, and open an incident if none is; return its id.

        The state changes first: whatever fails after it leaves a sealed box.

        Raises:
            WrongStateError: it is sealed or shut down already.
        """
        to = Incident.SHUTDOWN if shutdown else Incident.SEALED
        people = (actor,) if actor != BOX else ()
        self._move(to, people, actor=actor, reason=reason, remote=remote)
        real = [one for one in self._store.incidents(closed=False) if not one.drill]
        if real:
            return real[0].incident_id
        return self.open(actor, cause=cause, facts={"causes": reason}, aware_at=aware_at)

    def trip(self, reason: str, cause: Cause = Cause.TAMPERING) -> str:
        """Seal because the box itself found something; a box that is sealed stays so."""
        try:
            return self.seal(BOX, cause=cause, reason=reason)
        except WrongStateError:
            return ""

    def move(self, to: Incident, actor: str, reason: str = "", *, remote: bool = True) -> None:
        """Change to a state that one person may choose; `ask` and `confirm` do the others."""
        if to in STOPPED:
            raise WrongStateError("seal the box instead")
        self._move(to, (actor,), actor=actor, reason=reason, remote=remote)

    def ask(self, to: Incident, actor: str, reason: str) -> UnsealAsk:
        """Ask for a sealed box to be opened; another person has to confirm within the hour.

        Raises:
            UnsealRefusedError: no person, no reason, or something is not green.
            WrongStateError: no such change exists.
        """
        now = self._store.state().state
        # with somebody else in the second place: whether everything but that person is there
        people = (actor, "person:another") if actor.startswith("person:") else (actor,)
        wish = Move(to=to, people=people, reason=reason, checks=self.checks(now, to))
        allow(now, wish)
        return self._store.ask(to, reason, actor, self._clock.now())

    def confirm(self, ask_id: str, actor: str) -> None:
        """Open the box together with whoever asked.

        Raises:
            NotFoundError, WrongStateError: nobody asked, or it was confirmed already.
            UnsealRefusedError: the same person, too late, or something is not green any more.
        """
        asked = self._store.asked(ask_id)
        if not 0 <= self._clock.now() - asked.at <= ASK_MS:
            raise UnsealRefusedError("that was asked for too long ago; ask again")
        self._move(
            asked.state,
            (asked.actor, actor),
            actor=asked.actor,
            second=actor,
            reason=asked.reason,
            ask_id=ask_id,
        )

    def together(self, to: Incident, first: str, second: str, reason: str) -> None:
        """Open the box with two people who are both at it."""
        self._move(to, (first, second), actor=first, second=second, reason=reason, remote=False)

    def checks(self, now: Incident, to: Incident) -> dict[str, bool]:
        """Run what has to be green for this change; nothing where nothing is asked for."""
        wanted = (now, to) in {
            (Incident.SEALED, Incident.NORMAL),
            (Incident.SEALED, Incident.PATCHING),
            (Incident.PATCHING, Incident.NORMAL),
        }
        return {name: check() for name, check in self._checks.items()} if wanted else {}

    def _move(
        self,
        to: Incident,
        people: Sequence[str],
        *,
        actor: str,
        second: str = "",
        reason: str = "",
        ask_id: str = "",
        remote: bool = True,
    ) -> None:
        now = self._store.state().state
        if now is to:
            raise WrongStateError(f"the box is {to} already")
        wish = Move(to=to, people=people, reason=reason, remote=remote, checks=self.checks(now, to))
        allow(now, wish)
        open_ones = self._store.incidents(closed=False) if now in STOPPED or to in STOPPED else []
        incident_id = open_ones[0].incident_id if open_ones else ""
        self._store.move(
            now,
            to,
            incident_id=incident_id,
            actor=as_actor(actor),
            second=as_actor(second) if second else "",
            reason=reason,
            ask_id=ask_id,
            at=self._clock.now(),
        )
        log.warning("state of the box changed", extra={"state": str(to)})
        self._changed(to)

    # --- incidents -----------------------------------------------------------------------------

    def open(
        self,
        actor: str,
        *,
        cause: Cause,
        facts: Mapping[str, str] | None = None,
        aware_at: int = 0,
        earliest: int = 0,
        drill: bool = False,
    ) -> str:
        """Open an incident and start every clock that applies to the site; return its id.

        Args:
            actor: who says so.
            cause: what it is about.
            facts: parts of the notice that are known already.
            aware_at: when it was noticed, ms; 0: now. It can lie in the past only.
            earliest: the earliest moment possible when the box's time is doubtful.
            drill: everything is marked as a drill.
        """
        now = self._clock.now()
        known = _known(facts or {})
        if self._contact:
            known.setdefault("contact", self._contact)
        new = NewIncident(
            cause=cause,
            drill=drill,
            aware_at=began(now, aware_at, earliest),
            facts=known,
            duties=[
                duty
                for duty in self._duties.values()
                if duty.applies(self._region, self._operator, cause)
            ],
        )
        incident_id = self._store.open(new, as_actor(actor), now)
        self.step()
        return incident_id

    def learn(self, incident_id: str, facts: Mapping[str, str], actor: str) -> IncidentRow:
        """Add to what is known of an incident; empty words take a part away."""
        held = self._store.incident(incident_id)
        both = dict(held.facts) | _known(facts)
        kept = {part: words for part, words in both.items() if words}
        self._store.learn(incident_id, kept, as_actor(actor), self._clock.now())
        return self._store.incident(incident_id)

    def close(self, incident_id: str, actor: str) -> None:
        """Close an incident; a real one only when every notice that is due was signed.

        Raises:
            WrongStateError: a notice is not signed, the box is sealed, or it is closed already.
        """
        held = self._store.incident(incident_id)
        if not held.drill:
            if any(not clock.signed_at for clock in held.clocks):
                raise WrongStateError("a notice of this incident is not signed yet")
            if self._store.state().state in STOPPED:
                raise WrongStateError("the box is still sealed")
        self._store.close(incident_id, as_actor(actor), self._clock.now())

    def notice(self, incident_id: str, duty_id: str) -> str:
        """Return the draft of a notice; NotFoundError when the incident has no such duty."""
        held, duty, due = self._duty(incident_id, duty_id)
        text = notice(
            duty,
            held.facts,
            incident=incident_id,
            aware=_time(held.aware_at),
            due=_time(due),
        )
        return f"DRILL - not to be sent\n\n{text}" if held.drill else text

    def sign(self, incident_id: str, duty_id: str, actor: str) -> str:
        """Sign a notice in one's own name; return its digest. Sending it is a person's work.

        Raises:
            UnsealRefusedError: not a person.
            InvalidRequestError: parts the notice has to hold are missing.
        """
        if not actor.startswith("person:"):
            raise UnsealRefusedError("only a person signs a notice")
        held, duty, _ = self._duty(incident_id, duty_id)
        if lacking := missing(duty, held.facts):
            raise InvalidRequestError(f"the notice lacks: {', '.join(lacking)}")
        text = self.notice(incident_id, duty_id).encode()
        digest = hashlib.sha256(text).hexdigest()
        self._store.signed(incident_id, duty_id, digest, text, actor, self._clock.now())
        return digest

    def _duty(self, incident_id: str, duty_id: str) -> tuple[IncidentRow, Duty, int]:
        held = self._store.incident(incident_id)
        due = next((one.due for one in held.clocks if one.duty_id == duty_id), None)
        duty = self._duties.get(duty_id)
        if due is None or duty is None:
            raise NotFoundError("the incident has no such duty")
        return held, duty, due

    # --- clocks; `Loop` runs them --------------------------------------------------------------

    def step(self) -> bool:
        """Look at the clocks and at a drill whose time is over; never busy."""
        with self._ticking:
            mono = self._clock.monotonic()
            elapsed = 0 if self._ticked is None else int((mono - self._ticked) * 1000)
            self._ticked = mono
            rung = self._store.tick(self._clock.now(), elapsed)
        for _, duty_id, level in rung:
            log.error("clock of an incident", extra={"code": duty_id, "count": level})
        now = self._store.state()
        if now.state is Incident.DRILL and self._clock.now() - now.at >= DRILL_MS:
            self._move(Incident.NORMAL, (), actor=BOX)
        return False

    def nap(self) -> float:
        """Return how long to wait before the next look."""
        return _TICK_S


def _known(facts: Mapping[str, str]) -> dict[str, str]:
    if unknown := set(facts) - set(PARTS):
        raise InvalidRequestError(f"not a part of a notice: {', '.join(sorted(unknown))}")
    return {part: words.strip()[:4000] for part, words in facts.items()}


def _time(at: int) -> str:
    return strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(at / 1000))
