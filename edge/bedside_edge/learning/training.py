"""Train on the box's own signed cases: features of the frozen model, labels of its readers.

A patient enters one batch of a model and pays once: the batch is written down, durable, before a
feature is read, and a patient of another round's batch is not offered again. Where the charges of
a round become void, because its sum does not hold this box's report, its batch is free again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_core.statistics.split import TRAIN, split_of
from bedside_core.uses import Purpose, Use
from bedside_edge.learning.judging import label_of
from bedside_edge.learning.material import Cases, Ints
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.learning import Case, CaseStore, Permit, Reads
from bedside_sync.secagg.manifest import Manifest
from bedside_sync.tasks.head import head_vector
from bedside_sync.tasks.sgd import StepSettings, step_vector
from bedside_sync.tasks.train import TrainSettings, project

Floats = NDArray[np.float64]


class TrainMaterial(Cases[TrainSettings]):
    """One head's sums, or one round of steps, over patients of the training part."""

    use = Use.TRAIN
    purpose = Purpose.TRAINING

    def __init__(
        self, task: str, store: CaseStore, permit: Permit, reads: Reads, random: RandomBytes
    ) -> None:
        """`task` is `train` or `train-sgd`; `random` draws the rounding."""
        super().__init__(task, store, permit)
        self._reads, self._random = reads, random

    def ready(self, manifest: Manifest) -> None:
        """Return when the box holds the manifest's model."""
        self._reads.must_hold(manifest.model)

    def chosen(
        self, settings: TrainSettings, manifest: Manifest, cases: Sequence[Case]
    ) -> list[Case]:
        """Return signed cases of the training part, of patients in no other batch."""
        taken = self.store.batches(self._batch(manifest)) if self._disjoint else {}
        return [
            case
            for case in cases
            if case.patient
            and split_of(case.patient) == TRAIN
            and taken.get(case.patient, manifest.round) == manifest.round
            and any(label_of(case, finding) is not None for finding in settings.findings)
        ]

    def summed(
        self, settings: TrainSettings, manifest: Manifest, patients: Sequence[list[Case]]
    ) -> Ints:
        """Add up the patients whose features can be had; the others count as zero."""
        if self._disjoint:
            names = [cases[0].patient for cases in patients]
            inside = set(self.store.enter_batch(self._batch(manifest), manifest.round, names))
            patients = [cases for cases in patients if cases[0].patient in inside]
        rows = [(f, cases) for cases in patients if (f := self._mean(cases, manifest)) is not None]
        features = np.array([row for row, _ in rows]) if rows else np.zeros((0, settings.features))
        labels = np.array(
            [[_positive(cases, finding) for finding in settings.findings] for _, cases in rows],
            np.int64,
        ).reshape(len(rows), len(settings.findings))
        x = project(settings, features)
        if isinstance(settings, StepSettings):
            return step_vector(settings, x, labels, self._words)[0]
        return head_vector(settings.task, x, labels, self._words)[0]

    @property
    def _disjoint(self) -> bool:
        """Steps visit a patient in every round and pay for each; sums do not."""
        return self._task == "train"

    def _batch(self, manifest: Manifest) -> str:
        return manifest.model

    def _mean(self, cases: Sequence[Case], manifest: Manifest) -> Floats | None:
        """Return the mean over a patient's studies; None when none of them can be read."""
        read = [self._reads.features(case, manifest.model) for case in cases]
        found = [one for one in read if one is not None]
        if not found:
            return None
        if len({one.shape for one in found}) != 1:
            raise InvalidInputError("the model's features have several lengths")
        mean: Floats = np.mean(found, axis=0)
        return mean

    def _words(self, count: int) -> NDArray[np.uint32]:
        return np.frombuffer(self._random(4 * count), np.uint32)


def _positive(cases: Sequence[Case], finding: str) -> int:
    """1 when the finding was signed as present in any study of the patient."""
    return int(any(label_of(case, finding) for case in cases))
