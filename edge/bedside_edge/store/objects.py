"""Encrypted objects as files: sealed chunk by chunk, named at random, durable after one flush.

A name is 64 random hex digits, never made from a UID or from content: two senders that push one
instance at the same time write two files, and the database decides. The first two digits are the
sub-folder ("shelf"); objects sealed close together share one, so that a flush has one folder to
make durable, not as many as it has objects.

`seal` writes and renames, `flush` makes files and folder durable. The rename comes first on
purpose: nothing refers to the name before its row is committed, and a file and its folder entry
can then be made durable side by side. What a power cut leaves without a row is swept at start-up.
"""

import contextlib
import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bedside_core.errors import (
    BedsideError,
    DiskFullError,
    InvalidConfigError,
    NotFoundError,
    StoreUnavailableError,
    WrongStateError,
)
from bedside_edge.ports import Clock, RandomBytes, Sealed
from bedside_edge.store import sealing

_SHELVES: Final = tuple(f"{n:02x}" for n in range(256))
_SHELF_RUN: Final = 512  # objects on one shelf before the next is taken
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MAX_PENDING: Final = 64  # open files that wait for a flush
_SYNC_THREADS: Final = 4
_SPARE_BUFFERS: Final = 16
_QUICK_S: Final = 100e-6  # what a sync takes where there is nothing to wait for
_QUICK_RUN: Final = 8  # so many flushes like that, and the next stays in its thread


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLimits:
    """Above which nothing more is taken in; room must be left for results and for the log."""

    high_watermark: float = 0.95  # used fraction of the file system
    min_free_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if not 0 < self.high_watermark <= 1 or self.min_free_bytes < 0:
            raise InvalidConfigError("disk limits: 0 < high_watermark <= 1, min_free_bytes >= 0")


class _Buffers:
    """A plain and an encrypted chunk; reused, because fresh pages cost more than encrypting."""

    __slots__ = ("plain", "sealed")

    def __init__(self) -> None:
        self.plain = bytearray(sealing.CHUNK)
        self.sealed = bytearray(sealing.CHUNK + sealing.TAG)


