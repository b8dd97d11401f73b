"""Policies and grades in SQLite: each change and its evidence are one transaction."""

import hashlib
import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bedside_core.errors import NotFoundError, StaleRevisionError
from bedside_core.evidence.entry import Kind, as_actor, as_ref
from bedside_core.grading import Lowering, checked, regraded
from bedside_edge.ports.evidence import BOX, Event, Record
from bedside_edge.ports.governance import GradeRow, StudyFacts
from bedside_edge.ports.policy import StoredPolicy
from bedside_edge.store.database import Database
from bedside_edge.store.studies import SqliteStudies
from bedside_edge.store.subjects import SqliteSubjects

_POLICY: Final = "SELECT revision, payload, envelope, signers, actor, at FROM policies"
_FACTS: Final = """
  SELECT s.study_id, s.subject_id, s.grade, s.burned_in, s.instances,
    EXISTS (SELECT 1 FROM holds AS h WHERE h.study_id = s.study_id AND h.released_at = 0)
  FROM studies AS s WHERE s.study_id IN (SELECT value FROM json_each(?))"""
_KEPT: Final = 20_000  # answers whether a patient is a minor
_UNGRADED: Final = 5  # a study whose instances nobody graded is treated as the strictest


class SqlitePolicies:
    """`PolicyStore` over the database."""

    def __init__(self, database: Database, record: Record) -> None:
        self._database, self._record = database, record

    def active(self) -> StoredPolicy | None:
        """Return what is in force; None on a fresh box."""
        row = self._database.read(
            lambda c: c.execute(_POLICY + " ORDER BY revision DESC LIMIT 1").fetchone()
        )
        return None if row is None else _policy(*row)

    def history(self) -> list[StoredPolicy]:
        """Return every document that was in force, newest first."""
        rows = self._database.read(
            lambda c: c.execute(_POLICY + " ORDER BY revision DESC").fetchall()
        )
        return [_policy(*row) for row in rows]

    def activate(self, policy: StoredPolicy, digest: str, label: str) -> None:
        """Put a document in force, with its evidence; StaleRevisionError."""
        event = Event(
            kind=Kind.POLICY,
            actor=as_actor(policy.actor),
            payload=policy.payload,
            refs={
                "what": "activated" if policy.envelope else "shipped",
                "policy": digest,
                "name": as_ref(label),
                "revision": policy.revision,
            },
        )

        def write(c: sqlite3.Connection) -> None:
            held = c.execute("SELECT coalesce(max(revision), 0) FROM policies").fetchone()[0]
            if policy.revision != held + 1:
                raise StaleRevisionError("another policy came into force meanwhile")
            c.execute(
                "INSERT INTO policies (revision, digest, payload, envelope, signers, actor, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    policy.revision,
                    digest,
                    policy.payload,
                    policy.envelope,
                    json.dumps(policy.signers),
                    policy.actor,
                    policy.at,
                ),
            )
            self._record(c, event)

        self._database.write(write)


