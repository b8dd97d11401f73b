"""What the services need from the outside world, one small Protocol each, and the values between.

Adapters implement these in `dicom`, `engine`, `store` and `system`; tests/contract holds every
adapter and every simulator to the same promises. Times are integers: milliseconds since 1970, UTC.
Identifiers named `*_id` are ours (random or keyed hashes) and may be logged; UIDs may not.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.imaging import Frame
from bedside_edge.ports.evidence import BOX


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> int:
        """Return wall-clock milliseconds since 1970, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; for durations only."""
        ...


class RandomBytes(Protocol):
    """The operating system's cryptographic generator."""

    def __call__(self, count: int) -> bytes:
        """Return `count` unpredictable bytes."""
        ...


class KeyStore(Protocol):
    """The box key: it never leaves the store, it only wraps, unwraps and derives."""

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Return `key` encrypted under the box key, bound to `context`."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the key; DamagedObjectError when changed or of another context or box."""
        ...

    def lookup(self, label: str, value: bytes) -> str:
        """Return a keyed hash (32 hex digits) that files a UID without naming it."""
        ...

    def wrap_with(self, secret: bytes, key: bytes, context: bytes) -> bytes:
        """Return `key` encrypted so that box key and `secret` are both needed to open it."""
        ...

    def unwrap_with(self, secret: bytes, wrapped: bytes, context: bytes) -> bytes:
        """Return the key; DamagedObjectError when changed or of another secret, context or box."""
        ...

    def mac(self, label: str, value: bytes) -> bytes:
        """Return 32 bytes that only this box can make of `value`, separate for every `label`."""
        ...


# --- arriving instances ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The few attributes routing needs, decoded; empty string when absent."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax_uid: str
    patient_id: str = ""
    issuer: str = ""
    patient_name: str = ""
    accession_number: str = ""
    study_date: str = ""
    modality: str = ""
    body_part: str = ""
    view: str = ""
    laterality: str = ""
    image_type: tuple[str, ...] = ()
    presentation_intent: str = ""
    photometric: str = ""
    rows: int = 0
    columns: int = 0
    expected_instances: int = 0
    requested_priority: str = ""
    birth_date: str = ""  # DA, as sent
    sex: str = ""
    age: str = ""  # AS, at the time of the study
    station: str = ""
    manufacturer: str = ""
    device_serial: str = ""
    study_time: str = ""
    study_label: str = ""  # Study ID
    study_description: str = ""
    series_description: str = ""
    series_number: str = ""
    instance_number: str = ""
    referring_physician: str = ""
    frames: str = ""  # Number of Frames, as sent
    burned_in: str = ""  # Burned In Annotation: YES, NO or empty
    protocol: str = ""
    procedure: str = ""  # Requested Procedure Description
    diagnosis: str = ""  # Admitting Diagnoses Description
    codes: tuple[str, ...] = ()  # Code Values of procedures and admitting diagnoses
    bits_stored: int = 0
    pixel_spacing: str = ""  # DS, rows before columns, as sent, mm
    detector_spacing: str = ""  # Imager Pixel Spacing, likewise
    kvp: str = ""
    exposure: str = ""  # IS, mAs
    exposure_uas: str = ""  # IS, microampere seconds


class Way(StrEnum):
    """How an instance came in."""

    DIMSE = "dimse"
    STOW = "stow"
    HTTP = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """An encrypted object, durable under its name; the key that opens it is `object_key`."""

    name: str
    object_key: bytes = field(repr=False)
    size: int
    digest: (
        str  # sha256 hex of the plain data set bytes plus transfer syntax: equality of instances
    )


