"""The services behind the HTTP application, in memory and driven by the test."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from bedside_core.access import Action, Actor
from bedside_core.errors import ConflictingInstanceError, NotFoundError, WrongStateError
from bedside_core.findings import Check, Rule
from bedside_core.manifest import Manifest
from bedside_core.routing import parse_rules
from bedside_edge.api.app import create_app
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.services import Services
from bedside_edge.config import Http
from bedside_edge.dicom.header import read_header
from bedside_edge.ports import (
    Alarm,
    Arrival,
    Filed,
    Filing,
    Instance,
    Job,
    JobState,
    Outputs,
    Priority,
    Sealed,
    StoredResult,
    Way,
)
from bedside_edge.ports.evidence import BOX
from bedside_edge.services.access import AccessService
from bedside_edge.services.evidence import EvidenceService
from bedside_edge.services.models import ModelId, ModelService
from bedside_edge.services.rollout import RolloutService
from bedside_edge.services.routing import RoutingService
from bedside_edge.services.workitems import WorkitemService
from bedside_edge.services.worklist import WorklistService
from bedside_edge.web.pages import error_page, pages_router
from support.asgi_client import AsgiClient
from support.fake_clock import FakeClock
from support.fake_engine import TINY_IO, FakeEngine
from support.memory_access import MemoryAccess, QuickPasswords
from support.memory_deployments import MemoryDeployments
from support.memory_evidence import MemoryEvidence
from support.memory_following import MemoryChanges, MemoryRequests
from support.memory_governance import MemoryGovernance
from support.memory_holdings import MemoryHoldings, holdings_over
from support.memory_workitems import MemoryWorkitems
from support.memory_worklist import MemoryWorkRows
from support.sample_manifest import manifest_fields

HERE = "http://127.0.0.1:8642"
# whom the transport knows, as by a client's certificate; tests of access control do without
PEER = Actor(actor_id="system:peer", name="peer", actions=frozenset(Action))
NOW = 1_700_000_000_000

RULES = """
format = "bedside-rules/1"

[[rules]]
name = "made-for-sample"
model = "sample"
when.modality = ["CR", "DX"]
when.body_part = ["CHEST", ""]
when.view = ["PA", "AP", ""]
"""


def tiny_manifest() -> Manifest:
    """The sample manifest with the fake engine's tensors."""
    fields = manifest_fields()
    io = TINY_IO.model_dump()
    return Manifest.model_validate(fields | {"io": io})


@dataclass
class FakeModel:
    manifest: Manifest = field(default_factory=tiny_manifest)
    engine: FakeEngine = field(default_factory=FakeEngine)
    package_digest: str = "sha256:" + "1" * 64
    profile_name: str = "tests/memory"
    card: bytes = b"# Sample\n\nFor tests.\n"


class FakeAnalysis:
    """Runs the fake engine; DICOM bodies answer with `document` or raise `refusal`."""

    def __init__(self) -> None:
        self.model = FakeModel()
        self.document: dict[str, Any] = {"format": "bedside-result/1", "value": None}
        self.refusal: Exception | None = None
        self.seen: list[bytes] = []
        self.rule: Rule | None = None

    def with_rule(self, rule: Rule | None) -> "FakeAnalysis":
        self.rule = rule
        return self

    def infer_tensor(self, tensor) -> Outputs:
        return self.model.engine.run(tensor)

    def analyse_object(self, data: bytes) -> dict[str, Any]:
        self.seen.append(data)
        if self.refusal is not None:
            raise self.refusal
        return self.document


