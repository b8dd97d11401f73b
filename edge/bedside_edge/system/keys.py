"""The box key: one file, read once, from which wrapping and filing keys are derived.

How the file is kept (plain, under a passphrase, sealed to the TPM) is key_files' question.

The key never leaves this module. Two subkeys are separated by HKDF, so that a filed hash of a UID
says nothing about a wrapped key. Wrapping is AES-256-GCM with a random nonce and the context as
associated data: AES-KW has no associated data, so a wrapped key could be moved to another row, and
AES-SIV guards against repeated nonces that cannot occur here: one wrap per study stays far below
the 2**32 random nonces that NIST SP 800-38D allows a key.

A missing, damaged or readable-by-others key file is refused, never replaced: a fresh key would make
everything on the disk unreadable without a word.
"""

import hashlib
import hmac
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bedside_core.errors import DamagedObjectError, StoreUnavailableError
from bedside_edge.ports import RandomBytes
from bedside_edge.system import key_files

KEY_FILE: Final = "box.key"
KEY_BYTES: Final = 32
_MAGIC: Final = b"bedside-box-key\x01"
_CHECK_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_LOOKUP_DIGITS: Final = 32  # 128 bits: collisions start at 2**64 UIDs


class BoxKeys:
    """`KeyStore` over a 32-byte box key held in memory."""

    __slots__ = ("_lookup", "_mac", "_random", "_slot", "_wrap")

    def __init__(self, box_key: bytes, random: RandomBytes) -> None:
        if len(box_key) != KEY_BYTES:
            raise StoreUnavailableError("the box key has the wrong length")
        self._random = random
        self._wrap = AESGCM(_derive(box_key, b"bedside wrap v1"))
        self._lookup = _derive(box_key, b"bedside lookup v1")
        self._slot = _derive(box_key, b"bedside slots v1")
        self._mac = _derive(box_key, b"bedside mac v1")

    def __repr__(self) -> str:
        return "BoxKeys(...)"

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Return nonce and `key` encrypted under the box key, bound to `context`."""
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._wrap.encrypt(nonce, key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the key; DamagedObjectError when changed or of another context or box."""
        try:
            return self._wrap.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as cause:  # ValueError: too short to hold nonce and tag
            raise DamagedObjectError("a wrapped key does not open under this box key") from cause

    def lookup(self, label: str, value: bytes) -> str:
        """Return a keyed hash (32 hex digits) of `value`, separate for every `label`."""
        return _keyed(self._lookup, label, value).hex()[:_LOOKUP_DIGITS]

    def wrap_with(self, secret: bytes, key: bytes, context: bytes) -> bytes:
        """Return nonce and `key` encrypted under box key and `secret`, bound to `context`."""
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._cipher(secret).encrypt(nonce, key, context)

    def unwrap_with(self, secret: bytes, wrapped: bytes, context: bytes) -> bytes:
        """Return the key; DamagedObjectError when changed or of another secret, context or box."""
        nonce, hidden = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        try:
            return self._cipher(secret).decrypt(nonce, hidden, context)
        except (InvalidTag, ValueError) as cause:
            raise DamagedObjectError("a wrapped key does not open under its slot") from cause

    def mac(self, label: str, value: bytes) -> bytes:
        """Return HMAC-SHA256 of `value` under a key of this purpose, separate for every `label`."""
        return _keyed(self._mac, label, value)

    def _cipher(self, secret: bytes) -> AESGCM:
        key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=secret, info=b"bedside slot v1")
        return AESGCM(key.derive(self._slot))


def open_box_keys(folder: Path, random: RandomBytes, create: bool) -> BoxKeys:
    """Read the box key in `folder`, or make it there when `create` and there is none.

    Args:
        folder: the key folder; made with mode 0700 when absent and `create`.
        random: where a new key comes from.
        create: whether a missing key may be made; False once anything is encrypted under one.

    Raises:
        StoreUnavailableError: the key is missing, damaged, a link, or open to other users.
        KeysSealedError: it is sealed and does not open on this machine as it is.
    """
    path = folder / KEY_FILE
    try:
        if create and not key_files.exists(path):
            folder.mkdir(mode=0o700, exist_ok=True)
            key_files.refuse_open_modes(folder.stat(), "the key folder")
            box_key = random(KEY_BYTES)
            key_files.write(path, _MAGIC + box_key + _check(box_key), random)
            key_files.sync(folder.parent)
        key_files.refuse_open_modes(folder.lstat(), "the key folder")
        return BoxKeys(_box_key(key_files.read(path, "the box key")), random)
    except FileNotFoundError as cause:
        raise StoreUnavailableError(
            "the box key is missing; restore it, a new one cannot read what is stored"
        ) from cause
    except OSError as cause:
        raise StoreUnavailableError("the box key cannot be read or written") from cause


def _keyed(key: bytes, label: str, value: bytes) -> bytes:
    name = label.encode()
    return hmac.digest(key, len(name).to_bytes(2, "big") + name + value, hashlib.sha256)


def _derive(box_key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(box_key)


def _check(box_key: bytes) -> bytes:
    """Return bytes that tell a damaged file from a whole one, not one key from another."""
    return _derive(box_key, b"bedside check v1")[:_CHECK_BYTES]


def _box_key(content: bytes) -> bytes:
    box_key = content[len(_MAGIC) : len(_MAGIC) + KEY_BYTES]
    if content != _MAGIC + box_key + _check(box_key) or len(box_key) != KEY_BYTES:
        raise StoreUnavailableError("the box key is damaged; restore it from its backup")
    return box_key
