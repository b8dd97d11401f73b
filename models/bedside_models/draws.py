"""Seeded draws for bootstraps and folds: the one place here that makes a numpy generator.

Training and evaluation must repeat from a recorded seed, so the seed is always an argument; this
is not the randomness of masks or noise, which never comes from here.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Draws(Protocol):
    """The two draws this package needs, as numpy's Generator offers them."""

    def integers(self, low: int, high: int, size: int) -> NDArray[np.int64]:
        """Return `size` integers in low..high-1."""
        ...

    def permutation(self, x: int) -> NDArray[np.int64]:
        """Return 0..x-1 in random order."""
        ...


def seeded(seed: int) -> Draws:
    """Return a generator that repeats for the same seed."""
    generator: Any = np.random.default_rng(seed)  # noqa: TID251
    return generator  # type: ignore[no-any-return]
