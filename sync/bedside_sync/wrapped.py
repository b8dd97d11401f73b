"""Secrets under a passphrase: scrypt derives the key, AES-256-GCM seals, its purpose is bound in.

Sources: RFC 7914 (scrypt), RFC 5116 (AES-GCM).
"""

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from bedside_core.errors import InvalidKeyError, WeakPasswordError
from bedside_sync.system.random_os import random_bytes

SHORTEST: Final = 12  # characters of a passphrase
_COST: Final = 1 << 16  # 64 MiB, about 0.2 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """A sealed secret: 32 bytes of salt, 12 of nonce, and the secret with its tag."""

    salt: bytes
    nonce: bytes
    sealed: bytes


def wrap(secret: bytes, passphrase: str, bound: bytes) -> Wrapped:
    """Return the secret sealed; WeakPasswordError when the passphrase is too short."""
    if len(passphrase) < SHORTEST:
        raise WeakPasswordError(f"a passphrase has at least {SHORTEST} characters")
    salt, nonce = random_bytes(32), random_bytes(12)
    sealed = AESGCM(_derived(passphrase, salt)).encrypt(nonce, secret, bound)
    return Wrapped(salt=salt, nonce=nonce, sealed=sealed)


def unwrap(wrapped: Wrapped, passphrase: str, bound: bytes) -> bytes:
    """Return the secret; InvalidKeyError when passphrase or file is wrong."""
    key = _derived(passphrase, wrapped.salt)
    try:
        return AESGCM(key).decrypt(wrapped.nonce, wrapped.sealed, bound)
    except InvalidTag as cause:
        raise InvalidKeyError("the key does not open: wrong passphrase or changed file") from cause


def _derived(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(passphrase.encode("utf-8"))
