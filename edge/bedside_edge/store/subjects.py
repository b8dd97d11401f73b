"""Subjects in SQLite: patients behind keyed hashes, each with keys of its own."""

import json
import sqlite3
import threading
from collections import OrderedDict
from typing import Final

from bedside_core.errors import NotFoundError
from bedside_edge.ports import Header, KeyStore, RandomBytes
from bedside_edge.ports.slots import KeySlots
from bedside_edge.ports.subjects import Subject, SubjectFacts
from bedside_edge.store import sealing
from bedside_edge.store.database import Database
from bedside_edge.store.headers import unpack
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.rules import new_id

_LOOK_BACK: Final = 64  # headers looked at for facts about a person
_CACHED_KEYS: Final = 1024
_KNOWN: Final = "SELECT 1 FROM subjects WHERE subject_id = ?"
_HEADERS: Final = """
  SELECT i.study_id, i.instance_id, i.header FROM instances AS i JOIN studies AS s USING (study_id)
  WHERE s.subject_id = ? ORDER BY i.seq DESC LIMIT ?"""
_STUDIES: Final = "SELECT study_id FROM studies WHERE subject_id = ? ORDER BY created, study_id"


def subject_lookup(keys: KeyStore, header: Header) -> tuple[str, bool]:
    """Return the keyed hash a header's patient is filed under, and whether it has a patient id."""
    if header.patient_id:
        return patient_lookup(keys, header.issuer, header.patient_id), True
    return keys.lookup("study-subject", header.study_uid.encode()), False


def patient_lookup(keys: KeyStore, issuer: str, patient_id: str) -> str:
    """Return the keyed hash of a patient id."""
    return keys.lookup("subject", json.dumps([issuer, patient_id]).encode())


class SubjectKeys:
    """Commitment keys of subjects: made, wrapped, and kept unwrapped for the subjects in use."""

    def __init__(self, slots: KeySlots, random: RandomBytes) -> None:
        self._slots = slots
        self._random = random
        self._lock = threading.Lock()
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._forgotten: set[str] = set()  # erased while the process runs

    def make(self, subject_id: str) -> tuple[bytes, int, bytes]:
        """Return a fresh key, its slot and its wrapped form for the row."""
        key = self._random(sealing.KEY_BYTES)
        return key, *self._slots.wrap(key, _context(subject_id))

    def commitment(self, connection: sqlite3.Connection, subject_id: str) -> bytes:
        """Return the commitment key, 32 bytes: a `SubjectKey`; NotFoundError, also if erased."""
        with self._lock:
            if subject_id in self._held:
                self._held.move_to_end(subject_id)
                return self._held[subject_id]
        row = connection.execute(
            "SELECT slot, key FROM subjects WHERE subject_id = ?", (subject_id,)
        ).fetchone()
        if row is None:
            raise NotFoundError("no subject of that id")
        key = self._slots.unwrap(row[0], row[1], _context(subject_id))
        with self._lock:
            if subject_id not in self._forgotten:
                self._held[subject_id] = key
                while len(self._held) > _CACHED_KEYS:
                    self._held.popitem(last=False)
        return key

    def forget(self, subject_id: str) -> None:
        """Drop an unwrapped key, and never keep it again: the subject is being erased."""
        with self._lock:
            self._forgotten.add(subject_id)
            self._held.pop(subject_id, None)

    def of_event(
        self, connection: sqlite3.Connection, study_id: str, subject_id: str
    ) -> tuple[str, bytes] | None:
        """Return whom an event is about, and with which key to commit to it; None: nobody."""
        if study_id and not subject_id:
            subject_id = subject_of(connection, study_id)
        if not subject_id:
            return None
        return subject_id, self.commitment(connection, subject_id)


