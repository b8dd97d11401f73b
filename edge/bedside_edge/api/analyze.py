"""POST /api/v1/studies:analyze: take a study in, analyse it now, answer with job or result."""

import json
import re
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl

from bedside_core.errors import (
    BedsideError,
    InternalError,
    InvalidInputError,
    InvalidRequestError,
    WrongStateError,
)
from bedside_core.uses import Thing, Use
from bedside_edge.api import schemas
from bedside_edge.api.errors import problem_reply
from bedside_edge.api.intake import Intake
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.once import Once
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.reply import RawHeaders, Reply, Request
from bedside_edge.api.room import Room
from bedside_edge.api.services import Services
from bedside_edge.api.upload import DICOM, MULTIPART_FORM, MULTIPART_RELATED, receive_upload
from bedside_edge.config import Http
from bedside_edge.ports import Filed, Job, JobState, Priority, StoredResult, Way
from bedside_edge.services.gate import asker_of

PATH = re.compile(r"/api/v1/studies:analyze")
_ROUTE = "POST /api/v1/studies:analyze"
KINDS = (DICOM, MULTIPART_RELATED, MULTIPART_FORM)

_ENDED = frozenset({JobState.DONE, JobState.REFUSED, JobState.DEAD, JobState.CANCELLED})
_TURN_S = 0.5  # a waiting thread looks up this often: whether the service stops
_SHORT_TURN_S = 0.05  # when there are more waiting requests than threads to wait in
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", re.IGNORECASE)


class AnalyzeHandler:
    """Stores one study, completes it, and waits for its job if asked to."""

    def __init__(
        self,
        services: Services,
        *,
        storage: WorkPool,
        waiting: WorkPool,
        metrics: Metrics,
        settings: Http,
        stopping: Callable[[], bool],
        room: Room,
    ) -> None:
        self._room = room
        self._services, self._storage, self._waiting = services, storage, waiting
        self._metrics, self._settings, self._stopping = metrics, settings, stopping
        self._once = Once(services)

    async def __call__(self, request: Request) -> Reply:
        """Answer 200 with the result, 202 with the job, or a problem with the refusal's code.

        Raises:
            BedsideError: the upload cannot be used; nothing of it is kept. Or
                ConflictingInstanceError: it is kept, in quarantine.
        """
        priority = read_query(request.query)
        wait_s = min(read_wait(request.headers), self._settings.max_wait_s)
        deadline = time.monotonic() + wait_s
        intake = Intake(
            self._services.ingest,
            Way.HTTP,
            max_parts=self._settings.max_parts,
            observe=self._metrics.received,
        )

        key = request.headers.get(b"idempotency-key", b"").decode("latin-1")

        def finish() -> Job:
            _check(intake)
            if not key or request.actor is None:
                return self._start(intake, priority)

            def start() -> str:
                return self._start(intake, priority).job_id

            asked = request.query + b"\0" + _digests(intake)
            job_id = self._once.do(request.actor, _ROUTE, key, asked, start)
            intake.abort()  # what a repeated request brought again
            return self._services.jobs.queue.job(job_id)

        with self._room.upload():
            job = await receive_upload(
                request,
                intake,
                kinds=KINDS,
                pool=self._storage,
                settings=self._settings,
                finish=finish,
            )
        if wait_s:
            job = await self._ended(job, deadline)
            if job.state in _ENDED:
                return await self._final(job, request, wait_s)
        body = schemas.job_view(job, self._services.clock.now()).model_dump_json().encode()
        headers = [_header("location", schemas.job_path(job.job_id)), _header("retry-after", "1")]
        return Reply(status=202, body=body, headers=headers)

    def _start(self, intake: Intake, priority: Priority | None) -> Job:
        """File one checked study whole or not at all, and make it due; in a storage thread."""
        intake.file()
        receipts = [item.receipt for item in intake.items if item.receipt is not None]
        if not receipts:
            raise _first_error(intake)
        job = self._make_due(receipts[0], priority)
        for item in intake.items:
            if item.error is not None:
                raise item.error
        return job

    def _make_due(self, receipt: Filed, priority: Priority | None) -> Job:
        queue, now = self._services.jobs.queue, self._services.clock.now()
        jobs = queue.jobs(study_id=receipt.study_id, limit=1)
        if not jobs:
            raise InternalError("a filed study has no job")
        job = jobs[0]
        if job.state in _ENDED:
            return job  # the same bytes again: the same job, the same result
        if priority is not None:
            try:
                queue.prioritise(job.job_id, priority, now)
            except WrongStateError:  # it ended meanwhile
                return queue.job(job.job_id)
        self._services.ingest.complete([receipt.study_id])
        return queue.job(job.job_id)

    async def _ended(self, job: Job, deadline: float) -> Job:
        """Wait in short turns, so that neither a stop nor many waiters hold a thread for long."""
        while job.state not in _ENDED and not self._stopping():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            turn = min(left, _SHORT_TURN_S if self._waiting.crowded else _TURN_S)
            job = await self._waiting.run(self._services.jobs.wait, job.job_id, turn)
        return job

    async def _final(self, job: Job, request: Request, wait_s: float) -> Reply:
        headers: RawHeaders = [
            _header("preference-applied", f"wait={wait_s:g}"),
            _header("location", schemas.job_path(job.job_id)),
        ]
        stored = None
        if job.result_id:
            stored = await self._storage.run(self._services.jobs.queue.result, job.result_id)
            headers.append(_header("content-location", schemas.result_path(job.result_id)))
        if stored is not None and request.actor is not None:
            asker, gate = asker_of(request.actor), self._services.gate
            view = partial(gate.study, Use.VIEW, asker, job.study_id, thing=Thing.RESULT)
            (await self._storage.run(view)).must()
        if job.state is JobState.DONE and stored is not None:
            return Reply(status=200, body=schemas.result_json(stored), headers=headers)
        code = job.reason or WrongStateError.code
        reply = problem_reply(
            code,
            _detail(job, stored),
            request.request_id,
            job=schemas.job_path(job.job_id),
            result=schemas.result_path(job.result_id) if job.result_id else None,
        )
        return Reply(
            status=reply.status,
            body=reply.body,
            content_type=reply.content_type,
            headers=[*reply.headers, *headers],
        )


