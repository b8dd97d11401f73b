"""A simulated archive, a plain object writer, and a box's publishing side over a real store."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread

from bedside_core.errors import DeliveryRefusedError, DestinationUnavailableError, NotFoundError
from bedside_core.result import canonical
from bedside_core.review import Review, ReviewKind
from bedside_edge.dicom.part10 import head
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.ports import Outcome, Way
from bedside_edge.services.delivery import Deliveries, DeliveryWorker
from bedside_edge.services.ingest import IngestService
from bedside_edge.services.outputs import Draft, Kind, Made, Output, SendRules, Take
from bedside_edge.services.publish import PublishService
from bedside_edge.services.pull import PullService
from bedside_edge.services.review import ReviewService
from bedside_edge.services.worker import Bell
from bedside_edge.store.rules import CompletionRules
from bedside_edge.store.state import open_state
from bedside_edge.system.keys import open_box_keys
from support.fake_clock import FakeClock, SeededBytes
from support.sample_result import entry, result_body
from support.state_houses import ANY_DISK, T0
from support.synthetic import data_set, noise, part10, uid

SEEN = "1.2.840.10008.5.1.4.1.1.1"


class MemoryArchive:
    """`Destination` that keeps what it is sent; down, deaf or choosy when told to be."""

    def __init__(self, name: str = "pacs", objects: frozenset[Kind] = frozenset(Kind)) -> None:
        self.name, self.objects = name, objects
        self.up = True
        self.loses_answers = 0  # so many objects are taken in without the sender learning of it
        self.refuses: set[str] = set()  # SOP Instance UIDs
        self.arrived: list[str] = []
        self.data: dict[str, bytes] = {}
        self.opened = 0

    @contextmanager
    def open(self, sop_classes: Sequence[str]) -> Iterator["MemoryArchive"]:
        self.opened += 1
        if not self.up:
            raise DestinationUnavailableError("nobody answers")
        assert sop_classes
        yield self

    def send(self, data: bytes) -> None:
        if not self.up:
            raise DestinationUnavailableError("the way broke")
        instance = str(dcmread(BytesIO(data)).SOPInstanceUID)
        if instance in self.refuses:
            raise DeliveryRefusedError("not wanted")
        self.arrived.append(instance)
        self.data[instance] = data
        if self.loses_answers:
            self.loses_answers -= 1
            raise DestinationUnavailableError("no answer came")

    def probe(self) -> str:
        if not self.up:
            raise DestinationUnavailableError("gone")
        return "here"


class MemoryStudies:
    """`Archive` that holds studies by UID."""

    name = "memory"

    def __init__(self) -> None:
        self.studies: dict[str, list[bytes]] = {uid(5): [part10(data_set(study=5))]}

    def fetch(self, study_uid: str, take: Take) -> int:
        found = self.studies.get(study_uid)
        if found is None:
            raise NotFoundError("no such study")
        for data in found:
            take("", "", "", data)
        return len(found)


class PlainWriter:
    """`ObjectWriter` whose objects are plain images of the right patient; counts its work."""

    def __init__(self) -> None:
        self.made = 0
        self.fails = 0
        self.drafts: list[Draft] = []

    def result_objects(self, draft: Draft) -> list[Made]:
        if self.fails:
            self.fails -= 1
            raise DestinationUnavailableError("planted")
        self.drafts.append(draft)
        return [self._one(draft, kind) for kind in (Kind.SR, Kind.SC)]

    def review_objects(self, draft: Draft, review: Review, rejected: Sequence[bytes]) -> list[Made]:
        self.drafts.append(draft)
        kinds = [Kind.SR]
        if review.kind is ReviewKind.REJECT and rejected:
            kinds = [Kind.KO, Kind.SR]
        return [self._one(draft, kind) for kind in kinds]

    def _one(self, draft: Draft, kind: Kind) -> Made:
        self.made += 1
        source = dcmread(BytesIO(next(iter(draft.sources.values()))))
        instance = uid(99, self.made)
        made = data_set(
            SOPInstanceUID=instance,
            StudyInstanceUID=source.StudyInstanceUID,
            PatientID=source.PatientID,
        )
        return Made(kind=kind, sop_class_uid=SEEN, sop_instance_uid=instance, data=part10(made))


class Box:
    """Store, publisher and one worker per destination, all driven by hand."""

    def __init__(self, folder: Path, *archives: MemoryArchive, clock: FakeClock | None = None):
        self.clock = clock or FakeClock(T0)
        self.bell, self.writer, self.archives = Bell(self.clock.monotonic), PlainWriter(), archives
        self.random = SeededBytes(f"box {self.clock.now()}")
        self.state = open_state(
            folder,
            self.clock,
            self.random,
            open_box_keys,
            completion=CompletionRules(quiet_ms=0),
            disk=ANY_DISK,
        )
        self.reader = PydicomReader()
        self.ingest = IngestService(
            objects=self.state.objects,
            studies=self.state.studies,
            queue=self.state.jobs,
            reader=self.reader,
            clock=self.clock,
            wrap=head,
            wake=self.bell.ring,
            max_object_bytes=1 << 24,
        )
        self.state.outputs.publish_results(wanted=bool(archives))
        self.publisher = PublishService(
            queue=self.state.jobs,
            studies=self.state.studies,
            objects=self.state.objects,
            outputs=self.state.outputs,
            writer=self.writer,
            paint=lambda data, entry, caption: np.zeros((8, 8, 3), np.uint8),
            clock=self.clock,
            destinations={archive.name: archive.objects for archive in archives},
            wake=self.bell.ring,
        )
        self.reviews = ReviewService(
            queue=self.state.jobs,
            reviews=self.state.reviews,
            publisher=self.publisher,
            clock=self.clock,
            wake=self.bell.ring,
        )
        self.counted: list[tuple[str, str]] = []
        self.permit: Callable[[str], None] = lambda _study_id: None
        self.workers = {archive.name: self._worker(archive) for archive in archives}
        self.deliveries = Deliveries(self.state.outputs, self.workers, self.clock, self.bell)
        self.pulls = PullService(self.ingest, {"memory": MemoryStudies()})

    def _worker(self, archive: MemoryArchive) -> DeliveryWorker:
        return DeliveryWorker(
            archive,
            outputs=self.state.outputs,
            objects=self.state.objects,
            reader=self.reader,
            clock=self.clock,
            rules=SendRules(),
            count=lambda name, outcome: self.counted.append((name, outcome)),
            permit=lambda study_id: self.permit(study_id),
        )

    def take(self, data: bytes) -> str:
        """File an instance; return the study's id."""
        receiving = self.ingest.begin(Way.HTTP, "test")
        receiving.write(data)
        return self.ingest.file([receiving.finish()])[0].study_id

    def analysed(self, study: int = 1, *, probability: float = 0.9, number: int = 1) -> str:
        """Take an image of patient and study `study` in, finish its job; return the result id."""
        data = part10(data_set(noise(16, 12, seed=number), study=study, number=number))
        self.take(data)
        return self.finish(probability)

    def finish(self, probability: float = 0.9) -> str:
        job = self.state.jobs.lease(self.clock.now())
        assert job is not None
        held = self.state.studies.instances(job.study_id)
        body = result_body([entry(i.instance_id, probability=probability) for i in held])
        outcome = Outcome(refused=False, reason="", body=canonical(body))
        return self.state.jobs.finish(job, outcome, self.clock.now())

    def refused(self, study: int) -> str:
        self.take(part10(data_set(noise(16, 12), study=study)))
        job = self.state.jobs.lease(self.clock.now())
        assert job is not None
        body = result_body([entry("x")]) | {
            "value": None,
            "images": [],
            "reason": {"code": "wrong-view", "detail": "a lateral view"},
        }
        outcome = Outcome(refused=True, reason="wrong-view", body=canonical(body))
        return self.state.jobs.finish(job, outcome, self.clock.now())

    def settle(self) -> None:
        """Let publisher and workers do what they can at this moment."""
        while self.publisher.step() or self.reviews.step():
            pass
        for worker in self.workers.values():
            while worker.step():
                pass

    def run_for(self, ms: int) -> None:
        """Let injected time pass; everybody works whenever their naps end."""
        end = self.clock.now() + ms
        while True:
            self.settle()
            steps = (self.publisher, self.reviews, *self.workers.values())
            naps = [step.nap() for step in steps]
            left = end - self.clock.now()
            if left <= 0:
                return
            self.clock.advance(min(left, max(1, int(min(naps) * 1000))))

    def outputs(self, result_id: str) -> list[Output]:
        return self.state.outputs.outputs(result_id=result_id)

    def close(self) -> None:
        self.state.close()


@contextmanager
def publishing_box(folder: Path, *archives: MemoryArchive, clock: FakeClock | None = None):
    """Run a `Box` and close it in order."""
    box = Box(folder, *archives, clock=clock)
    try:
        yield box
    finally:
        box.close()
