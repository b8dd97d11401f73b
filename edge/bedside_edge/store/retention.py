"""What decides over the stay of studies, read from their rows."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from bedside_core.errors import NotFoundError
from bedside_core.retention import StudyFacts
from bedside_edge.store.database import Database

_FACTS: Final = """
  SELECT s.study_id,
    (SELECT coalesce(sum(size), 0) FROM instances AS i WHERE i.study_id = s.study_id)
    + (SELECT coalesce(sum(size), 0) FROM outputs AS o WHERE o.study_id = s.study_id),
    (SELECT coalesce(max(at), s.created) FROM instances AS i WHERE i.study_id = s.study_id),
    (SELECT coalesce(max(created), 0) FROM results AS r WHERE r.study_id = s.study_id),
    (SELECT coalesce(max(at), 0) FROM reviews AS v WHERE v.study_id = s.study_id),
    NOT EXISTS (
      SELECT 1 FROM results AS r WHERE r.study_id = s.study_id AND r.superseded_by = ''
      AND NOT EXISTS (SELECT 1 FROM reviews AS v WHERE v.result_id = r.result_id)),
    (SELECT count(*) FROM jobs AS j WHERE j.study_id = s.study_id
     AND j.state IN ('collecting', 'ready', 'running')),
    (SELECT count(*) FROM jobs AS j WHERE j.study_id = s.study_id AND j.state = 'dead'
     AND NOT EXISTS (SELECT 1 FROM jobs AS k WHERE k.study_id = s.study_id AND k.seq > j.seq
                     AND k.state IN ('done', 'refused'))),
    (SELECT count(*) FROM deliveries AS d WHERE d.study_id = s.study_id
     AND d.state IN ('waiting', 'dead'))
    + (SELECT count(*) FROM publications AS p JOIN results AS r USING (result_id)
       WHERE r.study_id = s.study_id AND p.state IN ('waiting', 'dead'))
    + (SELECT count(*) FROM reviews AS v WHERE v.study_id = s.study_id AND v.state <> 'done'),
    EXISTS (SELECT 1 FROM holds AS h WHERE h.study_id = s.study_id AND h.released_at = 0)
  FROM studies AS s WHERE """
_PAGE: Final = f"{_FACTS} (s.created, s.study_id) > (?, ?) ORDER BY s.created, s.study_id LIMIT ?"
_NAMED: Final = f"{_FACTS} s.study_id IN (SELECT value FROM json_each(?))"  # noqa: S608  constants of ours


class SqliteRetention:
    """`RetentionStore` over the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def facts(self, *, after: tuple[int, str] = (0, ""), limit: int = 1000) -> list[StudyFacts]:
        """Return studies in order of their making, from behind `after` (created, study id)."""
        return self._read(_PAGE, (*after, limit))

    def facts_of(self, study_ids: Sequence[str]) -> list[StudyFacts]:
        """Return these studies as they are now; those that are gone are left out."""
        return self._read(_NAMED, (json.dumps(list(study_ids)),))

    def _read(self, query: str, values: tuple[Any, ...]) -> list[StudyFacts]:
        rows = self._database.read(lambda c: c.execute(query, values).fetchall())
        return [
            StudyFacts(
                study_id=row[0],
                size=row[1],
                received=row[2],
                resulted=row[3],
                reviewed=row[4],
                signed=bool(row[5]),
                open_jobs=row[6],
                dead_jobs=row[7],
                undelivered=row[8],
                held=bool(row[9]),
            )
            for row in rows
        ]

    def cursor(self, study_id: str) -> tuple[int, str]:
        """Return the place of a study in that order; NotFoundError."""

        def look(c: sqlite3.Connection) -> tuple[int, str]:
            row = c.execute(
                "SELECT created FROM studies WHERE study_id = ?", (study_id,)
            ).fetchone()
            if row is None:
                raise NotFoundError("no study of that id")
            return int(row[0]), study_id

        return self._database.read(look)
