"""Frozen study rows in SQLite, each snapshot under a key of its own.

A label is random: a digest would be an exact function of the data. Patients who withdrew and
studies under a hold are left out when a snapshot is frozen. A patient's grade is that of the first
snapshot of the epoch the patient stood in, whatever is regraded afterwards. An erasure takes the
snapshots away that the study may be in (a trigger of schema/0010_privacy.sql); what was charged on
them is void.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from bedside_core.errors import BedsideError, DamagedObjectError
from bedside_core.review import ReviewKind
from bedside_core.statistics.rows import Snapshot, StudyRow, freeze, grades_of, patient_of
from bedside_edge.ports import Clock, KeyStore, RandomBytes
from bedside_edge.ports.governance import StandingOf, no_standing
from bedside_edge.ports.privacy import Window
from bedside_edge.services.snapshot import Known, Signed, study_row
from bedside_edge.store import sealing
from bedside_edge.store.database import Database
from bedside_edge.store.headers import unpack
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.sealing import Box

_LABEL_BYTES: Final = 16
_NONCE: Final = 12
_FIELDS: Final = tuple(one.name for one in fields(StudyRow))
_STUDIES: Final = """
  SELECT s.study_id, s.subject_id, u.lookup, u.identified, s.created, s.grade,
    i.seq, i.instance_id, i.header, r.result_id, r.body, v.review_id, v.kind, v.at, v.body
  FROM studies AS s
  JOIN subjects AS u ON u.subject_id = s.subject_id
  JOIN instances AS i ON i.seq = (SELECT min(seq) FROM instances WHERE study_id = s.study_id)
  LEFT JOIN results AS r ON r.study_id = s.study_id AND r.superseded_by = ''
  LEFT JOIN reviews AS v ON v.result_id = r.result_id
    AND v.revision = (SELECT max(revision) FROM reviews WHERE result_id = r.result_id)
  WHERE s.created >= ? AND s.created < ? AND length(s.data_key) > 0
    AND NOT EXISTS (SELECT 1 FROM holds AS h WHERE h.study_id = s.study_id AND h.released_at = 0)
  ORDER BY i.seq"""


class SqliteSnapshots:
    """`SnapshotStore` over the database."""

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        key_of: KeyOf,
        random: RandomBytes,
        clock: Clock,
        *,
        standing: StandingOf = no_standing,
        age_bands: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """Take what snapshots are made of.

        Args:
            database: the box's one file.
            keys: wraps snapshots' keys; hashes patients.
            key_of: a study's data key inside a transaction.
            random: labels, keys and nonces.
            clock: when a snapshot was frozen.
            standing: who withdrew.
            age_bands: of the policy in force.
        """
        self._database, self._keys, self._key_of = database, keys, key_of
        self._random, self._clock = random, clock
        self.standing, self.age_bands = standing, age_bands
        self._lock = threading.Lock()
        self._last: Snapshot | None = None  # the one in use: opening a large one takes a second

    def freeze(self, window: Window) -> str:
        """Freeze the studies of a window, patients who withdrew left out; return the label."""
        found = self._database.read(
            lambda c: [
                (row, self._box(c, row[0]))
                for row in c.execute(_STUDIES, (window.starts, window.ends)).fetchall()
            ]
        )
        standing = self.standing(sorted({row[1] for row, _ in found}))
        bands = tuple(self.age_bands())
        rows = [
            study_row(self._known(row, box), bands)
            for row, box in found
            if box is not None and not (row[1] in standing and standing[row[1]].withdrawn)
        ]
        return self.keep(window, rows)

    def keep(self, window: Window, rows: Sequence[StudyRow]) -> str:
        """Store rows as a snapshot, each patient under the epoch's grade; return its label."""
        label, key = self._random(_LABEL_BYTES).hex(), self._random(sealing.KEY_BYTES)

        def store(c: sqlite3.Connection) -> list[StudyRow]:
            graded = self._with_grades(c, window, rows)
            plain = json.dumps([[getattr(row, name) for name in _FIELDS] for row in graded])
            values = (
                label,
                window.dataset,
                window.epoch,
                window.starts,
                window.ends,
                self._clock.now(),
                self._keys.wrap(key, _context(label)),
                Box(key).seal(plain.encode(), f"snapshot {label}", self._random(_NONCE)),
            )
            c.execute("INSERT INTO privacy_snapshots VALUES (?,?,?,?,?,?,?,?)", values)
            return graded

        graded = self._database.write(store)
        with self._lock:
            self._last = freeze(graded, label)
        return label

    def load(self, label: str) -> Snapshot | None:
        """Return the snapshot; None when it is gone."""
        with self._lock:
            last = self._last
        if last is not None and last.label == label:
            return last if self.window(label) is not None else None
        row = self._database.read(
            lambda c: c.execute(
                "SELECT key, content FROM privacy_snapshots WHERE label = ?", (label,)
            ).fetchone()
        )
        if row is None:
            return None
        key = self._keys.unwrap(bytes(row[0]), _context(label))
        plain = Box(key).open(bytes(row[1]), f"snapshot {label}")
        rows = [StudyRow(**dict(zip(_FIELDS, one, strict=True))) for one in json.loads(plain)]
        loaded = freeze(rows, label)
        with self._lock:
            self._last = loaded
        return loaded

    def window(self, label: str) -> Window | None:
        """Return what a snapshot covers; None when it is gone."""
        query = "SELECT dataset, epoch, starts, ends FROM privacy_snapshots WHERE label = ?"
        row = self._database.read(lambda c: c.execute(query, (label,)).fetchone())
        return None if row is None else _window(row)

    def labels(self) -> list[tuple[str, Window, int]]:
        """Return every snapshot with its window and when it was frozen, newest first."""
        query = (
            "SELECT label, dataset, epoch, starts, ends, at FROM privacy_snapshots"
            " ORDER BY at DESC, label"
        )
        found = self._database.read(lambda c: c.execute(query).fetchall())
        return [(row[0], _window(row[1:5]), row[5]) for row in found]

    def drop(self, label: str) -> None:
        """Destroy a snapshot's content."""
        self._database.write(
            lambda c: c.execute("DELETE FROM privacy_snapshots WHERE label = ?", (label,))
        )
        with self._lock:
            if self._last is not None and self._last.label == label:
                self._last = None

    # --- inside ------------------------------------------------------------------------------

    def _with_grades(
        self, c: sqlite3.Connection, window: Window, rows: Sequence[StudyRow]
    ) -> list[StudyRow]:
        """Return the rows under the epoch's grades of their patients; new patients get theirs.

        Forgets the grades of epochs before.
        """
        place, highest = (window.dataset, window.epoch), grades_of(rows)
        names = {patient: self._keys.lookup("grade", patient.encode()) for patient in highest}
        c.executemany(
            "INSERT OR IGNORE INTO privacy_grades (dataset, epoch, patient, grade)"
            " VALUES (?, ?, ?, ?)",
            [(*place, names[patient], grade) for patient, grade in highest.items()],
        )
        c.execute(
            "DELETE FROM privacy_grades WHERE dataset = ?1"
            " AND epoch < (SELECT max(epoch) FROM privacy_grades WHERE dataset = ?1)",
            place[:1],
        )
        query = "SELECT patient, grade FROM privacy_grades WHERE dataset = ? AND epoch = ?"
        fixed = dict(c.execute(query, place).fetchall())
        return [replace(row, grade=fixed[names[patient_of(row)]]) for row in rows]

    def _box(self, c: sqlite3.Connection, study_id: str) -> Box | None:
        try:
            return self._key_of(c, study_id)
        except BedsideError:  # its key is destroyed
            return None

    def _known(self, row: tuple[Any, ...], box: Box | None) -> Known:
        (_, _, lookup, identified, created, grade) = row[:6]
        (seq, instance_id, header, result_id, result, review_id, kind, at, review) = row[6:]
        body = _open(box, result, f"result {result_id}")
        said = _open(box, review, f"review {review_id}") or {}
        signed = None
        if kind is not None:
            decision = str(said.get("decision") or "")
            signed = Signed(kind=ReviewKind(kind), at=at, decision=decision)
        try:
            known = unpack(box, instance_id, header)[0] if box else None
        except DamagedObjectError:
            known = None
        return Known(
            patient=self._keys.lookup("privacy", lookup.encode()) if identified else "",
            arrival=seq,
            received=created,
            grade=grade,
            header=known,
            result=body,
            signed=signed,
        )


def _open(box: Box | None, blob: bytes | None, context: str) -> dict[str, Any] | None:
    if box is None or blob is None:
        return None
    try:
        found = json.loads(box.open(blob, context))
    except (DamagedObjectError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _window(row: Sequence[Any]) -> Window:
    return Window(dataset=row[0], epoch=row[1], starts=row[2], ends=row[3])


def _context(label: str) -> bytes:
    return f"snapshot key {label}".encode()
