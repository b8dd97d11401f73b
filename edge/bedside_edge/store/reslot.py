"""Key slots of a state folder: opened with its database, and filled from earlier versions.

Until version 0.3 a study's data key was wrapped under the box key alone, so that a backup of the
database brought an erased study back. A kill half
way leaves the rest to the next opening. Copies of the database made before that still
open with the box key: they have to be destroyed by whoever made them.
"""

import json
import logging
import sqlite3
from pathlib import Path
from typing import Final

from bedside_core.errors import DamagedObjectError, StoreUnavailableError
from bedside_edge.ports import Header, KeyStore, RandomBytes
from bedside_edge.ports.slots import KeySlots, SlotsMark
from bedside_edge.store import sealing
from bedside_edge.store.database import Database
from bedside_edge.store.headers import unpack
from bedside_edge.store.slots import FileSlots, open_slots
from bedside_edge.store.studies import study_context
from bedside_edge.store.subjects import SqliteSubjects, subject_lookup

log = logging.getLogger(__name__)

_BATCH: Final = 200
_OLD: Final = "SELECT study_id, data_key, created FROM studies WHERE slot = 0 LIMIT ?"
_FIRST: Final = "SELECT instance_id, header FROM instances WHERE study_id = ? ORDER BY seq LIMIT 1"
_MOVE: Final = "UPDATE studies SET slot = ?, data_key = ?, subject_id = ? WHERE study_id = ?"


def claim_slots(folder: Path, database: Database, keys: KeyStore, random: RandomBytes) -> FileSlots:
    """Open the key slots of a state folder, making them for a new or an older one.

    Raises:
        StoreUnavailableError: missing, damaged, of another box or another folder, or older than
            the database: keys in use would be lost.
        DiskFullError: no room to make them.
    """
    held = database.read(mark_of)
    slots = open_slots(folder, keys, random, create=held is None)
    try:
        _refuse_strange(slots, held, database.read(_highest))
        if held is None:
            database.write(lambda c: keep_mark(c, slots.mark()))
    except BaseException:
        slots.close()
        raise
    return slots


def mark_of(c: sqlite3.Connection) -> SlotsMark | None:
    """Return where the slots stood when the database last looked; None before there were any."""
    row = c.execute("SELECT value FROM meta WHERE name = 'slots'").fetchone()
    return SlotsMark(**json.loads(row[0])) if row else None


def keep_mark(c: sqlite3.Connection, mark: SlotsMark) -> None:
    """Note where the slots stand."""
    value = json.dumps({"file": mark.file, "records": mark.records, "head": mark.head}).encode()
    c.execute("INSERT OR REPLACE INTO meta VALUES ('slots', ?)", (value,))


def _refuse_strange(slots: FileSlots, held: SlotsMark | None, highest: int) -> None:
    if held is not None and held.file != slots.mark().file:
        raise StoreUnavailableError("the key slots do not belong to this database")
    if highest > slots.highest():
        raise StoreUnavailableError("the key slots are older than the database; restore them")


def _highest(c: sqlite3.Connection) -> int:
    row = c.execute(
        "SELECT max((SELECT coalesce(max(slot), 0) FROM studies),"
        " (SELECT coalesce(max(slot), 0) FROM subjects))"
    ).fetchone()
    return int(row[0])


def move_into_slots(
    database: Database, keys: KeyStore, slots: KeySlots, subjects: SqliteSubjects
) -> int:
    """Wrap every study's data key under a slot and give it its subject; return how many moved.

    Raises:
        DamagedObjectError: a data key does not open under the box key.
    """
    moved = 0

    def batch(c: sqlite3.Connection) -> int:
        rows = c.execute(_OLD, (_BATCH,)).fetchall()
        for study_id, wrapped, created in rows:
            key = keys.unwrap(wrapped, study_context(study_id))
            header = _first_header(c, sealing.Box(key), study_id)
            lookup, identified = subject_lookup(keys, header)
            subject_id = subjects.enter(c, lookup, created, identified=identified)
            c.execute(_MOVE, (*slots.wrap(key, study_context(study_id)), subject_id, study_id))
        return len(rows)

    while count := database.write(batch):
        moved += count
    if moved:
        database.compact()  # pages that were rewritten may still hold keys wrapped the old way
        log.warning("studies moved into key slots", extra={"count": moved})
    return moved


def _first_header(c: sqlite3.Connection, box: sealing.Box, study_id: str) -> Header:
    """Return the header of the study's first instance; one without a patient if unreadable."""
    row = c.execute(_FIRST, (study_id,)).fetchone()
    if row is not None:
        try:
            return unpack(box, *row)[0]
        except DamagedObjectError:
            log.warning("a study has no readable header and becomes a patient of its own")
    return Header(
        sop_class_uid="",
        sop_instance_uid="",
        study_uid=study_id,
        series_uid="",
        transfer_syntax_uid="",
    )
