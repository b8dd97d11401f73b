"""States and incidents in SQLite. Facts of an incident lie under the box key."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from bedside_core.errors import DiskFullError, NotFoundError, WrongStateError
from bedside_core.evidence.entry import Kind
from bedside_core.incident import HOUR_MS, STOPPED, Cause, alarmed, lost
from bedside_core.uses import Incident
from bedside_edge.ports import KeyStore, RandomBytes
from bedside_edge.ports.evidence import BOX, Event, Record
from bedside_edge.ports.incidents import IncidentRow, NewIncident, StateRow, Ticking, UnsealAsk
from bedside_edge.store.box_state import incident_state
from bedside_edge.store.database import Database
from bedside_edge.store.reserve import Reserve
from bedside_edge.store.rules import new_id

T = TypeVar("T")
_STATES: Final = "SELECT state, incident_id, actor, second, at FROM box_states ORDER BY seq DESC"
_INCIDENTS: Final = """
  SELECT incident_id, cause, drill, aware_at, opened_at, opened_by, closed_at, facts
  FROM incidents """
_CLOCKS: Final = """
  SELECT duty_id, length, due, alarmed, notice, signed_by, signed_at FROM incident_clocks
  WHERE incident_id = ? ORDER BY due, duty_id"""
_RUNNING: Final = """
  SELECT incident_id, duty_id, length, due, alarmed, drill
  FROM incident_clocks JOIN incidents USING (incident_id) WHERE closed_at = 0 AND signed_at = 0"""
_PAUSE: Final = """
  UPDATE jobs SET state = 'ready', lease = '', updated = ?, attempts = max(0, attempts - 1)
  WHERE state = 'running'"""


class SqliteIncidents:
    """`IncidentStore` over the database."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        random: RandomBytes,
        record: Record,
        reserve: Reserve,
    ) -> None:
        self._database, self._keys, self._random = database, keys, random
        self._record, self._reserve = record, reserve

    # --- the state -----------------------------------------------------------------------------

    def now(self) -> Incident:
        """Return the state alone; asked before every use."""
        return self._database.read(incident_state)

    def state(self) -> StateRow:
        """Return how the box is."""
        return _state(self._database.read(lambda c: c.execute(_STATES).fetchone()))

    def history(self) -> list[StateRow]:
        """Return every state, newest first."""
        return [_state(row) for row in self._database.read(lambda c: c.execute(_STATES).fetchall())]

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
        """Change the state, with its evidence; a running job ends without a result."""

        def change(c: sqlite3.Connection) -> None:
            if incident_state(c) is not expected:
                raise WrongStateError("the state of the box changed meanwhile")
            if ask_id:
                used = c.execute(
                    "UPDATE unseal_asks SET used = 1 WHERE ask_id = ? AND used = 0", (ask_id,)
                )
                if used.rowcount != 1:
                    raise WrongStateError("that was confirmed already")
            if to in STOPPED:
                c.execute(_PAUSE, (at,))
            c.execute(
                "INSERT INTO box_states (state, incident_id, actor, second, at)"
                " VALUES (?, ?, ?, ?, ?)",
                (to, incident_id, actor, second, at),
            )
            payload = _json(reason=reason, incident=incident_id, first=actor, second=second)
            kind = Kind.SEAL if to in STOPPED else Kind.INCIDENT
            if expected in STOPPED:
                kind = Kind.UNSEAL
            refs: dict[str, int | str] = {"state": str(to), "before": str(expected)}
            if incident_id:
                refs["incident"] = _ref(incident_id)
            if Incident.DRILL in (to, expected):
                refs["drill"] = "drill"
            self._record(c, Event(kind=kind, actor=second or actor, payload=payload, refs=refs))

        self._must(change)

    def _must(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Write, on a full disk into the room that is kept for it."""
        try:
            return self._database.write(change)
        except DiskFullError:
            self._reserve.release()
            try:
                return self._database.write(change)
            finally:
                self._reserve.fill()

    # --- incidents -----------------------------------------------------------------------------

    def open(self, new: NewIncident, actor: str, at: int) -> str:
        """Open an incident and start its clocks; return its id."""
        incident_id = new_id(self._random)

        def write(c: sqlite3.Connection) -> None:
            c.execute(
                "INSERT INTO incidents (incident_id, cause, drill, aware_at, opened_at, opened_by,"
                " facts) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    incident_id,
                    new.cause,
                    int(new.drill),
                    new.aware_at,
                    at,
                    actor,
                    self._sealed(incident_id, new.facts),
                ),
            )
            for duty in new.duties:
                length = duty.hours * HOUR_MS
                c.execute(
                    "INSERT INTO incident_clocks (incident_id, duty_id, length, due)"
                    " VALUES (?, ?, ?, ?)",
                    (incident_id, duty.duty_id, length, new.aware_at + length),
                )
            c.execute("INSERT OR IGNORE INTO incident_time VALUES (1, ?)", (at,))
            self._tell(c, incident_id, "opened", actor, new.drill, cause=str(new.cause))

        self._must(write)
        return incident_id

    def learn(self, incident_id: str, facts: Mapping[str, str], actor: str, at: int) -> None:
        """Replace the facts of an open incident."""

        def write(c: sqlite3.Connection) -> None:
            drill = self._open_one(c, incident_id)
            sealed = self._sealed(incident_id, facts)
            c.execute("UPDATE incidents SET facts = ? WHERE incident_id = ?", (sealed, incident_id))
            self._tell(c, incident_id, "facts", actor, drill)

        self._database.write(write)

    def close(self, incident_id: str, actor: str, at: int) -> None:
        """Close an incident."""

        def write(c: sqlite3.Connection) -> None:
            drill = self._open_one(c, incident_id)
            c.execute("UPDATE incidents SET closed_at = ? WHERE incident_id = ?", (at, incident_id))
            self._tell(c, incident_id, "closed", actor, drill)

        self._database.write(write)

    def incident(self, incident_id: str) -> IncidentRow:
        """Return one incident; NotFoundError."""

        def look(c: sqlite3.Connection) -> IncidentRow:
            row = c.execute(_INCIDENTS + "WHERE incident_id = ?", (incident_id,)).fetchone()
            if row is None:
                raise NotFoundError("no incident of that id")
            return self._incident(c, row)

        return self._database.read(look)

    def incidents(self, *, closed: bool = True) -> list[IncidentRow]:
        """Return incidents, newest first."""

        def look(c: sqlite3.Connection) -> list[IncidentRow]:
            query = _INCIDENTS + "WHERE (? OR closed_at = 0) ORDER BY seq DESC"
            return [self._incident(c, row) for row in c.execute(query, (int(closed),)).fetchall()]

        return self._database.read(look)

    # --- two people ----------------------------------------------------------------------------

    def ask(self, state: Incident, reason: str, actor: str, at: int) -> UnsealAsk:
        """Keep what one person asks for."""
        ask_id = new_id(self._random)

        def write(c: sqlite3.Connection) -> None:
            c.execute(
                "INSERT INTO unseal_asks (ask_id, state, reason, actor, at) VALUES (?, ?, ?, ?, ?)",
                (ask_id, state, reason, actor, at),
            )
            refs = {"what": "asked", "state": str(state)}
            payload = _json(reason=reason)
            self._record(c, Event(kind=Kind.UNSEAL, actor=actor, payload=payload, refs=refs))

        self._must(write)
        return self.asked(ask_id)

    def asked(self, ask_id: str) -> UnsealAsk:
        """Return what was asked for; NotFoundError."""
        row = self._database.read(
            lambda c: c.execute(
                "SELECT ask_id, state, reason, actor, at, used FROM unseal_asks WHERE ask_id = ?",
                (ask_id,),
            ).fetchone()
        )
        if row is None:
            raise NotFoundError("nobody asked for that")
        return UnsealAsk(
            ask_id=row[0],
            state=Incident(row[1]),
            reason=row[2],
            actor=row[3],
            at=row[4],
            used=bool(row[5]),
        )

    # --- clocks --------------------------------------------------------------------------------

    def tick(self, now: int, elapsed: int) -> list[tuple[str, str, int]]:
        """Bring clocks up to the box's time; return (incident, duty, level) of new alarms."""

        def write(c: sqlite3.Connection) -> list[tuple[str, str, int]]:
            before = c.execute("SELECT wall FROM incident_time").fetchone()[0]
            behind = lost(before, now, elapsed)
            c.execute("UPDATE incident_time SET wall = ?", (now,))
            found = []
            for incident_id, duty_id, length, due, level, drill in c.execute(_RUNNING).fetchall():
                reached = max(level, alarmed(length, due - behind, now))
                c.execute(
                    "UPDATE incident_clocks SET due = ?, alarmed = ?"
                    " WHERE incident_id = ? AND duty_id = ?",
                    (due - behind, reached, incident_id, duty_id),
                )
                if reached > level:
                    found.append((incident_id, duty_id, reached))
                    refs: dict[str, int | str] = {
                        "code": "incident-clock",
                        "incident": _ref(incident_id),
                        "duty": duty_id,
                        "level": reached,
                    }
                    if drill:
                        refs["drill"] = "drill"
                    self._record(c, Event(kind=Kind.ALARM, actor=BOX, refs=refs))
            return found

        running = self._database.read(lambda c: c.execute(_RUNNING + " LIMIT 1").fetchone())
        return self._database.write(write) if running else []

    def signed(
        self, incident_id: str, duty_id: str, digest: str, text: bytes, actor: str, at: int
    ) -> None:
        """Record that a person signed a notice."""

        def write(c: sqlite3.Connection) -> None:
            drill = self._open_one(c, incident_id)
            done = c.execute(
                "UPDATE incident_clocks SET notice = ?, signed_by = ?, signed_at = ?"
                " WHERE incident_id = ? AND duty_id = ? AND signed_at = 0",
                (digest, actor, at, incident_id, duty_id),
            )
            if done.rowcount != 1:
                raise WrongStateError("no such notice, or it is signed already")
            refs: dict[str, int | str] = {
                "what": "notice-signed",
                "incident": _ref(incident_id),
                "duty": duty_id,
                "notice": digest,
            }
            if drill:
                refs["drill"] = "drill"
            self._record(c, Event(kind=Kind.REPORT, actor=actor, payload=text, refs=refs))

        self._database.write(write)

    # --- inside --------------------------------------------------------------------------------

    def _open_one(self, c: sqlite3.Connection, incident_id: str) -> bool:
        """Return whether an open incident is a drill."""
        row = c.execute(
            "SELECT drill, closed_at FROM incidents WHERE incident_id = ?", (incident_id,)
        ).fetchone()
        if row is None:
            raise NotFoundError("no incident of that id")
        if row[1]:
            raise WrongStateError("the incident is closed")
        return bool(row[0])

    def _tell(
        self,
        c: sqlite3.Connection,
        incident_id: str,
        what: str,
        actor: str,
        drill: bool,
        **more: str,
    ) -> None:
        refs: dict[str, int | str] = {"what": what, "incident": _ref(incident_id), **more}
        if drill:
            refs["drill"] = "drill"
        self._record(c, Event(kind=Kind.INCIDENT, actor=actor, refs=refs))

    def _sealed(self, incident_id: str, facts: Mapping[str, str]) -> bytes:
        return self._keys.wrap(_json(**dict(facts)), _context(incident_id))

    def _incident(self, c: sqlite3.Connection, row: tuple[Any, ...]) -> IncidentRow:
        facts: dict[str, str] = json.loads(self._keys.unwrap(row[7], _context(row[0])))
        return IncidentRow(
            incident_id=row[0],
            cause=Cause(row[1]),
            drill=bool(row[2]),
            aware_at=row[3],
            opened_at=row[4],
            opened_by=row[5],
            closed_at=row[6],
            facts=facts,
            clocks=tuple(
                Ticking(
                    duty_id=one[0],
                    length=one[1],
                    due=one[2],
                    alarmed=one[3],
                    notice=one[4],
                    signed_by=one[5],
                    signed_at=one[6],
                )
                for one in c.execute(_CLOCKS, (row[0],)).fetchall()
            ),
        )


def _state(row: tuple[Any, ...]) -> StateRow:
    return StateRow(
        state=Incident(row[0]), incident_id=row[1], actor=row[2], second=row[3], at=row[4]
    )


def _ref(incident_id: str) -> str:
    return f"incident:{incident_id}"


def _context(incident_id: str) -> bytes:
    return b"incident " + incident_id.encode()


def _json(**fields: str) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
