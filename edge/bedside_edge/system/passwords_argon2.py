"""Argon2id over argon2-cffi, with the parameters of the OWASP Password Storage Cheat Sheet.

19 MiB, two passes, one lane: tens of milliseconds on a small board, and a thief of the database
needs the same memory for every guess.
"""

from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1


class Argon2Passwords:
    """`Passwords` over libargon2."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(
            time_cost=PASSES,
            memory_cost=MEMORY_KIB,
            parallelism=LANES,
            hash_len=32,
            salt_len=16,
            type=Type.ID,
        )

    def hash(self, password: str) -> str:
        """Return the encoded hash with a salt of its own."""
        return self._hasher.hash(password)

    def verify(self, encoded: str, password: str) -> bool:
        """Whether the password is the one; a damaged or empty hash is like a wrong password."""
        try:
            return self._hasher.verify(encoded, password)
        except (VerificationError, InvalidHashError):
            return False

    def outdated(self, encoded: str) -> bool:
        """Whether the hash was made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(encoded)
