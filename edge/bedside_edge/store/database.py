"""One SQLite file, one writer at a time, many readers; a commit is on the disk before it returns.

Callers hand in functions. The writing thread runs everything that waits in one transaction, each
function in its own savepoint, commits once, and only then answers: many senders share one fsync,
and a function that fails takes back its own rows and nobody else's. A caller that finds the writer
idle does the same for its own function at once: two changes of thread would cost more than the
write. Because a function gets the connection, it can write a business row and its evidence
together.
"""

import contextlib
import importlib.resources
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from bedside_core.errors import DiskFullError, SealedError, StoreUnavailableError

T = TypeVar("T")
_GROUP: Final = 256  # functions in one transaction at most
_IDLE_READERS: Final = 8
_BUSY_MS: Final = 10_000
_SYNCHRONOUS_FULL: Final = 2
_APPLICATION_ID: Final = 0x42454453  # "BEDS"
_SCRUB_PAUSE_S: Final = 0.05
_FULL: Final = {sqlite3.SQLITE_FULL}
_EXPAND: Final = "-- expand"
_OPENS_FROM: Final = "opens-from"
_OPENS: Final = "INSERT OR REPLACE INTO meta VALUES"

Write = Callable[[sqlite3.Connection], Any]
_Entry = tuple[Write, "Future[Any]"]


