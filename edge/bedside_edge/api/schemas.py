"""Bodies of the appliance API: what comes in is checked here, what goes out is written here."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bedside_core.errors import InvalidRequestError
from bedside_edge.ports import Alarm, Job, JobState, Priority, StoredResult

PriorityName = Literal["stat", "urgent", "routine"]
_PRIORITIES = {str(level.name).lower(): level for level in Priority}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PriorityBody(_Body):
    """POST /api/v1/jobs/{id}:priority."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    priority: PriorityName


class JobView(_Body):
    """A study job. Times are milliseconds since 1970, UTC."""

    id: str
    study: str
    state: JobState
    priority: PriorityName
    created: int
    updated: int
    due: int
    age_s: Annotated[float, Field(ge=0)]
    attempts: int
    instances: int
    reason: Annotated[str, Field(description="code of the last refusal or failure, or empty")]
    result: Annotated[str | None, Field(description="path of the result, when there is one")]


class JobList(_Body):
    """GET /api/v1/jobs, newest first."""

    jobs: list[JobView]


class AlarmView(_Body):
    """Something a person should look at."""

    code: str
    study: str
    at: int


class AlarmList(_Body):
    """GET /api/v1/alarms, newest first."""

    alarms: list[AlarmView]


class ResultView(_Body):
    """A result with its place in the study's history."""

    id: str
    job: str
    study: str
    created: int
    grade: Annotated[int, Field(description="1 (public) to 5 (special disease)")]
    superseded_by: Annotated[str | None, Field(description="a newer result of the same study")]
    result: Annotated[dict[str, Any], Field(description="document of format bedside-result/1")]


class CheckView(_Body):
    """One readiness check."""

    ok: bool
    reason: str


class Readiness(_Body):
    """GET /readyz."""

    ready: bool
    checks: dict[str, CheckView]


class Problem(BaseModel):
    """RFC 9457; `type` ends in a code of docs/errors.md."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


def read_priority(name: str) -> Priority:
    """Return the priority called `name`.

    Raises:
        InvalidRequestError: there is none of that name.
    """
    try:
        return _PRIORITIES[name]
    except KeyError:
        raise InvalidRequestError("priority is one of stat, urgent, routine") from None


def job_view(job: Job, now: int) -> JobView:
    """Return a job as the API shows it."""
    return JobView(
        id=job.job_id,
        study=job.study_id,
        state=job.state,
        priority=priority_name(job.priority),
        created=job.created,
        updated=job.updated,
        due=job.due,
        age_s=max(0, now - job.created) / 1000.0,
        attempts=job.attempts,
        instances=job.instances,
        reason=job.reason,
        result=result_path(job.result_id) if job.result_id else None,
    )


def result_path(result_id: str) -> str:
    """Return the path of a result."""
    return f"/api/v1/results/{result_id}"


def job_path(job_id: str) -> str:
    """Return the path of a job."""
    return f"/api/v1/jobs/{job_id}"


def alarm_view(alarm: Alarm) -> AlarmView:
    """Return an alarm as the API shows it."""
    return AlarmView(code=alarm.code, study=alarm.study_id, at=alarm.at)


def result_json(stored: StoredResult) -> bytes:
    """Return a `ResultView` around the stored canonical bytes, which stay as they are."""
    head = ResultView(
        id=stored.result_id,
        job=stored.job_id,
        study=stored.study_id,
        created=stored.created,
        grade=stored.grade,
        superseded_by=result_path(stored.superseded_by) if stored.superseded_by else None,
        result={},
    ).model_dump_json(exclude={"result"})
    return head[:-1].encode() + b',"result":' + stored.body + b"}"


def priority_name(priority: Priority) -> PriorityName:
    """Return what the API calls a priority."""
    names: dict[Priority, PriorityName] = {
        Priority.STAT: "stat",
        Priority.URGENT: "urgent",
        Priority.ROUTINE: "routine",
    }
    return names[priority]
