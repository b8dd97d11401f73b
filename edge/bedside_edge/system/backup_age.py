"""A backup folder as one file for the hospital's recipient: tar, encrypted with age as it is made.

Whoever holds the file learns its size and nothing else: no times, names, counts or journal. The
keys are not in it, as in every backup: erasing must reach what a copy would be read with.
"""

import errno
import os
import stat
import tarfile
import threading
from pathlib import Path
from typing import BinaryIO

from bedside_core.errors import DiskFullError, InvalidBackupError, StoreUnavailableError
from bedside_edge.system import age_files


def pack(folder: Path, target: Path, recipient: str) -> int:
    """Write the files below `folder` to `target`; return its size in bytes.

    Raises:
        InvalidInputError: the recipient is none.
        InvalidBackupError: `target` exists.
        StoreUnavailableError, DiskFullError: it cannot be written; nothing is left of it.
    """
    age_files.check_recipient(recipient)
    partial = target.with_name(f".{target.name}.part")
    try:
        if target.exists():
            raise InvalidBackupError(f"{target} exists")
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as out:
            _stream(folder, out, recipient)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
        _sync(target.parent)
        return target.stat().st_size
    except OSError as cause:
        partial.unlink(missing_ok=True)
        raise _translated(cause) from cause


def unpack(source: Path, folder: Path, identity: str) -> None:
    """Put the files of `source` below `folder`, which is made and must not exist.

    Raises:
        InvalidInputError: the identity is none.
        InvalidBackupError: changed, cut off, of another recipient, or holding more than files.
        StoreUnavailableError, DiskFullError: it cannot be written.
    """
    tar = folder.with_name(f".{folder.name}.tar")
    try:
        folder.mkdir(mode=0o700)
        fd = os.open(tar, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with source.open("rb") as data, os.fdopen(fd, "w+b") as plain:
                age_files.decrypt(data, plain, identity)  # whole before a byte of it is believed
                plain.seek(0)
                with tarfile.open(fileobj=plain) as archive:
                    for member in archive:
                        if not (member.isreg() or member.isdir()):
                            raise InvalidBackupError("the backup holds more than files")
                        archive.extract(member, folder, filter="data")
        finally:
            tar.unlink(missing_ok=True)
    except tarfile.TarError as cause:
        raise InvalidBackupError("the backup is not an archive of files") from cause
    except OSError as cause:
        raise _translated(cause) from cause


def _stream(folder: Path, out: BinaryIO, recipient: str) -> None:
    """Archive in a thread, encrypt in this one: the plain archive never touches the disk."""
    read, write = os.pipe()
    failed: list[BaseException] = []

    def archive() -> None:
        try:
            with (
                os.fdopen(write, "wb") as sink,
                tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                for path in sorted(folder.rglob("*")):
                    if stat.S_ISREG(path.lstat().st_mode):
                        tar.add(path, path.relative_to(folder).as_posix(), filter=_plain)
        except (OSError, tarfile.TarError) as error:
            failed.append(error)

    thread = threading.Thread(target=archive, name="archive", daemon=True)
    thread.start()
    with os.fdopen(read, "rb") as source:
        age_files.encrypt(source, out, recipient)
    thread.join()
    if failed:
        raise OSError(errno.EIO, "the backup folder cannot be read") from failed[0]


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _translated(cause: OSError) -> DiskFullError | StoreUnavailableError:
    if cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError("no room for the backup")
    return StoreUnavailableError("the backup cannot be read or written")


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
