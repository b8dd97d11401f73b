"""Train: the public settings of a head on frozen features, and the head on raw features again.

A patient's x is made of the mean of the pooled features over the patient's images:

    x = (sqrt(1 - b^2) clip(P (f - m)), b),  |x| <= 1

with a public matrix P and point m (of public data, never of a hospital's) and a constant b that
stands for the offset. The settings carry P and m as integers, so every site computes with the same
numbers.
"""

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg.bodies import Body
from bedside_sync.tasks.fields import Key
from bedside_sync.tasks.head import Head, HeadTask, solve_head
from bedside_sync.tasks.layout import Layout

_FRACTION = 1 << 16  # numbers of P and m are 32-bit integers over this
_MOST_SETTINGS_HEX = 900_000


class TrainSettings(Body):
    """Task `train`: P, m and b in integers, and how the budget is shared.

    `matrix` is P, (reduced, features), row by row, `point` is m; both as big-endian int32 in
    2^-16, hexadecimal.
    """

    version: Literal[1] = 1
    features: Annotated[int, Field(ge=1, le=8192)]
    reduced: Annotated[int, Field(ge=1, le=256)]
    matrix: Annotated[str, Field(pattern=r"^([0-9a-f]{8})+$", max_length=_MOST_SETTINGS_HEX)]
    point: Annotated[str, Field(pattern=r"^([0-9a-f]{8})+$", max_length=65_536)]
    constant_permille: Annotated[int, Field(ge=0, le=900)] = 300
    findings: Annotated[list[Key], Field(min_length=1, max_length=64)]
    scale: Annotated[int, Field(ge=1, le=4096)] = 64
    label_weight: Annotated[int, Field(ge=1, le=65_536)] = 160
    most_positive: Annotated[int, Field(ge=1, le=64)] = 4

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if len(self.matrix) != 8 * self.reduced * self.features:
            raise InvalidInputError("the matrix has another shape than the settings say")
        if len(self.point) != 8 * self.features or len(set(self.findings)) != len(self.findings):
            raise InvalidInputError("the point has another length, or a finding is named twice")
        return self

    @property
    def task(self) -> HeadTask:
        """The head over x."""
        return HeadTask(
            features=self.reduced + 1,
            findings=tuple(self.findings),
            scale=self.scale,
            label_weight=self.label_weight,
            most_positive=self.most_positive,
        )

    @property
    def layout(self) -> Layout:
        """Squares, mixed products, and products with labels."""
        task = self.task
        p = task.features
        mixed = p * (p - 1) // 2
        return Layout(
            segments=(("squares", p), ("mixed", mixed), ("labels", p * len(task.findings))),
            scale=self.scale,
            sensitivity2=task.sensitivity2,
            largest=task.largest,
        )

    @property
    def projection(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """P, (reduced, features), and m, (features,)."""
        matrix = np.frombuffer(bytes.fromhex(self.matrix), ">i4").astype(np.float64) / _FRACTION
        point = np.frombuffer(bytes.fromhex(self.point), ">i4").astype(np.float64) / _FRACTION
        return matrix.reshape(self.reduced, self.features), point

    @property
    def constant(self) -> float:
        """The last coordinate of every x."""
        return self.constant_permille / 1000

    def read(self, total: NDArray[np.int64], variance: float) -> dict[str, Any]:
        """Return the solved head of one night, on raw features."""
        head = solve_head(self.task, [total], variance, constant=self.constant)
        weights, offset = folded(self, head)
        return {
            "findings": list(head.findings),
            "ridge": head.ridge,
            "norms": [round(float(v), 6) for v in np.linalg.norm(weights, axis=0)],
            "weights": weights.T.tolist(),
            "offset": offset.tolist(),
        }


def make_settings(
    point: NDArray[np.float64],
    matrix: NDArray[np.float64],
    findings: tuple[str, ...],
    **others: int,
) -> TrainSettings:
    """Return settings for a public point (features,) and matrix (reduced, features).

    Scale the matrix so that P (f - m) of most images has norm below 1; the rest is clipped.

    Raises:
        InvalidInputError: numbers that 32 bits do not hold, or shapes that do not fit.
    """
    if matrix.ndim != 2 or point.shape != (matrix.shape[1],):
        raise InvalidInputError("the matrix and the point have other shapes")
    coded = []
    for part in (matrix, point):
        values = np.round(part * _FRACTION)
        if not np.isfinite(values).all() or np.abs(values).max(initial=0) >= 2**31:
            raise InvalidInputError("a number of the projection is out of range")
        coded.append(values.astype(">i4").tobytes().hex())
    given: dict[str, Any] = {
        "features": matrix.shape[1],
        "reduced": matrix.shape[0],
        "matrix": coded[0],
        "point": coded[1],
        "findings": list(findings),
    }
    return TrainSettings.model_validate(given | others)


def project(settings: TrainSettings, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x for every row of raw pooled features; a row that is no number stays none.

    Args:
        settings: of the round.
        features: (patients, features).

    Returns:
        (patients, reduced + 1), norms at most 1.

    Raises:
        InvalidInputError: features of another model.
    """
    if features.ndim != 2 or features.shape[1] != settings.features:
        raise InvalidInputError("the features are not those of the round's model")
    matrix, point = settings.projection
    with np.errstate(invalid="ignore", over="ignore"):
        moved = (features - point) @ matrix.T
        norm = np.linalg.norm(moved, axis=1, keepdims=True)
        moved = moved / np.maximum(norm, 1.0)
    b = settings.constant
    ends = np.full((len(moved), 1), b)
    return np.concatenate([moved * math.sqrt(1 - b * b), ends], axis=1)


def folded(settings: TrainSettings, head: Head) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the head on raw features: `score = f @ weights + offset`, without clipping.

    Returns:
        weights (features, findings) and offset (findings,). Scores are the ridge solution for
        labels 0 and 1; they rank and have to be calibrated before they are probabilities.
    """
    matrix, point = settings.projection
    b = settings.constant
    inner = math.sqrt(1 - b * b) * (matrix.T @ head.weights[:-1])
    return inner, b * head.weights[-1] - point @ inner
