"""What all materials share: settings against the manifest, and who may be asked."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_core.uses import Purpose, Use
from bedside_edge.ports.learning import Case, CaseStore, Permit
from bedside_sync.secagg.manifest import Manifest
from bedside_sync.tasks.clean import CleaningRules, apply_rules
from bedside_sync.tasks.fields import Facts
from bedside_sync.tasks.kinds import check_fits, read_settings

S = TypeVar("S")
Ints = NDArray[np.int64]
# The rules of a cleaning version by digest; None when the hospital has not taken it over
RulesOf = Callable[[str], CleaningRules | None]


class Cases(ABC, Generic[S]):
    """A material over permitted cases; a task says which of them and what they add up to."""

    use = Use.JOIN_ROUND
    purpose = Purpose.STATISTICS

    def __init__(self, task: str, store: CaseStore, permit: Permit) -> None:
        self._task, self.store, self._permit = task, store, permit

    def settings(self, manifest: Manifest, data: bytes) -> S:
        """Return the settings; InvalidInputError when the manifest does not fit them."""
        found: Any = read_settings(self._task, data)
        check_fits(found, manifest)
        wanted: S = found
        return wanted

    def permitted(self, subject_ids: Sequence[str] | None = None) -> list[Case]:
        """Return the cases that may be used for this task, in order of arrival."""
        cases = self.store.cases(subject_ids)
        allowed = self._permit(self.use, self.purpose, cases)
        return [case for case in cases if case.study_id in allowed]

    def patients(self, manifest: Manifest, settings: bytes) -> Sequence[str]:
        """Return the subject ids that could take part, in order of arrival.

        Raises:
            InvalidInputError: the settings are not ones of this task, or do not fit the manifest.
            NotFoundError: the task needs a model the box does not hold yet; nobody is charged.
        """
        wanted = self.settings(manifest, settings)
        self.ready(manifest)
        found = self.chosen(wanted, manifest, self.permitted())
        return list(dict.fromkeys(case.subject_id for case in found))

    def vector(self, manifest: Manifest, settings: bytes, patients: Sequence[str]) -> Ints:
        """Return the exact bounded sum over exactly these patients, without noise."""
        wanted = self.settings(manifest, settings)
        found = self.chosen(wanted, manifest, self.permitted(patients))
        total = self.summed(wanted, manifest, grouped(found))
        if total.shape != (manifest.length,):  # a task that is wrong must not send anything
            raise InvalidInputError("the task made a vector of another length")
        return total

    def ready(self, manifest: Manifest) -> None:
        """Return when what the task needs is there; nothing by default."""

    def chosen(self, settings: S, manifest: Manifest, cases: Sequence[Case]) -> list[Case]:
        """Return the cases that say something for this task; all of them by default."""
        return list(cases)

    @abstractmethod
    def summed(self, settings: S, manifest: Manifest, patients: Sequence[list[Case]]) -> Ints:
        """Return the sum; a list of cases for each patient, in order of arrival."""


def grouped(cases: Sequence[Case]) -> list[list[Case]]:
    """Return each patient's cases, patients and cases in order of arrival."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.subject_id, []).append(case)
    return list(groups.values())


def cleaner(version: str, rules_of: RulesOf) -> Callable[[Facts], Facts]:
    """Return what applies a cleaning version; nothing for the empty one.

    Raises:
        InvalidInputError: the hospital has not taken this version over.
    """
    if not version:
        return lambda facts: facts
    rules = rules_of(version)
    if rules is None:
        raise InvalidInputError("the settings name a cleaning version this box does not have")
    return lambda facts: apply_rules(rules, facts).facts
