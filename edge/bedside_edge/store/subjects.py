"""Subjects in SQLite: patients behind keyed hashes, each with keys of its own."""

import json
import sqlite3
import threading
from collections import OrderedDict
from typing import Final

from bedside_core.errors import DamagedObjectError, NotFoundError
from bedside_edge.ports import Header, KeyStore, RandomBytes
from bedside_edge.ports.slots import KeySlots
from bedside_edge.ports.subjects import Subject, SubjectFacts
from bedside_edge.store import sealing
from bedside_edge.store.database import Database
from bedside_edge.store.rules import new_id

_NONCE: Final = 12
_CACHED_KEYS: Final = 1024
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
    """Keys of subjects: 32 bytes to commit with, 32 to seal what is known of the person."""

    def __init__(self, slots: KeySlots, random: RandomBytes) -> None:
        self._slots = slots
        self._random = random
        self._lock = threading.Lock()
        self._pairs: OrderedDict[str, bytes] = OrderedDict()
        self._forgotten: set[str] = set()  # erased while the process runs

    def make(self, subject_id: str) -> tuple[bytes, int, bytes]:
        """Return fresh keys, their slot and their wrapped form for the row."""
        pair = self._random(2 * sealing.KEY_BYTES)
        return pair, *self._slots.wrap(pair, _context(subject_id))

    def pair(self, connection: sqlite3.Connection, subject_id: str) -> bytes:
        """Return both keys of a subject that has a row; NotFoundError without, or if erased."""
        with self._lock:
            if subject_id in self._pairs:
                self._pairs.move_to_end(subject_id)
                return self._pairs[subject_id]
        row = connection.execute(
            "SELECT slot, key FROM subjects WHERE subject_id = ?", (subject_id,)
        ).fetchone()
        if row is None:
            raise NotFoundError("no subject of that id")
        pair = self._slots.unwrap(row[0], row[1], _context(subject_id))
        with self._lock:
            if subject_id not in self._forgotten:
                self._pairs[subject_id] = pair
                while len(self._pairs) > _CACHED_KEYS:
                    self._pairs.popitem(last=False)
        return pair

    def forget(self, subject_id: str) -> None:
        """Drop unwrapped keys, and never keep them again: the subject is being erased."""
        with self._lock:
            self._forgotten.add(subject_id)
            self._pairs.pop(subject_id, None)

    def commitment(self, connection: sqlite3.Connection, subject_id: str) -> bytes:
        """Return the commitment key, 32 bytes: a `SubjectKey`."""
        return self.pair(connection, subject_id)[: sealing.KEY_BYTES]

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
        self, database: Database, keys: KeyStore, subject_keys: SubjectKeys, random: RandomBytes
    ) -> None:
        self._database = database
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
        return self._database.read(
            lambda c: _facts(c, subject_id, self._subject_keys.pair(c, subject_id))
        )

    def commitment_key(self, subject_id: str) -> bytes:
        """Return the subject's commitment key, 32 bytes; NotFoundError."""
        return self._database.read(lambda c: self.subject_key(c, subject_id))

    # --- inside the transaction that files an arrival ------------------------------------------

    def enter(
        self, c: sqlite3.Connection, lookup: str, header: Header, at: int, *, identified: bool
    ) -> str:
        """Return the subject of a header whose study is new, making its row for a new patient."""
        row = c.execute("SELECT subject_id FROM subjects WHERE lookup = ?", (lookup,)).fetchone()
        if row is None:
            subject_id, held = new_id(self._random), SubjectFacts()
            pair, slot, wrapped = self._subject_keys.make(subject_id)
            c.execute(
                "INSERT INTO subjects (subject_id, lookup, identified, slot, key, created)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (subject_id, lookup, identified, slot, wrapped, at),
            )
        else:
            subject_id = str(row[0])
            pair = self._subject_keys.pair(c, subject_id)
            held = _facts(c, subject_id, pair)
        told = _told(held, header)
        if told != held:
            self._keep(c, subject_id, pair, told)
        return subject_id

    def _keep(
        self, c: sqlite3.Connection, subject_id: str, pair: bytes, facts: SubjectFacts
    ) -> None:
        plain = json.dumps([facts.birth_date, facts.sex, facts.age, facts.age_on]).encode()
        box = sealing.Box(pair[sealing.KEY_BYTES :])
        sealed = box.seal(plain, f"facts {subject_id}", self._random(_NONCE))
        c.execute("UPDATE subjects SET facts = ? WHERE subject_id = ?", (sealed, subject_id))


def subject_of(c: sqlite3.Connection, study_id: str) -> str:
    """Return the subject of a study inside a transaction; NotFoundError."""
    row = c.execute("SELECT subject_id FROM studies WHERE study_id = ?", (study_id,)).fetchone()
    if row is None:
        raise NotFoundError("no study of that id")
    return str(row[0])


def _context(subject_id: str) -> bytes:
    return b"subject " + subject_id.encode()


def _facts(c: sqlite3.Connection, subject_id: str, pair: bytes) -> SubjectFacts:
    (sealed,) = c.execute(
        "SELECT facts FROM subjects WHERE subject_id = ?", (subject_id,)
    ).fetchone()
    if not sealed:
        return SubjectFacts()
    plain = sealing.Box(pair[sealing.KEY_BYTES :]).open(sealed, f"facts {subject_id}")
    try:
        birth_date, sex, age, age_on = json.loads(plain)
    except ValueError as cause:
        raise DamagedObjectError("what is stored about a subject cannot be read") from cause
    return SubjectFacts(birth_date=birth_date, sex=sex, age=age, age_on=age_on)


def _told(held: SubjectFacts, header: Header) -> SubjectFacts:
    """Return the facts after another header; what it leaves empty stays as it was."""
    return SubjectFacts(
        birth_date=header.birth_date or held.birth_date,
        sex=header.sex or held.sex,
        age=header.age or held.age,
        age_on=header.study_date if header.age else held.age_on,
    )
