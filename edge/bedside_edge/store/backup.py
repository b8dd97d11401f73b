"""A consistent copy of a state folder without its keys, made while the box runs or not.

    DIR/bedside.db      the database, by SQLite's own backup: one committed state
    DIR/objects/        the encrypted files its rows name, hard links where the file system can
    DIR/slots.journal   which key slots are destroyed; no secret, and needed after a restore
    DIR/manifest.json   what there is, with digests and a MAC under the box key

Nothing in it opens without box key and key slots; those are exported apart (system/key_export.py).
An erasure after the copy destroys what the copy would be read with, and is applied to the copy
when it is restored: the journal of the living slots says which.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bedside_core.errors import (
    DiskFullError,
    InvalidBackupError,
    StoreUnavailableError,
)
from bedside_edge.ports import KeyStore
from bedside_edge.store.objects import sync_folder
from bedside_edge.store.slots import JOURNAL_FILE

FORMAT: Final = "bedside-backup-v1"
MANIFEST: Final = "manifest.json"
_DATABASE: Final = "bedside.db"
_NAMES: Final = "SELECT object_name FROM instances UNION SELECT object_name FROM outputs ORDER BY 1"
_LABEL: Final = "backup manifest"
_CANNOT_LINK: Final = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a backup holds."""

    created: int  # milliseconds since 1970, UTC
    objects: int
    size: int  # bytes, database included
    gone: int  # named by the database and erased while the copy was made


def _quiet(_: int, __: int) -> None:
    """Tell nobody."""


def create(
    folder: Path, target: Path, keys: KeyStore, now: int, progress: Progress = _quiet
) -> Backup:
    """Copy the state folder into `target`, which must not exist or be empty.

    Raises:
        InvalidBackupError: `target` holds something, or lies inside the state folder.
        StoreUnavailableError, DiskFullError: cannot be read or written; `target` has no manifest.
    """
    if target.resolve().is_relative_to(folder.resolve()):
        raise InvalidBackupError("a backup does not belong into the state folder")
    with _mapped():
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise InvalidBackupError("the folder of a backup must be empty")
        _copy_database(folder / _DATABASE, target / _DATABASE)
        shutil.copyfile(folder / "keys" / JOURNAL_FILE, target / JOURNAL_FILE)
        (target / JOURNAL_FILE).chmod(0o600)
        names = _object_names(target / _DATABASE)
        held, gone = dict[str, str](), 0
        for number, name in enumerate(names):
            try:
                held[name] = _link(folder / "objects", target / "objects", name)
            except FileNotFoundError:
                gone += 1
            progress(number + 1, len(names))
        document = {
            "format": FORMAT,
            "created": now,
            "gone": gone,
            "database": _digest(target / _DATABASE),
            "journal": _digest(target / JOURNAL_FILE),
            "objects": held,
        }
        _seal(target, document, keys)
    return _summary(target, document)


def verify(target: Path, keys: KeyStore | None = None, progress: Progress = _quiet) -> Backup:
    """Check every file of a backup against its manifest, and the database against itself.

    Args:
        target: the backup.
        keys: the box key, to check that the manifest is the box's own; None leaves that out.
        progress: told (files done, files).

    Raises:
        InvalidBackupError: a file is missing, changed or too many, or another box's.
    """
    document = _manifest(target, keys)
    with _mapped():
        for name, wanted in ((_DATABASE, "database"), (JOURNAL_FILE, "journal")):
            if not (target / name).is_file() or _digest(target / name) != document[wanted]:
                raise InvalidBackupError(f"{name} of the backup is missing or changed")
        objects = document["objects"]
        for number, (name, digest) in enumerate(objects.items()):
            path = target / "objects" / name[:2] / name
            if not path.is_file() or _digest(path) != digest:
                raise InvalidBackupError("an object of the backup is missing or changed")
            progress(number + 1, len(objects))
        if any(p.name not in objects for p in target.glob("objects/*/*")):
            raise InvalidBackupError("the backup holds a file that its manifest does not name")
        _check_database(target / _DATABASE)
    return _summary(target, document)


