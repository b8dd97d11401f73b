"""GET /api/v1/worklist: what the worklist page shows, for other programs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from bedside_core.access import Action
from bedside_core.findings import Decision
from bedside_edge.api.gate import permitted_page
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.schemas import (
    PriorityName,
    job_path,
    priority_name,
    read_priority,
    result_path,
)
from bedside_edge.api.services import Services
from bedside_edge.ports import JobState
from bedside_edge.ports.review import ReviewState
from bedside_edge.services.worklist import Show, WorkEntry, WorkQuery

_LONGEST = 128


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerView(_View):
    """What the box said."""

    finding: str
    decision: Decision
    probability: float
    threshold: float
    undetermined: tuple[float, float]
    model: str


class WorkView(_View):
    """One study. Times are milliseconds since 1970, UTC."""

    study: str
    job: str
    state: JobState
    priority: PriorityName
    received: int
    changed: int
    age_s: Annotated[float, Field(ge=0)]
    reason: Annotated[str, Field(description="why it was not processed: a code, or empty")]
    images: int
    patient_name: str
    patient_id: str
    accession_number: str
    study_date: str
    modality: str
    body_part: str
    description: str
    result: str | None
    answer: AnswerView | None
    review: ReviewState
    grade: Annotated[int, Field(description="1 (public) to 5 (special disease)")]


class WorkList(_View):
    """GET /api/v1/worklist: open work first, then by priority, then newest."""

    total: Annotated[int, Field(description="studies that match, on all pages")]
    counts: Annotated[dict[str, int], Field(description="by part, under the same search")]
    studies: list[WorkView]


def worklist_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the route."""
    router = APIRouter(prefix="/api/v1", tags=["worklist"], responses=dict(PROBLEMS))

    @router.get(
        "/worklist",
        summary="Studies as a reader sees them, with names",
        dependencies=[needs(Action.VIEW_WORKLIST)],
    )
    async def worklist(
        request: Request,
        q: Annotated[
            str, Query(max_length=_LONGEST, description="part of a name, ID or accession number")
        ] = "",
        show: Show = Show.ALL,
        priority: PriorityName | None = None,
        limit: Annotated[int, Query(ge=1, le=2000)] = 100,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    ) -> WorkList:
        query = WorkQuery(
            text=q,
            show=show,
            priority=None if priority is None else read_priority(priority),
            offset=offset,
            limit=limit,
        )
        found = await storage.run(permitted_page, request, services, query)
        now = services.clock.now()
        return WorkList(
            total=found.total,
            counts={str(part): count for part, count in found.counts.items()},
            studies=[_view(entry, now) for entry in found.entries],
        )

    return router


def _view(entry: WorkEntry, now: int) -> WorkView:
    row, names, answer = entry.row, entry.names, entry.answer
    return WorkView(
        study=row.study_id,
        job=job_path(row.job_id),
        state=row.state,
        priority=priority_name(row.priority),
        received=row.received,
        changed=row.changed,
        age_s=max(0, now - row.received) / 1000.0,
        reason=row.reason,
        images=row.images,
        patient_name=names.patient_name if names else "",
        patient_id=names.patient_id if names else "",
        accession_number=names.accession_number if names else "",
        study_date=names.study_date if names else "",
        modality=names.modality if names else "",
        body_part=names.body_part if names else "",
        description=names.description if names else "",
        result=result_path(row.result_id) if row.result_id else None,
        answer=None
        if answer is None
        else AnswerView(
            finding=answer.finding,
            decision=answer.decision,
            probability=answer.probability,
            threshold=answer.threshold,
            undetermined=(answer.low, answer.high),
            model=answer.model,
        ),
        review=row.review,
        grade=row.grade,
    )
