"""Randomised answers about single results in SQLite.

A study is filed under a keyed hash of what it is found by, so one that is erased and sent again
keeps its answers and its spend: a second draw would tell more than was agreed. What a restored
backup does not know may have been drawn: while the privacy ledger is locked nothing new is, and
once it was unlocked, nothing of studies that were there before.
"""

import json
import sqlite3
from collections.abc import Callable
from typing import Final

from bedside_core.errors import (
    BedsideError,
    BudgetExhaustedError,
    KeyReusedError,
    LedgerLockedError,
    NotFoundError,
)
from bedside_core.evidence.entry import Kind, as_actor
from bedside_edge.ports import KeyStore
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.store.database import Database
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.ledger_rows import ANSWER_REF, BURN_MARK, digest

_RESULT: Final = """
  SELECT result_id, body FROM results WHERE study_id = ? AND superseded_by = ''"""
_KEY: Final = "about = ? AND label = ? AND recipient = ?"
_TO_UNITS: Final = 10**6  # millionths of epsilon to the units that an exhausted budget speaks of


class SqliteLocalAnswers:
    """`LocalAnswerStore` over the database."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        key_of: KeyOf,
        record: Record,
        *,
        locked: Callable[[], bool] = lambda: False,
    ) -> None:
        """Stand on the database; `locked` says whether the privacy ledger was set back."""
        self._database, self._keys, self._key_of = database, keys, key_of
        self._record, self._locked = record, locked

    def truth(self, study_id: str) -> bool:
        """Return the thresholded label of the study's standing result; NotFoundError."""

        def look(c: sqlite3.Connection) -> dict[str, object] | None:
            row = c.execute(_RESULT, (study_id,)).fetchone()
            if row is None:
                return None
            try:
                box = self._key_of(c, study_id)
                found: dict[str, object] = json.loads(box.open(row[1], f"result {row[0]}"))
            except BedsideError:
                return None
            return found

        value = (self._database.read(look) or {}).get("value")
        if not isinstance(value, dict):
            raise NotFoundError("the study has no result with a value")
        return bool(value["probability"] >= value["threshold"])

    def reserve(
        self, study_id: str, label: str, recipient: str, epsilon: int, cap: int, actor: str
    ) -> bytes | None:
        """Charge an answer; return the stored document when it was given already."""
        locked = self._locked()

        def charge(c: sqlite3.Connection) -> bytes | None:
            about = self._about(c, study_id)
            row = c.execute(
                f"SELECT epsilon, answer FROM local_answers WHERE {_KEY}",  # noqa: S608  ours
                (about, label, recipient),
            ).fetchone()
            if row is not None:
                if row[0] != epsilon:
                    raise KeyReusedError("this recipient was answered at another epsilon")
                if row[1] is not None:
                    return bytes(row[1])
            if locked:
                raise LedgerLockedError("the box is older than what was seen of it; nothing is new")
            if _written_off(c, study_id):  # an answer that was lost would be drawn again
                raise BudgetExhaustedError(epsilon * _TO_UNITS, 0)
            if row is not None:
                return None
            spent = _spent(c, about)
            if spent + epsilon > cap:
                raise BudgetExhaustedError(epsilon * _TO_UNITS, max(0, cap - spent) * _TO_UNITS)
            c.execute(
                "INSERT INTO local_spent VALUES (?1, ?2, ?3) ON CONFLICT (about)"
                " DO UPDATE SET cap = max(?2, spent + ?3), spent = spent + ?3",
                (about, cap, epsilon),
            )
            refs: dict[str, int | str] = {"what": "local-reserve", "epsilon_millionths": epsilon}
            index = self._record(
                c, Event(kind=Kind.RELEASE, actor=as_actor(actor), study_id=study_id, refs=refs)
            )
            c.execute(
                "INSERT INTO local_answers (about, label, recipient, epsilon, answer, entry)"
                " VALUES (?, ?, ?, ?, NULL, ?)",
                (about, label, recipient, epsilon, index),
            )
            return None

        return self._database.write(charge)

    def finish(
        self, study_id: str, label: str, recipient: str, document: bytes, actor: str
    ) -> bytes:
        """Store an answer and return what is stored: another worker's if that one was first."""

        def store(c: sqlite3.Connection) -> bytes:
            about = self._about(c, study_id)
            changed = c.execute(
                f"UPDATE local_answers SET answer = ? WHERE {_KEY} AND answer IS NULL",  # noqa: S608
                (document, about, label, recipient),
            )
            if changed.rowcount == 1:
                refs = {"what": "local-final", ANSWER_REF: digest(document)}
                event = Event(
                    kind=Kind.RELEASE, actor=as_actor(actor), study_id=study_id, refs=refs
                )
                self._record(c, event)
                return document
            row = c.execute(
                f"SELECT answer FROM local_answers WHERE {_KEY}",  # noqa: S608
                (about, label, recipient),
            ).fetchone()
            if row is None:
                raise NotFoundError("nothing was charged for this answer")
            return bytes(row[0])

        return self._database.write(store)

    def spent(self, study_id: str) -> int:
        """Return what answers about a study have cost together, millionths."""
        return self._database.read(lambda c: _spent(c, self._about(c, study_id)))

    def _about(self, c: sqlite3.Connection, study_id: str) -> str:
        row = c.execute("SELECT lookup FROM studies WHERE study_id = ?", (study_id,)).fetchone()
        if row is None:
            raise NotFoundError("no study of that id")
        return self._keys.lookup("local-answer", row[0].encode())


def _written_off(c: sqlite3.Connection, study_id: str) -> bool:
    """Whether the study was there when a ledger that was set back was unlocked."""
    query = (
        "SELECT 1 FROM studies JOIN privacy_marks ON created <= value"
        " WHERE study_id = ? AND name = ?"
    )
    return c.execute(query, (study_id, BURN_MARK)).fetchone() is not None


def _spent(c: sqlite3.Connection, about: str) -> int:
    row = c.execute("SELECT spent FROM local_spent WHERE about = ?", (about,)).fetchone()
    return 0 if row is None else int(row[0])