class FakeQueue:
    """Jobs as plain values; `by_id` and `results` are the test's to change."""

    def __init__(self) -> None:
        self.by_id: dict[str, Job] = {}
        self.results: dict[str, StoredResult] = {}

    def add(self, job_id: str, **changes: Any) -> Job:
        job = Job(
            job_id=job_id,
            study_id="study-1",
            state=JobState.COLLECTING,
            priority=Priority.ROUTINE,
            created=NOW - 1500,
            updated=NOW - 1000,
            due=NOW,
            attempts=0,
            reason="",
            instances=1,
            result_id="",
        )
        self.by_id[job_id] = replace(job, **changes)
        return self.by_id[job_id]

    def change(self, job_id: str, **changes: Any) -> Job:
        self.by_id[job_id] = replace(self.job(job_id), **changes)
        return self.by_id[job_id]

    def end(self, job_id: str, state: JobState, reason: str = "", body: Any = None) -> str:
        """End a job with a result document, as a worker would."""
        result_id = f"result-of-{job_id}"
        job = self.change(job_id, state=state, reason=reason, result_id=result_id)
        self.results[result_id] = StoredResult(
            result_id=result_id,
            job_id=job_id,
            study_id=job.study_id,
            created=NOW,
            superseded_by="",
            body=json.dumps(body or {"value": None, "reason": None}).encode(),
        )
        return result_id

    def job(self, job_id: str) -> Job:
        if job_id not in self.by_id:
            raise NotFoundError("no such job")
        return self.by_id[job_id]

    def jobs(
        self,
        *,
        states: Iterable[JobState] = (),
        study_id: str = "",
        priority: Priority | None = None,
        limit: int = 100,
    ) -> list[Job]:
        wanted = set(states)
        found = [
            job
            for job in reversed(self.by_id.values())
            if (not wanted or job.state in wanted)
            and study_id in ("", job.study_id)
            and priority in (None, job.priority)
        ]
        return found[:limit]

    def counts(self) -> dict[JobState, int]:
        return dict(Counter(job.state for job in self.by_id.values()))

    def complete(self, study_id: str, now: int) -> None:
        for job in self.jobs(study_id=study_id, states=[JobState.COLLECTING]):
            self.change(job.job_id, state=JobState.READY)

    def cancel(self, job_id: str, now: int, actor: str = BOX) -> Job:
        if self.job(job_id).state in (JobState.DONE, JobState.REFUSED, JobState.CANCELLED):
            raise WrongStateError("the job has ended")
        return self.change(job_id, state=JobState.CANCELLED)

    def prioritise(self, job_id: str, priority: Priority, now: int, actor: str = BOX) -> Job:
        if self.job(job_id).state is JobState.DONE:
            raise WrongStateError("the job has ended")
        return self.change(job_id, priority=priority)

    def result(self, result_id: str) -> StoredResult:
        if result_id not in self.results:
            raise NotFoundError("no such result")
        return self.results[result_id]


class FakeJobs:
    """`on_wait` stands for the worker: what happens while a request waits; `sleep` then waits."""

    def __init__(self) -> None:
        self.queue = FakeQueue()
        self.on_wait: Callable[[Job], None] = lambda job: None

    def wait(self, job_id: str, seconds: float) -> Job:
        self.on_wait(self.queue.job(job_id))
        job = self.queue.job(job_id)
        if job.state in (JobState.COLLECTING, JobState.READY):
            time.sleep(seconds)
        return self.queue.job(job_id)

    def replay(self, job_id: str, actor: str = BOX) -> Job:
        if self.queue.job(job_id).state is not JobState.DEAD:
            raise WrongStateError("only a dead job can be replayed")
        return self.queue.change(job_id, state=JobState.READY)


class FakeReceiving:
    """A Part 10 stream in memory; `aborted` and `finished` say how it ended."""

    def __init__(self, way: Way, source: str) -> None:
        self.way, self.source = way, source
        self.data = bytearray()
        self.aborted = self.finished = False

    def write(self, data: bytes | memoryview) -> None:
        self.data += data

    def finish(self) -> Arrival:
        digest = hashlib.sha256(self.data).hexdigest()
        sealed = Sealed(name=digest, object_key=b"", size=len(self.data), digest=digest)
        header = read_header(bytes(self.data))
        self.finished = True
        return Arrival(header=header, sealed=sealed, way=self.way, source=self.source, at=NOW)

    def abort(self) -> None:
        self.aborted = True


