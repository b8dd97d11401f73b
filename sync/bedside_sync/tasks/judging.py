"""Settings of `validate` and `annotate`, and the words their sums are read in."""

import math
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg.bodies import Body
from bedside_sync.tasks.agreement import readers
from bedside_sync.tasks.fields import FieldName, Key, check_keys, check_word
from bedside_sync.tasks.judge import Figure, Validation, read_validation, read_votes
from bedside_sync.tasks.layout import Layout
from bedside_sync.tasks.tables import OTHER

Uid = Annotated[str, Field(pattern=r"^[0-9][0-9.]{0,63}$")]
_Permille = Annotated[int, Field(ge=0, le=1000)]


class ValidateSettings(Body):
    """Task `validate`: scores of the manifest's model on signed cases, by subgroup.

    Groups are the keys of one field, and `other`. Only cases of the named parts of the split
    count, so nothing that was trained on is tested on.
    """

    version: Literal[1] = 1
    scale: Annotated[int, Field(ge=1, le=65_536)] = 64
    most: Annotated[int, Field(ge=1, le=64)] = 1
    bins: Annotated[int, Field(ge=2, le=200)] = 20
    finding: Key
    group: FieldName
    keys: Annotated[list[Key], Field(min_length=1, max_length=64)]
    parts: Annotated[
        list[Literal["train", "validation", "test"]], Field(min_length=1, max_length=3)
    ]
    threshold_permille: _Permille = 500
    # a site vetoes when its own area under the curve falls by more than this below the model's
    # that reads its studies now; 1000: never by itself
    veto_drop_permille: _Permille = 50
    veto_least_cases: Annotated[int, Field(ge=10, le=10**6)] = 50

    @model_validator(mode="after")
    def _sound(self) -> Self:
        check_word(self.group)
        check_keys(self.group, tuple(self.keys))
        if OTHER in self.keys or len(set(self.keys)) != len(self.keys):
            raise InvalidInputError("keys of a group are different and do not say other")
        if len(set(self.parts)) != len(self.parts):
            raise InvalidInputError("a part of the split is named twice")
        return self

    @property
    def task(self) -> Validation:
        """Groups, bins and bounds."""
        return Validation(
            groups=(*self.keys, OTHER), bins=self.bins, most=self.most, scale=self.scale
        )

    @property
    def layout(self) -> Layout:
        """A segment for every group, and the veto."""
        task = self.task
        groups = [(f"group-{place}", 2 * self.bins) for place in range(len(task.groups))]
        return Layout(
            segments=(*groups, ("veto", 1)),
            scale=self.scale,
            sensitivity2=task.sensitivity2,
            largest=task.largest,
        )

    def read(self, total: NDArray[np.int64], variance: float) -> dict[str, Any]:
        """Return figures of each group with intervals from the noise, and whether a site vetoed."""
        found, veto = read_validation(self.task, total, variance, self.threshold_permille / 1000)
        return {
            "finding": self.finding,
            "threshold": self.threshold_permille / 1000,
            "veto": veto,
            "groups": {
                name: {
                    "positives": round(one.positives, 1),
                    "negatives": round(one.negatives, 1),
                    "auc": _figure(one.auc),
                    "sensitivity": _figure(one.sensitivity),
                    "specificity": _figure(one.specificity),
                    "brier": None if one.brier is None else round(one.brier, 4),
                    "calibration": [list(point) for point in one.calibration],
                }
                for name, one in found.items()
            },
        }


class AnnotateSettings(Body):
    """Task `annotate`: one vote a site on every item of a shared pool all readers were given.

    Items are SOP Instance UIDs of images that every site was given. The pool is public to the
    consortium: its patients have consented to annotation, or it is of grade 1.
    """

    version: Literal[1] = 1
    scale: Annotated[int, Field(ge=1, le=65_536)] = 64
    finding: Key
    classes: Annotated[list[Key], Field(min_length=2, max_length=16)]
    items: Annotated[list[Uid], Field(min_length=1, max_length=8192)]
    # items of one patient in the pool, at most
    most: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if len(set(self.items)) != len(self.items) or len(set(self.classes)) != len(self.classes):
            raise InvalidInputError("items and classes are named once")
        return self

    @property
    def layout(self) -> Layout:
        """A counter for every class of every item."""
        return Layout(
            segments=(("votes", len(self.items) * len(self.classes)),),
            scale=self.scale,
            sensitivity2=self.most * self.scale**2,
            largest=self.scale,
        )

    def read(self, total: NDArray[np.int64], variance: float) -> dict[str, Any]:
        """Return the consensus on each item and how much readers agree."""
        if total.shape != (self.layout.length,):
            raise InvalidInputError("the sum has another length than the pool")
        deviation = math.sqrt(variance) / self.scale
        votes = total / self.scale
        consensus = read_votes(votes, len(self.classes), deviation)
        table, agreed = readers(votes.reshape(-1, len(self.classes)), deviation**2)
        return {
            "finding": self.finding,
            "classes": self.classes,
            "deviation": round(deviation, 4),
            "consensus": {
                item: None if one.winner is None else self.classes[one.winner]
                for item, one in zip(self.items, consensus, strict=True)
            },
            "votes": [[round(v, 2) for v in one.votes] for one in consensus],
            "confusion": [[round(float(v), 2) for v in row] for row in table],
            "kappa": _figure(agreed),
        }


def _figure(one: Figure) -> dict[str, float | None]:
    """JSON knows no NaN: an interval that cannot be given is null."""
    return {
        name: round(value, 4) if value is not None and math.isfinite(value) else None
        for name, value in asdict(one).items()
    }
