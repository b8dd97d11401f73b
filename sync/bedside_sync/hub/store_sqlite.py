"""What the hub keeps: one SQLite file and the chunks of masked vectors as plain files.

Every method is one durable transaction. A vector's file is written in place and synced before the
report that names it is filed; a chunk counts as held when its bytes have the digest the box
announced, so a crash in the middle of a write costs that chunk and nothing else.
"""

import errno
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from bedside_core.errors import (
    DiskFullError,
    NotFoundError,
    RoundRefusedError,
    StoreUnavailableError,
    WrongStateError,
)
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.machines import HUB, Hub, step
from bedside_sync.secagg.manifest import SignedManifest
from bedside_sync.secagg.prg import CHUNK_BYTES, Words, chunk_digest, whole_digest, word_type
from bedside_sync.secagg.report import Report

_FULL: Final = 2
_MOST_REFUSALS: Final = 10_000  # a peer that only sends nonsense fills no disk
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS roster (seq INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS round (
  name TEXT PRIMARY KEY, state TEXT NOT NULL, manifest BLOB NOT NULL, hash BLOB NOT NULL UNIQUE,
  digest BLOB, transcript BLOB, hash_after BLOB, seq INTEGER UNIQUE
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS upload (
  round TEXT NOT NULL REFERENCES round, box TEXT NOT NULL, what TEXT NOT NULL,
  digest BLOB NOT NULL, words INTEGER NOT NULL, chunks BLOB NOT NULL,
  PRIMARY KEY (round, box, what)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS report (
  round TEXT NOT NULL REFERENCES round, box TEXT NOT NULL, seq INTEGER NOT NULL,
  report BLOB NOT NULL, receipt BLOB NOT NULL, at INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('in', 'withdrawn', 'dropped')), why BLOB,
  PRIMARY KEY (round, box)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS envelope (
  round TEXT NOT NULL, box TEXT NOT NULL, helper INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (round, box, helper)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS said (
  round TEXT NOT NULL, helper TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (round, helper, kind)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accumulator (
  round TEXT PRIMARY KEY, boxes TEXT NOT NULL, total BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS opened (
  round TEXT PRIMARY KEY REFERENCES round, words BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS upcoming (
  round TEXT PRIMARY KEY, helpers TEXT NOT NULL, at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS helper_key (
  round TEXT NOT NULL REFERENCES upcoming, box TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (round, box)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS certificate (
  serial TEXT PRIMARY KEY, box TEXT NOT NULL, digest BLOB NOT NULL UNIQUE, pem TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (digest BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS inventory (
  box TEXT PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS campaign (
  seq INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS refusal (
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, round TEXT NOT NULL, peer TEXT NOT NULL,
  code TEXT NOT NULL
) STRICT;
"""


class HubStore:
    """The hub's database and files. Methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """Open or create the store in `folder`; StoreUnavailableError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(
                folder / "hub.db", isolation_level=None, check_same_thread=False, timeout=10
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            if self._db.execute("PRAGMA synchronous").fetchone()[0] != _FULL:
                raise StoreUnavailableError("the file system does not grant full sync")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as cause:
            raise StoreUnavailableError("the hub's database cannot be opened") from cause

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction; DiskFullError or StoreUnavailableError when it is not."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as cause:
                if cause.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise DiskFullError("the hub's disk is full; try again later") from cause
                raise StoreUnavailableError("the hub's database cannot be written") from cause

    def rows(self, text: str, *values: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401
        """Return what a query finds."""
        with self._lock:
            return self._db.execute(text, values).fetchall()

    def row(self, text: str, *values: Any) -> tuple[Any, ...]:  # noqa: ANN401
        """Return the one row a query finds; NotFoundError."""
        found = self.rows(text, *values)
        if not found:
            raise NotFoundError("the hub knows no such thing")
        return found[0]

    # --- roster ------------------------------------------------------------------------------

    def roster(self) -> list[bytes]:
        """Return the roster's signed entries in order."""
        return [row[0] for row in self.rows("SELECT entry FROM roster ORDER BY seq")]

    def append_roster(self, seq: int, entry: bytes) -> None:
        """Append an entry checked before; WrongStateError when another took its place."""
        with self.write() as db:
            held = db.execute("SELECT count(*) FROM roster").fetchone()[0]
            if held != seq:
                raise WrongStateError("the roster has grown meanwhile; sign the entry again")
            db.execute("INSERT INTO roster VALUES (?, ?)", (seq, entry))

    # --- rounds ------------------------------------------------------------------------------

    def announce(self, signed: SignedManifest) -> None:
        """Keep a manifest; the same again is no news, another under its name is refused."""
        manifest, data = signed.manifest, signed.encode()
        with self.write() as db:
            held = db.execute("SELECT hash FROM round WHERE name = ?", (manifest.round,)).fetchone()
            if held is None:
                db.execute(
                    "INSERT INTO round (name, state, manifest, hash) VALUES (?, ?, ?, ?)",
                    (manifest.round, Hub.ANNOUNCED, data, manifest.hash),
                )
            elif held[0] != manifest.hash:
                raise WrongStateError("another manifest has this round's name")

    def rounds(self) -> list[tuple[str, Hub]]:
        """Return every round with its state, newest name last."""
        return [(n, Hub(s)) for n, s in self.rows("SELECT name, state FROM round ORDER BY name")]

    def state(self, name: str) -> Hub:
        """Return a round's state; NotFoundError."""
        return Hub(self.row("SELECT state FROM round WHERE name = ?", name)[0])

    def manifest(self, name: str) -> SignedManifest:
        """Return a round's manifest; NotFoundError."""
        data = self.row("SELECT manifest FROM round WHERE name = ?", name)[0]
        return decode(SignedManifest, data)

    def move(self, name: str, wanted: Hub, **columns: bytes) -> None:
        """Take a round to its next state, writing what that step needs in the same transaction.

        RoundRefusedError when the table has no such step. The same state again is no news.
        """
        with self.write() as db:
            row = db.execute("SELECT state FROM round WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise NotFoundError("the hub knows no such round")
            now = Hub(row[0])
            if now is wanted:
                return
            step(HUB, now, wanted)
            db.execute("UPDATE round SET state = ? WHERE name = ?", (wanted, name))
            for column in ("digest", "transcript", "hash_after"):
                if column in columns:
                    db.execute(
                        f"UPDATE round SET {column} = ? WHERE name = ?",  # noqa: S608  a constant
                        (columns[column], name),
                    )
            if "opened" in columns:
                db.execute("INSERT INTO opened VALUES (?, ?)", (name, columns["opened"]))
            if "transcript" in columns:
                db.execute("DELETE FROM accumulator WHERE round = ?", (name,))
                db.execute(
                    "UPDATE round SET seq = (SELECT coalesce(max(seq), -1) + 1 FROM round) "
                    "WHERE name = ?",
                    (name,),
                )

    def column(self, name: str, column: str) -> bytes:
        """Return `digest` or `transcript` of a round; NotFoundError while there is none."""
        if column not in ("digest", "transcript"):
            raise ValueError(column)
        found = self.row(f"SELECT {column} FROM round WHERE name = ?", name)[0]  # noqa: S608
        if found is None:
            raise NotFoundError("the round has not come so far")
        return bytes(found)

    def opened(self, name: str) -> bytes:
        """Return a published round's sum as words of its ring; NotFoundError."""
        return bytes(self.row("SELECT words FROM opened WHERE round = ?", name)[0])

    def last_transcript(self) -> bytes:
        """Return the hash the next transcript must name; zeros before the first."""
        found = self.rows(
            "SELECT hash_after FROM round WHERE seq IS NOT NULL ORDER BY seq DESC LIMIT 1"
        )
        return bytes(found[0][0]) if found else bytes(32)

    def transcripts(self) -> list[str]:
        """Return the rounds that have one, in the order of their chain."""
        return [
            row[0] for row in self.rows("SELECT name FROM round WHERE seq IS NOT NULL ORDER BY seq")
        ]

    def keep_settings(self, data: bytes) -> bytes:
        """Keep a task's settings; return the SHA-256 they are asked for by."""
        digest = hashlib.sha256(data).digest()
        with self.write() as db:
            db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (digest, data))
        return digest

    def settings(self, digest: bytes) -> bytes:
        """Return a task's settings; NotFoundError."""
        return bytes(self.row("SELECT data FROM settings WHERE digest = ?", digest)[0])

    # --- uploads -----------------------------------------------------------------------------

    def begin(
        self, name: str, box: str, what: str, digest: bytes, words: int, chunks: Sequence[bytes]
    ) -> list[bool]:
        """Announce a vector and return which of its chunks are held.

        WrongStateError when the box has announced another one under this name.
        """
        with self.write() as db:
            row = db.execute(
                "SELECT digest FROM upload WHERE round = ? AND box = ? AND what = ?",
                (name, box, what),
            ).fetchone()
            if row is None:
                db.execute(
                    "INSERT INTO upload VALUES (?, ?, ?, ?, ?, ?)",
                    (name, box, what, digest, words, b"".join(chunks)),
                )
            elif row[0] != digest:
                raise WrongStateError("the box has sent another vector for this round")
        return self.held(name, box, what)

    def announced(self, name: str, box: str, what: str) -> bytes:
        """Return the digest a box announced for a vector; NotFoundError."""
        return self._upload(name, box, what)[0]

    def held(self, name: str, box: str, what: str) -> list[bool]:
        """Return which chunks of an announced vector lie on the disk, whole."""
        _, _, chunks = self._upload(name, box, what)
        path = self._path(name, box, what)
        if not path.exists():
            return [False] * len(chunks)
        with path.open("rb") as file:
            return [
                chunk_digest(number, file.read(CHUNK_BYTES)) == wanted
                for number, wanted in enumerate(chunks)
            ]

    def put(self, name: str, box: str, what: str, number: int, data: bytes) -> None:
        """Write one chunk.

        WrongStateError when it is not the one announced; DiskFullError, StoreUnavailableError
        when it cannot be written: what is held stays held.
        """
        _, _, chunks = self._upload(name, box, what)
        if not 0 <= number < len(chunks) or chunk_digest(number, data) != chunks[number]:
            raise WrongStateError("the chunk is not the one announced")
        path = self._path(name, box, what)
        with _disk():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                view, at = memoryview(data), number * CHUNK_BYTES
                while view:  # a full disk takes a part and fails on the rest
                    done = os.pwrite(descriptor, view, at)
                    view, at = view[done:], at + done
            finally:
                os.close(descriptor)

    def vector(self, name: str, box: str, what: str, ring: int) -> Words:
        """Return a whole uploaded vector, durable from here on and as its chunks were announced.

        WrongStateError when a chunk is missing or the digest of the whole is another one.
        """
        digest, words, chunks = self._upload(name, box, what)
        path = self._path(name, box, what)
        if not path.exists():
            raise WrongStateError("chunks of the vector are missing")
        with _disk():
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            for folder in (path.parent, path.parent.parent, self._folder):
                _sync(folder)
            found: Words = np.fromfile(path, word_type(ring), words)
        data = found.view(np.uint8)
        for number, wanted in enumerate(chunks):
            part = data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
            if chunk_digest(number, part.tobytes()) != wanted:
                raise WrongStateError("chunks of the vector are missing")
        if whole_digest(ring, words, chunks) != digest or len(found) != words:
            raise WrongStateError("the vector is not the one announced")
        return found

    def _upload(self, name: str, box: str, what: str) -> tuple[bytes, int, list[bytes]]:
        digest, words, chunks = self.row(
            "SELECT digest, words, chunks FROM upload WHERE round = ? AND box = ? AND what = ?",
            name,
            box,
            what,
        )
        return digest, words, [chunks[at : at + 32] for at in range(0, len(chunks), 32)]

    def _path(self, name: str, box: str, what: str) -> Path:
        # names are of [a-z0-9._:-] and start with a letter: none leads out of the folder
        return self._folder / "vectors" / name / f"{box}.{what}"

    def has_vectors(self, name: str) -> bool:
        """Whether any vector of a round lies on the disk."""
        return (self._folder / "vectors" / name).exists()

    def forget_vectors(self, name: str) -> None:
        """Delete a round's vectors once its audit time is over."""
        folder = self._folder / "vectors" / name
        for path in folder.glob("*") if folder.exists() else ():
            path.unlink()
        if folder.exists():
            folder.rmdir()

    # --- reports -----------------------------------------------------------------------------

    def file_report(
        self, name: str, report: Report, envelopes: Sequence[bytes], receipt: bytes, at: int
    ) -> bytes:
        """File a report with its envelopes and the receipt; return the receipt that holds.

        The same report again returns the first receipt; another one of the box is refused, and so
        is any once the round has closed: nothing joins the candidates after they are frozen.
        """
        box, data = report.body.box, report.encode()
        with self.write() as db:
            row = db.execute(
                "SELECT report, receipt FROM report WHERE round = ? AND box = ?", (name, box)
            ).fetchone()
            if row is not None:
                if row[0] != data:
                    raise WrongStateError("the box has sent another report for this round")
                return bytes(row[1])
            _must_be(db, name, Hub.OPEN, "late: the round is closed; report to the next one")
            seq = db.execute("SELECT count(*) FROM report WHERE round = ?", (name,)).fetchone()[0]
            db.execute(
                "INSERT INTO report VALUES (?, ?, ?, ?, ?, ?, 'in', NULL)",
                (name, box, seq, data, receipt, at),
            )
            db.executemany(
                "INSERT INTO envelope VALUES (?, ?, ?, ?)",
                [(name, box, helper, sealed) for helper, sealed in enumerate(envelopes)],
            )
            return receipt

    def reports(self, name: str, state: str = "in") -> list[Report]:
        """Return the reports in a state, in order of the boxes' names."""
        rows = self.rows(
            "SELECT report FROM report WHERE round = ? AND state = ? ORDER BY box", name, state
        )
        return [decode(Report, row[0]) for row in rows]

    def filed(self, name: str) -> dict[str, Report]:
        """Return every report ever filed for a round by box, whatever became of it."""
        rows = self.rows("SELECT box, report FROM report WHERE round = ?", name)
        return {box: decode(Report, data) for box, data in rows}

    def report_of(self, name: str, box: str) -> Report | None:
        """Return a box's report, whatever became of it."""
        found = self.rows("SELECT report FROM report WHERE round = ? AND box = ?", name, box)
        return decode(Report, found[0][0]) if found else None

    def envelope(self, name: str, box: str, helper: int) -> bytes:
        """Return the envelope of a box for a helper; NotFoundError."""
        text = "SELECT data FROM envelope WHERE round = ? AND box = ? AND helper = ?"
        return bytes(self.row(text, name, box, helper)[0])

    def take_out(self, name: str, box: str, state: str, why: bytes) -> bool:
        """Mark a report `withdrawn` or `dropped`; return whether it was in.

        RoundRefusedError when it is to be withdrawn and the round has closed.
        """
        with self.write() as db:
            if state == "withdrawn":
                _must_be(db, name, Hub.OPEN, "the round is closed; a report stays in it")
            return bool(
                db.execute(
                    "UPDATE report SET state = ?, why = ? "
                    "WHERE round = ? AND box = ? AND state = 'in'",
                    (state, why, name, box),
                ).rowcount
            )

    def states(self, name: str) -> list[tuple[str, str, int]]:
        """Return box, state and time of every report of a round."""
        rows = self.rows("SELECT box, state, at FROM report WHERE round = ? ORDER BY box", name)
        return [(box, state, at) for box, state, at in rows]

    # --- what helpers say ----------------------------------------------------------------------

    def say(self, name: str, helper: str, kind: str, body: bytes) -> None:
        """Keep a helper's word; the same again is no news, another is refused."""
        with self.write() as db:
            row = db.execute(
                "SELECT body FROM said WHERE round = ? AND helper = ? AND kind = ?",
                (name, helper, kind),
            ).fetchone()
            if row is None:
                db.execute("INSERT INTO said VALUES (?, ?, ?, ?)", (name, helper, kind, body))
            elif row[0] != body:
                raise WrongStateError("the helper has said something else before")

    def said(self, name: str, kind: str) -> dict[str, bytes]:
        """Return what helpers said, by helper."""
        rows = self.rows(
            "SELECT helper, body FROM said WHERE round = ? AND kind = ? ORDER BY helper", name, kind
        )
        return {helper: bytes(body) for helper, body in rows}

    # --- the accumulator -------------------------------------------------------------------------

    def keep_total(self, name: str, boxes: Sequence[str], total: Words) -> None:
        """Keep the sum so far together with whose vectors are in it."""
        with self.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO accumulator VALUES (?, ?, ?)",
                (name, ",".join(sorted(boxes)), total.tobytes()),
            )

    def total(self, name: str, ring: int) -> tuple[list[str], Words] | None:
        """Return the kept sum and its boxes, if there is one."""
        found = self.rows("SELECT boxes, total FROM accumulator WHERE round = ?", name)
        if not found:
            return None
        boxes, data = found[0]
        return [b for b in boxes.split(",") if b], np.frombuffer(data, word_type(ring)).copy()

    # --- refusals ----------------------------------------------------------------------------

    def refused(self, at: int, name: str, peer: str, code: str) -> None:
        """Keep that something was refused: what, whose, why. The oldest of many are let go."""
        with self.write() as db:
            db.execute(
                "DELETE FROM refusal WHERE seq <= (SELECT max(seq) FROM refusal) - ?",
                (_MOST_REFUSALS,),
            )
            db.execute(
                "INSERT INTO refusal (at, round, peer, code) VALUES (?, ?, ?, ?)",
                (at, name, peer, code),
            )

    def refusals(self) -> list[tuple[int, str, str, str]]:
        """Return the refusals, newest first: time, round, peer, code."""
        rows = self.rows("SELECT at, round, peer, code FROM refusal ORDER BY seq DESC LIMIT 1000")
        return [(at, name, peer, code) for at, name, peer, code in rows]


def _must_be(db: sqlite3.Connection, name: str, state: Hub, otherwise: str) -> None:
    row = db.execute("SELECT state FROM round WHERE name = ?", (name,)).fetchone()
    if row is None or row[0] != state:
        raise RoundRefusedError(otherwise)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError("the hub's disk is full; try again later") from cause
        raise StoreUnavailableError("the hub's files cannot be read or written") from cause


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
