"""A box with signed studies over a real folder, a real gate and policy, and a network in numpy."""

import hashlib
import json
from contextlib import contextmanager

import numpy as np

from bedside_core.access import Action, Actor
from bedside_core.consent import NOTICE_PARTS
from bedside_core.errors import NotFoundError
from bedside_core.findings import Decision, Familiar
from bedside_core.manifest import Manifest
from bedside_core.review import ReviewKind
from bedside_core.uses import Purpose
from bedside_edge.ports import Outcome
from bedside_edge.services.analysis import AnalysisService, Model
from bedside_edge.services.consent import ConsentService
from bedside_edge.services.gate import Gate
from bedside_edge.services.learning import CaseReader, LearningService
from bedside_edge.services.policies import PolicyService
from bedside_edge.system.policy_cedar import CedarPolicy, shipped_document
from bedside_sync.tasks import kinds
from support.consortium import Consortium, Round
from support.fake_engine import TINY_IO, FakeEngine
from support.outputs import Box
from support.sample_manifest import manifest_fields
from support.synthetic import data_set, noise, part10

READER = Actor(actor_id="person:ada", name="Lovelace^Ada", actions=frozenset({Action.REVIEW}))
FINDING = "1"  # of the sample manifest
PACKAGE = "ab" * 32
NOTICE = dict.fromkeys(NOTICE_PARTS, "as the hospital says")


def sample_analysis(reader, package: str = PACKAGE) -> AnalysisService:
    """The sample package on the engine in numpy; every image is familiar."""
    manifest = Manifest.model_validate(manifest_fields() | {"io": TINY_IO.model_dump()})
    familiar = Familiar(
        mean=np.zeros(16, np.float32),
        precision_chol=np.eye(16, dtype=np.float32),
        cutoff=1e9,
        intensity={"mean": (0.0, 1.0)},
    )
    model = Model(
        manifest=manifest,
        familiar=familiar,
        package_digest=f"sha256:{package}",
        engine=FakeEngine(),
        profile_name="tests/memory",
        profile_digest="sha256:" + "3" * 64,
    )
    return AnalysisService(model, reader, None)


class LearningBox(Box):
    """`support.outputs.Box` whose studies are read by the sample package."""

    def __init__(self, folder):
        super().__init__(folder)
        self.analysis = sample_analysis(self.reader)
        policies = PolicyService(
            self.state.policies, CedarPolicy, shipped_document(), lambda: {}, self.clock
        )
        self.gate = Gate(
            policies.policy, self.state.governance, self.clock, self.state.evidence.append
        )
        self.consents = ConsentService(
            self.state.rights, self.state.subjects, self.clock, minor_years=14
        )
        self.gate.standing = self.consents.standing
        self.lent = 0
        self.learning = LearningService(
            self.state.learning,
            self.state.subjects,
            lambda: self.gate,
            CaseReader(self.state.learning, self.state.studies, self.state.objects, self.lend),
            self.clock,
            self.random,
            lend_served=lambda: self.lend(PACKAGE),
        )
        self.notice = ""

    @contextmanager
    def lend(self, package):
        if package not in (PACKAGE, "cd" * 32):
            raise NotFoundError("no such package")
        self.lent += 1
        yield self.analysis

    def study(self, study: int, *, say: Decision | None = None, **values) -> str:
        """Take a study in, have it read, sign it; return its id."""
        # brighter or darker below, so that the network in numpy tells the two apart
        pixels = noise(32, 32, seed=study).astype(np.float64)
        pixels[16:] *= 1.0 if say is Decision.PRESENT else 0.35
        data = data_set(pixels.astype(np.uint16), study=study, **values)
        study_id = self.take(part10(data))
        job = self.state.jobs.lease(self.clock.now())
        held = self.state.studies.instances(study_id)
        outcome: Outcome = self.analysis.analyse_study(
            held, lambda one: self.state.objects.read(one.object_name, one.object_key)
        )
        result_id = self.state.jobs.finish(job, outcome, self.clock.now())
        if say is not None:
            self.sign(result_id, say)
        return study_id

    def sign(self, result_id, say: Decision) -> None:
        state = self.reviews.state(result_id)
        said = json.loads(self.state.jobs.result(result_id).body)["value"]["decision"]
        kind = ReviewKind.ACCEPT if said == say else ReviewKind.EDIT
        self.reviews.sign(
            result_id,
            reader=READER,
            kind=kind,
            reason="seen otherwise",
            decision=None if kind is ReviewKind.ACCEPT else say,
            expected=state.revision,
        )

    def agree(self, study_id: str, purpose: Purpose) -> str:
        """Put the consent of a study's patient on record; return the subject id."""
        subject = self.state.subjects.subject_of(study_id)
        self.notice = self.notice or self.consents.add_notice(NOTICE, "person:dpo")
        self.consents.give(subject, purpose, self.notice, "person:dpo")
        return subject


def manifest_for(task: str, settings, *, round_name="round-1", model=PACKAGE, **changes):
    """A sound manifest of a task, in a consortium of five."""
    given = kinds.plan_lines(settings) | {
        "round": round_name,
        "task": task,
        "model": model,
        "settings": hashlib.sha256(settings.encode()).hexdigest(),
        "ring": 64,
    }
    return Round(Consortium(), changes=given | changes).manifest
