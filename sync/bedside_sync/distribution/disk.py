"""Files that are there whole or not at all, and plain ones only."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bedside_core.errors import (
    DiskFullError,
    ForbiddenPathError,
    NotFoundError,
    StoreUnavailableError,
    UpdateRunningError,
)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk() -> Iterator[None]:
    """Turn the disk's errors into ours: DiskFullError, StoreUnavailableError."""
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError("the disk is full") from cause
        raise StoreUnavailableError(f"cannot write: {cause.strerror}") from cause


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file for reading and follow no link to it.

    Raises:
        NotFoundError: it is not there.
        ForbiddenPathError: it is a link, a device, a pipe or a folder.
        StoreUnavailableError: it cannot be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise NotFoundError(f"{path.name} is not there") from cause
    except OSError as cause:
        if cause.errno in (errno.ELOOP, errno.ENXIO):
            raise ForbiddenPathError(f"{path.name} is no plain file") from cause
        raise StoreUnavailableError(f"cannot read: {cause.strerror}") from cause
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ForbiddenPathError(f"{path.name} is no plain file")
    return os.fdopen(descriptor, "rb")


def read_block(file: BinaryIO, size: int) -> bytes:
    """Return at most `size` bytes; StoreUnavailableError for a stick pulled out, a bad block."""
    try:
        return file.read(size)
    except OSError as cause:
        raise StoreUnavailableError(f"cannot read: {cause.strerror}") from cause


def read_plain(path: Path, limit: int) -> bytes:
    """Return a plain file of at most `limit` bytes; errors as in `open_plain`.

    Raises:
        ForbiddenPathError: it is longer.
    """
    with open_plain(path) as file:
        data = read_block(file, limit + 1)
    if len(data) > limit:
        raise ForbiddenPathError(f"{path.name} is longer than it may be")
    return data


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all, synced, with the folders it needs.

    Raises:
        DiskFullError, StoreUnavailableError: it cannot be written.
    """
    with disk():
        missing = []
        folder = path.parent
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            one.mkdir(mode=0o755, exist_ok=True)
            sync_folder(one.parent)
        partial = path.with_name(f".{path.name}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(partial, flags, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        sync_folder(path.parent)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file; UpdateRunningError when another process holds it."""
    with disk():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            raise UpdateRunningError("another process works on it; try again") from cause
        yield
    finally:
        os.close(descriptor)
