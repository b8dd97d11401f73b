"""The operating system's cryptographic generator: seeds, noise and round keys come from here."""

import os

import numpy as np
from numpy.typing import NDArray


def random_bytes(count: int) -> bytes:
    """Return `count` unpredictable bytes."""
    return os.urandom(count)


def random_words(count: int) -> NDArray[np.uint32]:
    """Return uniform 32-bit words."""
    return np.frombuffer(os.urandom(4 * count), np.uint32)


def random_long_words(count: int) -> NDArray[np.uint64]:
    """Return uniform 64-bit words."""
    return np.frombuffer(os.urandom(8 * count), np.uint64)
