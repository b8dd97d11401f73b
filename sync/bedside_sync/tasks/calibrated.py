"""Probability and threshold of a head from the sums it was solved from, at no further privacy.

The sums of a round with a constant feature hold how many patients and positives there are, where
both classes lie on average and how all of them spread. Taking the two classes as normal with one
spread, that is a calibrated probability: log-odds are then linear in the score. Everything here is
post-processing of the noisy sums. It is an assumption about the classes, not a measurement: the
joint validation of the package measures it.

Source: Fisher 1936 / linear discriminant analysis, Hastie et al. 2009, section 4.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError, RoundRefusedError
from bedside_sync.tasks.head import Head, HeadTask, read_sums

_MULTIPLE: Final = 2.0  # of its own noise, that a count must pass before it is divided by


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """How a finding's score becomes a probability and a decision.

    Attributes:
        scale: log-odds per unit of the score; positive.
        offset: log-odds at score 0.
        threshold: probability at which the two errors are equal.
        low: below it nine in ten of the patients without the finding are expected to stay.
        high: above it one in ten of them is expected; the band between is undetermined.
        patients: noisy count, never below 1.
        positives: noisy count, never below 1.
    """

    scale: float
    offset: float
    threshold: float
    low: float
    high: float
    patients: float
    positives: float


def calibrated(
    task: HeadTask,
    totals: Sequence[NDArray[np.int64]],
    variance: float,
    head: Head,
    *,
    constant: float,
    finding: int = 0,
    alpha: float = 0.1,
) -> Calibrated:
    """Return probability and decision rule of one finding of a head.

    Args:
        task: the settings; the last feature is the same for everybody.
        totals: the sums the head was solved from.
        variance: of the noise in each word of one night's sum.
        head: from `solve_head`.
        constant: value of the last feature.
        finding: column of the head.
        alpha: share of each class that may lie beyond the undetermined band.

    Raises:
        InvalidInputError: the constant is 0: there are no counts in the sums.
        RoundRefusedError: counts drown in the noise, or the head does not tell the classes apart.
    """
    if constant <= 0:
        raise InvalidInputError("without a constant feature the sums hold no counts")
    gram, right = read_sums(task, totals)
    weights = head.weights[:, finding]
    everybody, positives = gram[-1, -1] / constant**2, right[-1, finding] / constant
    noise = math.sqrt(variance * len(totals)) / (task.label_weight * task.scale * constant)
    if min(positives, everybody - positives) <= max(_MULTIPLE * noise, 2.0):
        raise RoundRefusedError("the counts of the round drown in its noise: no head from it")
    with_it = float(weights @ right[:, finding]) / positives
    all_sum = float(weights @ gram[:, -1]) / constant
    without = (all_sum - with_it * positives) / (everybody - positives)
    square = max(float(weights @ gram @ weights), 0.0) / everybody
    share = positives / everybody
    between = share * (1 - share) * (with_it - without) ** 2
    spread2 = square - (all_sum / everybody) ** 2 - between
    # the noise can swallow the spread; the classes are then taken as far apart as in d' = 2
    spread2 = max(spread2, (with_it - without) ** 2 / 4, 1e-12)
    if with_it <= without:
        raise RoundRefusedError("the head does not tell the classes apart: the noise is too much")
    scale = (with_it - without) / spread2
    middle = (with_it + without) / 2
    offset = math.log(share / (1 - share)) - scale * middle
    tail = NormalDist().inv_cdf(1 - alpha) * math.sqrt(spread2)

    def probability(score: float) -> float:
        return 1 / (1 + math.exp(-min(60.0, max(-60.0, scale * score + offset))))

    ends = sorted((with_it - tail, without + tail))
    overlap = with_it - tail < without + tail
    return Calibrated(
        scale=scale,
        offset=offset,
        threshold=probability(middle),
        low=probability(ends[0] if overlap else middle),
        high=probability(ends[1] if overlap else middle),
        patients=max(1.0, float(everybody)),
        positives=max(1.0, float(positives)),
    )
