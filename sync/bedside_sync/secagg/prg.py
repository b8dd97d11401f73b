"""Hashing, encoding and masks of the secure sum, byte for byte.

A mask is a stream of AES-128-CTR words under a key derived from a 32-byte seed. It is expanded and
added in blocks, so a vector of any length costs a constant amount of memory.

Sources: RFC 5869 (HKDF), NIST SP 800-38A (CTR), RFC 8032 (Ed25519).
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError

SEED_BYTES: Final = 32
DIGEST_BYTES: Final = 32
CHUNK_BYTES: Final = 256 << 10  # of a masked vector; what travels and resumes as one piece
_BLOCK_WORDS: Final = 64 << 10
_AES_KEY_BYTES: Final = 16

Words = NDArray[np.uint32] | NDArray[np.uint64]
_WORD_TYPES: Final[dict[int, np.dtype[Any]]] = {32: np.dtype("<u4"), 64: np.dtype("<u8")}


class Tag(StrEnum):
    """What a hash or signature is of. One tag per kind of message, never shared."""

    MANIFEST = "manifest"
    HELPER_KEY = "helperkey"
    CHUNK = "chunk"
    VECTOR = "y"
    SEED = "seed"
    ENVELOPE = "env"
    PRG = "prg"
    REPORT = "report"
    RECEIPT = "receipt"
    WITHDRAW = "withdraw"
    COMPLAINT = "complaint"
    DIGEST = "digest"
    COSIGN = "cosign"
    UNMASK = "unmask"
    TRANSCRIPT = "transcript"
    ROSTER = "roster"
    JOIN = "join"
    INVENTORY = "inventory"
    PROMOTION = "promotion"

    @property
    def raw(self) -> bytes:
        """The tag as it is hashed."""
        return b"bedside/secagg/v1/" + self.value.encode()


def word_type(ring: int) -> np.dtype[Any]:
    """Return the little-endian type of a ring's words; InvalidInputError unless 32 or 64 bits."""
    found = _WORD_TYPES.get(ring)
    if found is None:
        raise InvalidInputError(f"a ring has 32 or 64 bits, got {ring}")
    return found


def enc(*parts: bytes) -> bytes:
    """Join byte strings so that no two lists of parts give the same bytes.

    Every part is preceded by its length in eight bytes, big-endian.
    """
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def digest(tag: Tag, *parts: bytes) -> bytes:
    """Return the SHA-256 of a tag and parts, 32 bytes."""
    return hashlib.sha256(enc(tag.raw, *parts)).digest()


def signed_bytes(tag: Tag, body: bytes) -> bytes:
    """Return what a signature of `body` covers: its hash, bound to what kind of message it is."""
    return enc(tag.raw, hashlib.sha256(body).digest())


def vector_digest(masked: Words, ring: int) -> tuple[bytes, list[bytes]]:
    """Return the digest of a masked vector and those of its chunks of 256 KiB.

    Args:
        masked: (d,) words of the ring.
        ring: bits of a word, 32 or 64.
    """
    data = np.ascontiguousarray(masked, word_type(ring)).tobytes()
    chunks = [
        chunk_digest(number, data[start : start + CHUNK_BYTES])
        for number, start in enumerate(range(0, len(data), CHUNK_BYTES))
    ]
    return whole_digest(ring, len(masked), chunks), chunks


def chunk_digest(number: int, data: bytes) -> bytes:
    """Return the digest of one chunk of a masked vector."""
    return digest(Tag.CHUNK, number.to_bytes(8, "big"), data)


def whole_digest(ring: int, length: int, chunks: list[bytes]) -> bytes:
    """Return the digest of a masked vector of `length` words from its chunks' digests."""
    return digest(Tag.VECTOR, ring.to_bytes(8, "big"), length.to_bytes(8, "big"), b"".join(chunks))


def key_stream(seed: bytes, ring: int, length: int) -> Iterator[tuple[int, Words]]:
    """Yield a mask in blocks: where the block starts, and its words.

    The block is overwritten by the next one: use it before asking on.

    Args:
        seed: 32 bytes that nobody else has.
        ring: bits of a word.
        length: words in all.

    Raises:
        InvalidInputError: a seed of another length; no such ring.
    """
    kind = word_type(ring)
    if len(seed) != SEED_BYTES:
        raise InvalidInputError(f"a mask's seed has {SEED_BYTES} bytes, got {len(seed)}")
    okm = HKDF(algorithm=SHA256(), length=32, salt=None, info=Tag.PRG.raw).derive(seed)
    cipher = Cipher(AES(okm[:_AES_KEY_BYTES]), CTR(okm[_AES_KEY_BYTES:])).encryptor()
    size = min(_BLOCK_WORDS, length) * kind.itemsize
    zeros, buffer = bytes(size), bytearray(size)
    for start in range(0, length, _BLOCK_WORDS):
        count = min(_BLOCK_WORDS, length - start)
        wanted = count * kind.itemsize
        cipher.update_into(memoryview(zeros)[:wanted], memoryview(buffer)[:wanted])
        yield start, np.frombuffer(buffer, kind, count)


def add_mask(vector: Words, seed: bytes, ring: int) -> None:
    """Add a seed's mask to `vector` in place, modulo 2**ring."""
    for start, block in key_stream(seed, ring, len(vector)):
        vector[start : start + len(block)] += block


def sum_of_masks(seeds: Sequence[bytes], ring: int, length: int, *, threads: int = 2) -> Words:
    """Return the sum of many seeds' masks, modulo 2**ring.

    The cipher leaves the interpreter lock while it works, so threads share the seeds; each holds
    one vector of its own, however many seeds there are. Addition has no order: any number of
    threads gives the same words.

    Args:
        seeds: of the masks; each as for `key_stream`.
        ring: bits of a word.
        length: words in all.
        threads: that expand at a time.
    """
    if length < _BLOCK_WORDS or len(seeds) <= threads:
        threads = 1

    def part(number: int) -> Words:
        total = np.zeros(length, word_type(ring))
        for seed in seeds[number::threads]:
            add_mask(total, seed, ring)
        return total

    if threads == 1:
        return part(0)
    with ThreadPoolExecutor(threads, thread_name_prefix="masks") as pool:
        first, *others = pool.map(part, range(threads))
    for other in others:
        first += other
    return first


def subtract(vector: Words, other: Words) -> None:
    """Subtract `other` from `vector` in place, modulo 2**ring; InvalidInputError on a mismatch."""
    if vector.dtype != other.dtype or vector.shape != other.shape:
        raise InvalidInputError("vectors of one sum have one length and one ring")
    vector -= other