class SqliteSubjects:
    """`SubjectStore` over the database."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        subject_keys: SubjectKeys,
        random: RandomBytes,
        key_of: KeyOf,
    ) -> None:
        """Take `key_of`: a study's data key inside a transaction."""
        self._database = database
        self._key_of = key_of
        self._keys = keys
        self._subject_keys = subject_keys
        self._random = random

    def subject_key(self, connection: sqlite3.Connection, subject_id: str) -> bytes:
        """Return the commitment key (32 bytes) inside a transaction; NotFoundError."""
        return self._subject_keys.commitment(connection, subject_id)

    def subject_of(self, study_id: str) -> str:
        """Return the subject of a study; NotFoundError."""
        return self._database.read(lambda c: subject_of(c, study_id))

    def studies_of(self, subject_id: str) -> list[str]:
        """Return the ids of the subject's studies in order of arrival; NotFoundError."""
        return list(self.subject(subject_id).studies)

    def find(self, issuer: str, patient_id: str) -> str:
        """Return the subject of a patient id; NotFoundError."""
        lookup = patient_lookup(self._keys, issuer, patient_id)
        row = self._database.read(
            lambda c: c.execute(
                "SELECT subject_id FROM subjects WHERE lookup = ?", (lookup,)
            ).fetchone()
        )
        if row is None:
            raise NotFoundError("no patient of that id")
        return str(row[0])

    def subject(self, subject_id: str) -> Subject:
        """Return one subject; NotFoundError."""

        def look(c: sqlite3.Connection) -> Subject:
            row = c.execute(
                "SELECT identified, created FROM subjects WHERE subject_id = ?", (subject_id,)
            ).fetchone()
            if row is None:
                raise NotFoundError("no subject of that id")
            studies = tuple(study for (study,) in c.execute(_STUDIES, (subject_id,)))
            return Subject(
                subject_id=subject_id, identified=bool(row[0]), created=row[1], studies=studies
            )

        return self._database.read(look)

    def facts(self, subject_id: str) -> SubjectFacts:
        """Return what headers said about the person; NotFoundError."""

        def look(c: sqlite3.Connection) -> list[tuple[sealing.Box, str, bytes]]:
            if c.execute(_KNOWN, (subject_id,)).fetchone() is None:
                raise NotFoundError("no subject of that id")
            rows = c.execute(_HEADERS, (subject_id, _LOOK_BACK)).fetchall()
            return [(self._key_of(c, study), instance, header) for study, instance, header in rows]

        told = SubjectFacts()
        for box, instance_id, sealed in self._database.read(look):
            told = _completed(told, unpack(box, instance_id, sealed)[0])
        return told

    def commitment_key(self, subject_id: str) -> bytes:
        """Return the subject's commitment key, 32 bytes; NotFoundError."""
        return self._database.read(lambda c: self.subject_key(c, subject_id))

    # --- inside the transaction that files an arrival ------------------------------------------

    def enter(self, c: sqlite3.Connection, lookup: str, at: int, *, identified: bool) -> str:
        """Return the subject filed under `lookup`, making its row for a new patient."""
        row = c.execute("SELECT subject_id FROM subjects WHERE lookup = ?", (lookup,)).fetchone()
        if row is not None:
            return str(row[0])
        subject_id = new_id(self._random)
        _, slot, wrapped = self._subject_keys.make(subject_id)
        c.execute(
            "INSERT INTO subjects (subject_id, lookup, identified, slot, key, created)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (subject_id, lookup, identified, slot, wrapped, at),
        )
        return subject_id


def subject_of(c: sqlite3.Connection, study_id: str) -> str:
    """Return the subject of a study inside a transaction; NotFoundError."""
    row = c.execute("SELECT subject_id FROM studies WHERE study_id = ?", (study_id,)).fetchone()
    if row is None:
        raise NotFoundError("no study of that id")
    return str(row[0])


def _context(subject_id: str) -> bytes:
    return b"subject " + subject_id.encode()


def _completed(told: SubjectFacts, older: Header) -> SubjectFacts:
    """Return the facts with what an older header adds to them."""
    return SubjectFacts(
        birth_date=told.birth_date or older.birth_date,
        sex=told.sex or older.sex,
        age=told.age or older.age,
        age_on=told.age_on if told.age else older.study_date * bool(older.age),
    )
