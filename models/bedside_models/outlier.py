"""What the training images look like to the network and to the eye, for the box's input check."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from bedside_core.findings import Familiar
from bedside_core.imaging import Intensity

CUTOFF_QUANTILE = 0.99
# All training images come from one hospital. A detector it never had moves the features by about a
# tenth (measured on one public CR chest image); the check is for what is not a chest at all.
CUTOFF_MARGIN = 1.25
_MARGIN = {"black": 0.10, "white": 0.05, "mean": 0.05, "std": 0.02}


def fit_familiar(
    train: NDArray[np.float32], val: NDArray[np.float32], intensities: Iterable[Intensity]
) -> Familiar:
    """Fit mean and shrunk covariance on training features, the cut-off on validation features.

    Args:
        train: (n, c) pooled features of the training images.
        val: (m, c) of the validation images; the 0.99 quantile of their distances, times
            CUTOFF_MARGIN, is the cut-off.
        intensities: grey-scale use of the training images; the range seen plus a small margin.
    """
    fitted = LedoitWolf().fit(train.astype(np.float64))
    chol = np.linalg.cholesky(fitted.precision_).astype(np.float32)
    ranges: dict[str, tuple[float, float]] = {}
    seen = list(intensities)
    for name, margin in _MARGIN.items():
        values = [float(getattr(one, name)) for one in seen]
        ranges[name] = (
            round(max(0.0, min(values) - margin), 4),
            round(min(1.0, max(values) + margin), 4),
        )
    familiar = Familiar(
        mean=fitted.location_.astype(np.float32), precision_chol=chol, cutoff=0.0, intensity=ranges
    )
    distances = np.array([familiar.distance(row) for row in val])
    return Familiar(
        mean=familiar.mean,
        precision_chol=chol,
        cutoff=round(CUTOFF_MARGIN * float(np.quantile(distances, CUTOFF_QUANTILE)), 3),
        intensity=ranges,
    )


def alarm_share(familiar: Familiar, features: NDArray[np.float32]) -> float:
    """Return the share of feature vectors beyond the cut-off."""
    return float(np.mean([familiar.distance(row) > familiar.cutoff for row in features]))


def disturbed(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return versions of prepared images that the input check ought to notice."""
    return {
        "grey scale inverted": np.ascontiguousarray(-images),
        "upside down": np.ascontiguousarray(images[:, :, ::-1]),
        "turned by 90 degrees": np.ascontiguousarray(np.rot90(images, axes=(2, 3))),
        "rows shuffled in blocks of 16": _shuffled(images),
    }


def _shuffled(images: NDArray[np.float32]) -> NDArray[np.float32]:
    blocks = np.array_split(np.arange(images.shape[2]), images.shape[2] // 16)
    order = np.concatenate([blocks[(7 * i + 3) % len(blocks)] for i in range(len(blocks))])
    return np.ascontiguousarray(images[:, :, order])


def describe(familiar: Familiar) -> dict[str, Any]:
    """Return cut-off and ranges as JSON values."""
    return {"cutoff": familiar.cutoff, "intensity": familiar.intensity}
