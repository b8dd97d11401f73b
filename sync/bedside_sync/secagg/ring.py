"""From a patient's real numbers to words of the ring, and from the sum back, with a proof of both.

Sensitivity is made exact in integers: a vector is clipped, scaled, rounded at random, and then its
squared norm is checked as an integer; what still does not fit is rounded towards zero or left out.
No floating point number takes part in that decision, so no rounding error can break the bound.

Source: Kairouz, Liu, Steinke 2021, arXiv:2102.06387 (conditional rounding); Canonne, Kamath,
Steinke 2020 (discrete Gaussian).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg.prg import Words, word_type

_TRIES: Final = 8
_THRESHOLD_BITS: Final = 32
_TAIL_SIGMAS: Final = 12
_HALF: Final = 26
_LOW: Final = (1 << _HALF) - 1

DrawWords = Callable[[int], NDArray[np.uint32]]  # (count) fresh uniform 32-bit words


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How a patient's vector becomes integers.

    Attributes:
        clip: largest L2 norm of a patient's real vector.
        scale: integer units per unit of the real vector.
        length: words of the vector.
    """

    clip: Fraction
    scale: int
    length: int

    def __post_init__(self) -> None:
        if self.clip <= 0 or self.scale < 1 or self.length < 1:
            raise InvalidInputError("clip and scale are positive, a vector has at least one word")

    @property
    def squared(self) -> int:
        """The largest squared L2 norm a patient's integers may have.

        ceil(c^2 s^2 + d/4 + (c s + sqrt(d)/2)): conditional rounding with beta = e^(-1/2), and
        never above (c s + sqrt(d)/2)^2, which every rounding meets. Rounded up throughout.
        """
        product = self.clip * self.scale
        root = _root_up(self.length)
        conditional = product * product + Fraction(self.length, 4) + product + root / 2
        certain = (product + root / 2) ** 2
        return math.ceil(min(conditional, certain))


def _root_up(value: int) -> Fraction:
    """Return a rational not below the square root, closer than 2^-32."""
    scaled = value << 64
    root = math.isqrt(scaled)
    return Fraction(root + (root * root < scaled), 1 << 32)


def quantise(
    rows: NDArray[np.float64], bounds: Bounds, draw: DrawWords
) -> tuple[NDArray[np.int64], int]:
    """Return the sum of the patients' integer vectors, each of exact sensitivity.

    Args:
        rows: (patients, d), one row per patient; a row with NaN or infinity counts as left out.
        bounds: clip, scale and length; every row's integers end within `bounds.squared`.
        draw: uniform words for the random rounding, from the operating system's generator.

    Returns:
        (d,) int64, and how many patients were left out because no rounding fitted.

    Raises:
        InvalidInputError: rows of another length, or bounds that leave no room in 53 bits.
    """
    if rows.ndim != 2 or rows.shape[1] != bounds.length:
        raise InvalidInputError(f"need rows of {bounds.length} words, got shape {rows.shape}")
    if bounds.squared >= 1 << 52:
        raise InvalidInputError("scale and clip leave no room: squares pass 2^52")
    total = np.zeros(bounds.length, np.int64)
    left_out = 0
    for row in rows:
        integers = round_row(row, bounds, draw)
        if integers is None:
            left_out += 1
        else:
            total += integers
    return total, left_out


def round_row(
    row: NDArray[np.float64], bounds: Bounds, draw: DrawWords
) -> NDArray[np.int64] | None:
    """Return one patient's integers within `bounds.squared`, or None when none can be had.

    A row with NaN or infinity has none.
    """
    if not np.isfinite(row).all():
        return None
    largest = float(np.abs(row).max(initial=0.0))
    if largest == 0.0:
        return np.zeros(bounds.length, np.int64)
    # by the largest first: the square of a huge number is infinite and would hide the direction
    norm = largest * float(np.linalg.norm(row / largest))
    clip = float(bounds.clip)
    scaled = row * (min(1.0, clip / norm) if norm > 0 else 1.0) * bounds.scale
    floor = np.floor(scaled)
    up = ((scaled - floor) * (1 << _THRESHOLD_BITS)).astype(np.uint64)
    for _ in range(_TRIES):
        rounded = floor.astype(np.int64) + (draw(bounds.length) < up)
        if _fits(rounded, bounds.squared):
            return rounded
    truncated = np.trunc(scaled).astype(np.int64)
    return truncated if _fits(truncated, bounds.squared) else None


def _fits(integers: NDArray[np.int64], squared: int) -> bool:
    """Whether the squared norm is within the bound, without overflow."""
    if int(np.abs(integers).max(initial=0)) > math.isqrt(squared):
        return False  # and so no square below passes 2^52
    squares = integers * integers
    low = int((squares & _LOW).sum())  # in halves of 26 bits: 2^37 words sum without overflow
    return (int((squares >> _HALF).sum()) << _HALF) + low <= squared


def overflow_bound(*, patients: int, per_word: int, boxes: int, sigma2: int) -> int:
    """Return the largest magnitude a word of the sum can take, noise included.

    Args:
        patients: most patients in the sum.
        per_word: most one patient adds to one word.
        boxes: most boxes that add noise.
        sigma2: parameter of each box's noise, whose sampler never passes 12 sigma.
    """
    return patients * per_word + boxes * tail(sigma2)


def tail(sigma2: int) -> int:
    """Return ceil(12 sigma): where the noise sampler's support ends."""
    squared = _TAIL_SIGMAS * _TAIL_SIGMAS * sigma2
    root = math.isqrt(squared)
    return root + (root * root < squared)


def fits_ring(ring: int, magnitude: int) -> bool:
    """Whether every sum up to `magnitude` can be read back from a ring of so many bits."""
    word_type(ring)
    return magnitude <= (1 << (ring - 1)) - 1


def to_ring(values: NDArray[np.int64], ring: int) -> Words:
    """Return signed integers as words of the ring; what does not fit wraps, as it must."""
    return values.astype(np.int64).view(np.uint64).astype(word_type(ring))


def from_ring(words: Words, ring: int) -> NDArray[np.int64]:
    """Return words of the ring as the signed integers they stand for."""
    signed = np.int32 if ring == 32 else np.int64
    return np.ascontiguousarray(words, word_type(ring)).view(signed).astype(np.int64)
