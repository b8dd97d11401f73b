"""Studies and instances in SQLite: identifiers only behind keyed hashes and under the study's key.

The hierarchy of keys: box key and key slot together wrap a study's data key (row in `studies`),
which wraps each object's key (row in `instances`). Losing a study's data key loses everything of
that study, and nothing else: that is how a patient is erased.
"""

import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bedside_core.errors import (
    InvalidInputError,
    NotFoundError,
    WrongStateError,
)
from bedside_edge.ports import (
    Alarm,
    Arrival,
    Filed,
    Filing,
    Instance,
    InstanceState,
    KeyStore,
    RandomBytes,
)
from bedside_edge.ports.evidence import Record
from bedside_edge.ports.slots import KeySlots
from bedside_edge.store import jobs, outputs, sealing, told
from bedside_edge.store.database import Database
from bedside_edge.store.headers import pack, unpack
from bedside_edge.store.rules import CompletionRules, new_id
from bedside_edge.store.subjects import SqliteSubjects, subject_lookup

_STRICTER: Final = """
  UPDATE instances SET grade = ?1 WHERE instance_id = ?2 AND grade < ?1 AND source <> ?3"""
CONFLICT_ALARM: Final = "conflicting-instance"
TWO_STUDIES_ALARM: Final = "instance-in-two-studies"
_CACHED_KEYS: Final = 1024
_NONCE: Final = 12


class StudyKeys:
    """Data keys of studies: made, wrapped, and kept unwrapped for the studies in use."""

    def __init__(self, slots: KeySlots, random: RandomBytes) -> None:
        self._slots = slots
        self.random = random
        self._lock = threading.Lock()
        self._boxes: OrderedDict[str, sealing.Box] = OrderedDict()
        self._forgotten: set[str] = set()  # erased while the process runs

    def make(self, study_id: str) -> tuple[sealing.Box, int, bytes]:
        """Return a fresh data key, its slot and its wrapped form; not remembered yet."""
        key = self.random(sealing.KEY_BYTES)
        return sealing.Box(key), *self._slots.wrap(key, study_context(study_id))

    def of(self, connection: sqlite3.Connection, study_id: str) -> sealing.Box:
        """Return the data key of a study that has a row; NotFoundError without, or if erased."""
        with self._lock:
            box = self._boxes.get(study_id)
            if box is not None:
                self._boxes.move_to_end(study_id)
                return box
        row = connection.execute(
            "SELECT slot, data_key FROM studies WHERE study_id = ?", (study_id,)
        ).fetchone()
        if row is None:
            raise NotFoundError("no study of that id")
        return sealing.Box(self._slots.unwrap(row[0], row[1], study_context(study_id)))

    def remember(self, study_id: str, box: sealing.Box) -> None:
        """Keep an unwrapped key whose row is committed."""
        with self._lock:
            if study_id in self._forgotten:
                return  # erased between the commit and this call
            self._boxes[study_id] = box
            while len(self._boxes) > _CACHED_KEYS:
                self._boxes.popitem(last=False)

    def forget(self, study_id: str) -> None:
        """Drop an unwrapped key, and never keep it again: the study is being erased."""
        with self._lock:
            self._forgotten.add(study_id)
            self._boxes.pop(study_id, None)


@dataclass(frozen=True, slots=True)
class _Ticket:
    """An arrival with the hashes it is filed under, computed before the transaction."""

    arrival: Arrival
    study: str
    uid: str
    digest: str
    subject: str
    identified: bool