class ObjectSink(Protocol):
    """One object being written: encrypted chunk by chunk, nothing plain touches the disk."""

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt and write; DiskFullError when the disk is full."""
        ...

    def seal(self, digest: str) -> Sealed:
        """Write the final chunk and rename the file to its name.

        Durable after `ObjectStore.flush`; neither filed nor acknowledged before.
        """
        ...

    def abort(self) -> None:
        """Remove what was written; may be called at any time, also after `seal`."""
        ...


class ObjectStore(Protocol):
    """Encrypted objects as files."""

    def create(self) -> ObjectSink:
        """Open a uniquely named temporary file; DiskFullError above the high watermark."""
        ...

    def flush(self) -> None:
        """Make all sealed objects durable: fsync of files and folders, shared by callers.

        StoreUnavailableError: none of them may be acknowledged.
        """
        ...

    def read(self, name: str, object_key: bytes) -> bytes:
        """Return the plain bytes; DamagedObjectError if changed, NotFoundError if absent."""
        ...

    def delete(self, name: str) -> None:
        """Remove the file; no error when it is gone already."""
        ...

    def names(self) -> Iterator[str]:
        """Yield the names of all sealed objects (for the start-up sweep of orphans)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A sealed object with what is known of it, ready to be filed."""

    header: Header
    sealed: Sealed
    way: Way
    source: str  # calling AE title or API client label; not a patient identifier
    at: int
    grade: int = 4  # 1 (public) to 5 (special disease), by the grading rules


class Filing(StrEnum):
    """What filing an arrival came to."""

    STORED = "stored"
    DUPLICATE = "duplicate"  # same UID, same digest: idempotent
    SECOND = "second"  # same UID, other bytes: both kept, pixels to be compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """Receipt for one arrival; `study_id` and `instance_id` are ours."""

    outcome: Filing
    study_id: str
    instance_id: str


class InstanceState(StrEnum):
    """Whether an instance takes part in analysis."""

    HELD = "held"
    SECOND = "second"  # awaits pixel comparison with the first of its UID
    SAME = "same"  # another encoding of pixels already held
    CONFLICT = "conflict"  # same UID, other pixels: quarantined, alarm raised


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A filed instance with the key to open it."""

    instance_id: str
    study_id: str
    header: Header
    object_name: str
    object_key: bytes = field(repr=False)
    digest: str
    state: InstanceState
    same_as: str = ""  # instance_id of the first with that UID
    source: str = ""  # as of its arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something a person should look at; no identifiers in it."""

    code: str
    study_id: str
    at: int


class StudyStore(Protocol):
    """Studies and instances: one row per instance, identifiers only under the study's key."""

    def file(self, arrivals: Sequence[Arrival]) -> list[Filed]:
        """File all in one durable transaction, and wake or create their studies' jobs.

        The study key is (issuer, patient id, study UID). Object keys are stored wrapped under the
        study's data key, which is stored wrapped under the box key.
        """
        ...

    def instances(self, study_id: str) -> list[Instance]:
        """Return every instance of a study in order of arrival; NotFoundError."""
        ...

    def settle(self, instance_id: str, state: InstanceState, at: int) -> None:
        """Record the outcome of a pixel comparison; CONFLICT raises an alarm. Idempotent."""
        ...

    def alarms(self) -> list[Alarm]:
        """Return the alarms, newest first."""
        ...

    def object_names(self) -> set[str]:
        """Return the object names rows refer to."""
        ...


# --- jobs and results ------------------------------------------------------------------------


class Priority(IntEnum):
    """STAT before urgent before routine; waiting earns credit, so nothing starves."""

    STAT = 0
    URGENT = 1
    ROUTINE = 2


class JobState(StrEnum):
    """Life of a study job."""

    COLLECTING = "collecting"  # instances may still arrive
    READY = "ready"
    RUNNING = "running"
    DONE = "done"  # has a result
    REFUSED = "refused"  # has a result that says why nothing was computed
    DEAD = "dead"  # failed too often: a person may replay it
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run over one study; a late image makes a new job that supersedes the last result."""

    job_id: str
    study_id: str
    state: JobState
    priority: Priority
    created: int
    updated: int
    due: int  # when a collecting or backing-off job becomes ready
    attempts: int
    reason: str  # code of the last failure or refusal
    instances: int
    result_id: str
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job came to: `body` is the canonical JSON of the result."""

    refused: bool
    reason: str
    body: bytes = field(repr=False)
    # what stands in the evidence log in plain: model, package, profile, pipeline
    refs: Mapping[str, int | str] = field(default_factory=dict)
    # pooled features of images that were read, by instance id, and of which package (64 hex
    # digits): kept for learning, so that no image is read twice
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    package: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """A finished result; `superseded_by` is set when a late image led to a newer one."""

    result_id: str
    job_id: str
    study_id: str
    created: int
    superseded_by: str
    body: bytes = field(repr=False)
    grade: int = 4  # of the study, when it was made or higher


