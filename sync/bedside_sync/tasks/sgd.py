"""Train by steps: every patient is a client of its own, the hub averages and steps.

For unfrozen choices the one-release head cannot make (logistic loss, many rounds). From the public
weights a patient takes `steps` gradient steps on its own x and labels, held back towards the
public weights by `prox` (FedProx); the difference is clipped to `clip`, rounded to integers of
exact sensitivity and added. One step and no prox is DP-SGD with a full batch. The hub divides by
the number of patients, which it knows from the noisy count in the last word, and steps: plain
(FedAvg) or by FedAdam.

The ledger charges every round in full: no amplification by sampling is claimed, because for the
discrete sum it is not proven.

Source: McMahan et al. 2018 arXiv:1710.06963 (user-level DP-FedAvg); Li et al. 2020
arXiv:1812.06127 (FedProx); Reddi et al. 2021 arXiv:2003.00295 (FedAdam).
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg.ring import Bounds, DrawWords, round_row
from bedside_sync.tasks.head import Head
from bedside_sync.tasks.layout import Layout
from bedside_sync.tasks.train import TrainSettings, folded

_FRACTION: Final = 1 << 20  # weights are 32-bit integers over this
_MILLI: Final = 1000


class StepSettings(TrainSettings):
    """Task `train-sgd`: the projection of `train`, the present weights, and the local steps."""

    weights: Annotated[str, Field(pattern=r"^([0-9a-f]{8})+$", max_length=524_288)]
    steps: Annotated[int, Field(ge=1, le=64)] = 1
    rate_milli: Annotated[int, Field(ge=1, le=10_000)] = 1000
    prox_milli: Annotated[int, Field(ge=0, le=10_000)] = 0
    clip_milli: Annotated[int, Field(ge=1, le=100_000)] = 1000
    scale: Annotated[int, Field(ge=1, le=1 << 20)] = 4096

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if len(self.weights) != 8 * (self.reduced + 1) * len(self.findings):
            raise InvalidInputError("the weights have another shape than the settings say")
        return self

    @property
    def present(self) -> NDArray[np.float64]:
        """The public weights, (reduced + 1, findings)."""
        flat = np.frombuffer(bytes.fromhex(self.weights), ">i4").astype(np.float64) / _FRACTION
        return flat.reshape(self.reduced + 1, len(self.findings))

    @property
    def bounds(self) -> Bounds:
        """How a patient's difference becomes integers."""
        words = (self.reduced + 1) * len(self.findings)
        return Bounds(clip=Fraction(self.clip_milli, _MILLI), scale=self.scale, length=words)

    @property
    def count_unit(self) -> int:
        """What a patient adds to the last word: as much as a difference may weigh."""
        return max(1, self.clip_milli * self.scale // _MILLI)

    @property
    def layout(self) -> Layout:
        """Differences, then the count."""
        bounds = self.bounds
        return Layout(
            segments=(("differences", bounds.length), ("count", 1)),
            scale=self.scale,
            sensitivity2=bounds.squared + self.count_unit**2,
            largest=max(math.isqrt(bounds.squared), self.count_unit),
        )

    def read(self, total: NDArray[np.int64], variance: float) -> dict[str, Any]:
        """Return the mean difference and the weights after a plain step."""
        mean, patients = mean_difference(self, total)
        weights = self.present + mean
        raw, offset = folded(self, Head(weights=weights, ridge=0.0, findings=tuple(self.findings)))
        return {
            "findings": self.findings,
            "patients": round(patients, 1),
            "moved": round(float(np.linalg.norm(mean)), 6),
            "steps_weights": weights.T.tolist(),
            "weights": raw.T.tolist(),
            "offset": offset.tolist(),
        }


def step_settings(base: TrainSettings, weights: NDArray[np.float64], **others: int) -> StepSettings:
    """Return settings of the next round; weights (reduced + 1, findings) of either sign."""
    values = np.round(weights * _FRACTION)
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) >= 2**31:
        raise InvalidInputError("a weight is out of range")
    given = base.model_dump(exclude={"scale", "weights"})
    coded = values.astype(">i4").tobytes().hex()
    return StepSettings.model_validate(given | {"weights": coded} | others)


def difference(
    settings: StepSettings, x: NDArray[np.float64], y: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return what one patient's own steps change, (reduced + 1, findings), not yet clipped."""
    start = settings.present
    weights = start.copy()
    rate, prox = settings.rate_milli / _MILLI, settings.prox_milli / _MILLI
    for _ in range(settings.steps):
        error = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -60.0, 60.0))) - y
        weights -= rate * (np.outer(x, error) + prox * (weights - start))
    return weights - start


def step_vector(
    settings: StepSettings, x: NDArray[np.float64], y: NDArray[np.int64], draw: DrawWords
) -> tuple[NDArray[np.int64], int]:
    """Return the sum over patients of clipped, rounded differences, and how many were left out.

    Raises:
        InvalidInputError: arrays of other shapes, or labels other than 0 and 1.
    """
    if x.ndim != 2 or x.shape[1] != settings.reduced + 1:
        raise InvalidInputError("features have another shape than the round")
    if y.shape != (len(x), len(settings.findings)) or not np.isin(y, (0, 1)).all():
        raise InvalidInputError("labels have another shape than the round, or are not 0 and 1")
    bounds = settings.bounds
    total = np.zeros(bounds.length + 1, np.int64)
    left_out = 0
    for row, label in zip(x, y, strict=True):
        if not np.isfinite(row).all():
            left_out += 1
            continue
        integers = round_row(difference(settings, row, label).reshape(-1), bounds, draw)
        if integers is None:
            left_out += 1
            continue
        total[:-1] += integers
        total[-1] += settings.count_unit
    return total, left_out


def mean_difference(
    settings: StepSettings, total: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Return the mean difference, (reduced + 1, findings), and the noisy number of patients."""
    if total.shape != (settings.layout.length,):
        raise InvalidInputError("the sum has another length than the round")
    patients = max(1.0, float(total[-1]) / settings.count_unit)
    mean = total[:-1].astype(np.float64) / settings.scale / patients
    return mean.reshape(settings.reduced + 1, len(settings.findings)), patients


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamState:
    """What FedAdam remembers between rounds; public, for it follows from published sums."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]


def fedavg(
    weights: NDArray[np.float64], mean: NDArray[np.float64], rate: float = 1.0
) -> NDArray[np.float64]:
    """Return the weights after the hub's plain step."""
    return weights + rate * mean


def fedadam(
    weights: NDArray[np.float64],
    mean: NDArray[np.float64],
    state: AdamState | None,
    *,
    rate: float = 0.1,
    decay: tuple[float, float] = (0.9, 0.99),
    floor: float = 1e-3,
) -> tuple[NDArray[np.float64], AdamState]:
    """Return the weights and the state after a step of FedAdam (Reddi et al., Algorithm 2)."""
    zero = np.zeros_like(weights)
    before = state or AdamState(first=zero, second=zero + floor**2)
    first = decay[0] * before.first + (1 - decay[0]) * mean
    second = decay[1] * before.second + (1 - decay[1]) * mean**2
    moved = weights + rate * first / (np.sqrt(second) + floor)
    return moved, AdamState(first=first, second=second)
