"""The format of an encrypted object, as pure functions from bytes to bytes.

    header   16 bytes: b"BEDSIDE", version 1, chunk size (u32, big-endian), four zero bytes
    chunks   AES-256-GCM, 1 MiB of plain bytes each, the last one 0 to 1 MiB, each with its tag

This is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar 2015, "Online authenticated
encryption and its nonce-reuse misuse-resistance"): the nonce is seven zero bytes, the chunk's
number and a byte that is 1 for the last chunk only, and the header is the associated data. So a
chunk that was changed, moved, repeated or left out fails its tag, and so does a file that was
cut at a chunk's end or made longer. A nonce never repeats because every object has a random key
of its own, used for one writing.
"""

import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bedside_core.errors import DamagedObjectError, InvalidInputError

CHUNK: Final = 1 << 20  # plain bytes
TAG: Final = 16
KEY_BYTES: Final = 32
_HEADER: Final = struct.Struct(">7sBI4x")
_NONCE: Final = struct.Struct(">7xIB")
HEADER_BYTES: Final = _HEADER.size
_MAGIC: Final = b"BEDSIDE"
_VERSION: Final = 1
_MAX_CHUNKS: Final = 1 << 32
_NONCE_BYTES: Final = 12


def header(chunk: int = CHUNK) -> bytes:
    """Return the 16 bytes an object starts with; `chunk` is the plain size of a chunk."""
    return _HEADER.pack(_MAGIC, _VERSION, chunk)


def nonce(index: int, last: bool) -> bytes:
    """Return the 12-byte nonce of chunk `index`; InvalidInputError beyond 2**32 chunks."""
    if index >= _MAX_CHUNKS:
        raise InvalidInputError("an object holds at most 2**32 chunks")
    return _NONCE.pack(index, last)


def open_object(sealed: bytes, key: bytes) -> bytes:
    """Return the plain bytes of a whole object.

    Raises:
        DamagedObjectError: not this format, or changed, cut, extended, reordered, or another key.
    """
    view = memoryview(sealed)
    head = bytes(view[:HEADER_BYTES])
    if len(head) < HEADER_BYTES:
        raise DamagedObjectError("a stored object is cut inside its header")
    magic, version, chunk = _HEADER.unpack(head)
    if magic != _MAGIC or version != _VERSION or not 0 < chunk <= CHUNK:
        raise DamagedObjectError("a stored object has no header of this format")
    cipher = AESGCM(key)
    step = chunk + TAG
    count = max(1, -(-(len(view) - HEADER_BYTES) // step))
    plain: list[bytes] = []
    try:
        for index in range(count):
            start = HEADER_BYTES + index * step
            part = view[start : start + step]
            plain.append(cipher.decrypt(nonce(index, index == count - 1), part, head))
    except (InvalidTag, ValueError) as cause:  # ValueError: shorter than a tag
        raise DamagedObjectError("a stored object fails its authentication tag") from cause
    return plain[0] if count == 1 else b"".join(plain)


class Box:
    """Small blobs under a study's data key: random nonce, context as associated data.

    A study has some thousands of blobs, far below the 2**32 that NIST SP 800-38D allows a key
    with random nonces.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "Box(...)"

    def seal(self, plain: bytes, context: str, random_nonce: bytes) -> bytes:
        """Return nonce and encrypted `plain`, bound to `context` (a kind and a row's id)."""
        return random_nonce + self._cipher.encrypt(random_nonce, plain, context.encode())

    def open(self, blob: bytes, context: str) -> bytes:
        """Return the plain bytes; DamagedObjectError when changed or of another row."""
        try:
            return self._cipher.decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError) as cause:
            raise DamagedObjectError("a stored row fails its authentication tag") from cause