class FakeIngest:
    """Files into lists, with a job per study, and a say in what fails and what `settle` finds."""

    def __init__(self, queue: FakeQueue) -> None:
        self.queue = queue
        self.receivings: list[FakeReceiving] = []
        self.arrivals: list[Arrival] = []
        self.settled: list[Filed] = []
        self.completed: list[str] = []
        self.fail_begin: Exception | None = None
        self.fail_file: Exception | None = None
        self.conflict = False

    @property
    def begun(self) -> int:
        return len(self.receivings)

    @property
    def aborted(self) -> int:
        return sum(receiving.aborted for receiving in self.receivings)

    @property
    def stored(self) -> list[bytes]:
        """The objects that were filed, in order."""
        by_digest = {hashlib.sha256(r.data).hexdigest(): bytes(r.data) for r in self.receivings}
        return [by_digest[arrival.sealed.digest] for arrival in self.arrivals]

    def begin(self, way: Way, source: str) -> FakeReceiving:
        if self.fail_begin is not None:
            raise self.fail_begin
        self.receivings.append(FakeReceiving(way, source))
        return self.receivings[-1]

    def file(self, arrivals: Sequence[Arrival]) -> list[Filed]:
        if self.fail_file is not None:
            raise self.fail_file
        return [self._file(arrival) for arrival in arrivals]

    def _file(self, arrival: Arrival) -> Filed:
        uid, digest = arrival.header.sop_instance_uid, arrival.sealed.digest
        held = [a.sealed.digest for a in self.arrivals if a.header.sop_instance_uid == uid]
        outcome = Filing.STORED
        if held:
            outcome = Filing.DUPLICATE if digest in held else Filing.SECOND
        study = hashlib.sha256(arrival.header.study_uid.encode()).hexdigest()[:16]
        if outcome is not Filing.DUPLICATE:
            self.arrivals.append(arrival)
            open_states = {JobState.COLLECTING, JobState.READY}
            if not self.queue.jobs(study_id=study, states=open_states):
                self.queue.add(f"job-{len(self.queue.by_id) + 1}", study_id=study)
        return Filed(outcome=outcome, study_id=study, instance_id=digest[:16])

    def settle(self, receipt: Filed) -> None:
        self.settled.append(receipt)
        if self.conflict:
            raise ConflictingInstanceError("this UID is held with other pixels; both kept")

    def complete(self, study_ids: Sequence[str]) -> None:
        for study_id in study_ids:
            self.completed.append(study_id)
            self.queue.complete(study_id, NOW)


class FakeHealth:
    def __init__(self) -> None:
        self.found = {"model": Check(name="model", passed=True, reason="self-test passed")}
        self.figures = {"jobs.ready": 2.0, "disk_used_ratio": 0.5, "queue_depth": 2.0}

    def checks(self):
        return self.found

    def gauges(self):
        return self.figures


