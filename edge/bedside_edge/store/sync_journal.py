"""Facts of rounds in the box's database: each with its evidence, secrets under a key slot.

Laws, with those of `bedside_sync.journal.Journal`:
- A fact and its entry of the evidence log are one transaction.
- A secret (a helper's round key) opens with its slot only. `destroy` overwrites the slot first: no
  copy of the database, no write-ahead log and no backup brings it back.
- What is longer than 1 MiB is a file, durable before its row. Files without a row are swept.
- Every write counts up a number outside the backup set (`Counter`): a database behind it was set
  back, and then nothing is decided on it.
"""

import contextlib
import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside_core.errors import (
    BedsideError,
    DiskFullError,
    NotFoundError,
    StoreUnavailableError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind, as_actor
from bedside_edge.ports import Clock, RandomBytes
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.ports.slots import KeySlots
from bedside_edge.store.counter_file import Counter
from bedside_edge.store.database import Database
from bedside_edge.store.objects import sync_folder
from bedside_sync.box import VETO
from bedside_sync.helper import ROUND_KEY

ACTOR: Final = "service:sync"
FOLDER: Final = "sync"
_INLINE: Final = 1 << 20  # bytes
_SECRET: Final = frozenset({ROUND_KEY})
_ROW: Final = (
    "SELECT digest, slot, data, file FROM sync_facts WHERE role = ? AND round = ? AND fact = ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalParts:
    """What both journals of a box stand on."""

    database: Database
    record: Record
    slots: KeySlots
    random: RandomBytes
    clock: Clock
    counter: Counter
    folder: Path  # for long facts


def count_up(c: sqlite3.Connection) -> int:
    """Count one more write inside its transaction; return the number."""
    c.execute(
        "INSERT INTO sync_marks VALUES ('writes', 1)"
        " ON CONFLICT (name) DO UPDATE SET value = value + 1"
    )
    return writes(c)


def writes(c: sqlite3.Connection) -> int:
    """Return how many writes there were."""
    row = c.execute("SELECT value FROM sync_marks WHERE name = 'writes'").fetchone()
    return int(row[0]) if row else 0


class SqliteJournal:
    """`Journal` of one role. Methods may be called from any thread."""

    def __init__(self, parts: JournalParts, role: str) -> None:
        self._p, self._role = parts, role

    def keep(self, round_name: str, fact: str, data: bytes) -> None:
        """Make a fact durable; see `Journal`."""
        digest = hashlib.sha256(data).digest()
        row = self._row(round_name, fact)
        if row is not None:
            if row[0] != digest:
                raise WrongStateError("a round's fact never changes")
            return
        slot, file, held = 0, "", data
        if fact in _SECRET:
            slot, held = self._p.slots.wrap(data, self._context(round_name, fact))
        elif len(data) > _INLINE:
            file = write_file(self._p.folder, self._p.random(16).hex(), data)
        values = (
            *(self._role, round_name, fact, digest, slot, None if file else held, file),
            self._p.clock.now(),
        )

        def write(c: sqlite3.Connection) -> int:
            c.execute("INSERT INTO sync_facts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            refs = {"what": f"{self._role}-{fact}", "round": round_name, "fact": digest.hex()}
            actor, code = _veto(data) if fact == VETO else (ACTOR, "")
            refs |= {"code": code} if code else {}
            self._p.record(c, Event(kind=Kind.SYNC_ROUND, actor=actor, refs=refs))
            return count_up(c)

        try:
            number = self._p.database.write(write)
        except BedsideError:
            if file and not self.has(round_name, fact):  # each try would fill the disk some more
                remove_file(self._p.folder / file)
            raise
        self._p.counter.saw(number)

    def read(self, round_name: str, fact: str) -> bytes:
        """Return a fact; NotFoundError."""
        row = self._row(round_name, fact)
        if row is None:
            raise NotFoundError("the round has no such fact")
        digest, slot, held, file = row
        data = held or b""
        if slot:
            data = self._p.slots.unwrap(slot, data, self._context(round_name, fact))
        elif file:
            try:
                data = (self._p.folder / file).read_bytes()
            except OSError as cause:  # a restored backup has no long facts
                raise NotFoundError("the round's fact is not on this disk") from cause
        if hashlib.sha256(data).digest() != digest:
            raise NotFoundError("the round's fact is damaged")
        return data

    def has(self, round_name: str, fact: str) -> bool:
        """Whether the fact is there."""
        return self._row(round_name, fact) is not None

    def destroy(self, round_name: str, fact: str) -> None:
        """Overwrite and remove a fact; no error when it is gone."""
        row = self._row(round_name, fact)
        if row is None:
            return
        _, slot, _, file = row
        if slot:
            self._p.slots.destroy([slot], self._p.clock.now())

        def delete(c: sqlite3.Connection) -> int:
            c.execute(
                "DELETE FROM sync_facts WHERE role = ? AND round = ? AND fact = ?",
                (self._role, round_name, fact),
            )
            refs = {"what": f"{self._role}-{fact}-destroyed", "round": round_name}
            self._p.record(c, Event(kind=Kind.SYNC_ROUND, actor=ACTOR, refs=refs))
            return count_up(c)

        self._p.counter.saw(self._p.database.write(delete))
        if file:
            remove_file(self._p.folder / file)
        self._p.database.scrub()  # a reader in the way only delays it: what counted is the slot

    def rounds(self) -> list[str]:
        """Return the rounds anything is known of."""
        query = "SELECT DISTINCT round FROM sync_facts WHERE role = ? ORDER BY round"
        found = self._p.database.read(lambda c: c.execute(query, (self._role,)).fetchall())
        return [name for (name,) in found]

    def _row(self, round_name: str, fact: str) -> tuple[bytes, int, bytes | None, str] | None:
        values = (self._role, round_name, fact)
        row: tuple[bytes, int, bytes | None, str] | None = self._p.database.read(
            lambda c: c.execute(_ROW, values).fetchone()
        )
        return row

    def _context(self, round_name: str, fact: str) -> bytes:
        return f"sync {self._role} {round_name} {fact}".encode()


def _veto(data: bytes) -> tuple[str, str]:
    """Return who refused, and the code of a refusal by rule; a person's words are committed to."""
    who, colon, _ = data.decode("utf-8", "replace").partition(": ")
    return (as_actor(who), "") if colon else (ACTOR, who)


# --- files ---------------------------------------------------------------------------------------


def write_file(folder: Path, name: str, data: bytes) -> str:
    """Write a file of its own name, durably; return the name."""
    with _mapped():
        if not folder.exists():
            folder.mkdir(mode=0o700)
            sync_folder(folder.parent)
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            (folder / name).unlink()  # each try would fill the disk some more
            raise
        finally:
            os.close(descriptor)
        sync_folder(folder)
    return name


def remove_file(path: Path) -> None:
    """Overwrite a file with zeros, sync, remove it; no error when it is gone."""
    with _mapped(), contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.unlink()
        sync_folder(path.parent)


def sweep_files(database: Database, folder: Path) -> int:
    """Remove the files that no row names: a kill came between the two. Return how many."""
    if not folder.is_dir():
        return 0
    rows = database.read(
        lambda c: c.execute("SELECT file FROM sync_facts WHERE file <> ''").fetchall()
    )
    stray = [path for path in folder.iterdir() if (path.name,) not in rows]
    for path in stray:
        remove_file(path)
    return len(stray)


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError("the disk is full; a fact of a round was not kept") from cause
        raise StoreUnavailableError("a fact of a round cannot be written") from cause
