"""What the box's cases are used for beside treatment: rounds, cleaning, relabelling, its own head.

Materials are built here and lent to the night. What people ask for (a report of a cleaning, the
queue of studies read otherwise than elsewhere, whether a head of its own helps) is answered from
the same cases under the same policy, and stays on the box.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bedside_core.errors import InvalidInputError, NotFoundError, RefusedError
from bedside_core.statistics.split import TRAIN, split_of
from bedside_core.uses import Purpose, Target, Use
from bedside_edge.learning.counting import CleanMaterial, CollectMaterial, FuseMaterial
from bedside_edge.learning.facts import facts_of
from bedside_edge.learning.judging import AnnotateMaterial, ValidateMaterial, label_of
from bedside_edge.learning.personal import Cohort, Personal, personal
from bedside_edge.learning.training import TrainMaterial
from bedside_edge.ports import Clock, Instance, InstanceState, ObjectStore, RandomBytes, StudyStore
from bedside_edge.ports.learning import Case, CaseStore, Features, JointResult
from bedside_edge.ports.subjects import SubjectStore
from bedside_edge.ports.sync import Material
from bedside_edge.services.analysis import AnalysisService, Observed
from bedside_edge.services.gate import Gate
from bedside_sync.secagg.bodies import Body, canonical, decode
from bedside_sync.tasks.clean import CleaningRules, apply_rules
from bedside_sync.tasks.judging import Uid

log = logging.getLogger(__name__)

Lend = Callable[[str], AbstractContextManager[AnalysisService]]
CLEAN: Final = "clean"
ANNOTATE: Final = "annotate"
_READS: Final = frozenset({InstanceState.HELD})


class CaseReader:
    """`Reads` over stored features and, where they are missing, the network itself."""

    def __init__(
        self, store: CaseStore, studies: StudyStore, objects: ObjectStore, lend: Lend
    ) -> None:
        """`lend` lends the model of a package digest (64 hex digits); NotFoundError."""
        self._store, self._studies, self._objects, self._lend = store, studies, objects, lend

    def must_hold(self, package: str) -> None:
        """Return when the package can be asked; NotFoundError when the box does not hold it."""
        with self._lend(package):
            return

    def features(self, case: Case, package: str) -> NDArray[np.float64] | None:
        """Return the mean pooled features over a study's images; None when none can be read."""
        found = self._store.features(case.study_id, package)
        if not found:
            found = {name: one.features for name, one in self._look(case, package).items()}
            if found:
                self._store.keep_features(case.study_id, package, found)
        return _mean(list(found.values()))

    def score(self, case: Case, package: str) -> float | None:
        """Return the package's calibrated probability of a study; None when it reads none of it."""
        result = case.result or {}
        if str(result.get("package") or "").removeprefix("sha256:") == package:
            value = (result.get("value") or {}).get("probability")
            return None if value is None else float(value)
        seen = self._look(case, package)
        return max((one.probability for one in seen.values()), default=None)

    def _look(self, case: Case, package: str) -> dict[str, Observed]:
        """Let the network read every image of a study; what it refuses is left out."""
        found: dict[str, Observed] = {}
        try:
            instances = self._studies.instances(case.study_id)
        except NotFoundError:  # erased since
            return found
        with self._lend(package) as analysis:
            for instance in instances:
                if instance.state in _READS:
                    self._observe(analysis, instance, found)
        return found

    def _observe(
        self, analysis: AnalysisService, instance: Instance, found: dict[str, Observed]
    ) -> None:
        def fetch() -> bytes:
            return self._objects.read(instance.object_name, instance.object_key)

        try:
            found[instance.instance_id] = analysis.observe(instance, fetch)
        except (RefusedError, NotFoundError):
            log.info("image not used for learning", extra={"instance": instance.instance_id})


def _mean(found: Sequence[Features]) -> NDArray[np.float64] | None:
    if not found:
        return None
    mean: NDArray[np.float64] = np.mean(np.stack(found).astype(np.float64), axis=0)
    return mean


