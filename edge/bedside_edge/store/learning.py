"""Cases and what learning leaves behind, in SQLite.

Features lie under their study's key and go with it; a source's word about a patient lies under a
key made of the patient's own, so that destroying that key takes it away in every backup as well.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from bedside_core.errors import BedsideError, DamagedObjectError, NotFoundError
from bedside_core.evidence.entry import Kind, as_actor, as_ref
from bedside_core.review import ReviewKind
from bedside_edge.ports import Instance, KeyStore, RandomBytes
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.ports.learning import Case, Features, JointResult, Json, Signature
from bedside_edge.ports.subjects import SubjectKey
from bedside_edge.store.database import Database
from bedside_edge.store.headers import unpack
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.sealing import Box

_NONCE: Final = 12
_STUDIES: Final = """
  SELECT s.study_id, s.subject_id, u.lookup, u.identified, s.created, s.grade,
    i.seq, i.instance_id, i.header, i.way, r.result_id, r.body, v.review_id, v.kind, v.at,
    v.reader_id, v.body
  FROM studies AS s
  JOIN subjects AS u ON u.subject_id = s.subject_id
  JOIN instances AS i ON i.seq = (SELECT min(seq) FROM instances WHERE study_id = s.study_id)
  LEFT JOIN results AS r ON r.study_id = s.study_id AND r.superseded_by = ''
  LEFT JOIN reviews AS v ON v.result_id = r.result_id
    AND v.revision = (SELECT max(revision) FROM reviews WHERE result_id = r.result_id)
  WHERE (?1 IS NULL OR s.subject_id IN (SELECT value FROM json_each(?1)))
    AND length(s.data_key) > 0
    AND NOT EXISTS (SELECT 1 FROM holds AS h WHERE h.study_id = s.study_id AND h.released_at = 0)
  ORDER BY i.seq"""


class SqliteLearning:
    """`CaseStore` over the database."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        key_of: KeyOf,
        subject_key: SubjectKey,
        random: RandomBytes,
        record: Record,
        *,
        with_uid: Callable[[str], Sequence[Instance]],
    ) -> None:
        """Stand on the database, keys of studies and patients, and the search by UID."""
        self._database, self._keys, self._key_of = database, keys, key_of
        self._subject_key, self._random, self._record = subject_key, random, record
        self._with_uid = with_uid

    # --- cases ---------------------------------------------------------------------------------

    def cases(self, subject_ids: Sequence[str] | None = None) -> list[Case]:
        """Return studies in order of arrival: readable, under no hold; of these patients or all."""
        wanted = None if subject_ids is None else json.dumps(list(subject_ids))
        rows = self._database.read(
            lambda c: [
                (row, self._box(c, row[0])) for row in c.execute(_STUDIES, (wanted,)).fetchall()
            ]
        )
        return [self._case(row, box) for row, box in rows if box is not None]

    def studies_with(self, sop_instance_uid: str) -> list[str]:
        """Return the studies that hold an object of this UID."""
        return list(dict.fromkeys(one.study_id for one in self._with_uid(sop_instance_uid)))

    def _box(self, c: sqlite3.Connection, study_id: str) -> Box | None:
        try:
            return self._key_of(c, study_id)
        except BedsideError:  # its key is destroyed
            return None

    def _case(self, row: tuple[Any, ...], box: Box) -> Case:
        study_id, subject_id, lookup, identified, created, grade, seq, instance_id = row[:8]
        header, way, result_id, result, review_id, kind, at, reader_id, review = row[8:]
        body = _opened(box, result, f"result {result_id}")
        signed = None
        if kind is not None:
            said = _opened(box, review, f"review {review_id}") or {}
            accepted = str(((body or {}).get("value") or {}).get("decision", ""))
            decision = accepted if kind == ReviewKind.ACCEPT else str(said.get("decision") or "")
            signed = Signature(kind=ReviewKind(kind), decision=decision, reader_id=reader_id, at=at)
        try:
            known = unpack(box, instance_id, header)[0]
        except DamagedObjectError:
            known = None
        return Case(
            study_id=study_id,
            subject_id=subject_id,
            patient=self._keys.lookup("privacy", lookup.encode()) if identified else "",
            arrival=seq,
            received=created,
            grade=grade,
            way=way,
            header=known,
            result=body,
            result_id=result_id or "",
            signed=signed,
        )

    # --- features ------------------------------------------------------------------------------

    def features(self, study_id: str, package: str) -> dict[str, Features]:
        """Return the stored features of a study's images, by instance id."""

        def look(c: sqlite3.Connection) -> tuple[Box | None, list[tuple[str, bytes]]]:
            rows = c.execute(
                "SELECT instance_id, body FROM features WHERE study_id = ? AND package = ?",
                (study_id, package),
            ).fetchall()
            return (self._box(c, study_id) if rows else None), rows

        box, rows = self._database.read(look)
        if box is None:
            return {}
        return {
            instance_id: np.frombuffer(box.open(body, f"features {instance_id} {package}"), "<f4")
            for instance_id, body in rows
        }

    def keep_features(self, study_id: str, package: str, found: Mapping[str, Features]) -> None:
        """Keep features under the study's key; nothing when it was erased meanwhile."""

        def write(c: sqlite3.Connection) -> None:
            try:
                box = self._key_of(c, study_id)
            except NotFoundError:
                return
            for instance_id, values in found.items():
                plain = values.astype("<f4").tobytes()
                body = box.seal(plain, f"features {instance_id} {package}", self._random(_NONCE))
                c.execute(
                    "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)",
                    (instance_id, package, study_id, body),
                )

        self._database.write(write)

    # --- other sources -------------------------------------------------------------------------

    def extras(self, subject_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return what other sources say of patients, by subject id and name."""

        def look(c: sqlite3.Connection) -> dict[str, dict[str, str]]:
            rows = c.execute(
                "SELECT subject_id, name, body FROM extras"
                " WHERE subject_id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(subject_ids)),),
            )
            found: dict[str, dict[str, str]] = {}
            for subject_id, name, body in rows.fetchall():
                plain = self._patients_box(c, subject_id).open(body, f"extra {subject_id} {name}")
                found.setdefault(subject_id, {})[name] = plain.decode()
            return found

        return self._database.read(look)

    def add_extras(self, name: str, rows: Sequence[tuple[str, str]], actor: str) -> None:
        """Replace a source: (subject id, word) for each patient it knows; evidence with it."""
        event = Event(
            kind=Kind.ADMIN,
            actor=as_actor(actor),
            refs={"what": "source", "name": as_ref(name), "patients": len(rows)},
        )

        def write(c: sqlite3.Connection) -> None:
            c.execute("DELETE FROM extras WHERE name = ?", (name,))
            for subject_id, word in rows:
                box = self._patients_box(c, subject_id)
                context = f"extra {subject_id} {name}"
                body = box.seal(word.encode(), context, self._random(_NONCE))
                c.execute(
                    "INSERT OR REPLACE INTO extras VALUES (?, ?, ?)", (subject_id, name, body)
                )
            self._record(c, event)

        self._database.write(write)

    def _patients_box(self, c: sqlite3.Connection, subject_id: str) -> Box:
        key = self._subject_key(c, subject_id)
        return Box(hashlib.sha256(b"bedside extras\0" + key).digest())

    # --- batches -------------------------------------------------------------------------------

    def batches(self, model: str) -> dict[str, str]:
        """Return in which round a patient's data went into a model, by keyed hash."""
        query = "SELECT patient, round FROM training_batches WHERE model = ?"
        return dict(self._database.read(lambda c: c.execute(query, (model,)).fetchall()))

    def enter_batch(self, model: str, round_name: str, patients: Sequence[str]) -> list[str]:
        """Put patients into a round's batch, durable; return those that are in it now."""

        def write(c: sqlite3.Connection) -> set[str]:
            c.executemany(
                "INSERT OR IGNORE INTO training_batches VALUES (?, ?, ?)",
                [(model, patient, round_name) for patient in patients],
            )
            query = "SELECT patient FROM training_batches WHERE model = ? AND round = ?"
            return {patient for (patient,) in c.execute(query, (model, round_name))}

        inside = self._database.write(write)
        return [patient for patient in patients if patient in inside]

    # --- joint results -------------------------------------------------------------------------

    def take_over(self, result: JointResult) -> None:
        """Keep a published result, with its evidence; the same one again changes nothing."""
        event = Event(
            kind=Kind.ADMIN,
            actor=as_actor(result.actor),
            refs={"what": "joint-result", "task": result.kind, "digest": result.digest},
        )

        def write(c: sqlite3.Connection) -> None:
            added = c.execute(
                "INSERT OR IGNORE INTO joint_results (kind, digest, actor, at, body)"
                " VALUES (?, ?, ?, ?, ?)",
                (result.kind, result.digest, result.actor, result.at, result.body),
            )
            if added.rowcount:
                self._record(c, event)

        self._database.write(write)

    def joint_results(self, kind: str) -> list[JointResult]:
        """Return what was taken over, newest first."""
        query = (
            "SELECT kind, digest, actor, at, body FROM joint_results WHERE kind = ?"
            " ORDER BY seq DESC"
        )
        rows = self._database.read(lambda c: c.execute(query, (kind,)).fetchall())
        return [
            JointResult(kind=row[0], digest=row[1], actor=row[2], at=row[3], body=bytes(row[4]))
            for row in rows
        ]


def free_batch(c: sqlite3.Connection, round_name: str) -> None:
    """Free the patients of a round whose sum does not hold this box's report.

    Called where the round's charges become void, in that transaction: who did not pay may come
    again, and who paid may not.
    """
    c.execute("DELETE FROM training_batches WHERE round = ?", (round_name,))


def _opened(box: Box, blob: bytes | None, context: str) -> Json | None:
    if blob is None:
        return None
    try:
        found = json.loads(box.open(blob, context))
    except (DamagedObjectError, ValueError):
        return None
    return found if isinstance(found, dict) else None
