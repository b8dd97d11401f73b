"""The area under the ROC curve, exact, with ties counted a half."""

import numpy as np
from numpy.typing import NDArray


def auc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float | None:
    """Return the area, or None when a class is empty.

    Source: Hanley and McNeil 1982: the Mann-Whitney statistic over all pairs.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]  # mean rank of ties, from 1
    above = float(ranks[labels].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)
