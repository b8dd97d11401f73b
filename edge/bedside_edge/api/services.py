"""What the HTTP service asks of the layers below it. All calls block; the API picks the thread."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.findings import Check, Rule
from bedside_core.manifest import Manifest
from bedside_core.result import Json
from bedside_core.rollout import Deployment
from bedside_core.routing import Chance, Image, Plan, Rules
from bedside_edge.config import Config
from bedside_edge.ports import (
    Alarm,
    Arrival,
    Clock,
    Engine,
    Filed,
    Instance,
    Job,
    JobQueue,
    Outputs,
    RandomBytes,
    Way,
)
from bedside_edge.ports.events import ChangeFeed
from bedside_edge.ports.evidence import BOX
from bedside_edge.ports.requests import RequestStore
from bedside_edge.services.access import AccessService
from bedside_edge.services.delivery import Deliveries
from bedside_edge.services.evidence import EvidenceService
from bedside_edge.services.flashing import FlashingService
from bedside_edge.services.gate import Gate
from bedside_edge.services.grading import GradingService
from bedside_edge.services.hardware import HardwareService
from bedside_edge.services.holdings import Holdings
from bedside_edge.services.incident import IncidentService
from bedside_edge.services.keeping import Keeping
from bedside_edge.services.learning import LearningService
from bedside_edge.services.oidc import SingleSignOn
from bedside_edge.services.overlap import OverlapService
from bedside_edge.services.pictures import PictureService
from bedside_edge.services.policies import PolicyService
from bedside_edge.services.privacy import PrivacyServices
from bedside_edge.services.publish import PublishService
from bedside_edge.services.pull import PullService
from bedside_edge.services.review import ReviewService
from bedside_edge.services.rights import RightsService
from bedside_edge.services.sync import SyncService
from bedside_edge.services.witness import WitnessService
from bedside_edge.services.witnessing import Witnessing
from bedside_edge.services.workitems import WorkitemService
from bedside_edge.services.worklist import WorklistService
from bedside_sync.distribution.manifest import TargetManifest


class Receiving(Protocol):
    """One instance on its way in; not for two threads at once."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the Part 10 stream; the buffer may be reused after return."""
        ...

    def finish(self) -> Arrival:
        """Check and seal; NotDicomError, InvalidUidError leave nothing behind."""
        ...

    def abort(self) -> None:
        """Forget the instance; may be called at any time."""
        ...


class Ingest(Protocol):
    """Takes instances in."""

    def begin(self, way: Way, source: str) -> Receiving:
        """Start one instance; DiskFullError above the high watermark."""
        ...

    def file(self, arrivals: Sequence[Arrival]) -> Sequence[Filed]:
        """File together; durable on return. On an error nothing of the batch stays."""
        ...

    def settle(self, receipt: Filed) -> None:
        """Compare a SECOND with the first of its UID; ConflictingInstanceError."""
        ...

    def complete(self, study_ids: Sequence[str]) -> None:
        """Expect no more instances of these studies."""
        ...


class Jobs(Protocol):
    """The queue, and waiting on it."""

    @property
    def queue(self) -> JobQueue:
        """The durable queue itself."""
        ...

    def wait(self, job_id: str, seconds: float) -> Job:
        """Return the job when it has ended, or as it is after `seconds`."""
        ...

    def replay(self, job_id: str, actor: str = BOX) -> Job:
        """Put a dead job back; WrongStateError, NotFoundError."""
        ...


class ServedModel(Protocol):
    """A loaded package and what runs it."""

    @property
    def manifest(self) -> Manifest:
        """The package's manifest."""
        ...

    @property
    def package_digest(self) -> str:
        """Digest of the package."""
        ...

    @property
    def engine(self) -> Engine:
        """The compiled model; its `info` is read back, not asked for."""
        ...

    @property
    def card(self) -> bytes:
        """The package's card, Markdown; empty when it has none."""
        ...

    @property
    def profile_name(self) -> str:
        """The hardware profile in force."""
        ...


