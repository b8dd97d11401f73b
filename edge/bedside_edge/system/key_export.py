"""The key folder in one file under a passphrase: what a restore on another machine needs.

    line 1    bedside-keys-v1
    line 2    JSON: Argon2id parameters and salt, nonce
    the rest  AES-256-GCM of a JSON document, name -> base64 content; both lines are bound to it

For an age recipient the same document follows line 1 inside the age file.

It holds the key slots as they are now. An erasure later on destroys slots on the box and cannot
reach this file: after every erasure make a new export and destroy the old one.
"""

import base64
import binascii
import io
import json
import os
from pathlib import Path
from typing import Any, Final

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bedside_core.errors import InvalidBackupError, InvalidInputError, StoreUnavailableError
from bedside_edge.ports import RandomBytes
from bedside_edge.system import age_files
from bedside_edge.system.key_files import SEALED_FILE
from bedside_edge.system.key_migration import secret_files

_MAGIC: Final = b"bedside-keys-v1\n"
_TIME, _MEMORY_KIB, _LANES = 3, 1 << 16, 4  # RFC 9106 section 4, second recommended option
_MOST: Final = {"time": 16, "memory": 1 << 20, "lanes": 16}  # a file cannot ask for more
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = 16, 12, 32
_LEAST: Final = 12  # characters of a passphrase
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


def export_keys(folder: Path, passphrase: str, random: RandomBytes) -> bytes:
    """Return the files of the key folder, encrypted.

    Raises:
        InvalidInputError: the passphrase is too short.
        StoreUnavailableError: the folder cannot be read.
        KeysSealedError: the keys are sealed and do not open here.
    """
    if len(passphrase) < _LEAST:
        raise InvalidInputError(f"a passphrase has at least {_LEAST} characters")
    plain = _document(folder)
    salt, nonce = random(_SALT_BYTES), random(_NONCE_BYTES)
    header = {
        "time": _TIME,
        "memory": _MEMORY_KIB,
        "lanes": _LANES,
        "salt": salt.hex(),
        "nonce": nonce.hex(),
    }
    lines = _MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n"
    key = _derive(passphrase, salt, header)
    return lines + AESGCM(key).encrypt(nonce, plain, lines)


def export_for(folder: Path, recipient: str) -> bytes:
    """Return the files of the key folder, encrypted for an age recipient.

    Raises:
        InvalidInputError: the recipient is none.
        StoreUnavailableError, KeysSealedError: see `export_keys`.
    """
    out = io.BytesIO()
    age_files.encrypt(io.BytesIO(_MAGIC + _document(folder)), out, recipient)
    return out.getvalue()


def _document(folder: Path) -> bytes:
    """Return the files of the key folder as the JSON that exports hold."""
    try:
        secret = secret_files(folder)  # opened: what this machine seals, no other one could open
        others = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name != SEALED_FILE]
        files = {p.name: p.read_bytes() for p in others} | secret
    except OSError as cause:
        raise StoreUnavailableError("the key folder cannot be read") from cause
    if not files:
        raise StoreUnavailableError("the key folder is empty")
    return json.dumps({n: base64.b64encode(data).decode() for n, data in files.items()}).encode()


def open_export(data: bytes, passphrase: str) -> dict[str, bytes]:
    """Return the files of an export, by name.

    Raises:
        InvalidBackupError: not an export, changed, or another passphrase.
    """
    magic, _, rest = data.partition(b"\n")
    line, _, sealed = rest.partition(b"\n")
    if magic + b"\n" != _MAGIC:
        raise InvalidBackupError("not an export of keys of version 1")
    try:
        header: dict[str, Any] = json.loads(line)
        if any(not 0 < header[name] <= most for name, most in _MOST.items()):
            raise InvalidBackupError("the export asks for too much memory or time")
        salt, nonce = bytes.fromhex(header["salt"]), bytes.fromhex(header["nonce"])
        key = _derive(passphrase, salt, header)
        plain = AESGCM(key).decrypt(nonce, sealed, _MAGIC + line + b"\n")
    except InvalidTag as cause:
        raise InvalidBackupError("the export is changed, or that is not its passphrase") from cause
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as cause:
        raise InvalidBackupError("the export of keys cannot be read") from cause
    return _files(plain)


def open_export_of(data: bytes, identity: str) -> dict[str, bytes]:
    """Return the files of an export for an age recipient, by name.

    Raises:
        InvalidInputError: the identity is none.
        InvalidBackupError: not an export, changed, or for another recipient.
    """
    out = io.BytesIO()
    age_files.decrypt(io.BytesIO(data), out, identity)
    plain = out.getvalue()
    if not plain.startswith(_MAGIC):
        raise InvalidBackupError("not an export of keys of version 1")
    return _files(plain[len(_MAGIC) :])


def _files(plain: bytes) -> dict[str, bytes]:
    try:
        files = {n: base64.b64decode(text, validate=True) for n, text in json.loads(plain).items()}
    except (ValueError, TypeError, AttributeError, binascii.Error) as cause:
        raise InvalidBackupError("the export of keys cannot be read") from cause
    if any(not set(name) <= _NAME_CHARACTERS or name.startswith(".") for name in files):
        raise InvalidBackupError("the export of keys names a file that no key folder has")
    return files


def put_keys(folder: Path, files: dict[str, bytes]) -> None:
    """Write exported files into a key folder that has none of its own.

    The same files once more are no fault: whoever restores tries again after a bad copy.

    Raises:
        InvalidBackupError: there are other keys already; they are never replaced.
        StoreUnavailableError: it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = {path.name: path for path in folder.iterdir()}
        if there and (
            set(there) != set(files)
            or any(not path.is_file() or path.is_symlink() for path in there.values())
            or any(path.read_bytes() != files[name] for name, path in there.items())
        ):
            raise InvalidBackupError("there are other keys already; they are never replaced")
        if there:
            return
        for name, content in files.items():
            fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as cause:
        raise StoreUnavailableError("the key folder cannot be written") from cause


def _derive(passphrase: str, salt: bytes, header: dict[str, Any]) -> bytes:
    return hash_secret_raw(
        passphrase.encode(),
        salt,
        time_cost=header["time"],
        memory_cost=header["memory"],
        parallelism=header["lanes"],
        hash_len=_KEY_BYTES,
        type=Type.ID,
    )
