"""Discrete Gaussian noise for whole vectors, from a table of exact cumulative probabilities.

The table holds P(X <= x) for |x| <= ceil(12 sigma) as 128-bit integers, computed in decimal
arithmetic of 70 digits. A draw is one uniform 64-bit word looked up in the upper halves; where it
equals one (about once in 2^47 draws) a second word decides among the 128-bit integers. What the
table loses against the exact law, cut tail included, is below 2^-100 per draw: charged to delta.
"""

import decimal
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg.ring import tail

LOG2_LOSS_PER_DRAW: Final = -100
_LARGEST_SIGMA2: Final = 65_536**2
_DIGITS: Final = 70
_BITS: Final = 128

DrawWords64 = Callable[[int], NDArray[np.uint64]]


@lru_cache(maxsize=8)
def _table(sigma2: int) -> tuple[NDArray[np.uint64], tuple[int, ...], int]:
    """Return upper halves, whole integers, and the end of the support."""
    end = tail(sigma2)
    with decimal.localcontext() as context:
        context.prec = _DIGITS
        # weights by a recurrence: w(x+1) = w(x) q^(2x+1), one multiplication a step
        q = (Decimal(-1) / Decimal(2 * sigma2)).exp()
        square, step, weight = q * q, q, Decimal(1)
        half = [weight]
        for _ in range(end):
            weight *= step
            step *= square
            half.append(weight)
        total = 2 * sum(half[1:], Decimal(0)) + half[0]
        scale = Decimal(2) ** _BITS / total
        running, cumulative = Decimal(0), []
        for x in range(-end, end):  # the last value takes what is left
            running += half[abs(x)]
            cumulative.append(int((running * scale).to_integral_value(decimal.ROUND_HALF_EVEN)))
    upper = np.array([value >> 64 for value in cumulative], np.uint64)
    return upper, tuple(cumulative), end


def draw_noise(sigma2: int, count: int, draw: DrawWords64) -> NDArray[np.int64]:
    """Return independent draws, P(x) proportional to exp(-x^2 / (2 sigma2)), |x| <= 12 sigma.

    Args:
        sigma2: the law's parameter, a positive integer up to 65,536^2.
        count: how many.
        draw: (n) fresh uniform 64-bit words from a cryptographic generator.

    Raises:
        InvalidInputError: `sigma2` is out of range.
    """
    if not 1 <= sigma2 <= _LARGEST_SIGMA2:
        raise InvalidInputError(f"sigma2 is 1 to {_LARGEST_SIGMA2}, got {sigma2}")
    upper, cumulative, end = _table(sigma2)
    words = draw(count)
    found = np.searchsorted(upper, words, side="right")
    ties = np.flatnonzero(upper[np.maximum(found, 1) - 1] == words)
    for place in ties.tolist():
        found[place] = _whole(int(words[place]) << 64 | int(draw(1)[0]), cumulative)
    return found.astype(np.int64) - end


def _whole(word: int, cumulative: tuple[int, ...]) -> int:
    """Return how many of the 128-bit boundaries are at or below `word`."""
    low, high = 0, len(cumulative)
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] <= word:
            low = middle + 1
        else:
            high = middle
    return low
