"""Routes about what is flashed: both slots of every kind, install what is ready, go back."""

from fastapi import APIRouter, Request

from bedside_core.access import Action
from bedside_core.errors import NotReadyError
from bedside_edge.api import schemas_flashing as s
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.services.flashing import FlashingService

_LOOK = [needs(Action.MONITOR)]
_CHANGE = [needs(Action.MANAGE_MODELS)]


def flashing_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes; what tries a candidate runs in `waiting`."""
    router = APIRouter(prefix="/api/v1", tags=["updates"], responses=dict(PROBLEMS))

    def flashing() -> FlashingService:
        if services.flashing is None:
            raise NotReadyError("nothing can be flashed on this box")
        return services.flashing

    @router.get("/updates/slots", summary="Both slots of everything flashed", dependencies=_LOOK)
    async def list_slots() -> s.SlotsView:
        return await storage.run(lambda: s.slots_view(flashing()))

    @router.post(
        "/updates:install",
        summary="Install what is assigned, signed and fetched; each is tried before it serves",
        dependencies=_CHANGE,
    )
    async def install(request: Request, body: s.InstallBody | None = None) -> s.OutcomesView:
        def run() -> s.OutcomesView:
            again = body is not None and body.again
            actor = actor_of(request).actor_id
            found = flashing().install_ready(services.ready_packages(), actor, again=again)
            return s.OutcomesView(outcomes=[s.outcome_view(one) for one in found])

        return await waiting.run(run)

    @router.post(
        "/updates:rollback",
        summary="Call a trial off, or let the version before serve again",
        dependencies=_CHANGE,
    )
    async def roll_back(body: s.KindBody, request: Request) -> s.OutcomeView:
        def run() -> s.OutcomeView:
            return s.outcome_view(flashing().roll_back(body.kind, actor_of(request).actor_id))

        return await waiting.run(run)

    @router.post(
        "/updates:confirm",
        summary="Try what is on trial now; it serves if it passes",
        dependencies=_CHANGE,
    )
    async def confirm(body: s.KindBody, request: Request) -> s.OutcomeView:
        def run() -> s.OutcomeView:
            return s.outcome_view(flashing().try_out(body.kind, actor_of(request).actor_id))

        return await waiting.run(run)

    return router