class Database:
    """The box's database. Methods may be called from any thread; close it once."""

    def __init__(self, path: Path) -> None:
        """Open or create the file at `path` and bring its schema up to date.

        Raises:
            StoreUnavailableError: not readable, not a Bedside database, from a newer version, or
                the file system does not grant WAL with synchronous=FULL.
            DiskFullError: no room to create it.
        """
        self._path = path
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(_IDLE_READERS)
        self._work: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._gate = threading.Lock()  # nothing is queued behind the end marker
        self._turn = threading.Lock()  # held by whoever uses the writing connection
        self._queued = 0  # entries handed to the thread and not answered yet
        self._closed = False
        with _mapped():
            # SQLite gives its side files the mode of the main file, which must be closed to others
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._writer = self._connect()
            try:
                _migrate(self._writer)
            except BaseException:
                self._writer.close()
                raise
        self._thread = threading.Thread(target=self._run, name="database", daemon=True)
        self._thread.start()

    def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` on the writing connection and return its answer once it is durable.

        `fn` runs inside a transaction and must not commit, roll back or wait for other threads.
        What it raises comes out here, and its rows are taken back.

        Raises:
            DiskFullError, StoreUnavailableError: nothing was written.
        """
        if self._turn.acquire(blocking=False):
            try:
                with self._gate:
                    idle = not self._closed and not self._queued
                if idle:  # nobody is passed over, and nobody waits to share the fsync
                    return self._alone(fn)
            finally:
                self._turn.release()
        return self.submit(fn).result()

    def submit(self, fn: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """Queue `fn` like `write`, without waiting; the future ends when it is durable."""
        future: Future[T] = Future()
        with self._gate:
            if self._closed:
                raise StoreUnavailableError("the database is closed")
            self._queued += 1
            self._work.put((fn, future))
        return future

    def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` on a read-only connection that sees one committed state throughout."""
        with _mapped():
            connection = self._reader()
            try:
                connection.execute("BEGIN")
                try:
                    return fn(connection)
                finally:
                    connection.execute("ROLLBACK")
            finally:
                self._give_back(connection)

    def scrub(self, timeout_s: float = 10.0) -> bool:
        """Move the write-ahead log into the file and empty it; what was deleted is then gone.

        Returns:
            False when a reader kept the log in use until the time was up: do it again later.
        """
        for _ in range(max(1, int(timeout_s / _SCRUB_PAUSE_S))):
            with self._turn, _mapped():
                self._refuse_when_closed()
                busy, *_ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return True
            time.sleep(_SCRUB_PAUSE_S)
        return False

    def compact(self) -> bool:
        """Write the whole file anew, so that no page holds what was in it before.

        `secure_delete` overwrites what a row or page gives back; when SQLite moves rows between
        pages, copies of some stay in unused parts of them, and only this removes those. Whoever
        writes waits meanwhile: about a second for 100 MB.

        Returns:
            False when a reader kept the old pages in use: do it again later.

        Raises:
            DiskFullError: it needs as much room again; nothing was changed.
        """
        with self._turn, _mapped():
            self._refuse_when_closed()
            self._writer.execute("VACUUM")
        return self.scrub()

    def size(self) -> int:
        """Return the bytes of the database file."""
        try:
            return self._path.stat().st_size
        except OSError as cause:
            raise StoreUnavailableError("the database cannot be read") from cause

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the committed state to a file that does not exist yet."""
        with _mapped():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            target = sqlite3.connect(path)
            try:
                connection = self._reader()
                try:
                    connection.backup(target)
                finally:
                    self._give_back(connection)
            finally:
                target.close()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the database is closed")

    def close(self) -> None:
        """Finish what is queued, stop the thread, close the file. May be called twice."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._work.put(None)
        self._thread.join()
        with contextlib.suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()

    # --- the writing thread ------------------------------------------------------------------

    def _run(self) -> None:
        ending = False
        while not ending:
            entry = self._work.get()
            with self._turn:
                group, taken, ending = self._group(entry)
                if group:
                    self._commit(group)
            with self._gate:
                self._queued -= taken
        with self._turn:
            self._writer.close()

    def _group(self, entry: _Entry | None) -> tuple[list[_Entry], int, bool]:
        """Take `entry` and all that waits.

        Returns:
            What shall run, how many entries that took, and whether the end marker came.
        """
        group: list[_Entry] = []
        taken = 0
        while entry is not None:
            taken += 1
            if entry[1].set_running_or_notify_cancel():
                group.append(entry)
            if taken >= _GROUP:
                return group, taken, False
            try:
                entry = self._work.get_nowait()
            except queue.Empty:
                return group, taken, False
        return group, taken, True

    def _commit(self, group: list[_Entry]) -> None:
        answers: list[tuple[Future[Any], Any]] = []
        failures: list[tuple[Future[Any], BaseException]] = []
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            for fn, future in group:
                try:
                    answers.append((future, self._one(fn)))
                except Exception as cause:
                    failures.append((future, _translate(cause)))
                    if not writer.in_transaction:
                        # SQLite gave up the whole transaction (full disk, lost disk)
                        failures += [(f, _translate(cause)) for f, _ in answers]
                        answers.clear()
                        writer.execute("BEGIN IMMEDIATE")
            writer.execute("COMMIT")
        except sqlite3.Error as cause:
            # A bare ROLLBACK would raise, and hide the cause, when SQLite has rolled back already
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            settled = {id(future) for future, _ in failures}
            failures += [(f, _translate(cause)) for _, f in group if id(f) not in settled]
            answers.clear()
        for future, answer in answers:
            future.set_result(answer)
        for future, failure in failures:
            future.set_exception(failure)

    def _alone(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run one function in a transaction of its own: nobody else's rows can be taken back."""
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            answer = fn(writer)
            writer.execute("COMMIT")
        except BaseException as cause:
            if writer.in_transaction:  # on a full disk SQLite has rolled back already
                writer.execute("ROLLBACK")
            ours = _translate(cause)
            if ours is cause:
                raise
            raise ours from cause
        return answer

    def _one(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run one function in a savepoint of its own."""
        writer = self._writer
        writer.execute("SAVEPOINT one")
        try:
            answer = fn(writer)
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK TO one")
                writer.execute("RELEASE one")
            raise
        writer.execute("RELEASE one")
        return answer

    # --- connections -------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # both belong to the connection, not to the file: every opener sets and checks them
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")  # an erased key is overwritten
            connection.execute("PRAGMA trusted_schema = OFF")
            _check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _reader(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailableError("the database is closed")
        try:
            return self._readers.get_nowait()
        except queue.Empty:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._gate:  # so that close() finds every connection that is not in use
            if not self._closed:
                try:
                    self._readers.put_nowait(connection)
                except queue.Full:
                    connection.close()
                return
        connection.close()


def _check(connection: sqlite3.Connection) -> None:
    """Read back what durability rests on."""
    granted = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    if granted != {"journal_mode": "wal", "synchronous": _SYNCHRONOUS_FULL, "foreign_keys": 1}:
        raise StoreUnavailableError("the file system does not grant WAL with full sync")


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply every schema file above the file's version, each in a transaction of its own.

    A file of a newer version opens where all that came since only added to it: a schema file that
    begins with `-- expand` says so. So software can be taken back after a start of its successor:
    expand in one release, contract in the next.
    """
    folder = importlib.resources.files("bedside_edge.store") / "schema"
    scripts = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    held = connection.execute("PRAGMA user_version").fetchone()[0]
    kind = connection.execute("PRAGMA application_id").fetchone()[0]
    if held > len(scripts) and opens_from(connection) > len(scripts):
        raise StoreUnavailableError("the database was written by a newer version of Bedside")
    if held and kind != _APPLICATION_ID:
        raise StoreUnavailableError("the file is not a Bedside database")
    for version, script in enumerate(scripts[held:], start=held + 1):
        text = script.read_text(encoding="utf-8")
        since = "" if text.startswith(_EXPAND) else f"{_OPENS} ('{_OPENS_FROM}', x'{version:08x}');"
        connection.executescript(
            f"BEGIN IMMEDIATE; {text}\n{since}"
            f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {version}; COMMIT;"
        )


def opens_from(connection: sqlite3.Connection) -> int:
    """Return how many schema files software must know to open this file."""
    held: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not held:
        return 0
    query = "SELECT value FROM meta WHERE name = ?"
    row = connection.execute(query, (_OPENS_FROM,)).fetchone()
    return int.from_bytes(row[0], "big") if row else held


def _translate(cause: BaseException) -> BaseException:
    """Return our error for one of SQLite's; anything else is the caller's own."""
    if not isinstance(cause, sqlite3.Error):
        return cause
    code = getattr(cause, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_CONSTRAINT_TRIGGER and str(cause) == SealedError.code:
        sealed = SealedError("the box is sealed; what it holds may be looked at")
        sealed.__cause__ = cause
        return sealed
    ours = (
        DiskFullError("the disk is full; nothing was written")
        if code in _FULL
        else StoreUnavailableError("the database cannot be read or written")
    )
    ours.__cause__ = cause
    return ours


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as cause:
        raise _translate(cause) from cause
    except OSError as cause:
        raise StoreUnavailableError("the database cannot be read or written") from cause
