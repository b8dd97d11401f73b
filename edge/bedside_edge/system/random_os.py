"""Unpredictable bytes from the operating system; the only source of randomness on the box."""

import secrets


class OsRandom:
    """`RandomBytes` from the kernel's generator; safe across threads and forks."""

    def __call__(self, count: int) -> bytes:
        """Return `count` unpredictable bytes."""
        return secrets.token_bytes(count)