class Analysis(Protocol):
    """Runs the model."""

    @property
    def model(self) -> ServedModel:
        """The model being served."""
        ...

    def infer_tensor(self, tensor: NDArray[np.float32]) -> Outputs:
        """Run the bare network."""
        ...

    def analyse_object(self, data: bytes) -> dict[str, Any]:
        """Return the result document of one Part 10 object; a RefusedError leaf says why not."""
        ...


class KnownModel(Protocol):
    """Name and version of a package."""

    @property
    def name(self) -> str:
        """The package's name."""
        ...

    @property
    def version(self) -> str:
        """The package's version."""
        ...


class KnownPackage(Protocol):
    """A package in the repository index."""

    @property
    def model(self) -> KnownModel:
        """Which package."""
        ...

    @property
    def state(self) -> str:
        """READY or UNAVAILABLE."""
        ...

    @property
    def reason(self) -> str:
        """Why it is not ready, or empty."""
        ...


class Models(Protocol):
    """The packages of the box."""

    def model(self, name: str, version: str = "") -> ServedModel:
        """Return a loaded model for its metadata; NotFoundError."""
        ...

    def loaded(self) -> Sequence[ServedModel]:
        """Return every loaded model, the one that reads studies first."""
        ...

    def use(self, name: str, version: str = "") -> AbstractContextManager[Analysis]:
        """Lend a model for one call; NotFoundError."""
        ...

    def load(self, name: str, version: str = "") -> object:
        """Open a package; NotFoundError, WrongStateError, or why it may not serve."""
        ...

    def unload(self, name: str, version: str = "") -> None:
        """Take a model away after its last call; NotFoundError, WrongStateError."""
        ...

    def index(self) -> Sequence[KnownPackage]:
        """Return every package of the box, loaded or not."""
        ...


class Outgoing(Protocol):
    """What leaves the box, and what is fetched."""

    @property
    def publisher(self) -> PublishService:
        """Objects of results."""
        ...

    @property
    def deliveries(self) -> Deliveries:
        """Their ways to the destinations."""
        ...

    @property
    def pulls(self) -> PullService:
        """Studies from archives."""
        ...

    @property
    def reviews(self) -> ReviewService:
        """Sign-off: what readers said of results."""
        ...


class DryRun(Protocol):
    """What the rules would do with a study."""

    @property
    def rules(self) -> str:
        """Digest of the rules that were tried."""
        ...

    @property
    def plan(self) -> Plan:
        """What would run, and every rule's verdict."""
        ...

    @property
    def chances(self) -> Sequence[Chance]:
        """What would become of each loaded model."""
        ...


class Routing(Protocol):
    """The routing rules in force."""

    @property
    def rules(self) -> Rules:
        """The rules themselves."""
        ...

    def dry_run(self, images: Sequence[Image], rules: Rules | None = None) -> DryRun:
        """Say what these rules, or those in force, would do; nothing changes."""
        ...


class PastChange(Protocol):
    """One line of a model's history."""

    @property
    def revision(self) -> int:
        """The revision it made."""
        ...

    @property
    def what(self) -> str:
        """In words."""
        ...

    @property
    def actor(self) -> str:
        """Who signed it off."""
        ...

    @property
    def at(self) -> int:
        """When: milliseconds since 1970, UTC."""
        ...


class ShadowTally(Protocol):
    """How many studies came to one pair of decisions."""

    @property
    def version(self) -> str:
        """The version that was shown."""
        ...

    @property
    def shadow(self) -> str:
        """The version that read along."""
        ...

    @property
    def decision(self) -> str:
        """What was shown."""
        ...

    @property
    def shadow_decision(self) -> str:
        """What was not."""
        ...

    @property
    def studies(self) -> int:
        """How many."""
        ...

    @property
    def difference(self) -> float:
        """Sum of the distances between both probabilities."""
        ...


