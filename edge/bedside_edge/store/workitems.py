"""Workitems in SQLite: sealed, found by keyed hash, changed by one at a time."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from bedside_core.errors import (
    AlreadyExistsError,
    DamagedObjectError,
    NotFoundError,
    QueueFullError,
    StaleRevisionError,
)
from bedside_core.evidence.entry import Kind as EventKind
from bedside_core.workitem import StepState
from bedside_edge.ports import KeyStore, RandomBytes
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.ports.workitems import Workitem
from bedside_edge.store import sealing
from bedside_edge.store.database import Database
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.rules import new_id

_NONCE: Final = 12
_MOST_OPEN: Final = 10_000
_SELECT: Final = """
  SELECT workitem_id, state, revision, ours, study_id, job_id, data_key, body, created, updated
  FROM workitems """
_LIST: Final = f"""{_SELECT}
  WHERE (?1 = '[]' OR state IN (SELECT value FROM json_each(?1))) AND (?2 IS NULL OR ours = ?2)
  ORDER BY seq DESC"""  # noqa: S608  a constant of ours
_OPEN: Final = "SELECT count(*) FROM workitems WHERE state IN ('SCHEDULED', 'IN PROGRESS')"
_Row = tuple[Any, ...]


class SqliteWorkitems:
    """`WorkitemStore` over the database."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        key_of: KeyOf,
        random: RandomBytes,
        record: Record,
        most_open: int = _MOST_OPEN,
    ) -> None:
        self._database, self._keys, self._key_of = database, keys, key_of
        self._random, self._record, self._most_open = random, record, most_open

    def add(self, uid: str, body: dict[str, Any], now: int, actor: str) -> Workitem:
        """Keep a new SCHEDULED workitem; AlreadyExistsError, QueueFullError."""
        made = Workitem(
            workitem_id=new_id(self._random),
            uid=uid,
            state=StepState.SCHEDULED,
            revision=1,
            body=body,
            created=now,
            updated=now,
        )
        key = self._random(sealing.KEY_BYTES)
        wrapped = self._keys.wrap(key, _context(made.workitem_id))
        sealed = self._seal(sealing.Box(key), made)
        uid_hash = self._hash(uid)

        def write(c: sqlite3.Connection) -> Workitem:
            if c.execute("SELECT 1 FROM workitems WHERE uid_hash = ?", (uid_hash,)).fetchone():
                raise AlreadyExistsError("a workitem of that UID exists")
            if c.execute(_OPEN).fetchone()[0] >= self._most_open:
                raise QueueFullError("too many workitems wait; perform or cancel some")
            c.execute(
                "INSERT INTO workitems (workitem_id, uid_hash, state, revision, ours, data_key,"
                " body, created, updated) VALUES (?, ?, ?, 1, 0, ?, ?, ?, ?)",
                (made.workitem_id, uid_hash, made.state, wrapped, sealed, now, now),
            )
            self._record(c, _event(made, actor))
            return made

        return self._database.write(write)

    def workitem(self, uid: str) -> Workitem:
        """Return one; NotFoundError."""
        uid_hash = self._hash(uid)

        def look(c: sqlite3.Connection) -> tuple[sealing.Box, _Row]:
            row = c.execute(_SELECT + "WHERE uid_hash = ?", (uid_hash,)).fetchone()
            if row is None:
                raise NotFoundError("no workitem of that UID")
            return self._box(c, row), row

        return _workitem(*self._database.read(look))

    def workitems(
        self, states: Iterable[StepState] = (), *, ours: bool | None = None
    ) -> list[Workitem]:
        """Return workitems, newest first; all states when none is named."""
        wanted = json.dumps([str(state) for state in states])
        rows = self._database.read(
            lambda c: [
                (self._box(c, row), row) for row in c.execute(_LIST, (wanted, ours)).fetchall()
            ]
        )
        return [_workitem(box, row) for box, row in rows]

    def replace(self, changed: Workitem, actor: str) -> Workitem:
        """Keep a changed workitem; StaleRevisionError when somebody was faster, NotFoundError."""
        kept = replace(changed, revision=changed.revision + 1)

        def write(c: sqlite3.Connection) -> Workitem:
            row = c.execute(_SELECT + "WHERE workitem_id = ?", (changed.workitem_id,)).fetchone()
            if row is None:
                raise NotFoundError("no workitem of that UID")
            if row[2] != changed.revision:
                raise StaleRevisionError("somebody changed the workitem meanwhile")
            if kept.study_id:
                box, wrapped = self._key_of(c, kept.study_id), b""
            else:
                box, wrapped = self._box(c, row), row[6]
            c.execute(
                "UPDATE workitems SET state = ?, revision = ?, ours = ?, study_id = ?, job_id = ?,"
                " data_key = ?, body = ?, updated = ? WHERE workitem_id = ?",
                (
                    kept.state,
                    kept.revision,
                    kept.ours,
                    kept.study_id,
                    kept.job_id,
                    wrapped,
                    self._seal(box, kept),
                    kept.updated,
                    kept.workitem_id,
                ),
            )
            if row[1] != kept.state:
                self._record(c, _event(kept, actor))
            return kept

        return self._database.write(write)

    # --- inside --------------------------------------------------------------------------------

    def _hash(self, uid: str) -> str:
        return self._keys.lookup("workitem", uid.encode())

    def _box(self, c: sqlite3.Connection, row: _Row) -> sealing.Box:
        if row[4]:
            return self._key_of(c, row[4])
        return sealing.Box(self._keys.unwrap(row[6], _context(row[0])))

    def _seal(self, box: sealing.Box, workitem: Workitem) -> bytes:
        plain = json.dumps([workitem.uid, workitem.owner, workitem.body]).encode()
        return box.seal(plain, _bound(workitem.workitem_id), self._random(_NONCE))


def _context(workitem_id: str) -> bytes:
    return b"workitem " + workitem_id.encode()


def _bound(workitem_id: str) -> str:
    return f"workitem {workitem_id}"


def _event(workitem: Workitem, actor: str) -> Event:
    state = workitem.state.lower().replace(" ", "-")
    return Event(
        kind=EventKind.ADMIN,
        actor=actor,
        study_id=workitem.study_id,
        payload=workitem.workitem_id.encode(),
        refs={"change": f"workitem-{state}"},
    )


def _workitem(box: sealing.Box, row: _Row) -> Workitem:
    try:
        uid, owner, body = json.loads(box.open(row[7], _bound(row[0])))
    except ValueError as cause:
        raise DamagedObjectError("a stored workitem cannot be read") from cause
    return Workitem(
        workitem_id=row[0],
        uid=uid,
        state=StepState(row[1]),
        revision=row[2],
        owner=owner,
        ours=bool(row[3]),
        study_id=row[4],
        job_id=row[5],
        body=body,
        created=row[8],
        updated=row[9],
    )
