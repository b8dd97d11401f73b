"""Key slots in two files of the key folder: 32-byte secrets, and the journal of their destruction.

    slots           64-byte header (magic, 16 random bytes, HMAC), then 32 bytes a slot; slot n lies
                    at byte 32 n, so none crosses a sector. Destroyed slots are zero.
    slots.journal   records: u32 body length, u64 number, u64 time (ms), u64 a slot, and the HMAC of
                    the record and the HMAC before it, so none can be left out or put elsewhere

Secrets are made in blocks, synced when the block is added: taking a slot costs no sync. A process
starts a block of its own, so that what an unclean end left unsynced is never used. Destruction
writes the journal, syncs, overwrites in place, syncs. What is in the journal and not zero when the
files are opened (a kill in between, an older copy of `slots` put back) is overwritten then.

Overwriting in place reaches the medium where it stands. Flash may keep the old page until it is
erased, and a snapshot of the file system keeps it for ever: docs/erasure-and-retention.md.
"""

import errno
import os
import stat
import struct
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bedside_core.errors import (
    BedsideError,
    DiskFullError,
    NotFoundError,
    StoreUnavailableError,
)
from bedside_edge.ports import KeyStore, RandomBytes
from bedside_edge.ports.slots import SlotsMark

SLOTS_FILE: Final = "slots"
JOURNAL_FILE: Final = "slots.journal"
SLOT_BYTES: Final = 32
BLOCK: Final = 512  # slots added at a time
_MAGIC: Final = b"bedside-slots-v1"
_ID_BYTES: Final = 16
_HEADER_SLOTS: Final = 2
_HEADER_BYTES: Final = _HEADER_SLOTS * SLOT_BYTES
_RECORD: Final = struct.Struct(">IQQ")
_NUMBER: Final = struct.Struct(">Q")
_MAC_BYTES: Final = 32
_ZERO: Final = bytes(SLOT_BYTES)
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FileSlots:
    """`KeySlots` over files. Thread-safe; one process at a time (the state folder's lock)."""

    def __init__(
        self, slots: int, journal: int, file_id: bytes, keys: KeyStore, random: RandomBytes
    ) -> None:
        """Take over two open files that belong together; see `open_slots`."""
        self._fd, self._journal = slots, journal
        self._file_id, self._keys, self._random = file_id, keys, random
        self._lock = threading.Lock()
        self._count = os.fstat(slots).st_size // SLOT_BYTES  # header included
        self._next = self._end = self._count  # nothing of an earlier process is handed out
        self._highest = self._count - 1 if self._count > _HEADER_SLOTS else 0
        self._gone = bytearray()  # one bit a slot
        self._records = 0
        self._head = keys.mac("slots journal", file_id)
        self._shut = ""
        self._overwrite(self._read_journal())

    def wrap(self, key: bytes, context: bytes) -> tuple[int, bytes]:
        """Take a fresh slot and return its number with `key` wrapped under it."""
        with self._lock:
            self._refuse_when_shut()
            if self._next == self._end:
                self._add_block()
            slot = self._next
            self._next += 1
        return slot, self._keys.wrap_with(self._secret(slot), key, _bound(slot, context))

    def unwrap(self, slot: int, wrapped: bytes, context: bytes) -> bytes:
        """Return the key; NotFoundError when the slot was destroyed or never was."""
        if not self._exists(slot) or self.is_destroyed(slot):
            raise NotFoundError("the key was destroyed")
        return self._keys.unwrap_with(self._secret(slot), wrapped, _bound(slot, context))

    def destroy(self, slots: Iterable[int], at: int) -> None:
        """Overwrite slots for good; durable when it returns. Idempotent."""
        wanted = sorted(set(slots))
        with self._lock:
            self._refuse_when_shut()
            if not all(self._exists(slot) for slot in wanted):
                raise NotFoundError("no slot of that number")
            fresh = [slot for slot in wanted if not self.is_destroyed(slot)]
            try:
                if fresh:
                    self._append(fresh, at)
                self._overwrite(wanted)
            except OSError as cause:
                # after a failed sync nobody knows what the disk holds; opening again reads it
                self._shut = (
                    "the key slots could not be overwritten; restart after checking the disk"
                )
                raise StoreUnavailableError(self._shut) from cause

    def is_destroyed(self, slot: int) -> bool:
        """Tell whether a slot was destroyed."""
        place = slot >> 3
        return 0 <= place < len(self._gone) and bool(self._gone[place] & 1 << (slot & 7))

    def highest(self) -> int:
        """Return the highest number that exists; 0 if none."""
        return self._highest

    def mark(self) -> SlotsMark:
        """Return where the slots stand."""
        with self._lock:
            return SlotsMark(file=self._file_id.hex(), records=self._records, head=self._head.hex())

    def close(self) -> None:
        """Close the files; call it once."""
        self._shut = "the key slots are closed"
        os.close(self._fd)
        os.close(self._journal)

    # --- inside ------------------------------------------------------------------------------

    def _exists(self, slot: int) -> bool:
        return _HEADER_SLOTS <= slot < self._count

    def _secret(self, slot: int) -> bytes:
        try:
            secret = os.pread(self._fd, SLOT_BYTES, slot * SLOT_BYTES)
        except OSError as cause:
            raise StoreUnavailableError("the key slots cannot be read") from cause
        if len(secret) != SLOT_BYTES:
            raise StoreUnavailableError("the key slots end early")
        return secret

    def _add_block(self) -> None:
        """Append fresh secrets and make them durable before one is used."""
        start = self._count * SLOT_BYTES
        try:
            _write_at(self._fd, self._random(BLOCK * SLOT_BYTES), start)
            os.fsync(self._fd)
        except OSError as cause:
            os.ftruncate(self._fd, start)
            raise _translate(cause) from cause
        self._next, self._count = self._count, self._count + BLOCK
        self._end = self._count
        self._highest = self._count - 1

    def _append(self, slots: Sequence[int], at: int) -> None:
        """Write a record of destroyed slots; after its sync they are gone, whatever happens."""
        body = b"".join(_NUMBER.pack(slot) for slot in slots)
        record = _RECORD.pack(len(body), self._records, at) + body
        head = self._keys.mac("slots journal", self._head + record)
        end = os.lseek(self._journal, 0, os.SEEK_END)
        try:
            _write_at(self._journal, record + head, end)
            os.fsync(self._journal)
        except OSError:
            os.ftruncate(self._journal, end)
            raise
        self._records, self._head = self._records + 1, head
        self._note(slots)

    def _note(self, slots: Sequence[int]) -> None:
        need = (max(slots, default=0) >> 3) + 1
        self._gone.extend(bytes(max(0, need - len(self._gone))))
        for slot in slots:
            self._gone[slot >> 3] |= 1 << (slot & 7)

    def _overwrite(self, slots: Iterable[int]) -> None:
        """Make slots zero in place; what is zero already is left alone."""
        changed = False
        for slot in slots:
            if os.pread(self._fd, SLOT_BYTES, slot * SLOT_BYTES) not in (_ZERO, b""):
                _write_at(self._fd, _ZERO, slot * SLOT_BYTES)
                changed = True
        if changed:
            os.fsync(self._fd)

    def _read_journal(self) -> list[int]:
        """Take in every record; return all destroyed slots.

        A record cut short at the end was being written when the process died: nothing was
        overwritten for it, and it is dropped.
        """
        content = os.pread(self._journal, os.fstat(self._journal).st_size, 0)
        place, found = 0, list[int]()
        while len(content) - place >= _RECORD.size:
            length, number, _ = _RECORD.unpack_from(content, place)
            end = place + _RECORD.size + length
            if end + _MAC_BYTES > len(content):
                break
            record, mac = content[place:end], content[end : end + _MAC_BYTES]
            head = self._keys.mac("slots journal", self._head + record)
            if mac != head or number != self._records or length % _NUMBER.size:
                break
            slots = [slot for (slot,) in _NUMBER.iter_unpack(record[_RECORD.size :])]
            self._note(slots)
            found += slots
            self._records, self._head, place = self._records + 1, head, end + _MAC_BYTES
        if place < len(content):
            self._drop_torn_end(content[place:], place)
        if found and max(found) >= self._count:
            # an older copy of the slots: numbers that were used since are never used again
            os.ftruncate(self._fd, (max(found) + 1) * SLOT_BYTES)
            self._next = self._end = self._count = max(found) + 1
        return found

    def _drop_torn_end(self, rest: bytes, place: int) -> None:
        """Cut a record off that was never complete; refuse if more than one could be lost."""
        if len(rest) >= _RECORD.size:
            length, number, _ = _RECORD.unpack_from(rest, 0)
            whole = _RECORD.size + length + _MAC_BYTES
            torn = not any(rest[: _RECORD.size]) or (number == self._records and whole >= len(rest))
            if not torn:
                raise StoreUnavailableError("the journal of the key slots is damaged; restore it")
        os.ftruncate(self._journal, place)
        os.fsync(self._journal)

    def _refuse_when_shut(self) -> None:
        if self._shut:
            raise StoreUnavailableError(self._shut)


