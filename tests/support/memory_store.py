"""Simulators of KeyStore, ObjectStore, StudyStore and JobQueue without a disk.

They pass the same contract tests as the real adapters (tests/contract). What would be on the disk
is a `MemoryDisk`: opening a second `MemoryState` on it stands for a restart, and `power_cut` first
drops what was never flushed.
"""

import hashlib
import hmac
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bedside_core.errors import (
    DamagedObjectError,
    DiskFullError,
    InvalidInputError,
    NotFoundError,
    WrongStateError,
)
from bedside_edge.ports import (
    Alarm,
    Arrival,
    Filed,
    Filing,
    Instance,
    InstanceState,
    Job,
    JobState,
    Outcome,
    Priority,
    RandomBytes,
    Sealed,
    StoredResult,
)
from bedside_edge.ports.evidence import BOX
from bedside_edge.ports.subjects import Subject, SubjectFacts
from bedside_edge.store.rules import CompletionRules, RetryRules, new_id, score
from support.fake_clock import SeededBytes

OPEN = (JobState.COLLECTING, JobState.READY)
UNENDED = (*OPEN, JobState.RUNNING)


@dataclass
class MemoryDisk:
    """What survives a restart."""

    box: bytes = b"box"
    objects: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)  # name -> key, data
    unflushed: set[str] = field(default_factory=set)
    studies: dict[tuple[str, str, str], str] = field(default_factory=dict)
    subjects: dict[tuple[str, ...], Subject] = field(default_factory=dict)
    facts: dict[str, SubjectFacts] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)  # in order of creation
    interruptions: dict[str, int] = field(default_factory=dict)
    results: dict[str, StoredResult] = field(default_factory=dict)
    alarms: list[tuple[Alarm, str]] = field(default_factory=list)
    random: RandomBytes = field(default_factory=lambda: SeededBytes("memory"))
    full: bool = False

    def power_cut(self) -> None:
        """Lose what no flush made durable."""
        for name in self.unflushed:
            self.objects.pop(name, None)
        self.unflushed.clear()