def restore(
    target: Path,
    folder: Path,
    keys: KeyStore,
    journals: Sequence[bytes] = (),
    progress: Progress = _quiet,
) -> Backup:
    """Put a verified backup into a state folder that has keys and no database.

    The folder is not ready yet: opening it applies again every erasure that the journal of its key
    slots knows, before anything is served.

    Args:
        target: the backup.
        folder: the state folder.
        keys: the box key.
        journals: copies of `slots.journal` that may know later erasures.
        progress: told (files verified, files).

    Raises:
        InvalidBackupError: see `verify`; or the folder has a database or objects already.
        StoreUnavailableError, DiskFullError: it cannot be written.
    """
    verify(target, keys, progress)
    if (folder / _DATABASE).exists() or any(folder.glob("objects/[0-9a-f][0-9a-f]/*")):
        raise InvalidBackupError("the state folder is not empty: move database and objects away")
    document = _manifest(target, keys)
    with _mapped():
        for name in document["objects"]:
            _link(target / "objects", folder / "objects", name)
        for journal in ((target / JOURNAL_FILE).read_bytes(), *journals):
            take_journal(folder / "keys", journal)
        partial = folder / "restored.db"
        shutil.copyfile(target / _DATABASE, partial)
        partial.chmod(0o600)
        _sync(partial)
        partial.replace(folder / _DATABASE)
        sync_folder(folder)
    return _summary(target, document)


def take_journal(keys_folder: Path, journal: bytes) -> bool:
    """Let the key slots know destructions that another copy of their journal records.

    Returns:
        Whether the journal given knew more. Its MACs are checked when the slots are opened.

    Raises:
        InvalidBackupError: the two do not continue each other: one is of other slots.
        StoreUnavailableError: it cannot be read or written.
    """
    path = keys_folder / JOURNAL_FILE
    with _mapped():
        held = path.read_bytes()
        if held.startswith(journal):
            return False
        if not journal.startswith(held):
            raise InvalidBackupError("the journal is of other key slots")
        partial = path.with_suffix(".new")
        partial.write_bytes(journal)
        partial.chmod(0o600)
        _sync(partial)
        partial.replace(path)
        sync_folder(keys_folder)
    return True


# --- inside --------------------------------------------------------------------------------------


def _copy_database(source: Path, target: Path) -> None:
    """Copy one committed state through SQLite; the box may go on writing."""
    if not source.is_file():
        raise StoreUnavailableError("there is no database to back up")
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as read,
        contextlib.closing(sqlite3.connect(target)) as write,
    ):
        read.backup(write)
        write.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
    _sync(target)


def _object_names(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as c:
        return [name for (name,) in c.execute(_NAMES)]


def _check_database(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as c:
        (answer,) = c.execute("PRAGMA quick_check").fetchone()
        if answer != "ok":
            raise InvalidBackupError("the database of the backup is damaged")


def _link(source: Path, target: Path, name: str) -> str:
    """Link or copy an object below another folder; return the digest of its bytes."""
    path = target / name[:2] / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.link(source / name[:2] / name, path)
    except OSError as cause:
        if cause.errno not in _CANNOT_LINK:
            raise
        shutil.copyfile(source / name[:2] / name, path)
        path.chmod(0o600)
        _sync(path)
    return _digest(path)


def _seal(target: Path, document: dict[str, Any], keys: KeyStore) -> None:
    """Write the manifest last: a folder without one is no backup."""
    for shelf in (*target.glob("objects/*"), target):
        sync_folder(shelf)
    mac = keys.mac(_LABEL, _canonical(document)).hex()
    path = target / MANIFEST
    path.write_text(json.dumps(document | {"mac": mac}, sort_keys=True, indent=1) + "\n")
    path.chmod(0o600)
    _sync(path)
    sync_folder(target)


def _manifest(target: Path, keys: KeyStore | None) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((target / MANIFEST).read_bytes())
        mac = document.pop("mac")
        if document["format"] != FORMAT or not isinstance(document["objects"], dict):
            raise InvalidBackupError("not a backup of version 1")
        if keys is not None and keys.mac(_LABEL, _canonical(document)).hex() != mac:
            raise InvalidBackupError("the manifest is changed, or of a box with another key")
    except FileNotFoundError as cause:
        raise InvalidBackupError("there is no backup: it has no manifest") from cause
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise InvalidBackupError("the manifest of the backup cannot be read") from cause
    return document


def _summary(target: Path, document: dict[str, Any]) -> Backup:
    with _mapped():
        size = (target / _DATABASE).stat().st_size
        for name in document["objects"]:
            size += (target / "objects" / name[:2] / name).stat().st_size
    return Backup(
        created=document["created"],
        objects=len(document["objects"]),
        size=size,
        gone=document["gone"],
    )


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError("no room for the backup") from cause
        raise StoreUnavailableError("the backup cannot be read or written") from cause
    except sqlite3.Error as cause:
        raise InvalidBackupError("the database cannot be read") from cause
