"""A head of the hospital's own, near the joint one; it never leaves the box.

The joint model says p for a case; the hospital's own part adds x d, with x the model's features as
seen from its training images (whitened) and d the least squares solution for what p missed, held
near zero by a penalty: with few cases the joint model stands, with many the hospital's own habits
show. Judged on patients that neither trained on.

Source: mean-regularised multi-task learning, Liu et al. 2022, arXiv:2206.07902.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedside_edge.learning.roc import auc

Floats = NDArray[np.float64]
_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_FOLDS = 5
_LEAST = 20  # cases to fit, and to judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Personal:
    """Whether a head of its own would help this hospital.

    Attributes:
        fitted: cases it was fitted on.
        judged: cases it was judged on.
        joint: area under the curve of the joint model on those.
        own: of the hospital's own head; None where a class is empty.
        penalty: chosen by cross-validation among the fitted cases.
        size: norm of d; 0 is the joint model.
    """

    fitted: int
    judged: int
    joint: float | None
    own: float | None
    penalty: float
    size: float

    @property
    def helps(self) -> bool:
        """Whether its own head reads the held-out cases better."""
        return self.joint is not None and self.own is not None and self.own > self.joint


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Cases: whitened features (n, c), the joint model's p (n,), and labels (n,)."""

    x: Floats
    p: Floats
    y: NDArray[np.bool_]


def fit(cohort: Cohort, penalty: float) -> Floats:
    """Return d: (x'x + penalty I)^-1 x' (y - p)."""
    gram = cohort.x.T @ cohort.x + penalty * np.eye(cohort.x.shape[1])
    missed = cohort.x.T @ (cohort.y - cohort.p)
    return np.asarray(np.linalg.solve(gram, missed), np.float64)


def personal(train: Cohort, test: Cohort) -> Personal | None:
    """Fit on one cohort, judge on the other; None when either has too few cases."""
    if min(len(train.y), len(test.y)) < _LEAST:
        return None
    penalty = min(_PENALTIES, key=lambda one: _missed(train, one))
    own = fit(train, penalty)
    return Personal(
        fitted=len(train.y),
        judged=len(test.y),
        joint=auc(test.p, test.y),
        own=auc(test.p + test.x @ own, test.y),
        penalty=penalty,
        size=float(np.linalg.norm(own)),
    )


def _missed(train: Cohort, penalty: float) -> float:
    """Return the squared error of cross-validation."""
    fold = np.arange(len(train.y)) % _FOLDS
    total = 0.0
    for one in range(_FOLDS):
        inside = fold != one
        part = Cohort(x=train.x[inside], p=train.p[inside], y=train.y[inside])
        left = ~inside
        said = train.p[left] + train.x[left] @ fit(part, penalty)
        total += float(((train.y[left] - said) ** 2).sum())
    return total