class Rollout(Protocol):
    """Which version of a model reads studies; every change names the revision it was decided on."""

    def deployment(self, name: str) -> Deployment:
        """Return what is in force; NotFoundError."""
        ...

    def history(self, name: str) -> tuple[Sequence[PastChange], Sequence[ShadowTally]]:
        """Return the changes, newest first, and how shadows compared."""
        ...

    def activate(
        self, name: str, version: str, expected: int | None, actor: str, because: str = ""
    ) -> Deployment:
        """Read studies with another version; `because` is kept in the history."""
        ...

    def roll_back(self, name: str, expected: int | None, actor: str) -> Deployment:
        """Read studies with the version before."""
        ...

    def set_shadow(self, name: str, version: str, expected: int | None, actor: str) -> Deployment:
        """Let a version read along unseen; empty ends it."""
        ...

    def set_canary(
        self, name: str, version: str, percent: int, expected: int | None, actor: str
    ) -> Deployment:
        """Let a version read a share of the studies; empty and 0 end it."""
        ...

    def set_threshold(
        self, name: str, rule: Rule | None, expected: int | None, actor: str
    ) -> Deployment:
        """Decide by the hospital's rule; None: by the package's."""
        ...


class Health(Protocol):
    """How the box is."""

    def checks(self) -> Mapping[str, Check]:
        """Return every readiness check by name: model, disk, queue, dicom, keys."""
        ...

    def gauges(self) -> Mapping[str, float]:
        """Return figures for /metrics; see `metrics.GAUGES` for the names."""
        ...


class Updates(Protocol):
    """Looking for updates and fetching them; nothing is installed."""

    def told(self) -> Json:
        """Return what this site is to run and how looking for it goes."""
        ...

    def begin(self, stick: Path | None, actor: str, fetch: bool) -> None:
        """Start a look at the hub, or at a stick; UpdateRunningError, NotReadyError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the HTTP service stands on; made by `wiring`."""

    ingest: Ingest
    jobs: Jobs
    analysis: Analysis  # the model that reads the box's studies
    models: Models
    routing: Routing
    rollout: Rollout
    instances: Callable[[str], Sequence[Instance]]  # of a held study; NotFoundError
    outgoing: Outgoing
    holdings: Holdings  # what DICOMweb searches and retrieves
    workitems: WorkitemService
    worklist: WorklistService
    pictures: PictureService
    overlay: Callable[[str], bytes]  # result id -> PNG; NotFoundError, WrongStateError (refused)
    alarms: Callable[[], list[Alarm]]
    requests: RequestStore  # under an Idempotency-Key
    changes: ChangeFeed
    access: AccessService
    gate: Gate  # asked before every use
    keeping: Keeping  # erasure, legal hold, retention
    policies: PolicyService
    grading: GradingService
    evidence: EvidenceService  # the log, and who looked
    health: Health
    clock: Clock
    random: RandomBytes
    rights: RightsService | None = None  # consents and the request desk
    incidents: IncidentService | None = None  # how the box is
    privacy: PrivacyServices | None = None  # statistics and answers that leave the hospital
    hardware: HardwareService | None = None  # board, profile, the verdict the engine serves under
    flashing: FlashingService | None = None  # both slots of everything flashed
    updates: Updates | None = None  # the repository packages come from
    ready_packages: Callable[[], Sequence[TargetManifest]] = tuple  # assigned, signed, fetched
    learning: LearningService | None = None  # cases in rounds, and what follows from rounds
    overlap: OverlapService | None = None  # patients shared with other hospitals
    witness: WitnessService | None = None  # of other logs
    witnessing: Witnessing | None = None  # the witnesses of this box's log
    sign_on: SingleSignOn | None = None  # through an identity provider, where one is configured
    sync: SyncService | None = None  # rounds of the consortium
    settings: Config = field(default_factory=Config)  # for people to read; nothing acts on them
