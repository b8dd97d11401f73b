"""Overlap sessions in SQLite. Secrets of a session are overwritten when this side has counted."""

import json
import sqlite3
from typing import Any, Final

from bedside_core.errors import WrongStateError
from bedside_core.evidence.entry import Kind, as_actor, as_ref
from bedside_edge.ports import KeyStore
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.ports.overlap import Overlap, OverlapState
from bedside_edge.store.database import Database

_SELECT: Final = "SELECT session, role, partner, state, at, actor, body FROM overlaps "


class SqliteOverlaps:
    """`OverlapStore` over the database."""

    def __init__(self, database: Database, keys: KeyStore, record: Record) -> None:
        self._database, self._keys, self._record = database, keys, record

    def overlaps(self, *, partner: str = "", since: int = 0) -> list[Overlap]:
        """Return sessions, newest first: of one partner or all, begun at or after a time."""
        query = _SELECT + "WHERE (?1 = '' OR partner = ?1) AND at >= ?2 ORDER BY at DESC, session"
        rows = self._database.read(lambda c: c.execute(query, (partner, since)).fetchall())
        return [self._overlap(row) for row in rows]

    def overlap(self, session: str) -> Overlap | None:
        """Return a session, or None."""
        query = _SELECT + "WHERE session = ?"
        row = self._database.read(lambda c: c.execute(query, (session,)).fetchone())
        return None if row is None else self._overlap(row)

    def keep(self, one: Overlap, before: OverlapState | None) -> None:
        """Keep a session that was in state `before` (None: new); WrongStateError otherwise."""
        plain = json.dumps(dict(one.body), sort_keys=True).encode()
        body = self._keys.wrap(plain, _context(one.session))
        event = Event(
            kind=Kind.SYNC_ROUND,
            actor=as_actor(one.actor),
            refs={
                "what": f"overlap-{one.state}",
                "session": one.session,
                "role": one.role,
                "partner": as_ref(one.partner),
            },
        )

        def write(c: sqlite3.Connection) -> None:
            row = c.execute(
                "SELECT state FROM overlaps WHERE session = ?", (one.session,)
            ).fetchone()
            if (None if row is None else row[0]) != (None if before is None else str(before)):
                raise WrongStateError("the session is not where this letter begins")
            c.execute(
                "INSERT OR REPLACE INTO overlaps VALUES (?, ?, ?, ?, ?, ?, ?)",
                (one.session, one.role, one.partner, one.state, one.at, one.actor, body),
            )
            self._record(c, event)

        self._database.write(write)

    def _overlap(self, row: tuple[Any, ...]) -> Overlap:
        session, role, partner, state, at, actor, body = row
        return Overlap(
            session=session,
            role=role,
            partner=partner,
            state=OverlapState(state),
            at=at,
            actor=actor,
            body=json.loads(self._keys.unwrap(body, _context(session))),
        )


def _context(session: str) -> bytes:
    return b"overlap " + session.encode()
