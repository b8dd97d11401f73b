"""Bodies of the routes about erasure, legal hold and retention. Times: milliseconds since 1970."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bedside_edge.ports.erasure import Elsewhere, Erasure, ErasurePlan, ErasureState, Hold
from bedside_edge.services.retention import RetentionPlan

Reason = Literal["request", "withdrawal", "administrative"]
_OURS = "These copies are not the box's to erase; ask whoever runs the archive."


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PatientBody(_View):
    """POST /api/v1/subjects:find."""

    patient_id: Annotated[str, Field(min_length=1, max_length=64)]
    issuer: Annotated[str, Field(max_length=64)] = ""


class SubjectView(_View):
    """One patient, by the box's own id."""

    id: str
    identified: bool
    studies: list[str]


class ElsewhereView(_View):
    """Objects of the box in an archive."""

    destination: str
    objects: int
    arrived: bool
    sop_instance_uids: list[str]


class PlanView(_View):
    """What an erasure would destroy."""

    scope: str
    target: str
    studies: list[str]
    objects: int
    bytes: int
    results: int
    open_jobs: int
    open_deliveries: int
    held: list[str]
    elsewhere: list[ElsewhereView]
    note: str


class ErasureView(_View):
    """An erasure; `certificate` is the path of its proof once it is done."""

    id: str
    scope: str
    target: str
    state: str
    reason: str
    actor: str
    at: int
    done_at: int
    studies: int
    objects: int
    entry: int
    elsewhere: list[ElsewhereView]
    note: str
    certificate: str


class ErasureList(_View):
    """GET /api/v1/erasures."""

    erasures: list[ErasureView]


class HoldBody(_View):
    """POST /api/v1/studies/{study_id}/hold."""

    reason: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    review_at: Annotated[int, Field(ge=0)]


class HoldView(_View):
    """One legal hold."""

    id: str
    study: str
    reason: str
    actor: str
    at: int
    review_at: int
    overdue: bool
    released_at: int
    released_by: str


class HoldList(_View):
    """GET /api/v1/holds."""

    holds: list[HoldView]


class VerdictView(_View):
    """What becomes of one study."""

    study: str
    goes: bool
    reason: str
    bytes: int
    received: int


class RetentionView(_View):
    """GET /api/v1/retention/plan."""

    used: int
    total: int
    needed: int
    freed: int
    goes: int
    stays: dict[str, int]
    studies: list[VerdictView]


class SweepView(_View):
    """POST /api/v1/retention:run."""

    erased: int


def plan_view(plan: ErasurePlan) -> PlanView:
    """Return a plan as the API tells it."""
    return PlanView(
        scope=plan.scope,
        target=plan.target,
        studies=list(plan.studies),
        objects=plan.objects,
        bytes=plan.size,
        results=plan.results,
        open_jobs=plan.open_jobs,
        open_deliveries=plan.open_deliveries,
        held=list(plan.held),
        elsewhere=[_elsewhere(one) for one in plan.elsewhere],
        note=_OURS if plan.elsewhere else "",
    )


def erasure_view(erasure: Erasure) -> ErasureView:
    """Return an erasure as the API tells it."""
    done = erasure.state is ErasureState.DONE
    return ErasureView(
        id=erasure.erasure_id,
        scope=erasure.scope,
        target=erasure.target,
        state=erasure.state,
        reason=erasure.reason,
        actor=erasure.actor,
        at=erasure.at,
        done_at=erasure.done_at,
        studies=len(erasure.studies),
        objects=len(erasure.objects),
        entry=erasure.entry,
        elsewhere=[_elsewhere(one) for one in erasure.elsewhere],
        note=_OURS if erasure.elsewhere else "",
        certificate=certificate_path(erasure.erasure_id) if done else "",
    )


def hold_view(hold: Hold, now: int) -> HoldView:
    """Return a hold as the API tells it."""
    return HoldView(
        id=hold.hold_id,
        study=hold.study_id,
        reason=hold.reason,
        actor=hold.actor,
        at=hold.at,
        review_at=hold.review_at,
        overdue=not hold.released_at and hold.review_at <= now,
        released_at=hold.released_at,
        released_by=hold.released_by,
    )


def retention_view(plan: RetentionPlan, most: int) -> RetentionView:
    """Return a plan with its first `most` studies; the counts are of all."""
    stays: dict[str, int] = {}
    for verdict in plan.verdicts:
        if not verdict.goes:
            stays[verdict.reason] = stays.get(verdict.reason, 0) + 1
    return RetentionView(
        used=plan.used,
        total=plan.total,
        needed=plan.needed,
        freed=plan.freed,
        goes=sum(verdict.goes for verdict in plan.verdicts),
        stays=stays,
        studies=[
            VerdictView(
                study=verdict.study.study_id,
                goes=verdict.goes,
                reason=verdict.reason,
                bytes=verdict.study.size,
                received=verdict.study.received,
            )
            for verdict in plan.verdicts[:most]
        ],
    )


def certificate_path(erasure_id: str) -> str:
    """Return where the certificate of an erasure is fetched."""
    return f"/api/v1/erasures/{erasure_id}/certificate"


def _elsewhere(one: Elsewhere) -> ElsewhereView:
    return ElsewhereView(
        destination=one.destination,
        objects=one.count,
        arrived=one.arrived,
        sop_instance_uids=list(one.objects),
    )
