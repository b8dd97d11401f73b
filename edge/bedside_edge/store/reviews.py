"""Readers' verdicts in SQLite: rows that are added, never changed, and a queue of reports to make.

Laws:
- Revisions of a result count 1, 2, 3 without a gap; of two readers who saw the same one, one wins.
- A superseded result takes no verdict, and the check is in the transaction that stores it.
- What was said (decision, reason, name) stands only under the study's data key: it goes with it.
"""

import json
import sqlite3
from dataclasses import replace
from typing import Any, Final

from bedside_core.errors import (
    DamagedObjectError,
    NotFoundError,
    StaleRevisionError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind as EventKind
from bedside_core.findings import Decision
from bedside_core.result import canonical
from bedside_core.review import Certainty, Review, ReviewKind
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.ports.review import Label, NewReview, PublicationState, ReviewRecord
from bedside_edge.store.database import Database
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.rules import new_id
from bedside_edge.store.sealing import Box

_NONCE: Final = 12
_SELECT: Final = """
  SELECT v.review_id, v.result_id, v.study_id, v.revision, v.kind, v.reader_id, v.model,
         v.version, v.at, v.body, v.state, v.attempts, v.failure, v.seq,
         NOT EXISTS (SELECT 1 FROM reviews AS e
                     WHERE e.result_id = v.result_id AND e.revision > v.revision) AS standing
  FROM reviews AS v """
_INSERT: Final = """
  INSERT INTO reviews (review_id, result_id, study_id, revision, kind, reader_id, model, version,
                       at, body, state, due)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', 0)"""
# reports of one result are made in the order of signing
_FIRST: Final = """
  v.state = 'waiting' AND NOT EXISTS (
    SELECT 1 FROM reviews AS e
    WHERE e.result_id = v.result_id AND e.seq < v.seq AND e.state = 'waiting')"""
# what is due after ?2 was dated by a clock that has been set back since
_PENDING: Final = (
    f"{_SELECT} WHERE {_FIRST} AND (v.due <= ?1 OR v.due > ?2) ORDER BY v.seq LIMIT ?3"
)
_NEXT_PENDING: Final = f"SELECT min(v.due) FROM reviews AS v WHERE {_FIRST}"  # noqa: S608
_LABELS: Final = f"{_SELECT} WHERE v.seq > ?1 AND (?3 = 0 OR standing) ORDER BY v.seq LIMIT ?2"
_LONGEST_WAIT_MS: Final = 600_000


class SqliteReviews:
    """`ReviewStore` over the database; a verdict and its evidence are one transaction."""

    def __init__(
        self, database: Database, key_of: KeyOf, random: RandomBytes, record: Record
    ) -> None:
        self._database, self._key_of, self._random = database, key_of, random
        self._record = record

    def add(self, new: NewReview, expected: int) -> ReviewRecord:
        """Store a verdict and note that its report is to be made; see `ReviewStore`."""

        def write(c: sqlite3.Connection) -> ReviewRecord:
            study_id = _signable(c, new.result_id)
            taken = {
                at
                for (at,) in c.execute(
                    "SELECT at FROM reviews WHERE result_id = ?", (new.result_id,)
                )
            }
            if len(taken) != expected:
                raise StaleRevisionError("somebody signed this result meanwhile; read it again")
            at = new.review.at
            while at in taken:  # the publisher tells verdicts of one result apart by their time
                at += 1
            record = ReviewRecord(
                review_id=new_id(self._random),
                result_id=new.result_id,
                study_id=study_id,
                revision=expected + 1,
                review=replace(new.review, at=at),
                finding=new.finding,
                box_decision=new.box_decision,
                model=new.model,
                version=new.version,
                publication=PublicationState.WAITING,
            )
            self._insert(c, record)
            self._record(c, _event(record))
            return record

        return self._database.write(write)

    def reviews(self, result_id: str) -> list[ReviewRecord]:
        """Return the verdicts on a result, first to last; empty when there are none."""
        return self._records(_SELECT + "WHERE v.result_id = ? ORDER BY v.revision", (result_id,))

    def pending(self, now: int, limit: int = 1) -> list[ReviewRecord]:
        """Return verdicts whose report is due, oldest first; one per result."""
        return self._records(_PENDING, (now, now + _LONGEST_WAIT_MS, limit))

    def next_pending(self) -> int | None:
        """Return when the next report is due, or None."""
        due: int | None = self._database.read(lambda c: c.execute(_NEXT_PENDING).fetchone()[0])
        return due

    def published(self, review_id: str) -> None:
        """The report is made and on its way."""
        self._database.write(
            lambda c: c.execute(
                "UPDATE reviews SET state = 'done', failure = '' WHERE review_id = ?", (review_id,)
            )
        )

    def not_published(self, review_id: str, code: str, due: int | None) -> None:
        """Record a failure to make the report; `due` None ends the tries."""
        state = "dead" if due is None else "waiting"
        self._database.write(
            lambda c: c.execute(
                "UPDATE reviews SET state = ?, attempts = attempts + 1, failure = ?,"
                " due = coalesce(?, due) WHERE review_id = ? AND state = 'waiting'",
                (state, code, due, review_id),
            )
        )

    def retry(self, review_id: str, now: int) -> None:
        """Try a dead one again; WrongStateError unless DEAD, NotFoundError."""

        def back(c: sqlite3.Connection) -> None:
            row = c.execute(
                "SELECT state FROM reviews WHERE review_id = ?", (review_id,)
            ).fetchone()
            if row is None:
                raise NotFoundError("no review of that id")
            if row[0] != "dead":
                raise WrongStateError("the report of this review has not been given up")
            c.execute(
                "UPDATE reviews SET state = 'waiting', attempts = 0, due = ? WHERE review_id = ?",
                (now, review_id),
            )

        self._database.write(back)

    def labels(self, *, after: int = 0, limit: int = 1000, standing: bool = True) -> list[Label]:
        """Return what readers said, in the order of signing; see `ReviewStore`.

        What an erasure has taken away is left out.
        """

        def look(c: sqlite3.Connection) -> list[tuple[Box, Any]]:
            seen = after
            while True:
                rows = c.execute(_LABELS, (seen, limit, int(standing))).fetchall()
                readable = self._boxes(c, rows)
                if readable or not rows:
                    return readable
                seen = rows[-1][13]

        return [_label(_from_row(box, row), row) for box, row in self._database.read(look)]

    def _insert(self, c: sqlite3.Connection, record: ReviewRecord) -> None:
        review = record.review
        body = self._key_of(c, record.study_id).seal(
            canonical(_said(record)), f"review {record.review_id}", self._random(_NONCE)
        )
        c.execute(
            _INSERT,
            (
                record.review_id,
                record.result_id,
                record.study_id,
                record.revision,
                review.kind,
                review.reader_id,
                record.model,
                record.version,
                review.at,
                body,
            ),
        )

    def _records(self, query: str, values: tuple[object, ...]) -> list[ReviewRecord]:
        def look(c: sqlite3.Connection) -> list[tuple[Box, Any]]:
            return self._boxes(c, c.execute(query, values).fetchall())

        return [_from_row(box, row) for box, row in self._database.read(look)]

    def _boxes(self, c: sqlite3.Connection, rows: list[Any]) -> list[tuple[Box, Any]]:
        """Return the rows that can still be read, each with its study's key."""
        keys: dict[str, Box | None] = {}
        for row in rows:
            if row[2] not in keys:
                try:
                    keys[row[2]] = self._key_of(c, row[2])
                except NotFoundError:
                    keys[row[2]] = None  # erased: nobody can read it any more
        return [(box, row) for row in rows if row[9] and (box := keys[row[2]]) is not None]


def _signable(c: sqlite3.Connection, result_id: str) -> str:
    """Return the study of a result that may be signed."""
    row = c.execute(
        "SELECT study_id, superseded_by FROM results WHERE result_id = ?", (result_id,)
    ).fetchone()
    if row is None:
        raise NotFoundError("no result of that id")
    if row[1]:
        raise WrongStateError("a newer result of the study has replaced this one; sign that one")
    return str(row[0])


def _event(record: ReviewRecord) -> Event:
    said = {
        "review": record.review_id,
        "result": record.result_id,
        "revision": record.revision,
        **_said(record),
    }
    return Event(
        kind=EventKind.REVIEW,
        actor=record.review.reader_id,
        study_id=record.study_id,
        payload=canonical(said),
    )


def _said(record: ReviewRecord) -> dict[str, Any]:
    review = record.review
    return {
        "kind": review.kind,
        "name": review.reader_name,
        "reason": review.reason,
        "certainty": review.certainty,
        "decision": review.decision,
        "box": record.box_decision,
        "finding": record.finding,
    }


def _from_row(box: Box, row: tuple[Any, ...]) -> ReviewRecord:
    try:
        said = json.loads(box.open(row[9], f"review {row[0]}"))
        review = Review(
            kind=ReviewKind(row[4]),
            reader_name=said["name"],
            reader_id=row[5],
            reason=said["reason"],
            certainty=Certainty(said["certainty"]),
            decision=None if said["decision"] is None else Decision(said["decision"]),
            at=row[8],
        )
        return ReviewRecord(
            review_id=row[0],
            result_id=row[1],
            study_id=row[2],
            revision=row[3],
            review=review,
            finding=said["finding"],
            box_decision=Decision(said["box"]),
            model=row[6],
            version=row[7],
            publication=PublicationState(row[10]),
            attempts=row[11],
            failure=row[12],
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise DamagedObjectError("a stored review cannot be read") from cause


def _label(record: ReviewRecord, row: tuple[Any, ...]) -> Label:
    review = record.review
    return Label(
        seq=row[13],
        result_id=record.result_id,
        study_id=record.study_id,
        revision=record.revision,
        standing=bool(row[14]),
        kind=review.kind,
        reader_id=review.reader_id,
        finding=record.finding,
        decision=record.label,
        box_decision=record.box_decision,
        certainty=review.certainty,
        model=record.model,
        version=record.version,
        at=review.at,
    )