class Consensus(Body):
    """The published result of an `annotate` round, as the hub's reading has it."""

    finding: str = Field(max_length=64)
    classes: list[str] = Field(max_length=16)
    consensus: dict[Uid, str | None] = Field(max_length=8192)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningReport:
    """What a version does to the box's cases: how many, and which fields how often."""

    digest: str
    studies: int
    filled: dict[str, int]
    fenced: dict[str, int]
    odd: dict[str, int]
    touched: tuple[tuple[str, tuple[str, ...]], ...]  # study id, fields filled or fenced


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabel:
    """A study that was signed here otherwise than the consensus of all sites."""

    study_id: str
    result_id: str
    here: str
    consensus: str


class LearningService:
    """Lends materials to the night, and answers people. Safe to call from several threads."""

    def __init__(
        self,
        store: CaseStore,
        subjects: SubjectStore,
        gate: Callable[[], Gate],
        reads: CaseReader,
        clock: Clock,
        random: RandomBytes,
        *,
        lend_served: Callable[[], AbstractContextManager[AnalysisService]],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Stand on the ports; `lend_served` lends the model that reads the box's studies."""
        self.close = close  # what was opened for rounds
        self.store, self._subjects, self._gate, self._reads = store, subjects, gate, reads
        self._clock, self._lend_served = clock, lend_served
        self.materials: dict[str, Material] = {
            "collect": CollectMaterial(store, self._permit, self.rules),
            "fuse": FuseMaterial(store, self._permit, self.rules),
            CLEAN: CleanMaterial(store, self._permit),
            ANNOTATE: AnnotateMaterial(store, self._permit),
            "validate": ValidateMaterial(store, self._permit, reads),
            "train": TrainMaterial("train", store, self._permit, reads, random),
            "train-sgd": TrainMaterial("train-sgd", store, self._permit, reads, random),
        }

    def _permit(self, use: Use, purpose: Purpose, cases: Sequence[Case]) -> frozenset[str]:
        names = [case.study_id for case in cases]
        return self._gate().usable(use, purpose, names, target=Target.CONSORTIUM)

    # --- cleaning ------------------------------------------------------------------------------

    def take_cleaning(self, document: object, actor: str) -> str:
        """Take a published cleaning over; return the digest its version goes by.

        Raises:
            InvalidInputError: it is not the reading of a `clean` round.
        """
        rules = decode(CleaningRules, canonical(_part(document, ("version", "numbers", "formats"))))
        self._take(CLEAN, rules.digest, rules.encode(), actor)
        return rules.digest

    def rules(self, digest: str = "") -> CleaningRules | None:
        """Return a version, the newest for an empty digest; None when it is not here."""
        for one in self.store.joint_results(CLEAN):
            if digest in ("", one.digest):
                return decode(CleaningRules, one.body)
        return None

    def cleaning_report(self, digest: str = "") -> CleaningReport:
        """Return what a version, by default the newest, does to every case; nothing is changed.

        Raises:
            NotFoundError: no such version was taken over.
        """
        rules = self.rules(digest)
        if rules is None:
            raise NotFoundError("no such cleaning was taken over")
        cases = self.store.cases()
        touched: list[tuple[str, tuple[str, ...]]] = []
        counts: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
        for case in cases:
            done = apply_rules(rules, facts_of(case))
            for count, fields in zip(counts, (done.filled, done.fenced, done.odd), strict=True):
                for field in fields:
                    count[field] = count.get(field, 0) + 1
            if changed := (*done.filled, *done.fenced):
                touched.append((case.study_id, changed))
        return CleaningReport(
            digest=rules.digest,
            studies=len(cases),
            filled=counts[0],
            fenced=counts[1],
            odd=counts[2],
            touched=tuple(touched),
        )

    # --- annotation ----------------------------------------------------------------------------

    def take_consensus(self, document: object, actor: str) -> str:
        """Take the consensus of an `annotate` round over; return its digest.

        Raises:
            InvalidInputError: it is not the reading of such a round.
        """
        found = decode(Consensus, canonical(_part(document, ("finding", "classes", "consensus"))))
        digest = _digest(found)
        self._take(ANNOTATE, digest, found.encode(), actor)
        return digest

    def relabel(self) -> list[Relabel]:
        """Return the studies signed here otherwise than the newest consensus, in its order."""
        kept = self.store.joint_results(ANNOTATE)
        if not kept:
            return []
        agreed = decode(Consensus, kept[0].body)
        cases = {case.study_id: case for case in self.store.cases()}
        found: list[Relabel] = []
        for uid, word in agreed.consensus.items():
            if word is None:
                continue
            for study_id in self.store.studies_with(uid):
                case = cases.get(study_id)
                if case is None or case.signed is None or case.signed.decision == word:
                    continue
                if ((case.result or {}).get("finding") or {}).get("code") == agreed.finding:
                    found.append(
                        Relabel(
                            study_id=study_id,
                            result_id=case.result_id,
                            here=case.signed.decision,
                            consensus=word,
                        )
                    )
        return found

    # --- other sources -------------------------------------------------------------------------

    def add_source(
        self, name: str, rows: Sequence[tuple[str, str, str]], actor: str
    ) -> tuple[int, int]:
        """Keep what a source says: (issuer, patient id, word); return how many it knows of whom.

        Returns:
            Patients the box knows, and rows of patients it does not; those are not kept.
        """
        known: dict[str, str] = {}
        for issuer, patient_id, word in rows:
            try:
                known[self._subjects.find(issuer, patient_id)] = word
            except NotFoundError:
                continue
        self.store.add_extras(name, list(known.items()), actor)
        log.info("source added", extra={"count": len(known)})
        return len(known), len(rows) - len(known)

    # --- the hospital's own head ---------------------------------------------------------------

    def own_head(self) -> Personal | None:
        """Return whether a head of its own would help; None with too few signed cases.

        It is fitted on patients of the training part who agreed to training, and judged on the
        others who did. Nothing of it leaves the box.
        """
        with self._lend_served() as analysis:
            model = analysis.model
        package = model.package_digest.removeprefix("sha256:")
        cases = self.store.cases()
        allowed = self._gate().usable(
            Use.TRAIN, Purpose.TRAINING, [case.study_id for case in cases], target=Target.NONE
        )
        rows: dict[bool, list[tuple[NDArray[np.float64], float, bool]]] = {True: [], False: []}
        chol = model.familiar.precision_chol.astype(np.float64)
        for case in cases:
            label = label_of(case, model.manifest.finding.code)
            if label is None or not case.patient or case.study_id not in allowed:
                continue
            score = self._reads.score(case, package)
            features = self._reads.features(case, package)
            if score is not None and features is not None:
                x = (features - model.familiar.mean) @ chol / np.sqrt(len(features))
                rows[split_of(case.patient) == TRAIN].append((x, score, label))
        if not rows[True] or not rows[False]:
            return None
        return personal(_cohort(rows[True]), _cohort(rows[False]))

    # --- inside --------------------------------------------------------------------------------

    def _take(self, kind: str, digest: str, body: bytes, actor: str) -> None:
        self.store.take_over(
            JointResult(kind=kind, digest=digest, actor=actor, at=self._clock.now(), body=body)
        )


def _cohort(rows: Sequence[tuple[NDArray[np.float64], float, bool]]) -> Cohort:
    return Cohort(
        x=np.stack([x for x, _, _ in rows]),
        p=np.array([p for _, p, _ in rows]),
        y=np.array([y for _, _, y in rows]),
    )


def _part(document: object, names: Sequence[str]) -> dict[str, object]:
    """Return the named parts of a reading; it may hold more, such as its round."""
    if not isinstance(document, dict) or any(name not in document for name in names):
        raise InvalidInputError(
            f"the document is no such result: it has to hold {', '.join(names)}"
        )
    return {name: document[name] for name in names}


def _digest(body: Body) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
