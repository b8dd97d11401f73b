"""Validate a model and pool annotations on the box's own signed cases."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from bedside_core.statistics.split import split_of
from bedside_core.uses import Purpose
from bedside_edge.learning.facts import facts_of
from bedside_edge.learning.material import Cases, Ints
from bedside_edge.learning.roc import auc
from bedside_edge.ports.learning import Case as BoxCase
from bedside_edge.ports.learning import CaseStore, Permit, Reads
from bedside_sync.secagg.manifest import Manifest
from bedside_sync.tasks.fields import word
from bedside_sync.tasks.judge import Case, validation_vector
from bedside_sync.tasks.judging import AnnotateSettings, ValidateSettings

PRESENT: Final = "present"
ABSENT: Final = "absent"


def label_of(case: BoxCase, finding: str) -> bool | None:
    """Return what was signed of a finding; None when nobody said, or was not sure."""
    named = ((case.result or {}).get("finding") or {}).get("code")
    if case.signed is None or named != finding:
        return None
    return {PRESENT: True, ABSENT: False}.get(case.signed.decision)


class ValidateMaterial(Cases[ValidateSettings]):
    """Scores of the manifest's model on cases that were signed and not trained on."""

    def __init__(self, store: CaseStore, permit: Permit, reads: Reads) -> None:
        super().__init__("validate", store, permit)
        self._reads = reads

    def ready(self, manifest: Manifest) -> None:
        """Return when the box holds the manifest's model."""
        self._reads.must_hold(manifest.model)

    def chosen(
        self, settings: ValidateSettings, manifest: Manifest, cases: Sequence[BoxCase]
    ) -> list[BoxCase]:
        """Return signed cases of the named parts of the split."""
        return [
            case
            for case in cases
            if case.patient
            and split_of(case.patient) in settings.parts
            and label_of(case, settings.finding) is not None
        ]

    def summed(
        self, settings: ValidateSettings, manifest: Manifest, patients: Sequence[list[BoxCase]]
    ) -> Ints:
        """Count scores by group and label; the veto is this site's own comparison."""
        scored: list[list[Case]] = []
        pairs: list[tuple[float, float, bool]] = []
        for cases in patients:
            row: list[Case] = []
            for case in cases[: settings.most]:
                positive = bool(label_of(case, settings.finding))
                score = self._reads.score(case, manifest.model)
                if score is None:  # the model reads none of it: the lowest score, a public choice
                    score = 0.0
                group = word(facts_of(case), settings.group, tuple(settings.keys))
                row.append(Case(group=group, score=score, positive=positive))
                now = ((case.result or {}).get("value") or {}).get("probability")
                pairs.append((score, float(now or 0.0), positive))
            scored.append(row)
        return validation_vector(settings.task, scored, veto=worse(pairs, settings))


def worse(pairs: Sequence[tuple[float, float, bool]], settings: ValidateSettings) -> bool:
    """Whether the candidate reads this site's cases worse than the model that reads them now.

    Args:
        pairs: the candidate's score, the present model's, and the reader's verdict.
        settings: how much worse, and from how many cases on.
    """
    if len(pairs) < settings.veto_least_cases or settings.veto_drop_permille >= 1000:
        return False
    labels = np.array([positive for _, _, positive in pairs])
    new, old = (auc(np.array([pair[side] for pair in pairs]), labels) for side in (0, 1))
    if new is None or old is None:
        return False
    return new < old - settings.veto_drop_permille / 1000


class AnnotateMaterial(Cases[AnnotateSettings]):
    """This site's vote on each item of the shared pool: what was signed here."""

    purpose = Purpose.ANNOTATION

    def __init__(self, store: CaseStore, permit: Permit) -> None:
        super().__init__("annotate", store, permit)

    def chosen(
        self, settings: AnnotateSettings, manifest: Manifest, cases: Sequence[BoxCase]
    ) -> list[BoxCase]:
        """Return the signed studies of the pool."""
        votes = votes_of(settings, cases, self._places(settings))
        return [case for case in cases if case.study_id in votes]

    def summed(
        self, settings: AnnotateSettings, manifest: Manifest, patients: Sequence[list[BoxCase]]
    ) -> Ints:
        """Count one class for each item, at most `most` items of a patient."""
        places = self._places(settings)
        total = np.zeros(settings.layout.length, np.int64)
        for cases in patients:
            votes = votes_of(settings, cases, places)
            counted: dict[int, int] = {}
            for case in cases:
                if case.study_id in votes:
                    for item in places[case.study_id]:
                        counted.setdefault(item, votes[case.study_id])  # an item has one vote
            for item, vote in list(counted.items())[: settings.most]:
                place = item * len(settings.classes) + vote
                total[place] = settings.scale  # of two patients' studies with one image, one vote
        return total

    def _places(self, settings: AnnotateSettings) -> dict[str, list[int]]:
        """Return the items each held study shows."""
        places: dict[str, list[int]] = {}
        for item, uid in enumerate(settings.items):
            for study_id in self.store.studies_with(uid):
                places.setdefault(study_id, []).append(item)
        return places


def votes_of(
    settings: AnnotateSettings, cases: Sequence[BoxCase], places: Mapping[str, list[int]]
) -> dict[str, int]:
    """Return the class each pool study was signed as, by study id."""
    classes = {name: place for place, name in enumerate(settings.classes)}
    found: dict[str, int] = {}
    for case in cases:
        named = ((case.result or {}).get("finding") or {}).get("code")
        if case.study_id in places and case.signed is not None and named == settings.finding:
            vote = classes.get(case.signed.decision)
            if vote is not None:
                found[case.study_id] = vote
    return found
