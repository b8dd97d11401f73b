"""The secret files of the key folder: plain with mode 0600, or together in one sealed file.

    keys/sealed.json   which protection, what the sealing key is opened from, the sealing key once
                       more for the recovery recipient (age), and each file under the sealing key

Where `sealed.json` is, it is the truth. A plain file beside it is what a cut migration left: equal,
it is destroyed; different, nothing opens. A missing, damaged or readable-by-others file is refused
and never replaced.
"""

import base64
import binascii
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bedside_core.errors import (
    InvalidConfigError,
    InvalidInputError,
    KeysSealedError,
    StoreUnavailableError,
)
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.key_protection import Protection, Sealer
from bedside_edge.system.passphrase import PassphraseSealer, passphrase_at_hand
from bedside_edge.system.random_os import OsRandom
from bedside_edge.system.tpm2 import Tpm2Tools

SEALED_FILE: Final = "sealed.json"
SECRET_FILES: Final = ("box.key", "log.key", "witness.key")
_FORMAT: Final = "bedside-keys-sealed-v1"
_KEY_BYTES, _NONCE_BYTES = 32, 12
_MOST_BYTES: Final = 1 << 16
_GONE: Final = ".gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What `sealed.json` says."""

    protection: Protection
    sealed: Mapping[str, str | int]
    recovery: str  # base64 of the sealing key, encrypted with age; empty without a recipient
    files: Mapping[str, str] = field(repr=False)  # name -> base64 of nonce and ciphertext


def sealer_for(protection: Protection) -> Sealer:
    """Return what seals and opens under a protection on this machine.

    Raises:
        KeysSealedError: the passphrase is not at hand.
    """
    if protection is Protection.TPM:
        return Tpm2Tools()
    return PassphraseSealer(passphrase_at_hand(), OsRandom())


def protection_of(folder: Path) -> Protection:
    """Return how the secret files of a key folder are kept; a new folder keeps them plain."""
    found = read_sealed(folder)
    return found.protection if found else Protection.FILE


def exists(path: Path) -> bool:
    """Tell whether a secret file is there, plain or sealed."""
    found = read_sealed(path.parent)
    return path.exists() or bool(found and path.name in found.files)


def read(path: Path, what: str) -> bytes:
    """Return the content of a secret file.

    Args:
        path: its place in the key folder, whether it lies there or is sealed.
        what: its name in messages.

    Raises:
        FileNotFoundError: it is neither plain nor sealed.
        KeysSealedError: it is sealed and does not open here.
        StoreUnavailableError: it is exposed, or sealed and plain copy differ.
    """
    found = read_sealed(path.parent)
    if found is None:
        return _read_plain(path, what)
    if path.name not in found.files:
        raise FileNotFoundError(path.name)
    content = opened(found, sealer_for(found.protection).unseal(found.sealed))[path.name]
    if path.exists():
        if _read_plain(path, what) != content:
            raise StoreUnavailableError(f"{what} lies there twice, and the two differ")
        destroy(path)
    return content


def write(path: Path, content: bytes, random: RandomBytes) -> None:
    """Make a secret file, whole or not at all; one already there wins."""
    found = read_sealed(path.parent)
    if found is None:
        write_plain(path, content, random)
        return
    if path.name not in found.files:
        key = sealer_for(found.protection).unseal(found.sealed)
        files = opened(found, key) | {path.name: content}
        write_sealed(path.parent, closed(found, key, files, random), random)


def new_sealed(
    sealer: Sealer, files: Mapping[str, bytes], recipient: str, random: RandomBytes
) -> Sealed:
    """Return secret files under a new sealing key, having seen that it opens again.

    Args:
        sealer: hides the sealing key.
        files: content by name.
        recipient: age recipient (`age1...`) who can open them without the sealer; or empty.
        random: where key and nonces come from.

    Raises:
        InvalidInputError: the recipient is none.
        KeysSealedError: the sealer does not seal, or not so that it opens again.
    """
    key = random(_KEY_BYTES)
    recovery = base64.b64encode(_for_recipient(key, recipient)).decode() if recipient else ""
    sealed = sealer.seal(key)
    if sealer.unseal(sealed) != key:
        raise KeysSealedError("what was sealed does not open again")
    empty = Sealed(protection=sealer.protection, sealed=sealed, recovery=recovery, files={})
    return closed(empty, key, files, random)


def closed(about: Sealed, key: bytes, files: Mapping[str, bytes], random: RandomBytes) -> Sealed:
    """Return `about` with these files under its sealing key."""
    hidden = {}
    for name, content in files.items():
        nonce = random(_NONCE_BYTES)
        data = nonce + AESGCM(key).encrypt(nonce, content, _context(name))
        hidden[name] = base64.b64encode(data).decode()
    return Sealed(
        protection=about.protection, sealed=about.sealed, recovery=about.recovery, files=hidden
    )


