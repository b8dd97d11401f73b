"""Byte sources for tests of noise: the same bytes on every run, never the system's generator."""

import hashlib


class SeededBytes:
    """SHAKE-256 of a label and a counter, as long a stream as asked for."""

    def __init__(self, label: str) -> None:
        self._label, self._counter, self._pool, self._at = label, 0, b"", 0

    def __call__(self, count: int) -> bytes:
        while len(self._pool) - self._at < count:
            block = hashlib.shake_256(f"{self._label}/{self._counter}".encode()).digest(1 << 16)
            self._pool, self._at = self._pool[self._at :] + block, 0
            self._counter += 1
        self._at += count
        return self._pool[self._at - count : self._at]


class EndOfScriptError(Exception):
    """The script has no bytes left."""


class ScriptedBytes:
    """Exactly the bytes given, then an error."""

    def __init__(self, script: bytes) -> None:
        self._left = script

    def __call__(self, count: int) -> bytes:
        if count > len(self._left):
            raise EndOfScriptError
        taken, self._left = self._left[:count], self._left[count:]
        return taken