class SqliteGovernance:
    """`StudyFactsStore` and `GradeStore` over the database."""

    def __init__(
        self,
        database: Database,
        studies: SqliteStudies,
        subjects: SqliteSubjects,
        record: Record,
        minor_years: int,
    ) -> None:
        """Stand on the other stores; under `minor_years` of age a patient is a minor."""
        self._database, self._record = database, record
        self._studies, self._subjects, self._minor = studies, subjects, minor_years
        self._lock = threading.Lock()
        self._minors: OrderedDict[tuple[str, int, str], bool] = OrderedDict()

    # --- facts ---------------------------------------------------------------------------------

    def facts(self, study_ids: Sequence[str], today: str) -> dict[str, StudyFacts]:
        """Return the facts of the studies that exist, by id."""
        wanted = json.dumps(list(study_ids))
        rows = self._database.read(lambda c: c.execute(_FACTS, (wanted,)).fetchall())
        return {
            study_id: StudyFacts(
                study_id=study_id,
                subject_id=subject_id,
                grade=grade or _UNGRADED,
                burned_in=bool(burned_in),
                minor=self._is_minor(subject_id, (study_id, instances), today),
                hold=bool(hold),
            )
            for study_id, subject_id, grade, burned_in, instances, hold in rows
        }

    def study_of(self, *, result_id: str = "", output_id: str = "") -> str:
        """Return the study of a result or of an object made of one; NotFoundError."""
        query, value = (
            ("SELECT study_id FROM results WHERE result_id = ?", result_id)
            if result_id
            else ("SELECT study_id FROM outputs WHERE output_id = ?", output_id)
        )
        row = self._database.read(lambda c: c.execute(query, (value,)).fetchone())
        if row is None:
            raise NotFoundError("nothing is held under that id")
        return str(row[0])

    def _is_minor(self, subject_id: str, seen: tuple[str, int], today: str) -> bool:
        """Say so by the headers; read again when the study got another instance or a day began."""
        key = (*seen, today)
        with self._lock:
            known = self._minors.get(key)
            if known is not None:
                self._minors.move_to_end(key)
                return known
        try:
            years = self._subjects.facts(subject_id).years(today)
        except NotFoundError:  # erased between two looks
            years = None
        minor = years is not None and years < self._minor
        with self._lock:
            self._minors[key] = minor
            while len(self._minors) > _KEPT:
                self._minors.popitem(last=False)
        return minor

    # --- grades --------------------------------------------------------------------------------

    def graded_by(self) -> str:
        """Return the digest of the rules that held instances were last graded by, or empty."""
        row = self._database.read(
            lambda c: c.execute("SELECT digest FROM gradings ORDER BY seq DESC LIMIT 1").fetchone()
        )
        return "" if row is None else str(row[0])

    def rows(self, after: int, limit: int) -> tuple[list[GradeRow], int]:
        """Return instances in order of arrival after a place in it, and the next place."""
        found = self._database.read(
            lambda c: c.execute(
                "SELECT seq, instance_id, study_id, grade FROM instances WHERE seq > ?"
                " ORDER BY seq LIMIT ?",
                (after, limit),
            ).fetchall()
        )
        known = {
            one.instance_id: one
            for study_id in dict.fromkeys(row[2] for row in found)
            for one in self._studies.instances(study_id)
        }
        rows = [
            GradeRow(
                instance_id=instance_id,
                study_id=study_id,
                grade=grade,
                header=known[instance_id].header,
                source=known[instance_id].source,
            )
            for _, instance_id, study_id, grade in found
            if instance_id in known
        ]
        return rows, found[-1][0] if found else after

    def raise_grades(self, grades: Iterable[tuple[str, int]]) -> int:
        """Raise instances to these grades, never lower one; return how many rose."""
        values = [(checked(grade), instance_id) for instance_id, grade in grades]

        def write(c: sqlite3.Connection) -> int:
            return sum(
                c.execute(
                    "UPDATE instances SET grade = ?1 WHERE instance_id = ?2 AND grade < ?1", value
                ).rowcount
                for value in values
            )

        return self._database.write(write)

    def finish_grading(self, digest: str, raised: int, at: int) -> None:
        """Record that every held instance was graded by these rules, with its evidence."""
        event = Event(
            kind=Kind.ADMIN, actor=BOX, refs={"what": "graded", "rules": digest, "raised": raised}
        )

        def write(c: sqlite3.Connection) -> None:
            c.execute(
                "INSERT INTO gradings (digest, raised, at) VALUES (?, ?, ?)", (digest, raised, at)
            )
            self._record(c, event)

        self._database.write(write)

    def record_deidentification(
        self, deidentification_id: str, instance_id: str, profile: str, actor: str, at: int
    ) -> None:
        """Record that a held instance was made by de-identification; NotFoundError."""

        def write(c: sqlite3.Connection) -> None:
            study_id, _ = _instance(c, instance_id)
            c.execute(
                "INSERT INTO deidentifications"
                " (deidentification_id, instance_id, profile, actor, at) VALUES (?, ?, ?, ?, ?)",
                (deidentification_id, instance_id, profile, actor, at),
            )
            said = {"instance": instance_id, "deidentification": deidentification_id}
            self._record(c, _event(actor, study_id, "deidentified", said, profile=as_ref(profile)))

        self._database.write(write)

    def lower(self, instance_id: str, grade: int, lowering: Lowering, at: int) -> None:
        """Let a grade fall, with its evidence; NotFoundError, GradeFallsError."""

        def write(c: sqlite3.Connection) -> None:
            study_id, before = _instance(c, instance_id)
            if regraded(before, grade, lowering) >= before:
                return  # nothing to lower; the rules raise grades
            made = c.execute(
                "SELECT 1 FROM deidentifications WHERE deidentification_id = ? AND instance_id = ?",
                (lowering.deidentification, instance_id),
            ).fetchone()
            if made is None:
                raise NotFoundError("no such de-identification of that instance is recorded")
            c.execute(
                "INSERT INTO lowerings"
                " (instance_id, before, after, deidentification_id, actor, second, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    instance_id,
                    before,
                    grade,
                    lowering.deidentification,
                    lowering.actor,
                    lowering.second,
                    at,
                ),
            )
            c.execute("UPDATE instances SET grade = ? WHERE instance_id = ?", (grade, instance_id))
            said = {"instance": instance_id, "before": before, "after": grade}
            said |= {"deidentification": lowering.deidentification, "second": lowering.second}
            self._record(c, _event(lowering.actor, study_id, "grade-lowered", said))

        self._database.write(write)


def _event(actor: str, study_id: str, what: str, said: Mapping[str, object], **refs: str) -> Event:
    payload = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return Event(
        kind=Kind.ADMIN,
        actor=as_actor(actor),
        study_id=study_id,
        payload=payload,
        refs={"what": what} | refs,
    )


def _instance(c: sqlite3.Connection, instance_id: str) -> tuple[str, int]:
    row = c.execute(
        "SELECT study_id, grade FROM instances WHERE instance_id = ?", (instance_id,)
    ).fetchone()
    if row is None:
        raise NotFoundError("no instance of that id")
    return str(row[0]), int(row[1])


def _policy(
    revision: int, payload: bytes, envelope: bytes, signers: str, actor: str, at: int
) -> StoredPolicy:
    return StoredPolicy(
        revision=revision,
        payload=payload,
        envelope=envelope,
        signers=tuple(json.loads(signers)),
        actor=actor,
        at=at,
    )


def digest_of(payload: bytes) -> str:
    """Return the digest a stored document goes by: SHA-256 of its payload."""
    return hashlib.sha256(payload).hexdigest()
