"""Routes about what follows from rounds on this box: cleaning, relabelling, sources, own head."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from bedside_core.access import Action
from bedside_core.errors import NotReadyError
from bedside_edge.api import schemas_learning as s
from bedside_edge.api.gate import visible
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.services.learning import ANNOTATE, CLEAN, LearningService

_RULES = [needs(Action.MANAGE_POLICY)]
_AUDIT = [needs(Action.READ_AUDIT)]
_WORK = [needs(Action.VIEW_WORKLIST)]
_CONSENT = [needs(Action.MANAGE_CONSENT)]
_Digest = Annotated[str, Query(pattern="^([0-9a-f]{64})?$")]
_Name = Annotated[str, Path(pattern="^[a-z][a-z0-9_]{0,31}$")]


def learning_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes; what looks at every case runs in `waiting`."""
    router = APIRouter(prefix="/api/v1", tags=["learning"], responses=dict(PROBLEMS))

    def learning() -> LearningService:
        if services.learning is None:
            raise NotReadyError("this box takes part in no rounds")
        return services.learning

    @router.get("/cleanings", summary="Joint cleanings the hospital took over", dependencies=_AUDIT)
    async def list_cleanings() -> s.TakenList:
        def look() -> s.TakenList:
            found = learning().store.joint_results(CLEAN)
            return s.TakenList(cleanings=[s.taken_view(one) for one in found])

        return await storage.run(look)

    @router.post(
        "/cleanings",
        summary="Take the result of a `clean` round over",
        status_code=201,
        dependencies=_RULES,
    )
    async def take_cleaning(body: s.ResultBody, request: Request) -> s.TakenView:
        def take() -> s.TakenView:
            digest = learning().take_cleaning(body.document, actor_of(request).actor_id)
            kept = learning().store.joint_results(CLEAN)
            return s.taken_view(next(one for one in kept if one.digest == digest))

        return await storage.run(take)

    @router.get(
        "/cleanings:report",
        summary="What a cleaning does to the box's cases; nothing is changed",
        dependencies=_AUDIT,
    )
    async def report(version: _Digest = "") -> s.ReportView:
        return s.report_view(await waiting.run(lambda: learning().cleaning_report(version)))

    @router.post(
        "/consensus",
        summary="Take the consensus of an `annotate` round over",
        status_code=201,
        dependencies=_RULES,
    )
    async def take_consensus(body: s.ResultBody, request: Request) -> s.TakenView:
        def take() -> s.TakenView:
            digest = learning().take_consensus(body.document, actor_of(request).actor_id)
            kept = learning().store.joint_results(ANNOTATE)
            return s.taken_view(next(one for one in kept if one.digest == digest))

        return await storage.run(take)

    @router.get(
        "/relabel",
        summary="Studies signed here otherwise than the consensus of all sites",
        dependencies=_WORK,
    )
    async def relabel(request: Request) -> s.RelabelList:
        def look() -> s.RelabelList:
            found = learning().relabel()
            seen = visible(request, [one.study_id for one in found]).results
            shown = [s.relabel_view(one) for one in found if one.study_id in seen]
            return s.RelabelList(studies=shown)

        return await waiting.run(look)

    @router.put(
        "/sources/{name}",
        summary="Replace what another source of the hospital says of its patients",
        dependencies=_CONSENT,
    )
    async def put_source(name: _Name, body: s.SourceBody, request: Request) -> s.SourceView:
        actor = actor_of(request).actor_id
        return await waiting.run(lambda: s.source_view(learning(), name, body, actor))

    @router.get(
        "/own-head",
        summary="Would a head of the hospital's own help? It never leaves the box",
        dependencies=_AUDIT,
    )
    async def own_head() -> s.OwnHeadView:
        return await waiting.run(lambda: s.own_head_view(learning()))

    return router