class FileObjects:
    """`ObjectStore` in a folder. Thread-safe; a sink belongs to one thread at a time."""

    def __init__(self, folder: Path, random: RandomBytes, limits: DiskLimits, clock: Clock) -> None:
        """Open `folder`, making it when absent (mode 0700)."""
        self.folder = folder
        self.random = random
        self._limits = limits
        self._clock = clock
        self._quick = 0  # flushes in a row whose syncs cost next to nothing
        self._temporary = folder / "tmp"
        self._condition = threading.Condition()
        self._pending: dict[str, int] = {}  # name -> open file that waits for its flush
        self._sealed = self._flushed = 0  # counts of objects, ever
        self._flushing = False
        self._shut = ""  # why nothing more is done
        self._buffers: list[_Buffers] = []
        self._shelf = random(1)[0]
        self._pool = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="fsync")
        with _mapped():
            for path in (folder, self._temporary, *(folder / shelf for shelf in _SHELVES)):
                path.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder)
            sync_folder(folder.parent)

    def create(self) -> "FileSink":
        """Open a uniquely named temporary file; DiskFullError above the high watermark."""
        self._refuse_when_shut()
        if self.above_watermark():
            raise DiskFullError("the state folder is above its high watermark")
        path = self._temporary / self.random(16).hex()
        with _mapped():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        return FileSink(self, path, fd, self._borrow())

    def flush(self) -> None:
        """Make every object sealed before this call durable; callers at once share the work.

        Raises:
            StoreUnavailableError: the disk refused; none of the objects may be acknowledged, and
                the store stays shut until it is opened again, because after a failed fsync the
                kernel may report success for data it has dropped.
        """
        with self._condition:
            target = self._sealed
            while self._flushing and self._flushed < target:
                self._condition.wait()
            self._refuse_when_shut()
            if self._flushed >= target:
                return
            self._flushing = True
            upto, batch, self._pending = self._sealed, self._pending, {}
        try:
            self._sync(batch)
        except BaseException:
            self._shut = "the disk failed; restart after checking it"
            raise
        finally:
            with self._condition:
                self._flushing = False
                self._flushed = upto
                self._condition.notify_all()

    def read(self, name: str, object_key: bytes) -> bytes:
        """Return the plain bytes; DamagedObjectError if changed, NotFoundError if absent."""
        path = self._path(name)
        try:
            sealed = path.read_bytes()
        except FileNotFoundError as cause:
            raise NotFoundError("no object of that name") from cause
        except OSError as cause:
            raise _translate(cause) from cause
        return sealing.open_object(sealed, object_key)

    def delete(self, name: str) -> None:
        """Remove the file; no error when it is gone already."""
        self._forget(name)
        with _mapped():
            self._path(name).unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; gone for good when it returns, whatever happens to the power."""
        shelves = set()
        for name in names:
            self.delete(name)
            shelves.add(name[:2])
        with _mapped():
            for shelf in sorted(shelves):
                sync_folder(self.folder / shelf)

    def fingerprint(self, name: str) -> tuple[str, int] | None:
        """Return SHA-256 (hex) and size of the encrypted file; None when it is gone."""
        try:
            with self._path(name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return digest, file.tell()
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise _translate(cause) from cause

    def names(self) -> Iterator[str]:
        """Yield the names of all sealed objects."""
        with _mapped():
            for shelf in _SHELVES:
                with os.scandir(self.folder / shelf) as entries:
                    yield from [e.name for e in entries if _NAME.fullmatch(e.name)]

    def clear_temporary(self) -> int:
        """Remove what unfinished sinks of a dead process left; return how many files."""
        with _mapped():
            leftovers = list(self._temporary.iterdir())
            for path in leftovers:
                path.unlink(missing_ok=True)
        return len(leftovers)

    def used_fraction(self) -> float:
        """Return the used fraction of the file system, 0 to 1, as an ordinary user sees it."""
        return self._usage()[0]

    def space(self) -> tuple[int, int]:
        """Return used and total bytes of the file system, as an ordinary user sees them."""
        free, total = self._blocks()
        return total - free, total

    def above_watermark(self) -> bool:
        """Return whether nothing more is taken in."""
        used, free = self._usage()
        return used > self._limits.high_watermark or free < self._limits.min_free_bytes

    def close(self) -> None:
        """Make durable what is sealed and stop the helper threads."""
        try:
            if not self._shut:
                self.flush()
        finally:
            self._shut = self._shut or "the object store is closed"
            self._pool.shutdown()

    # --- for the sink ------------------------------------------------------------------------

    def _settle(self, temporary: Path, fd: int) -> str:
        """Move a written file to a fresh name; its flush is still to come."""
        with self._condition:
            number = self._sealed
        if len(self._pending) >= _MAX_PENDING:
            self.flush()
        shelf = _SHELVES[(self._shelf + number // _SHELF_RUN) % len(_SHELVES)]
        name = shelf + self.random(31).hex()
        temporary.rename(self._path(name))
        with self._condition:
            self._pending[name] = fd
            self._sealed += 1
        return name

    def _forget(self, name: str) -> None:
        with self._condition:
            fd = self._pending.pop(name, None)
        if fd is not None:
            os.close(fd)

    def _borrow(self) -> _Buffers:
        try:
            return self._buffers.pop()
        except IndexError:
            return _Buffers()

    def _release(self, buffers: _Buffers) -> None:
        if len(self._buffers) < _SPARE_BUFFERS:
            self._buffers.append(buffers)

    # --- inside ------------------------------------------------------------------------------

    def _sync(self, batch: dict[str, int]) -> None:
        """Fsync files and shelves.

        Side by side, because the disk merges what arrives together: on a disk that takes 4 ms for
        a lone sync, file and folder took 0.6 ms like this and 3.4 ms one after the other. Where
        a sync costs nothing (RAM disk, protected write cache) changing threads would cost more.
        """
        if not batch:
            return  # all of it was given up meanwhile
        tasks: list[Callable[[], None]] = [partial(os.fsync, fd) for fd in batch.values()]
        tasks += [partial(sync_folder, self.folder / name) for name in {n[:2] for n in batch}]
        began = self._clock.monotonic()
        if self._quick >= _QUICK_RUN:
            failures = [_failure(task) for task in tasks]
        else:
            failures = list(self._pool.map(_failure, tasks))
        quick = self._clock.monotonic() - began < _QUICK_S * len(tasks)
        self._quick = self._quick + 1 if quick else 0
        for fd in batch.values():
            os.close(fd)
        for failure in failures:
            if failure is not None:
                raise StoreUnavailableError("the disk did not take the objects") from failure

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise NotFoundError("no object of that name")
        return self.folder / name[:2] / name

    def _usage(self) -> tuple[float, int]:
        free, total = self._blocks()
        return (1 - free / total if total else 1.0), free

    def _blocks(self) -> tuple[int, int]:
        """Return free and total bytes; reserved blocks are nobody's: an ordinary user has none."""
        with _mapped():
            s = os.statvfs(self.folder)
        return s.f_bavail * s.f_frsize, (s.f_blocks - s.f_bfree + s.f_bavail) * s.f_frsize

    def _refuse_when_shut(self) -> None:
        if self._shut:
            raise StoreUnavailableError(self._shut)