class FixedClock:
    def now(self) -> int:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class HttpBox:
    """An application over fakes, with a client; `with HttpBox() as box` runs its lifespan."""

    def __init__(
        self,
        outgoing: Any = None,
        *,
        known_peer: bool = True,
        work_rows: Any = None,
        privacy: Any = None,  # support.privacy_desk has one over a real ledger
        sync: Any = None,  # support.nights has one over a real state folder
        keeping: Any = None,  # erasure and retention are tested over a real folder
        incidents: Any = None,
        witness: Any = None,  # tests/services/test_witnessing.py has both over real folders
        witnessing: Any = None,
        rights: Any = None,
        learning: Any = None,  # support.learning_house has one over a real folder
        overlap: Any = None,
        hardware: Any = None,
        updates: Any = None,
        flashing: Any = None,
        **settings: Any,
    ) -> None:
        self.outgoing = outgoing
        self.peer = PEER if known_peer else None  # whoever the transport knows; tests may change it
        self.jobs = FakeJobs()
        self.queue = self.jobs.queue
        self.ingest = FakeIngest(self.queue)
        self.analysis = FakeAnalysis()
        self.models = ModelService(
            self.analysis, open_model=self._open_model, known=lambda: self.known, most=3
        )
        rules = parse_rules(RULES.encode())
        self.deployments = MemoryDeployments()
        self.routing = RoutingService(
            rules,
            self.models,
            lambda: RolloutService(self.models, self.deployments, FixedClock()),
        )
        self.held: dict[str, list[Instance]] = {}
        self.health = FakeHealth()
        self.alarms: list[Alarm] = []
        self.known: list[ModelId] = [ModelId("sample", "1.0.0"), ModelId("second", "1.0.0")]
        self.opened: list[FakeAnalysis] = []
        self.fail_open: Exception | None = None
        self.pictures: dict[str, bytes] = {}
        self.memory = MemoryHoldings()  # what DICOMweb finds
        self.workitem_rows = MemoryWorkitems()
        self.metrics = Metrics()
        self.requests, self.changes = MemoryRequests(), MemoryChanges()
        self._counter = 0
        self.passwords = QuickPasswords()
        self.clock = FakeClock(NOW)  # of log-ins
        self.access = AccessService(MemoryAccess(), self.passwords, self.clock, self._bytes)
        self.work_rows = work_rows or MemoryWorkRows()
        self.log = MemoryEvidence(FixedClock())
        self.governance = MemoryGovernance(FixedClock(), self._study_of)
        services = Services(
            ingest=self.ingest,
            jobs=self.jobs,
            analysis=self.analysis,
            models=self.models,
            routing=self.routing,
            rollout=self.routing.rollout,
            instances=self._instances,
            outgoing=outgoing,
            holdings=holdings_over(self.memory),
            workitems=WorkitemService(self.workitem_rows, FixedClock(), self._bytes, lambda: None),
            worklist=WorklistService(self.work_rows),
            pictures=cast("Any", None),  # pages that show pixels are tested over a real box
            overlay=self._overlay,
            alarms=lambda: self.alarms,
            requests=self.requests,
            changes=self.changes,
            access=self.access,
            gate=self.governance.gate,
            keeping=cast("Any", keeping),
            incidents=incidents,
            witness=witness,
            witnessing=witnessing,
            rights=rights,
            policies=self.governance.policies,
            grading=self.governance.grading,
            evidence=EvidenceService(self.log, FixedClock(), checkpoint_s=3600),
            health=self.health,
            clock=FixedClock(),
            random=self._bytes,
            privacy=privacy,
            sync=sync,
            learning=learning,
            overlap=overlap,
            hardware=hardware,
            updates=updates,
            flashing=flashing,
        )
        self.app = create_app(
            services,
            Http(**{"event_stream_s": 0.1} | settings),  # a stream without end is no answer
            inference_workers=2,
            metrics=self.metrics,
            pages=pages_router,
            error_page=error_page,
            actor_from_scope=lambda _: self.peer,
        )
        self.client = AsgiClient(self.app, HERE)

    def __enter__(self) -> "HttpBox":
        self.client.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self.client.__exit__(*raised)

    def _open_model(self, wanted: ModelId) -> FakeAnalysis:
        if self.fail_open is not None:
            raise self.fail_open
        fields = tiny_manifest().model_dump() | {"name": wanted.name, "version": wanted.version}
        analysis = FakeAnalysis()
        analysis.model.manifest = Manifest.model_validate(fields)
        self.opened.append(analysis)
        return analysis

    def _instances(self, study_id: str) -> list[Instance]:
        if study_id not in self.held:
            raise NotFoundError("no study of that id")
        return self.held[study_id]

    def _study_of(self, result_id: str) -> str:
        if result_id in self.pictures:
            return "study-1"
        if self.outgoing is not None:  # a test that brought a store of its own
            return self.outgoing.state.jobs.result(result_id).study_id
        return self.queue.result(result_id).study_id

    def _overlay(self, result_id: str) -> bytes:
        if result_id not in self.pictures:
            raise NotFoundError("no such result")
        return self.pictures[result_id]

    def _bytes(self, count: int) -> bytes:
        self._counter += 1
        return self._counter.to_bytes(count, "big")


def multipart(
    objects: Iterable[bytes], boundary: str = "cut-here", part_type: str = "application/dicom"
) -> bytes:
    """Return a multipart/related body with one part per object."""
    parts = [
        f"--{boundary}\r\nContent-Type: {part_type}\r\n\r\n".encode() + data + b"\r\n"
        for data in objects
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


def related(boundary: str = "cut-here") -> dict[str, str]:
    """Return the header of such a body."""
    return {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}
