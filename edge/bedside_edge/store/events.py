"""The feed of changes in SQLite: triggers write it in the very transactions that change a state."""

import sqlite3
from typing import Any, Final

from bedside_edge.ports.events import Change
from bedside_edge.store.database import Database

_SELECT: Final = "SELECT seq, kind, id, job_id, study_id, state, reason, at FROM events "
_NEWEST: Final = _SELECT + "ORDER BY seq DESC LIMIT 1"
_AFTER: Final = _SELECT + "WHERE seq > ?1 AND (?2 = '' OR job_id = ?2) ORDER BY seq LIMIT ?3"


class SqliteChanges:
    """`ChangeFeed` over the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self) -> Change | None:
        """Return the newest change; None before the first."""
        row = self._database.read(lambda c: c.execute(_NEWEST).fetchone())
        return None if row is None else _change(row)

    def known(self, seq: int, at: int) -> bool:
        """Tell whether that very change is still kept: only then nothing behind it is missing."""

        def look(c: sqlite3.Connection) -> bool:
            query = "SELECT 1 FROM events WHERE seq = ? AND at = ?"
            return c.execute(query, (seq, at)).fetchone() is not None

        return self._database.read(look)

    def after(self, seq: int, *, job_id: str = "", limit: int = 100) -> list[Change]:
        """Return what followed, oldest first; of one job only if asked."""
        values = (seq, job_id, limit)
        return [
            _change(row)
            for row in self._database.read(lambda c: c.execute(_AFTER, values).fetchall())
        ]


def _change(row: tuple[Any, ...]) -> Change:
    return Change(
        seq=row[0],
        kind=row[1],
        id=row[2],
        job_id=row[3],
        study_id=row[4],
        state=row[5],
        reason=row[6],
        at=row[7],
    )