class FileSink:
    """`ObjectSink` into a file: whatever is written is encrypted first, in chunks of 1 MiB."""

    def __init__(self, store: FileObjects, path: Path, fd: int, buffers: _Buffers) -> None:
        self._store = store
        self._path = path
        self._fd = fd
        self._buffers: _Buffers | None = buffers
        self._key = store.random(sealing.KEY_BYTES)
        self._cipher = AESGCM(self._key)
        self._header = sealing.header()
        self._held = self._index = self._size = 0
        self._name = ""

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt and write; DiskFullError when the disk is full."""
        buffers = self._open()
        view = memoryview(data).cast("B")
        self._size += len(view)
        while len(view):
            if self._held == sealing.CHUNK:  # more follows, so this chunk is not the last
                self._put(buffers, last=False)
            take = min(len(view), sealing.CHUNK - self._held)
            buffers.plain[self._held : self._held + take] = view[:take]
            self._held += take
            view = view[take:]

    def seal(self, digest: str) -> Sealed:
        """Write the final chunk and give the file its name; durable after `flush`."""
        buffers = self._open()
        self._put(buffers, last=True)
        try:
            with _mapped():
                self._name = self._store._settle(self._path, self._fd)
        except BedsideError:
            self.abort()
            raise
        self._fd = -1
        self._give_back()
        return Sealed(name=self._name, object_key=self._key, size=self._size, digest=digest)

    def abort(self) -> None:
        """Remove what was written; may be called at any time, also after `seal`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with _mapped():
                self._path.unlink(missing_ok=True)
        if self._name:
            self._store.delete(self._name)
        self._give_back()

    def _put(self, buffers: _Buffers, last: bool) -> None:
        """Encrypt the held bytes as the next chunk and write it out."""
        length = self._held + sealing.TAG
        sealed = memoryview(buffers.sealed)[:length]
        self._cipher.encrypt_into(
            sealing.nonce(self._index, last),
            memoryview(buffers.plain)[: self._held],
            self._header,
            sealed,
        )
        parts = [sealed] if self._index else [memoryview(self._header), sealed]
        try:
            _write_all(self._fd, parts)
        except OSError as cause:
            self.abort()
            raise _translate(cause) from cause
        self._index += 1
        self._held = 0

    def _open(self) -> _Buffers:
        if self._buffers is None:
            raise WrongStateError("the object is sealed or given up")
        return self._buffers

    def _give_back(self) -> None:
        if self._buffers is not None:
            self._store._release(self._buffers)
            self._buffers = None


def _write_all(fd: int, parts: Sequence[memoryview]) -> None:
    """Write every byte: a write may stop short at a signal or at the end of the disk."""
    rest = list(parts)
    while rest:
        done = os.writev(fd, rest)
        while rest and done >= len(rest[0]):
            done -= len(rest.pop(0))
        if done:
            rest[0] = rest[0][done:]


def _failure(task: Callable[[], None]) -> OSError | None:
    """Run `task` and return what went wrong, so that the others still run."""
    try:
        task()
    except OSError as cause:
        return cause
    return None


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _translate(cause: OSError) -> BedsideError:
    if cause.errno in _NO_ROOM:
        return DiskFullError("the disk is full; the object was not stored")
    return StoreUnavailableError("the state folder cannot be read or written")


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise _translate(cause) from cause
