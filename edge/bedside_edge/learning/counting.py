"""Collect, clean and fuse on the box's own cases."""

from collections.abc import Sequence

from bedside_edge.learning.facts import facts_of, patient_facts
from bedside_edge.learning.material import Cases, Ints, RulesOf, cleaner
from bedside_edge.ports.learning import Case, CaseStore, Permit
from bedside_sync.secagg.manifest import Manifest
from bedside_sync.tasks.census import CollectSettings, FuseSettings, census_vector
from bedside_sync.tasks.clean import CleanSettings, clean_vector


class CollectMaterial(Cases[CollectSettings]):
    """How many studies of what kind."""

    def __init__(self, store: CaseStore, permit: Permit, rules_of: RulesOf) -> None:
        super().__init__("collect", store, permit)
        self._rules_of = rules_of

    def summed(
        self, settings: CollectSettings, manifest: Manifest, patients: Sequence[list[Case]]
    ) -> Ints:
        """Count the first studies of each patient."""
        clean = cleaner(settings.cleaning, self._rules_of)
        return census_vector(
            settings, [[clean(facts_of(case)) for case in cases] for cases in patients]
        )


class FuseMaterial(Cases[FuseSettings]):
    """One row for each patient, from images, results, readers and the hospital's own sources."""

    def __init__(self, store: CaseStore, permit: Permit, rules_of: RulesOf) -> None:
        super().__init__("fuse", store, permit)
        self._rules_of = rules_of

    def summed(
        self, settings: FuseSettings, manifest: Manifest, patients: Sequence[list[Case]]
    ) -> Ints:
        """Count each patient once."""
        clean = cleaner(settings.cleaning, self._rules_of)
        extras = self.store.extras([cases[0].subject_id for cases in patients])
        return census_vector(
            settings,
            [
                [clean(patient_facts(cases, extras.get(cases[0].subject_id, {})))]
                for cases in patients
            ],
        )


class CleanMaterial(Cases[CleanSettings]):
    """Histograms and formats of fields, as they are written: nothing is cleaned before."""

    def __init__(self, store: CaseStore, permit: Permit) -> None:
        super().__init__("clean", store, permit)

    def summed(
        self, settings: CleanSettings, manifest: Manifest, patients: Sequence[list[Case]]
    ) -> Ints:
        """Count the first studies of each patient."""
        return clean_vector(settings, [[facts_of(case) for case in cases] for cases in patients])
