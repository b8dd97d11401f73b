"""Requests under an Idempotency-Key in SQLite; keys and requests stand behind keyed hashes."""

import sqlite3
from typing import Final

from bedside_core.errors import KeyReusedError, RequestRunningError
from bedside_edge.ports import KeyStore
from bedside_edge.store.database import Database

KEPT_MS: Final = 24 * 3_600_000
_OLD: Final = "DELETE FROM requests WHERE at < ?1 - ?2 OR at > ?1 + ?2"
_LOOK: Final = (
    "SELECT digest, subject FROM requests WHERE actor_id = ? AND route = ? AND key_hash = ?"
)
_BEGIN: Final = """
  INSERT INTO requests (actor_id, route, key_hash, digest, at) VALUES (?, ?, ?, ?, ?)"""
_FINISH: Final = """
  UPDATE requests SET subject = ? WHERE actor_id = ? AND route = ? AND key_hash = ?"""
_FORGET: Final = """
  DELETE FROM requests WHERE actor_id = ? AND route = ? AND key_hash = ? AND subject = ''"""


class SqliteRequests:
    """`RequestStore` over the database."""

    def __init__(self, database: Database, keys: KeyStore) -> None:
        """Stand on the database; what was running when the last process died may come again."""
        self._database, self._keys = database, keys
        database.write(lambda c: c.execute("DELETE FROM requests WHERE subject = ''") and None)

    def begin(self, actor_id: str, route: str, key: str, asked: bytes, now: int) -> str:
        """Note that a request starts, or return what came of the first; see `RequestStore`."""
        hashed, digest = self._hashed(key), self._keys.lookup("request", asked)

        def write(c: sqlite3.Connection) -> str:
            c.execute(_OLD, (now, KEPT_MS))
            row = c.execute(_LOOK, (actor_id, route, hashed)).fetchone()
            if row is None:
                c.execute(_BEGIN, (actor_id, route, hashed, digest, now))
                return ""
            if row[0] != digest:
                raise KeyReusedError("the Idempotency-Key came before, with another request")
            if not row[1]:
                raise RequestRunningError("the request with this Idempotency-Key still runs")
            return str(row[1])

        return self._database.write(write)

    def finish(self, actor_id: str, route: str, key: str, subject: str) -> None:
        """Keep what the answer can be made of again: ids of ours, never content."""
        values = (subject, actor_id, route, self._hashed(key))
        self._database.write(lambda c: c.execute(_FINISH, values) and None)

    def forget(self, actor_id: str, route: str, key: str) -> None:
        """The request failed: it may come again."""
        values = (actor_id, route, self._hashed(key))
        self._database.write(lambda c: c.execute(_FORGET, values) and None)

    def _hashed(self, key: str) -> str:
        return self._keys.lookup("idempotency", key.encode())