class SqliteStudies:
    """`StudyStore` over the database."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        study_keys: StudyKeys,
        completion: CompletionRules,
        subjects: SqliteSubjects,
        record: Record,
    ) -> None:
        self._database = database
        self._record = record
        self._keys = keys
        self._study_keys = study_keys
        self._random = study_keys.random
        self._completion = completion
        self._subjects = subjects

    def file(self, arrivals: Sequence[Arrival]) -> list[Filed]:
        """File all in one durable transaction, and wake or create their studies' jobs.

        A DUPLICATE gets no row: whoever sealed its object gives that up (`ObjectSink.abort`).

        Raises:
            DiskFullError, StoreUnavailableError: none was filed.
        """
        tickets = [self._ticket(arrival) for arrival in arrivals]
        if not tickets:
            return []
        used: dict[str, sealing.Box] = {}
        filed = self._database.write(lambda c: self._file_all(c, tickets, used))
        for study_id, box in used.items():
            self._study_keys.remember(study_id, box)
        return filed

    def instances(self, study_id: str) -> list[Instance]:
        """Return every instance of a study in order of arrival; NotFoundError."""

        def rows(c: sqlite3.Connection) -> tuple[sealing.Box, list[Any]]:
            box = self._study_keys.of(c, study_id)
            found = c.execute(
                "SELECT instance_id, object_name, object_key, header, state, same_as, source"
                " FROM instances WHERE study_id = ? ORDER BY seq",
                (study_id,),
            )
            return box, found.fetchall()

        box, found = self._database.read(rows)
        return [_instance(box, study_id, *row) for row in found]

    def with_uid(self, sop_instance_uid: str) -> list[Instance]:
        """Return what is held under a SOP Instance UID, oldest first; found by its keyed hash."""
        uid_hash = self._keys.lookup("instance", sop_instance_uid.encode())

        def rows(c: sqlite3.Connection) -> list[tuple[sealing.Box, Any]]:
            found = c.execute(
                "SELECT study_id, instance_id, object_name, object_key, header, state, same_as,"
                " source FROM instances WHERE uid_hash = ? ORDER BY seq",
                (uid_hash,),
            ).fetchall()
            return [(self._study_keys.of(c, row[0]), row) for row in found]

        return [_instance(box, *row) for box, row in self._database.read(rows)]

    def settle(self, instance_id: str, state: InstanceState, at: int) -> None:
        """Record the outcome of a pixel comparison; CONFLICT raises an alarm. Idempotent.

        Raises:
            InvalidInputError: `state` is no outcome of a comparison.
            NotFoundError: no such instance.
            WrongStateError: it was never a second, or it was settled otherwise.
        """
        if state not in (InstanceState.SAME, InstanceState.CONFLICT):
            raise InvalidInputError("a comparison ends as same or as conflict")

        def update(c: sqlite3.Connection) -> None:
            row = c.execute(
                "SELECT state, study_id FROM instances WHERE instance_id = ?", (instance_id,)
            ).fetchone()
            if row is None:
                raise NotFoundError("no instance of that id")
            if row[0] == state:
                return
            if row[0] != InstanceState.SECOND:
                raise WrongStateError("the instance does not wait for a comparison")
            c.execute("UPDATE instances SET state = ? WHERE instance_id = ?", (state, instance_id))
            self._record(c, told.compared(row[1], instance_id, state))
            if state is InstanceState.CONFLICT:
                self._alarm(c, CONFLICT_ALARM, row[1], instance_id, at)

        self._database.write(update)

    def alarms(self) -> list[Alarm]:
        """Return the alarms, newest first."""
        rows = self._database.read(
            lambda c: c.execute(
                "SELECT code, study_id, at FROM alarms ORDER BY seq DESC"
            ).fetchall()
        )
        return [Alarm(code=code, study_id=study_id, at=at) for code, study_id, at in rows]

    def object_names(self) -> set[str]:
        """Return the object names rows refer to."""
        return self._database.read(
            lambda c: {
                name
                for (name,) in c.execute(
                    "SELECT object_name FROM instances UNION ALL SELECT object_name FROM outputs"
                )
            }
        )

    # --- one arrival, inside the transaction -------------------------------------------------

    def _ticket(self, arrival: Arrival) -> _Ticket:
        header = arrival.header
        patient = json.dumps([header.issuer, header.patient_id, header.study_uid]).encode()
        lookup = self._keys.lookup
        return _Ticket(
            arrival,
            lookup("study", patient),
            lookup("instance", header.sop_instance_uid.encode()),
            lookup("digest", arrival.sealed.digest.encode()),
            *subject_lookup(self._keys, header),
        )

    def _file_all(
        self, c: sqlite3.Connection, tickets: Sequence[_Ticket], used: dict[str, sealing.Box]
    ) -> list[Filed]:
        filed = [self._file(c, ticket, used) for ticket in tickets]
        arrivals = (ticket.arrival for ticket in tickets)
        for event in told.arrived(list(zip(arrivals, filed, strict=True))):
            self._record(c, event)
        return filed

    def _file(self, c: sqlite3.Connection, ticket: _Ticket, used: dict[str, sealing.Box]) -> Filed:
        arrival = ticket.arrival
        if own := outputs.held(c, ticket.uid):
            # an archive that routes new objects back must not start the box on its own report
            return Filed(outcome=Filing.DUPLICATE, study_id=own[0], instance_id=own[1])
        study_id, box = self._study(c, ticket)
        used[study_id] = box
        held = c.execute(
            "SELECT instance_id, study_id, digest_hash FROM instances WHERE uid_hash = ?"
            " ORDER BY seq",
            (ticket.uid,),
        ).fetchall()
        here = [(instance, digest) for instance, study, digest in held if study == study_id]
        for instance_id, digest in here:
            if digest == ticket.digest:
                # by a rule about its sender the same object may be stricter than it came first
                c.execute(_STRICTER, (arrival.grade, instance_id, arrival.source))
                return Filed(outcome=Filing.DUPLICATE, study_id=study_id, instance_id=instance_id)
        instance_id = new_id(self._random)
        state = InstanceState.SECOND if here else InstanceState.HELD
        same_as = here[0][0] if here else ""
        self._insert(c, ticket, box, study_id, instance_id, state, same_as)
        c.execute(
            "UPDATE studies SET instances = instances + 1, uids = uids + ? WHERE study_id = ?",
            (not here, study_id),
        )
        if held and not here:
            # One UID under two patients or studies: a corrected header, or a mix-up
            self._alarm(c, TWO_STUDIES_ALARM, study_id, instance_id, arrival.at)
        jobs.wake(c, study_id, arrival, self._completion, self._random)
        outcome = Filing.SECOND if here else Filing.STORED
        return Filed(outcome=outcome, study_id=study_id, instance_id=instance_id)

    def _study(self, c: sqlite3.Connection, ticket: _Ticket) -> tuple[str, sealing.Box]:
        """Return id and data key of the arrival's study, making the row for its first instance."""
        expected = max(0, ticket.arrival.header.expected_instances)
        row = c.execute(
            "SELECT study_id, expected FROM studies WHERE lookup = ?", (ticket.study,)
        ).fetchone()
        if row is None:
            study_id = new_id(self._random)
            box, slot, wrapped = self._study_keys.make(study_id)
            arrival = ticket.arrival
            subject_id = self._subjects.enter(
                c, ticket.subject, arrival.at, identified=ticket.identified
            )
            c.execute(
                "INSERT INTO studies (study_id, lookup, slot, data_key, expected, created,"
                " subject_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (study_id, ticket.study, slot, wrapped, expected, arrival.at, subject_id),
            )
            return study_id, box
        study_id = row[0]
        if expected > row[1]:
            c.execute("UPDATE studies SET expected = ? WHERE study_id = ?", (expected, study_id))
        return study_id, self._study_keys.of(c, study_id)

    def _alarm(
        self, c: sqlite3.Connection, code: str, study_id: str, instance_id: str, at: int
    ) -> None:
        raised = c.execute(
            "INSERT INTO alarms (code, study_id, instance_id, at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (code, study_id, instance_id, at),
        )
        if raised.rowcount:
            self._record(c, told.alarm(code, study_id, instance_id))

    def _insert(
        self,
        c: sqlite3.Connection,
        ticket: _Ticket,
        box: sealing.Box,
        study_id: str,
        instance_id: str,
        state: InstanceState,
        same_as: str,
    ) -> None:
        arrival, sealed = ticket.arrival, ticket.arrival.sealed
        header = pack(arrival.header, sealed.digest)
        c.execute(
            "INSERT INTO instances (instance_id, study_id, uid_hash, digest_hash, state, same_as,"
            " object_name, object_key, header, way, source, size, at, grade)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                instance_id,
                study_id,
                ticket.uid,
                ticket.digest,
                state,
                same_as,
                sealed.name,
                box.seal(sealed.object_key, f"object {sealed.name}", self._random(_NONCE)),
                box.seal(header, f"header {instance_id}", self._random(_NONCE)),
                arrival.way,
                arrival.source,
                sealed.size,
                arrival.at,
                arrival.grade,
            ),
        )
        if arrival.header.burned_in == "YES":
            c.execute("UPDATE studies SET burned_in = 1 WHERE study_id = ?", (study_id,))


def study_context(study_id: str) -> bytes:
    """Return what a study's wrapped data key is bound to."""
    return b"study " + study_id.encode()


def _instance(
    box: sealing.Box,
    study_id: str,
    instance_id: str,
    object_name: str,
    object_key: bytes,
    header: bytes,
    state: str,
    same_as: str,
    source: str,
) -> Instance:
    found, digest = unpack(box, instance_id, header)
    return Instance(
        instance_id=instance_id,
        study_id=study_id,
        header=found,
        object_name=object_name,
        object_key=box.open(object_key, f"object {object_name}"),
        digest=digest,
        state=InstanceState(state),
        same_as=same_as,
        source=source,
    )
