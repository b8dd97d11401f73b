"""Consents, withdrawals and requests in SQLite."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bedside_core.consent import Consent, Giver, Will, notice_text, will
from bedside_core.errors import NotFoundError, WrongStateError
from bedside_core.evidence.entry import Kind
from bedside_core.uses import Purpose
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.evidence import BOX, Event, Record
from bedside_edge.ports.rights import Ask, Notice, RightsRequest, Withdrawn
from bedside_edge.store.database import Database
from bedside_edge.store.rules import new_id

_CONSENTS: Final = """
  SELECT subject_id, consent_id, purpose, classes, notice, given_by, separate, document,
         valid_from, valid_to, withdrawn_at FROM consents
  WHERE subject_id IN (SELECT value FROM json_each(?)) ORDER BY seq"""
_WITHDRAWN: Final = """
  SELECT subject_id, purpose FROM withdrawals
  WHERE subject_id IN (SELECT value FROM json_each(?))"""
_REQUESTS: Final = """
  SELECT request_id, subject_id, kind, received_at, due_at, duty, owner, state, identity, response,
         answered_at FROM rights_requests """
# back to the queue: the next look at it asks the gate, and its answer is the result
_STOP: Final = """
  UPDATE jobs SET state = 'ready', lease = '', updated = ?2, attempts = max(0, attempts - 1)
  WHERE state = 'running' AND study_id IN (SELECT study_id FROM studies WHERE subject_id = ?1)"""
_RESULTS: Final = """
  SELECT count(*) FROM results JOIN studies USING (study_id) WHERE subject_id = ?"""
_SENT: Final = """
  SELECT count(*) FROM deliveries JOIN studies USING (study_id)
  WHERE subject_id = ? AND deliveries.state = 'delivered'"""


class SqliteRights:
    """`RightsStore` over the database."""

    def __init__(self, database: Database, random: RandomBytes, record: Record) -> None:
        self._database, self._random, self._record = database, random, record

    # --- consent -------------------------------------------------------------------------------

    def add_notice(self, digest: str, parts: Mapping[str, str], actor: str, at: int) -> None:
        """Keep a notice; once is enough."""

        def write(c: sqlite3.Connection) -> None:
            made = c.execute(
                "INSERT OR IGNORE INTO notices VALUES (?, ?, ?, ?)",
                (digest, notice_text(parts), actor, at),
            )
            if made.rowcount:
                refs = {"what": "notice", "notice": digest}
                self._record(c, Event(kind=Kind.CONSENT, actor=actor, refs=refs))

        self._database.write(write)

    def notices(self) -> list[Notice]:
        """Return the notices, newest first."""
        rows = self._database.read(
            lambda c: c.execute(
                "SELECT digest, parts, at FROM notices ORDER BY at DESC, digest"
            ).fetchall()
        )
        return [Notice(digest=row[0], parts=json.loads(row[1]), at=row[2]) for row in rows]

    def give(self, subject_id: str, consent: Consent, actor: str, at: int) -> str:
        """Put a consent on record; what was withdrawn for its purpose before is agreed to again."""
        consent_id = new_id(self._random)

        def write(c: sqlite3.Connection) -> None:
            _must_exist(c, subject_id)
            if not c.execute(
                "SELECT 1 FROM notices WHERE digest = ?", (consent.notice,)
            ).fetchone():
                raise NotFoundError("no notice of that digest is on record")
            c.execute(
                "INSERT INTO consents (consent_id, subject_id, purpose, classes, notice, given_by,"
                " separate, document, valid_from, valid_to, actor, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    consent_id,
                    subject_id,
                    consent.purpose,
                    json.dumps(consent.classes),
                    consent.notice,
                    consent.given_by,
                    int(consent.separate),
                    consent.document,
                    consent.valid_from,
                    consent.valid_to,
                    actor,
                    at,
                ),
            )
            c.execute(
                "DELETE FROM withdrawals WHERE subject_id = ? AND purpose = ?",
                (subject_id, consent.purpose),
            )
            if consent.purpose is Purpose.DIAGNOSIS:
                # read again, yet nothing else that was withdrawn with it comes back by itself
                c.execute(
                    "DELETE FROM withdrawals WHERE subject_id = ? AND purpose = 'all'",
                    (subject_id,),
                )
            payload = _json(
                consent=consent_id,
                given_by=consent.given_by,
                separate=consent.separate,
                document=consent.document,
                classes=consent.classes,
                valid=[consent.valid_from, consent.valid_to],
            )
            refs = {"what": "given", "purpose": str(consent.purpose), "notice": consent.notice}
            self._tell(c, Kind.CONSENT, actor, subject_id, refs, payload)

        self._database.write(write)
        return consent_id

    def withdraw(self, subject_id: str, purpose: str, actor: str, at: int) -> Withdrawn:
        """Take consent back, for one purpose or `all`."""

        def write(c: sqlite3.Connection) -> Withdrawn:
            _must_exist(c, subject_id)
            c.execute(
                "UPDATE consents SET withdrawn_at = ?1 WHERE subject_id = ?2 AND withdrawn_at = 0"
                " AND (?3 = 'all' OR purpose = ?3)",
                (at, subject_id, purpose),
            )
            c.execute(
                "INSERT OR IGNORE INTO withdrawals VALUES (?, ?, ?, ?)",
                (subject_id, purpose, actor, at),
            )
            read = purpose in ("all", Purpose.DIAGNOSIS)
            stopped = c.execute(_STOP, (subject_id, at)).rowcount if read else 0
            met = Withdrawn(
                purpose=purpose,
                stopped=stopped,
                results=c.execute(_RESULTS, (subject_id,)).fetchone()[0],
                sent=c.execute(_SENT, (subject_id,)).fetchone()[0],
            )
            payload = _json(stopped=met.stopped, results=met.results, sent=met.sent)
            refs = {"what": "withdrawn", "purpose": purpose}
            self._tell(c, Kind.WITHDRAWAL, actor, subject_id, refs, payload)
            return met

        return self._database.write(write)

    def consents(self, subject_id: str) -> list[Consent]:
        """Return the consents of a patient, oldest first; NotFoundError."""

        def look(c: sqlite3.Connection) -> list[Any]:
            _must_exist(c, subject_id)
            return c.execute(_CONSENTS, (json.dumps([subject_id]),)).fetchall()

        return [_consent(row) for row in self._database.read(look)]

    def wills(self, subject_ids: Sequence[str], now: int) -> dict[str, Will]:
        """Return what stands of patients with anything on record."""
        wanted = (json.dumps(list(subject_ids)),)

        def look(c: sqlite3.Connection) -> tuple[list[Any], list[Any]]:
            rows = c.execute(_CONSENTS, wanted).fetchall()
            return rows, c.execute(_WITHDRAWN, wanted).fetchall()

        rows, back = self._database.read(look)
        given: dict[str, list[Consent]] = {}
        for row in rows:
            given.setdefault(row[0], []).append(_consent(row))
        taken: dict[str, set[str]] = {}
        for subject_id, purpose in back:
            taken.setdefault(subject_id, set()).add(purpose)
        return {
            subject: will(given.get(subject, ()), taken.get(subject, set()), now)
            for subject in given.keys() | taken.keys()
        }

    # --- requests ------------------------------------------------------------------------------

    def receive(self, request: RightsRequest, actor: str) -> str:
        """Keep a request; return its id."""
        request_id = new_id(self._random)

        def write(c: sqlite3.Connection) -> None:
            _must_exist(c, request.subject_id)
            c.execute(
                "INSERT INTO rights_requests (request_id, subject_id, kind, received_at, due_at,"
                " duty, owner, state) VALUES (?, ?, ?, ?, ?, ?, ?, 'open')",
                (
                    request_id,
                    request.subject_id,
                    request.kind,
                    request.received_at,
                    request.due_at,
                    request.duty,
                    request.owner,
                ),
            )
            refs = {"what": "request-received", "kind": str(request.kind), "duty": request.duty}
            self._about(c, request_id, actor, refs)

        self._database.write(write)
        return request_id

    def request(self, request_id: str) -> RightsRequest:
        """Return one request; NotFoundError."""
        row = self._database.read(
            lambda c: c.execute(_REQUESTS + "WHERE request_id = ?", (request_id,)).fetchone()
        )
        if row is None:
            raise NotFoundError("no request of that id")
        return _request(row)

    def requests(self, *, subject_id: str = "", only_open: bool = False) -> list[RightsRequest]:
        """Return requests, the first due first."""
        query = _REQUESTS + (
            "WHERE (?1 = '' OR subject_id = ?1) AND (?2 = 0 OR state = 'open') ORDER BY due_at, seq"
        )
        values = (subject_id, int(only_open))
        return [
            _request(row)
            for row in self._database.read(lambda c: c.execute(query, values).fetchall())
        ]

    def identify(self, request_id: str, how: str, owner: str, at: int) -> None:
        """Record how the person was recognised, and who takes care."""

        def write(c: sqlite3.Connection) -> None:
            done = c.execute(
                "UPDATE rights_requests SET identity = ?, owner = ?"
                " WHERE request_id = ? AND state = 'open'",
                (how, owner, request_id),
            )
            if done.rowcount != 1:
                raise WrongStateError("no such open request")
            self._about(c, request_id, owner, {"what": "request-identified", "how": how})

        self._database.write(write)

    def answer(self, request_id: str, *, state: str, response: str, actor: str, at: int) -> None:
        """End a request."""

        def write(c: sqlite3.Connection) -> None:
            done = c.execute(
                "UPDATE rights_requests SET state = ?, response = ?, answered_at = ?"
                " WHERE request_id = ? AND state = 'open'",
                (state, response, at, request_id),
            )
            if done.rowcount != 1:
                raise WrongStateError("no such open request")
            refs = {"what": f"request-{state}", "response": response}
            self._about(c, request_id, actor, refs)

        self._database.write(write)

    def overdue(self, now: int) -> list[str]:
        """Raise an alarm, once, for each open request whose time is over."""
        late = "state = 'open' AND alarmed = 0 AND due_at <= ?"

        def write(c: sqlite3.Connection) -> list[str]:
            rows = c.execute(
                "UPDATE rights_requests SET alarmed = 1"
                " WHERE state = 'open' AND alarmed = 0 AND due_at <= ? RETURNING request_id",
                (now,),
            ).fetchall()
            for (request_id,) in rows:
                self._about(c, request_id, BOX, {"code": "request-overdue"}, kind=Kind.ALARM)
            return [row[0] for row in rows]

        query = f"SELECT 1 FROM rights_requests WHERE {late} LIMIT 1"  # noqa: S608
        waiting = self._database.read(lambda c: c.execute(query, (now,)).fetchone())
        return self._database.write(write) if waiting else []

    def _about(
        self,
        c: sqlite3.Connection,
        request_id: str,
        actor: str,
        refs: Mapping[str, str],
        *,
        kind: Kind = Kind.ACCESS,
    ) -> None:
        subject_id = c.execute(
            "SELECT subject_id FROM rights_requests WHERE request_id = ?", (request_id,)
        ).fetchone()[0]
        self._tell(c, kind, actor, subject_id, refs, _json(request=request_id))

    def _tell(
        self,
        c: sqlite3.Connection,
        kind: Kind,
        actor: str,
        subject_id: str,
        refs: Mapping[str, str],
        payload: bytes,
    ) -> None:
        event = Event(kind=kind, actor=actor, subject_id=subject_id, payload=payload, refs=refs)
        self._record(c, event)


def _must_exist(c: sqlite3.Connection, subject_id: str) -> None:
    if not c.execute("SELECT 1 FROM subjects WHERE subject_id = ?", (subject_id,)).fetchone():
        raise NotFoundError("no patient of that id")


def _consent(row: tuple[Any, ...]) -> Consent:
    return Consent(
        consent_id=row[1],
        purpose=Purpose(row[2]),
        classes=tuple(json.loads(row[3])),
        notice=row[4],
        given_by=Giver(row[5]),
        separate=bool(row[6]),
        document=row[7],
        valid_from=row[8],
        valid_to=row[9],
        withdrawn_at=row[10],
    )


def _request(row: tuple[Any, ...]) -> RightsRequest:
    return RightsRequest(
        request_id=row[0],
        subject_id=row[1],
        kind=Ask(row[2]),
        received_at=row[3],
        due_at=row[4],
        duty=row[5],
        owner=row[6],
        state=row[7],
        identity=row[8],
        response=row[9],
        answered_at=row[10],
    )


def _json(**fields: Any) -> bytes:  # noqa: ANN401  what json takes
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