def open_slots(folder: Path, keys: KeyStore, random: RandomBytes, create: bool) -> FileSlots:
    """Open the key slots in `folder`, or make them when `create` and there are none.

    Args:
        folder: the key folder.
        keys: the box key they belong to.
        random: where secrets come from.
        create: whether missing files may be made; False once a key is wrapped under a slot.

    Raises:
        StoreUnavailableError: missing, damaged, of another box, a link, or open to other users.
        DiskFullError: no room to make them.
    """
    path = folder / SLOTS_FILE
    try:
        if create and not path.exists():
            _make(folder, keys, random)
        slots = _open(path, "the key slots")
        try:
            journal = _open(folder / JOURNAL_FILE, "the journal of the key slots")
            try:
                return FileSlots(slots, journal, _file_id(slots, keys), keys, random)
            except BaseException:
                os.close(journal)
                raise
        except BaseException:
            os.close(slots)
            raise
    except FileNotFoundError as cause:
        raise StoreUnavailableError(
            "the key slots are missing; restore them, without them nothing stored can be read"
        ) from cause
    except OSError as cause:
        raise _translate(cause) from cause


def _make(folder: Path, keys: KeyStore, random: RandomBytes) -> None:
    """Make both files whole or not at all: the journal first, then `slots` under its name."""
    file_id = random(_ID_BYTES)
    header = _MAGIC + file_id + keys.mac("slots", file_id)
    for name, content in ((JOURNAL_FILE, b""), (SLOTS_FILE, header)):
        temporary = folder / f"{name}.{random(8).hex()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            _write_at(fd, content, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(folder / name)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _open(path: Path, what: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(fd)
        raise StoreUnavailableError(f"{what} must belong to this user and be closed to all others")
    return fd


def _file_id(fd: int, keys: KeyStore) -> bytes:
    header = os.pread(fd, _HEADER_BYTES, 0)
    file_id = header[len(_MAGIC) : len(_MAGIC) + _ID_BYTES]
    if len(header) != _HEADER_BYTES or not header.startswith(_MAGIC):
        raise StoreUnavailableError("the key slots are damaged; restore them from their backup")
    if header[-_MAC_BYTES:] != keys.mac("slots", file_id):
        raise StoreUnavailableError("the key slots do not belong to this box key")
    return file_id


def _bound(slot: int, context: bytes) -> bytes:
    return b"slot %d " % slot + context


def _write_at(fd: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while len(view):
        done = os.pwrite(fd, view, place)
        view, place = view[done:], place + done


def _translate(cause: OSError) -> BedsideError:
    if cause.errno in _NO_ROOM:
        return DiskFullError("the disk is full; no key slot was made")
    return StoreUnavailableError("the key slots cannot be read or written")