def read_query(query: bytes) -> Priority | None:
    """Return the priority asked for, None when the sender's usual one holds.

    Raises:
        InvalidRequestError: an unknown parameter or priority.
    """
    priority = None
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name != "priority":
            raise InvalidRequestError("the only query parameter is priority")
        priority = schemas.read_priority(value)
    return priority


def read_wait(headers: dict[bytes, bytes]) -> float:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), 0 when the client does not wait."""
    found = _WAIT.search(headers.get(b"prefer", b"").decode("latin-1"))
    return float(found[1]) if found else 0.0


def _check(intake: Intake) -> None:
    """One request is one study, and every part of it is good.

    Raises:
        BedsideError: of the first part that is not.
    """
    if not intake.items:
        raise InvalidInputError("the request holds no instance")
    for item in intake.items:
        if item.error is not None:
            raise item.error
    if len({(h.issuer, h.patient_id, h.study_uid) for i in intake.items if (h := i.header)}) > 1:
        raise InvalidInputError("one request is one study: these instances are of several")


def _digests(intake: Intake) -> bytes:
    """What was sent, however it was packed: digests of the instances."""
    found = sorted(item.arrival.sealed.digest for item in intake.items if item.arrival)
    return " ".join(found).encode()


def _first_error(intake: Intake) -> BedsideError:
    for item in intake.items:
        if item.error is not None:
            return item.error
    return InternalError("an instance was neither filed nor refused")


def _detail(job: Job, stored: StoredResult | None) -> str:
    """Return why there is no value, in the words of the result document when there is one."""
    if job.state is JobState.DEAD:
        return "the box failed at this study; a person may replay the job"
    if job.state is JobState.CANCELLED:
        return "the job was cancelled"
    reason = json.loads(stored.body).get("reason") if stored else None
    return str(reason["detail"]) if reason else "the study was not processed"


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    return name.encode(), value.encode()
