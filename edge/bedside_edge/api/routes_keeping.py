"""Routes about erasing, holding and keeping: for the privacy officer, never for a reader."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from bedside_core.access import Action
from bedside_edge.api import schemas_keeping as schemas
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.schemas_keeping import (
    ErasureList,
    ErasureView,
    HoldBody,
    HoldList,
    HoldView,
    PatientBody,
    PlanView,
    Reason,
    RetentionView,
    SubjectView,
    SweepView,
)
from bedside_edge.api.services import Services
from bedside_edge.ports.erasure import ErasurePlan
from bedside_edge.services.gate import asker_of

_RIGHTS = [needs(Action.MANAGE_CONSENT)]
_RULES = [needs(Action.MANAGE_POLICY)]
_MOST = 10_000


def erasure_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes that erase and prove it; what takes long runs in `waiting`."""
    router = APIRouter(prefix="/api/v1", tags=["erasure"], responses=dict(PROBLEMS))

    def erased(request: Request, response: Response, plan: ErasurePlan, reason: str) -> ErasureView:
        asker = asker_of(actor_of(request))
        done = services.keeping.erase(services.gate, asker, plan, reason=reason)
        response.headers["Location"] = f"/api/v1/erasures/{done.erasure_id}"
        return schemas.erasure_view(done)

    @router.post("/subjects:find", summary="Which patient is that?", dependencies=_RIGHTS)
    async def find_subject(body: PatientBody) -> SubjectView:
        def look() -> SubjectView:
            subjects = services.keeping.subjects
            found = subjects.subject(subjects.find(body.issuer, body.patient_id))
            return SubjectView(
                id=found.subject_id, identified=found.identified, studies=list(found.studies)
            )

        return await storage.run(look)

    @router.get(
        "/studies/{study_id}/erasure",
        summary="What erasing a study would destroy; nothing is",
        dependencies=_RIGHTS,
    )
    async def plan_study(study_id: str) -> PlanView:
        plan = await storage.run(services.keeping.erasure.plan_study, study_id)
        return schemas.plan_view(plan)

    @router.delete(
        "/studies/{study_id}",
        summary="Erase a study for good: keys, rows, files",
        status_code=202,
        dependencies=_RIGHTS,
    )
    async def erase_study(
        study_id: str,
        request: Request,
        response: Response,
        reason: Annotated[Reason, Query()] = "request",
    ) -> ErasureView:
        def work() -> ErasureView:
            plan = services.keeping.erasure.plan_study(study_id)
            return erased(request, response, plan, reason)

        return await waiting.run(work)

    @router.get(
        "/subjects/{subject_id}/erasure",
        summary="What erasing a patient would destroy; nothing is",
        dependencies=_RIGHTS,
    )
    async def plan_subject(subject_id: str) -> PlanView:
        plan = await storage.run(services.keeping.erasure.plan_subject, subject_id)
        return schemas.plan_view(plan)

    @router.delete(
        "/subjects/{subject_id}",
        summary="Erase a patient for good: every study, and the key the log commits with",
        status_code=202,
        dependencies=_RIGHTS,
    )
    async def erase_subject(
        subject_id: str,
        request: Request,
        response: Response,
        reason: Annotated[Reason, Query()] = "request",
    ) -> ErasureView:
        def work() -> ErasureView:
            plan = services.keeping.erasure.plan_subject(subject_id)
            return erased(request, response, plan, reason)

        return await waiting.run(work)

    @router.get("/erasures", summary="Erasures, newest first", dependencies=_RIGHTS)
    async def list_erasures(
        target: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[int, Query(ge=1, le=_MOST)] = 100,
    ) -> ErasureList:
        def look() -> ErasureList:
            found = services.keeping.erasure.erasures(target=target, limit=limit)
            return ErasureList(erasures=[schemas.erasure_view(one) for one in found])

        return await storage.run(look)

    @router.get("/erasures/{erasure_id}", summary="One erasure", dependencies=_RIGHTS)
    async def get_erasure(erasure_id: str) -> ErasureView:
        return schemas.erasure_view(await storage.run(services.keeping.erasure.erasure, erasure_id))

    @router.get(
        "/erasures/{erasure_id}/certificate",
        summary="Deletion certificate: the destroyed files and the log's proof, checked offline",
        response_class=Response,
        responses={200: {"content": {"application/json": {}}, "description": "the certificate"}},
        dependencies=_RIGHTS,
    )
    async def get_certificate(erasure_id: str) -> Response:
        made = await storage.run(services.keeping.erasure.certificate, erasure_id)
        name = f"erasure-{made.erasure}.json"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(made.encode(), media_type="application/json", headers=headers)

    return router


def holds_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes about legal holds and retention."""
    router = APIRouter(prefix="/api/v1", tags=["erasure"], responses=dict(PROBLEMS))

    @router.post(
        "/studies/{study_id}/hold",
        summary="Legal hold: keep a study and stop processing it",
        status_code=201,
        dependencies=_RIGHTS,
    )
    async def hold_study(study_id: str, body: HoldBody, request: Request) -> HoldView:
        def work() -> HoldView:
            actor = actor_of(request).actor_id
            held = services.keeping.holds.hold(
                study_id, reason=body.reason, actor=actor, review_at=body.review_at
            )
            return schemas.hold_view(held, services.clock.now())

        return await storage.run(work)

    @router.get("/holds", summary="Legal holds, oldest first", dependencies=_RIGHTS)
    async def list_holds(
        study: Annotated[str, Query(max_length=64)] = "",
        released: Annotated[bool, Query()] = False,
    ) -> HoldList:
        def look() -> HoldList:
            now = services.clock.now()
            found = services.keeping.holds.holds(study_id=study, released=released)
            return HoldList(holds=[schemas.hold_view(one, now) for one in found])

        return await storage.run(look)

    @router.post("/holds/{hold_id}:release", summary="End a legal hold", dependencies=_RIGHTS)
    async def release_hold(hold_id: str, request: Request) -> HoldView:
        def work() -> HoldView:
            actor = actor_of(request).actor_id
            ended = services.keeping.holds.release(hold_id, actor=actor)
            return schemas.hold_view(ended, services.clock.now())

        return await storage.run(work)

    @router.get(
        "/retention/plan",
        summary="Which studies a sweep would erase now, and why the others stay",
        dependencies=_RULES,
    )
    async def plan_retention(limit: Annotated[int, Query(ge=0, le=_MOST)] = 1000) -> RetentionView:
        return schemas.retention_view(await waiting.run(services.keeping.retention.plan), limit)

    @router.post("/retention:run", summary="Sweep now", dependencies=_RULES)
    async def run_retention() -> SweepView:
        return SweepView(erased=await waiting.run(services.keeping.retention.run))

    return router