class MemoryKeys:
    """`KeyStore`: keyed hashes as cipher; good enough to notice a wrong context or box."""

    def __init__(self, box: bytes = b"box", random: RandomBytes | None = None) -> None:
        self._box = box
        self._random = random or SeededBytes("keys")

    def wrap(self, key: bytes, context: bytes) -> bytes:
        nonce = self._random(16)
        hidden = bytes(a ^ b for a, b in zip(key, self._stream(nonce, len(key)), strict=True))
        return nonce + hidden + self._tag(nonce + hidden, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        body, tag = wrapped[:-32], wrapped[-32:]
        if len(body) < 16 or not hmac.compare_digest(tag, self._tag(body, context)):
            raise DamagedObjectError("a wrapped key does not open under this box key")
        nonce, hidden = body[:16], body[16:]
        return bytes(a ^ b for a, b in zip(hidden, self._stream(nonce, len(hidden)), strict=True))

    def lookup(self, label: str, value: bytes) -> str:
        name = label.encode()
        message = b"lookup" + len(name).to_bytes(2, "big") + name + value
        return hmac.new(self._box, message, hashlib.sha256).hexdigest()[:32]

    def wrap_with(self, secret: bytes, key: bytes, context: bytes) -> bytes:
        return MemoryKeys(self._box + secret, self._random).wrap(key, context)

    def unwrap_with(self, secret: bytes, wrapped: bytes, context: bytes) -> bytes:
        return MemoryKeys(self._box + secret).unwrap(wrapped, context)

    def mac(self, label: str, value: bytes) -> bytes:
        return self._tag(value, b"mac" + label.encode())

    def _stream(self, nonce: bytes, count: int) -> bytes:
        return hashlib.shake_256(self._box + nonce).digest(count)

    def _tag(self, body: bytes, context: bytes) -> bytes:
        message = b"tag" + len(context).to_bytes(4, "big") + context + body
        return hmac.new(self._box, message, hashlib.sha256).digest()


class MemorySink:
    """`ObjectSink` into a list of chunks."""

    def __init__(self, store: "MemoryObjects") -> None:
        self._store = store
        self._parts: list[bytes] | None = []
        self._name = ""

    def write(self, data: bytes | memoryview) -> None:
        if self._parts is None:
            raise WrongStateError("the object is sealed or given up")
        if self._store.disk.full:
            self.abort()
            raise DiskFullError("the disk is full; the object was not stored")
        self._parts.append(bytes(data))

    def seal(self, digest: str) -> Sealed:
        if self._parts is None:
            raise WrongStateError("the object is sealed or given up")
        data, key = b"".join(self._parts), self._store.random(32)
        self._parts = None
        self._name = self._store.random(32).hex()
        self._store.disk.objects[self._name] = (key, data)
        self._store.disk.unflushed.add(self._name)
        return Sealed(name=self._name, object_key=key, size=len(data), digest=digest)

    def abort(self) -> None:
        self._parts = None
        if self._name:
            self._store.delete(self._name)


class MemoryObjects:
    """`ObjectStore` in a dictionary."""

    def __init__(self, disk: MemoryDisk, random: RandomBytes) -> None:
        self.disk = disk
        self.random = random

    def create(self) -> MemorySink:
        if self.disk.full:
            raise DiskFullError("the state folder is above its high watermark")
        return MemorySink(self)

    def flush(self) -> None:
        self.disk.unflushed.clear()

    def read(self, name: str, object_key: bytes) -> bytes:
        if name not in self.disk.objects:
            raise NotFoundError("no object of that name")
        key, data = self.disk.objects[name]
        if key != object_key:
            raise DamagedObjectError("a stored object fails its authentication tag")
        return data

    def delete(self, name: str) -> None:
        self.disk.objects.pop(name, None)
        self.disk.unflushed.discard(name)

    def names(self) -> Iterator[str]:
        yield from list(self.disk.objects)


class MemoryStudies:
    """`StudyStore` over lists."""

    def __init__(
        self, disk: MemoryDisk, random: RandomBytes, rules: CompletionRules, lock: Any
    ) -> None:
        self._disk = disk
        self._random = random
        self._rules = rules
        self._lock = lock

    def file(self, arrivals: Sequence[Arrival]) -> list[Filed]:
        with self._lock:
            return [self._file(arrival) for arrival in arrivals]

    def instances(self, study_id: str) -> list[Instance]:
        if study_id not in self._disk.studies.values():
            raise NotFoundError("no study of that id")
        return [i for i in self._disk.instances if i.study_id == study_id]

    def settle(self, instance_id: str, state: InstanceState, at: int) -> None:
        if state not in (InstanceState.SAME, InstanceState.CONFLICT):
            raise InvalidInputError("a comparison ends as same or as conflict")
        with self._lock:
            found = [n for n, i in enumerate(self._disk.instances) if i.instance_id == instance_id]
            if not found:
                raise NotFoundError("no instance of that id")
            index, held = found[0], self._disk.instances[found[0]]
            if held.state is state:
                return
            if held.state is not InstanceState.SECOND:
                raise WrongStateError("the instance does not wait for a comparison")
            self._disk.instances[index] = replace(held, state=state)
            if state is InstanceState.CONFLICT:
                self._alarm("conflicting-instance", held.study_id, instance_id, at)

    def alarms(self) -> list[Alarm]:
        return [alarm for alarm, _ in reversed(self._disk.alarms)]

    def object_names(self) -> set[str]:
        return {i.object_name for i in self._disk.instances}

    def _alarm(self, code: str, study_id: str, instance_id: str, at: int) -> None:
        self._disk.alarms.append((Alarm(code=code, study_id=study_id, at=at), instance_id))

    def _file(self, arrival: Arrival) -> Filed:
        disk, header = self._disk, arrival.header
        patient = (header.issuer, header.patient_id, header.study_uid)
        if patient not in disk.studies:
            disk.studies[patient] = new_id(self._random)
            self._enter(arrival, disk.studies[patient])
        study_id = disk.studies[patient]
        disk.expected[study_id] = max(disk.expected.get(study_id, 0), header.expected_instances)
        held = [i for i in disk.instances if i.header.sop_instance_uid == header.sop_instance_uid]
        here = [i for i in held if i.study_id == study_id]
        for first in here:
            if first.digest == arrival.sealed.digest:
                return Filed(
                    outcome=Filing.DUPLICATE, study_id=study_id, instance_id=first.instance_id
                )
        instance = Instance(
            instance_id=new_id(self._random),
            study_id=study_id,
            header=header,
            object_name=arrival.sealed.name,
            object_key=arrival.sealed.object_key,
            digest=arrival.sealed.digest,
            state=InstanceState.SECOND if here else InstanceState.HELD,
            same_as=here[0].instance_id if here else "",
            source=arrival.source,
        )
        disk.instances.append(instance)
        if held and not here:
            self._alarm("instance-in-two-studies", study_id, instance.instance_id, arrival.at)
        self._wake(study_id, arrival)
        outcome = Filing.SECOND if here else Filing.STORED
        return Filed(outcome=outcome, study_id=study_id, instance_id=instance.instance_id)

    def _enter(self, arrival: Arrival, study_id: str) -> None:
        disk, header = self._disk, arrival.header
        unknown = ("study", header.study_uid)
        key = (header.issuer, header.patient_id, "") if header.patient_id else unknown
        subject = disk.subjects.get(key) or Subject(
            subject_id=new_id(self._random),
            identified=bool(header.patient_id),
            created=arrival.at,
            studies=(),
        )
        disk.subjects[key] = replace(subject, studies=(*subject.studies, study_id))
        held = disk.facts.get(subject.subject_id, SubjectFacts())
        disk.facts[subject.subject_id] = SubjectFacts(
            birth_date=header.birth_date or held.birth_date,
            sex=header.sex or held.sex,
            age=header.age or held.age,
            age_on=header.study_date if header.age else held.age_on,
        )

    def _wake(self, study_id: str, arrival: Arrival) -> None:
        disk, now = self._disk, arrival.at
        priority = self._rules.priority(arrival.header, arrival.source)
        open_jobs = [j for j in disk.jobs if j.study_id == study_id and j.state in OPEN]
        if not open_jobs:
            job = Job(
                job_id=new_id(self._random),
                study_id=study_id,
                state=JobState.COLLECTING,
                priority=priority,
                created=now,
                updated=now,
                due=now,
                attempts=0,
                reason="",
                instances=0,
                result_id="",
            )
            disk.jobs.append(job)
            open_jobs.append(job)
        held = [i for i in disk.instances if i.study_id == study_id]
        job = replace(open_jobs[-1], updated=now, instances=len(held))
        if job.state is JobState.COLLECTING:
            whole = 0 < disk.expected[study_id] <= sum(not i.same_as for i in held)
            job = replace(
                job,
                state=JobState.READY if whole else JobState.COLLECTING,
                due=now if whole else self._rules.due(arrival.source, now, job.created),
            )
        put(disk, job)
        hasten(disk, study_id, priority, now)


class MemorySubjects:
    """`SubjectStore` over dictionaries."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk

    def subject_of(self, study_id: str) -> str:
        for subject in self._disk.subjects.values():
            if study_id in subject.studies:
                return subject.subject_id
        raise NotFoundError("no study of that id")

    def studies_of(self, subject_id: str) -> list[str]:
        return list(self.subject(subject_id).studies)

    def find(self, issuer: str, patient_id: str) -> str:
        if (issuer, patient_id, "") not in self._disk.subjects:
            raise NotFoundError("no patient of that id")
        return self._disk.subjects[issuer, patient_id, ""].subject_id

    def subject(self, subject_id: str) -> Subject:
        for subject in self._disk.subjects.values():
            if subject.subject_id == subject_id:
                return subject
        raise NotFoundError("no subject of that id")

    def facts(self, subject_id: str) -> SubjectFacts:
        return self._disk.facts[self.subject(subject_id).subject_id]

    def commitment_key(self, subject_id: str) -> bytes:
        name = self.subject(subject_id).subject_id
        return hmac.new(self._disk.box, name.encode(), hashlib.sha256).digest()


class MemoryJobs:
    """`JobQueue` over a list."""

    def __init__(
        self,
        disk: MemoryDisk,
        random: RandomBytes,
        completion: CompletionRules,
        retries: RetryRules,
        lock: Any,
    ) -> None:
        self._disk = disk
        self._random = random
        self._completion = completion
        self._retries = retries
        self._lock = lock

    def lease(self, now: int) -> Job | None:
        with self._lock:
            latest = now + self._longest_wait()
            ready = [j for j in self._free() if j.due <= now or j.due > latest]
            if not ready:
                return None
            job = min(ready, key=lambda j: score(j.created, j.priority))  # first of equals
            held = sum(i.study_id == job.study_id for i in self._disk.instances)
            return put(
                self._disk,
                replace(
                    job,
                    state=JobState.RUNNING,
                    lease=new_id(self._random),
                    attempts=job.attempts + 1,
                    updated=now,
                    instances=held,
                ),
            )

    def finish(self, job: Job, outcome: Outcome, now: int) -> str:
        with self._lock:
            held = self._leased(job)
            result_id = new_id(self._random)
            for old in list(self._disk.results.values()):
                if old.study_id == held.study_id and not old.superseded_by:
                    self._disk.results[old.result_id] = replace(old, superseded_by=result_id)
            self._disk.results[result_id] = StoredResult(
                result_id=result_id,
                job_id=held.job_id,
                study_id=held.study_id,
                created=now,
                superseded_by="",
                body=outcome.body,
            )
            state = JobState.REFUSED if outcome.refused else JobState.DONE
            ended = replace(held, state=state, reason=outcome.reason, result_id=result_id)
            put(self._disk, replace(ended, lease="", updated=now))
            return result_id

    def fail(self, job: Job, code: str, now: int) -> JobState:
        with self._lock:
            held = self._leased(job)
            last = held.attempts >= self._retries.attempts
            state = JobState.DEAD if last else JobState.READY
            due = held.due if last else now + self._retries.wait(held.attempts)
            put(self._disk, replace(held, state=state, reason=code, due=due, updated=now, lease=""))
            return state

    def recover(self, now: int) -> int:
        with self._lock:
            running = [j for j in self._disk.jobs if j.state is JobState.RUNNING]
            for job in running:
                deaths = self._disk.interruptions.get(job.job_id, 0) + 1
                self._disk.interruptions[job.job_id] = deaths
                last = deaths >= self._retries.interruptions
                put(
                    self._disk,
                    replace(
                        job,
                        state=JobState.DEAD if last else JobState.READY,
                        due=now + self._retries.wait_interrupted(deaths),
                        updated=now,
                        reason="interrupted",
                        lease="",
                        attempts=max(0, job.attempts - 1),
                    ),
                )
            longest = now + self._longest_wait()
            for job in self._disk.jobs:
                if job.state in OPEN and job.due > longest:
                    put(self._disk, replace(job, due=longest))
            return len(running)

    def complete(self, study_id: str, now: int) -> None:
        with self._lock:
            for job in self._disk.jobs:
                if job.study_id == study_id and job.state is JobState.COLLECTING:
                    put(self._disk, replace(job, state=JobState.READY, due=now, updated=now))

    def replay(self, job_id: str, now: int, actor: str = BOX) -> Job:
        with self._lock:
            job = self._allowed(job_id, (JobState.DEAD,))
            self._disk.interruptions.pop(job_id, None)
            return put(
                self._disk, replace(job, state=JobState.READY, due=now, updated=now, attempts=0)
            )

    def cancel(self, job_id: str, now: int, actor: str = BOX) -> Job:
        with self._lock:
            job = self._allowed(job_id, (*UNENDED, JobState.DEAD))
            return put(self._disk, replace(job, state=JobState.CANCELLED, lease="", updated=now))

    def prioritise(self, job_id: str, priority: Priority, now: int, actor: str = BOX) -> Job:
        with self._lock:
            job = self._allowed(job_id, UNENDED)
            put(self._disk, replace(job, priority=priority, updated=now))
            hasten(self._disk, job.study_id, priority, now)
            return self.job(job_id)

    def job(self, job_id: str) -> Job:
        for job in self._disk.jobs:
            if job.job_id == job_id:
                return job
        raise NotFoundError("no job of that id")

    def jobs(
        self,
        *,
        states: Iterable[JobState] = (),
        study_id: str = "",
        priority: Priority | None = None,
        limit: int = 100,
    ) -> list[Job]:
        wanted = set(states) or set(JobState)
        found = [
            j
            for j in reversed(self._disk.jobs)
            if j.state in wanted and study_id in ("", j.study_id) and priority in (None, j.priority)
        ]
        return found[: max(0, limit)]

    def result(self, result_id: str) -> StoredResult:
        if result_id not in self._disk.results:
            raise NotFoundError("no result of that id")
        return self._disk.results[result_id]

    def counts(self) -> dict[JobState, int]:
        return dict(Counter(job.state for job in self._disk.jobs))

    def next_due(self) -> int | None:
        return min((j.due for j in self._free()), default=None)

    def _longest_wait(self) -> int:
        return max(self._completion.max_wait_ms, *self._retries.backoff_ms)

    def _free(self) -> list[Job]:
        """Open jobs that no other job of their study has to end before."""
        taken = {j.study_id for j in self._disk.jobs if j.state is JobState.RUNNING}
        free = []
        for job in self._disk.jobs:
            if job.state in OPEN and job.study_id not in taken:
                taken.add(job.study_id)
                free.append(job)
        return free

    def _leased(self, job: Job) -> Job:
        held = self.job(job.job_id)
        if held.state is not JobState.RUNNING or held.lease != job.lease or not job.lease:
            raise WrongStateError("the lease on this job has ended")
        return held

    def _allowed(self, job_id: str, states: tuple[JobState, ...]) -> Job:
        job = self.job(job_id)
        if job.state not in states:
            raise WrongStateError("the job is not in a state that allows this")
        return job


def put(disk: MemoryDisk, job: Job) -> Job:
    """Write `job` over the one of its id."""
    index = next(n for n, old in enumerate(disk.jobs) if old.job_id == job.job_id)
    disk.jobs[index] = job
    return job


def hasten(disk: MemoryDisk, study_id: str, priority: Priority, now: int) -> None:
    """Make every job of the study that has not ended at least as urgent as `priority`."""
    for job in list(disk.jobs):
        if job.study_id == study_id and job.state in UNENDED and job.priority > priority:
            put(disk, replace(job, priority=priority, updated=now))


class MemoryState:
    """The same members as `bedside_edge.store.state.State`."""

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        *,
        completion: CompletionRules | None = None,
        retries: RetryRules | None = None,
    ) -> None:
        self.disk = disk or MemoryDisk()
        random = self.disk.random
        completion, retries = completion or CompletionRules(), retries or RetryRules()
        lock = threading.RLock()
        self.keys = MemoryKeys(self.disk.box)
        self.objects = MemoryObjects(self.disk, random)
        self.studies = MemoryStudies(self.disk, random, completion, lock)
        self.subjects = MemorySubjects(self.disk)
        self.jobs = MemoryJobs(self.disk, random, completion, retries, lock)

    def close(self) -> None:
        """Nothing to close: everything is on the `MemoryDisk`."""
