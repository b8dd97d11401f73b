"""Legal holds in SQLite. Jobs of a held study wait (store/jobs.py), and no erasure begins."""

import json
import sqlite3
from typing import Final

from bedside_core.errors import NotFoundError, WrongStateError
from bedside_core.evidence.entry import Kind
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.erasure import Hold
from bedside_edge.ports.evidence import BOX, Event, Record
from bedside_edge.store import told
from bedside_edge.store.database import Database
from bedside_edge.store.erasable import is_cut_off
from bedside_edge.store.rules import new_id

_HOLDS: Final = """
  SELECT hold_id, study_id, reason, actor, at, review_at, released_at, released_by FROM holds
  WHERE (?1 = '' OR study_id = ?1) AND (?2 OR released_at = 0) ORDER BY seq"""
OVERDUE_ALARM: Final = "hold-overdue"
# what an alarm is about stands in `instance_id`: here the hold
_OVERDUE: Final = """
  SELECT hold_id, study_id FROM holds WHERE released_at = 0 AND review_at <= ?1 AND hold_id NOT IN
    (SELECT instance_id FROM alarms WHERE code = ?2)"""
_PAUSE_RUNNING: Final = """
  UPDATE jobs SET state = 'ready', lease = '', updated = ?2, attempts = max(0, attempts - 1)
  WHERE study_id = ?1 AND state = 'running'"""


class SqliteHolds:
    """`HoldStore` over the database."""

    def __init__(self, database: Database, random: RandomBytes, record: Record) -> None:
        self._database, self._random, self._record = database, random, record

    def hold(self, study_id: str, *, reason: str, actor: str, at: int, review_at: int) -> Hold:
        """Put a study under legal hold; its running job ends without a result.

        Raises:
            NotFoundError: no such study.
            WrongStateError: its erasure has begun.
        """
        hold_id = new_id(self._random)

        def put(c: sqlite3.Connection) -> None:
            if not c.execute("SELECT 1 FROM studies WHERE study_id = ?", (study_id,)).fetchone():
                raise NotFoundError("no study of that id")
            if is_cut_off(c, study_id):
                raise WrongStateError("the study is being erased; nothing can hold it any more")
            c.execute(
                "INSERT INTO holds (hold_id, study_id, reason, actor, at, review_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (hold_id, study_id, reason, actor, at, review_at),
            )
            c.execute(_PAUSE_RUNNING, (study_id, at))
            self._record(c, _held(actor, study_id, "legal-hold", review_at))

        self._database.write(put)
        return next(h for h in self.holds(study_id=study_id) if h.hold_id == hold_id)

    def release(self, hold_id: str, *, actor: str, at: int) -> Hold:
        """End a hold; NotFoundError, WrongStateError when it is released already."""

        def end(c: sqlite3.Connection) -> str:
            row = c.execute(
                "SELECT study_id, released_at FROM holds WHERE hold_id = ?", (hold_id,)
            ).fetchone()
            if row is None:
                raise NotFoundError("no hold of that id")
            if row[1]:
                raise WrongStateError("the hold is released already")
            c.execute(
                "UPDATE holds SET released_at = ?, released_by = ? WHERE hold_id = ?",
                (at, actor, hold_id),
            )
            c.execute(
                "DELETE FROM alarms WHERE code = ? AND instance_id = ?", (OVERDUE_ALARM, hold_id)
            )
            self._record(c, _held(actor, row[0], "legal-hold-released", at))
            return str(row[0])

        study_id = self._database.write(end)
        held = self.holds(study_id=study_id, released=True)
        return next(h for h in held if h.hold_id == hold_id)

    def remind(self, now: int) -> int:
        """Raise an alarm for each hold whose day to look again has come; return how many."""

        def raise_alarms(c: sqlite3.Connection) -> int:
            due = c.execute(_OVERDUE, (now, OVERDUE_ALARM)).fetchall()
            for hold_id, study_id in due:
                c.execute(
                    "INSERT INTO alarms (code, study_id, instance_id, at) VALUES (?, ?, ?, ?)",
                    (OVERDUE_ALARM, study_id, hold_id, now),
                )
                self._record(c, told.alarm(OVERDUE_ALARM, study_id, "", actor=BOX))
            return len(due)

        if not self._database.read(lambda c: c.execute(_OVERDUE, (now, OVERDUE_ALARM)).fetchone()):
            return 0
        return self._database.write(raise_alarms)

    def holds(self, *, study_id: str = "", released: bool = False) -> list[Hold]:
        """Return holds, oldest first; released ones only if asked."""
        found = self._database.read(
            lambda c: c.execute(_HOLDS, (study_id, int(released))).fetchall()
        )
        return [
            Hold(
                hold_id=row[0],
                study_id=row[1],
                reason=row[2],
                actor=row[3],
                at=row[4],
                review_at=row[5],
                released_at=row[6],
                released_by=row[7],
            )
            for row in found
        ]


def _held(actor: str, study_id: str, what: str, until: int) -> Event:
    payload = json.dumps({"study": study_id, "until": until}, sort_keys=True).encode()
    return Event(
        kind=Kind.DECISION, actor=actor, study_id=study_id, payload=payload, refs={"code": what}
    )