def opened(found: Sealed, key: bytes) -> dict[str, bytes]:
    """Return the files; StoreUnavailableError when damaged."""
    files = {}
    try:
        for name, text in found.files.items():
            data = base64.b64decode(text, validate=True)
            nonce, hidden = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
            files[name] = AESGCM(key).decrypt(nonce, hidden, _context(name))
    except (InvalidTag, ValueError, binascii.Error) as cause:
        raise StoreUnavailableError(
            "the sealed keys are damaged; restore them from their export"
        ) from cause
    return files


def by_recovery(found: Sealed, identity: str) -> bytes:
    """Return the sealing key, by the recovery recipient's identity (`AGE-SECRET-KEY-1...`).

    Raises:
        InvalidInputError: not an identity, not the recipient's, or there is no recovery copy.
    """
    import pyrage  # native code that only recoveries and age backups need

    if not found.recovery:
        raise InvalidInputError("the keys were sealed without a recovery recipient")
    try:
        who = pyrage.x25519.Identity.from_str(identity)
        return bytes(pyrage.decrypt(base64.b64decode(found.recovery, validate=True), [who]))
    except (pyrage.IdentityError, pyrage.DecryptError, ValueError) as cause:
        raise InvalidInputError("that identity does not open the recovery copy") from cause


def read_sealed(folder: Path) -> Sealed | None:
    """Return what `sealed.json` says; None where there is none.

    Raises:
        StoreUnavailableError: it cannot be read, or is open to others.
    """
    try:
        text = _read_plain(folder / SEALED_FILE, "the sealed key file", _MOST_BYTES)
    except FileNotFoundError:
        return None
    try:
        document = json.loads(text)
        if document["format"] != _FORMAT:
            raise StoreUnavailableError("the sealed keys are of another version")
        return Sealed(
            protection=Protection(document["protection"]),
            sealed=dict(document["sealed"]),
            recovery=str(document["recovery"]),
            files=dict(document["files"]),
        )
    except (ValueError, KeyError, TypeError) as cause:
        raise StoreUnavailableError(
            "the sealed keys are damaged; restore them from their export"
        ) from cause


def write_sealed(folder: Path, sealed: Sealed, random: RandomBytes) -> None:
    """Put `sealed.json` in place: the old one or the new one, whatever happens."""
    document = {
        "format": _FORMAT,
        "protection": sealed.protection,
        "sealed": dict(sealed.sealed),
        "recovery": sealed.recovery,
        "files": dict(sealed.files),
    }
    temporary = folder / f"{SEALED_FILE}.{random(8).hex()}"
    _create(temporary, json.dumps(document, sort_keys=True, indent=1).encode() + b"\n")
    try:
        temporary.replace(folder / SEALED_FILE)
    except OSError:
        temporary.unlink()
        raise
    sync(folder)


def destroy(path: Path) -> None:
    """Let a file go: first its name, durably, then its content, so that a cut leaves no torso."""
    gone = path.with_name(path.name + _GONE)
    path.rename(gone)
    sync(path.parent)
    _wipe(gone)


def sweep(folder: Path) -> None:
    """Destroy what a cut left of temporary and half-destroyed files; only under the box's lock."""
    for name in (*SECRET_FILES, SEALED_FILE):
        for path in folder.glob(f"{name}.*"):
            _wipe(path)


def refuse_open_modes(status: os.stat_result, what: str) -> None:
    """Raise StoreUnavailableError for a file of another user, or one others may open."""
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise StoreUnavailableError(f"{what} must belong to this user and be closed to all others")


def require_protection(folder: Path, wanted: str) -> None:
    """Refuse a key folder that is kept otherwise than the settings say.

    Raises:
        InvalidConfigError: `[keys] protection` names another protection than the folder's.
    """
    found = protection_of(folder)
    if wanted and folder.exists() and found != wanted and any(folder.iterdir()):
        raise InvalidConfigError(
            f"[keys] protection is {wanted}, but the keys are kept by {found}; "
            "`bedside-edge keys seal` changes that"
        )


def _wipe(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        os.write(fd, bytes(os.fstat(fd).st_size))
        os.fsync(fd)
    finally:
        os.close(fd)
    path.unlink()
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _context(name: str) -> bytes:
    return f"{_FORMAT} {name}".encode()


def _for_recipient(key: bytes, recipient: str) -> bytes:
    import pyrage

    try:
        return bytes(pyrage.encrypt(key, [pyrage.x25519.Recipient.from_str(recipient)]))
    except (pyrage.RecipientError, ValueError) as cause:
        raise InvalidInputError("that is no age recipient (age1...)") from cause


def _read_plain(path: Path, what: str, most: int = 4096) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        refuse_open_modes(os.fstat(fd), what)
        return os.read(fd, most)
    finally:
        os.close(fd)


def write_plain(path: Path, content: bytes, random: RandomBytes) -> None:
    """Make a plain file, whole or not at all; one already there wins."""
    temporary = path.with_name(f"{path.name}.{random(8).hex()}")
    _create(temporary, content)
    try:
        os.link(temporary, path)  # unlike a rename, a link never replaces a key that exists
    finally:
        temporary.unlink()
    sync(path.parent)


def _create(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
