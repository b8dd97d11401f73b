"""A clock that moves when told to, and bytes that look random but repeat from run to run."""

import hashlib


class FakeClock:
    """`Clock`: wall time may be set anywhere, monotonic time only advances."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, ms: int) -> int:
        """Let `ms` pass; return the new wall time."""
        assert ms >= 0
        self._now += ms
        self._monotonic += ms / 1000
        return self._now

    def jump(self, ms: int) -> int:
        """Set the wall clock forward or back, as a person or a time server does."""
        self._now += ms
        return self._now


class SeededBytes:
    """`RandomBytes` from a seed: SHAKE-256 over a counter. For tests only."""

    def __init__(self, seed: str = "seed") -> None:
        self._seed = seed.encode()
        self._counter = 0

    def __call__(self, count: int) -> bytes:
        self._counter += 1
        return hashlib.shake_256(self._seed + self._counter.to_bytes(8, "big")).digest(count)
