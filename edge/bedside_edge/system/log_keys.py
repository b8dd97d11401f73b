"""The keys of the evidence log: one file with two seeds, Ed25519 and ML-DSA-44.

Like the box key, a missing, damaged or readable-by-others file is refused and never replaced: a
log that goes on under another key looks to its witnesses like another log.
"""

import hashlib
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from bedside_core.errors import StoreUnavailableError
from bedside_core.evidence.note import SignatureType, VerifierKey
from bedside_core.signatures import Algorithm, PublicKey, Sign
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.evidence import LogSigner
from bedside_edge.system import key_files

LOG_KEY_FILE: Final = "log.key"
SEED_BYTES: Final = 32  # of each key
_MAGIC: Final = b"bedside-log-key\x01"
_CHECK_BYTES: Final = 8


class SeedKeys:
    """An Ed25519 and an ML-DSA-44 key over two seeds held in memory."""

    __slots__ = ("_ed25519", "_ml_dsa")

    def __init__(self, seeds: bytes) -> None:
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(seeds[:SEED_BYTES])
        self._ml_dsa = MLDSA44PrivateKey.from_seed_bytes(seeds[SEED_BYTES:])

    def __repr__(self) -> str:
        return "SeedKeys(...)"

    def pairs(self) -> tuple[tuple[PublicKey, Sign], tuple[PublicKey, Sign]]:
        """Return public key and signing function of Ed25519, then of ML-DSA-44."""
        ed25519 = PublicKey(
            algorithm=Algorithm.ED25519, raw=self._ed25519.public_key().public_bytes_raw()
        )
        ml_dsa = PublicKey(
            algorithm=Algorithm.ML_DSA_44, raw=self._ml_dsa.public_key().public_bytes_raw()
        )
        return (ed25519, self._ed25519.sign), (ml_dsa, self._ml_dsa.sign)


class SeedLogKeys(SeedKeys):
    """`LogKeys` over two seeds held in memory."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SeedLogKeys(...)"

    def signers(self, origin: str) -> tuple[LogSigner, ...]:
        """Return the log's keys under the name of its origin."""
        types = (SignatureType.ED25519, SignatureType.ML_DSA_44_COSIGNATURE)
        return tuple(
            LogSigner(key=VerifierKey(name=origin, kind=kind, public=public), sign=sign)
            for kind, (public, sign) in zip(types, self.pairs(), strict=True)
        )


def open_log_keys(folder: Path, random: RandomBytes, create: bool) -> SeedLogKeys:
    """Read the log's keys in `folder`, or make them there when `create` and there are none.

    Args:
        folder: the key folder; it exists, since the box key lies there.
        random: where new seeds come from.
        create: whether missing keys may be made; False once a checkpoint was signed.

    Raises:
        StoreUnavailableError: the file is missing, damaged, a link, or open to other users.
    """
    return SeedLogKeys(open_seeds(folder / LOG_KEY_FILE, _MAGIC, random, create))


def open_seeds(path: Path, magic: bytes, random: RandomBytes, create: bool) -> bytes:
    """Read a file of two seeds, or make it when `create` and there is none.

    Raises:
        StoreUnavailableError: the file is missing, damaged, a link, or open to other users.
    """
    try:
        if create and not key_files.exists(path):
            seeds = random(SEED_BYTES) + random(SEED_BYTES)
            key_files.write(path, magic + seeds + _check(seeds), random)
        return _seeds(key_files.read(path, "the evidence log's key"), magic)
    except FileNotFoundError as cause:
        raise StoreUnavailableError(
            f"the evidence log's key ({path.name}) is missing; restore it: under a new one this"
            " log cannot go on"
        ) from cause
    except OSError as cause:
        raise StoreUnavailableError("the evidence log's key cannot be read or written") from cause


def _seeds(content: bytes, magic: bytes) -> bytes:
    seeds = content[len(magic) : len(magic) + 2 * SEED_BYTES]
    if content != magic + seeds + _check(seeds) or len(seeds) != 2 * SEED_BYTES:
        raise StoreUnavailableError("the evidence log's key is damaged; restore it from its backup")
    return seeds


def _check(seeds: bytes) -> bytes:
    """Return bytes that tell a damaged file from a whole one; they say nothing about the seeds."""
    return hashlib.sha256(b"bedside log key check v1" + seeds).digest()[:_CHECK_BYTES]
