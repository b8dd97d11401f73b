"""How much readers agree, from vote counts alone: nobody's own votes are needed.

Two votes on one item, drawn at random, are a pair of readers. Their expected table is made of
n_a n_b for two classes and n_a (n_a - 1) for one. Noise of variance s^2 adds s^2 to the mean of
n_a^2 and nothing to n_a n_b, so it can be taken off without bias.

Source: Fleiss 1971 (agreement of many readers from counts); Efron 1982 (jackknife).
"""

import math

import numpy as np
from numpy.typing import NDArray

from bedside_sync.tasks.judge import Figure

_Z95 = 1.959963984540054


def readers(votes: NDArray[np.float64], variance: float) -> tuple[NDArray[np.float64], Figure]:
    """Return the (classes, classes) table of pairs of readers, and their kappa.

    Args:
        votes: (items, classes) counts, noisy.
        variance: of the noise in each count.

    Returns:
        The mean table over ordered pairs, in pairs; kappa is None when there are too few pairs
        for the noise.
    """
    items, classes = votes.shape
    pairs = votes[:, :, None] * votes[:, None, :]
    diagonal = np.arange(classes)
    pairs[:, diagonal, diagonal] -= votes + variance
    whole = pairs.sum(axis=0)
    # sd of the sum of pairs from the noise alone, at the counts seen
    square = variance * (2 * float((votes**2).sum()) * classes + items * classes**2 * variance)
    if float(whole.sum()) <= 2 * math.sqrt(max(square, 0.0)):
        return whole, Figure(value=None)
    value = _kappa(whole)
    if value is None:
        return whole, Figure(value=None)
    left_out = [one for k in range(items) if (one := _kappa(whole - pairs[k])) is not None]
    half = math.nan
    if len(left_out) > 1:
        spread = float(np.var(left_out)) * (len(left_out) - 1)
        half = _Z95 * math.sqrt(spread)
    return whole, Figure(value=value, lower=max(-1.0, value - half), upper=min(1.0, value + half))


def _kappa(table: NDArray[np.float64]) -> float | None:
    total = float(table.sum())
    if total <= 0:
        return None
    share = table / total
    chance = float((share.sum(axis=1) * share.sum(axis=0)).sum())
    if chance >= 1:
        return None
    return float(np.clip((float(np.trace(share)) - chance) / (1 - chance), -1.0, 1.0))
