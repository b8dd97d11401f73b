"""A number that only grows, in a file that no backup of the box contains.

The privacy ledger writes how many entries it has; a ledger that is older than its counter was set
back. Two slots are written in turn, so that a power cut leaves one of them whole. The number may
lag behind the ledger after a kill, it is never ahead of it.
"""

import contextlib
import hashlib
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from bedside_core.errors import StoreUnavailableError

_SLOT: Final = struct.Struct(">8sQQ8s")  # magic, generation, number, check
_MAGIC: Final = b"BEDSCNT1"
_UNKNOWN: Final = 1 << 62  # more than any ledger has
_APART: Final = 4096  # bytes between the slots: a torn sector hits one of them


class Counter(Protocol):
    """How far something was seen."""

    def seen(self) -> int:
        """Return the largest number it was told."""
        ...

    def saw(self, number: int) -> None:
        """Keep a number, durably, if it is larger."""
        ...

    def reset(self, number: int) -> None:
        """Keep a number although it is smaller: people have unlocked the ledger."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class NoCounter:
    """No counter: a box whose only other witness is a witness."""

    def seen(self) -> int:
        """Return 0."""
        return 0

    def saw(self, number: int) -> None:
        """Forget it."""

    def reset(self, number: int) -> None:
        """Forget it."""

    def close(self) -> None:
        """Nothing is open."""


class FileCounter:
    """`Counter` in a file. Several processes may share it."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            StoreUnavailableError: it cannot be opened, or belongs to somebody else. Where a
                counter was configured, a box without it fails closed.
        """
        self._path, self._lock = path, threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if os.fstat(self._file).st_size < 2 * _APART:  # blocks that are there sync faster
                end = os.fstat(self._file).st_size
                os.pwrite(self._file, bytes(2 * _APART - end), end)
                os.fsync(self._file)
        except OSError as cause:
            raise StoreUnavailableError("the privacy counter cannot be opened") from cause

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def seen(self) -> int:
        """Return the largest number it was told since the last reset."""
        return self._newest()[1]

    def saw(self, number: int) -> None:
        """Keep a number, durably, if it is larger."""
        with self._lock:
            generation, held = self._newest()
            if number > held:
                self._put(generation + 1, number)

    def reset(self, number: int) -> None:
        """Keep a number although it is smaller."""
        with self._lock:
            self._put(self._newest()[0] + 1, number)

    def _newest(self) -> tuple[int, int]:
        """Return generation and number of the newest whole slot; (0, 0) of a new file."""
        found = [(0, 0)]
        with self._mapped():
            for place in (0, _APART):
                data = os.pread(self._file, _SLOT.size, place)
                if len(data) == _SLOT.size:
                    magic, generation, number, check = _SLOT.unpack(data)
                    if magic == _MAGIC and check == _check(generation, number):
                        found.append((generation, number))
        return max(found)

    def _put(self, generation: int, number: int) -> None:
        check = _check(generation, number)
        with self._mapped():
            place = _APART * (generation % 2)
            os.pwrite(self._file, _SLOT.pack(_MAGIC, generation, number, check), place)
            os.fdatasync(self._file)

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as cause:
            raise StoreUnavailableError("the privacy counter cannot be read or written") from cause


def distrust(path: Path) -> bool:
    """Make a counter where there is none, for a restored box: nobody knows what was lost.

    A counter that is there survived, or was brought along, and knows better.

    Returns:
        Whether it was made; what stands on it is locked until people unlock it.
    """
    if path.exists():
        return False
    counter = FileCounter(path)
    try:
        counter.saw(_UNKNOWN)
    finally:
        counter.close()
    return True


def _check(generation: int, number: int) -> bytes:
    return hashlib.sha256(struct.pack(">QQ", generation, number)).digest()[:8]