class JobQueue(Protocol):
    """Durable queue. Every method is one transaction; a kill between any two loses nothing."""

    def lease(self, now: int) -> Job | None:
        """Take the next ready job (due ones included) and mark it RUNNING; None if none."""
        ...

    def finish(self, job: Job, outcome: Outcome, now: int) -> str:
        """Store the result and end the job in one transaction; return the result id.

        A stale lease (the job was released or finished meanwhile) raises WrongStateError and
        stores nothing, so no job ever has two results.
        """
        ...

    def fail(self, job: Job, code: str, now: int) -> JobState:
        """Back off and retry, or DEAD after the last attempt; returns the new state."""
        ...

    def recover(self, now: int) -> int:
        """At start-up: put RUNNING jobs of a dead process back to READY; return how many."""
        ...

    def complete(self, study_id: str, now: int) -> None:
        """No more instances are expected (release, count reached, by hand): due at once."""
        ...

    def replay(self, job_id: str, now: int, actor: str = BOX) -> Job:
        """Put a DEAD job back; WrongStateError otherwise, NotFoundError."""
        ...

    def cancel(self, job_id: str, now: int, actor: str = BOX) -> Job:
        """Cancel a job that is not finished; WrongStateError, NotFoundError."""
        ...

    def prioritise(self, job_id: str, priority: Priority, now: int, actor: str = BOX) -> Job:
        """Change the priority of a job that has not ended; WrongStateError, NotFoundError."""
        ...

    def job(self, job_id: str) -> Job:
        """Return one job; NotFoundError."""
        ...

    def jobs(
        self,
        *,
        states: Iterable[JobState] = (),
        study_id: str = "",
        priority: Priority | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return jobs, newest first; `jobs(study_id=...)[0]` is the study's current one."""
        ...

    def result(self, result_id: str) -> StoredResult:
        """Return one result; NotFoundError."""
        ...

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state; states without one are left out."""
        ...

    def next_due(self) -> int | None:
        """Return when the next job becomes ready, or None; lets workers sleep."""
        ...


# --- pixels and engines ----------------------------------------------------------------------


class PixelReader(Protocol):
    """From the bytes of a DICOM object to values; every failure is a coded refusal."""

    def header(self, data: bytes, *, cut: bool = False) -> Header:
        """Read the routing attributes of a Part 10 object; NotDicomError, InvalidUidError.

        With `cut` the bytes are the beginning of an object, and NotDicomError also says that its
        header goes on.
        """
        ...

    def frame(self, data: bytes) -> Frame:
        """Decode the single grey frame; a RefusedError leaf says why not."""
        ...

    def pixel_digest(self, data: bytes) -> str:
        """Return sha256 over the decoded stored values, their shape, type and grey meaning."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What really runs, read back from the compiled object, never from the request."""

    engine: str
    version: str
    device: str
    precision: str
    threads: int
    model_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Answer of the network for one image."""

    logit: float
    features: NDArray[np.float32] = field(repr=False)
    cam: NDArray[np.float32] = field(repr=False)


class Engine(Protocol):
    """A compiled model. Safe to call from several threads; never from the event loop."""

    info: EngineInfo

    def run(self, tensor: NDArray[np.float32]) -> Outputs:
        """Infer one (1, 1, H, W) float32 tensor in native order, C-contiguous.

        Raises:
            InvalidInputError: other shape, type, byte order or layout (engines misread them).
            EngineFailedError: the runtime failed.
        """
        ...

    def close(self) -> None:
        """Release the runtime; later calls raise EngineFailedError."""
        ...
