"""Acceptance verdicts in SQLite: a verdict and its evidence entry are one transaction."""

import sqlite3
from typing import Final

from bedside_core.evidence.entry import Kind
from bedside_core.hardware.acceptance import AcceptanceRecord, parse_record
from bedside_edge.ports.evidence import BOX, Event, Record
from bedside_edge.store.database import Database

_ADD: Final = """
  INSERT INTO hardware_acceptances (key, profile, accepted, at, body, entry)
  VALUES (?, ?, ?, ?, ?, ?)"""
_FIND: Final = "SELECT body FROM hardware_acceptances WHERE key = ? ORDER BY seq DESC LIMIT 1"
_NEWEST: Final = "SELECT body FROM hardware_acceptances ORDER BY seq DESC LIMIT ?"
_RAISE: Final = """
  INSERT INTO hardware_floors (id, seq) VALUES (?1, ?2)
  ON CONFLICT (id) DO UPDATE SET seq = max(seq, ?2)"""
_FLOOR: Final = "SELECT seq FROM hardware_floors WHERE id = ?"


class SqliteHardware:
    """`AcceptanceStore` over the database."""

    def __init__(self, database: Database, record: Record) -> None:
        self._database, self._record = database, record

    def find(self, key: str) -> AcceptanceRecord | None:
        """Return the newest verdict on a tuple, or None."""
        row = self._database.read(lambda c: c.execute(_FIND, (key,)).fetchone())
        return parse_record(row[0]) if row else None

    def add(self, record: AcceptanceRecord) -> int:
        """Keep a verdict with its evidence entry; return the entry's index."""
        about, body = record.subject, record.data()

        def write(c: sqlite3.Connection) -> int:
            entry = self._record(c, _told(record, body))
            row = (about.key, about.profile_id, record.accepted, record.at, body, entry)
            c.execute(_ADD, row)
            if record.accepted:
                c.execute(_RAISE, (about.profile_id, about.profile_seq))
            return entry

        return self._database.write(write)

    def floor(self, profile_id: str) -> int:
        """Return the highest revision of a profile that was ever accepted; 0: none."""
        row = self._database.read(lambda c: c.execute(_FLOOR, (profile_id,)).fetchone())
        return int(row[0]) if row else 0

    def newest(self, limit: int = 50) -> list[AcceptanceRecord]:
        """Return verdicts, newest first."""
        rows = self._database.read(lambda c: c.execute(_NEWEST, (limit,)).fetchall())
        return [parse_record(body) for (body,) in rows]


class NoVerdicts:
    """`AcceptanceStore` of a trial run that keeps nothing."""

    def find(self, key: str) -> AcceptanceRecord | None:
        """Return None: nothing is kept."""
        return None

    def add(self, record: AcceptanceRecord) -> int:
        """Keep nothing."""
        return -1

    def floor(self, profile_id: str) -> int:
        """Return 0: nothing was accepted."""
        return 0

    def newest(self, limit: int = 50) -> list[AcceptanceRecord]:
        """Return nothing."""
        return []


def _told(record: AcceptanceRecord, body: bytes) -> Event:
    about = record.subject
    return Event(
        kind=Kind.ACCEPTANCE,
        actor=BOX,
        payload=body,
        refs={
            "what": "accepted" if record.accepted else "not-accepted",
            "profile": about.profile_id,
            "seq": about.profile_seq,
            "profile_digest": about.profile_digest.removeprefix("sha256:"),
            "package": about.package_digest.removeprefix("sha256:"),
            "engine": about.engine,
            "precision": about.precision,
            "record": record.digest,
        },
    )
