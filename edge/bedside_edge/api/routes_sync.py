"""Routes of the consortium: join, visit now, veto, withdraw, agreements, nights."""

from collections.abc import Callable

from fastapi import APIRouter, Request

from bedside_core.access import Action
from bedside_core.errors import NotReadyError
from bedside_edge.api import schemas_sync as s
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.ports.sync import Agreement
from bedside_edge.services.sync import SyncService

_MANAGE = [needs(Action.MANAGE_SYNC)]
_AGREE = [needs(Action.MANAGE_POLICY)]
_READ = [needs(Action.READ_PRIVACY)]
_NIGHTS = 14


def sync_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes; what waits for a visit runs in `waiting`."""
    router = APIRouter(prefix="/api/v1", tags=["sync"], responses=dict(PROBLEMS))

    def sync() -> SyncService:
        if services.sync is None:
            raise NotReadyError("this service takes part in no rounds")
        return services.sync

    _read_routes(router, sync, storage)
    _member_routes(router, sync, waiting)
    _agreement_routes(router, sync, services, storage)
    return router


def _read_routes(router: APIRouter, sync: Callable[[], SyncService], storage: WorkPool) -> None:
    @router.get("/sync", summary="How the box stands in its consortium", dependencies=_READ)
    async def status() -> s.StatusView:
        return await storage.run(lambda: s.status_view(sync().status()))

    @router.get("/sync/nights", summary="What happened in the newest nights", dependencies=_READ)
    async def nights() -> s.NightList:
        def look() -> s.NightList:
            store = sync().store
            found = [s.night_view(one, store.events(one)) for one in store.nights(_NIGHTS)]
            return s.NightList(nights=found)

        return await storage.run(look)

    @router.get("/sync/agreements", summary="Agreements on rounds", dependencies=_READ)
    async def agreements() -> s.AgreementList:
        def look() -> s.AgreementList:
            found = [s.agreement_view(one) for one in sync().store.agreements()]
            return s.AgreementList(agreements=found)

        return await storage.run(look)


def _member_routes(router: APIRouter, sync: Callable[[], SyncService], waiting: WorkPool) -> None:
    @router.post(
        "/sync:request",
        summary="Make this box's keys and the file that asks to join, or to renew",
        dependencies=_MANAGE,
    )
    async def ask_to_join(body: s.JoinBody, request: Request) -> s.RequestView:
        def work() -> s.RequestView:
            data, told = sync().request(
                body.box,
                body.organisation,
                helper=body.helper,
                actor=actor_of(request).actor_id,
            )
            return s.RequestView(request=data.decode(), fingerprint=told)

        return await waiting.run(work)

    @router.post(
        "/sync:welcome", summary="Take what the administrators sent back", dependencies=_MANAGE
    )
    async def welcome(body: s.WelcomeBody, request: Request) -> s.WelcomeView:
        def work() -> s.WelcomeView:
            given, told = sync().take_welcome(body.welcome.encode(), actor_of(request).actor_id)
            return s.WelcomeView(
                consortium=given.root.consortium, box=given.box, url=given.url, fingerprint=told
            )

        return await waiting.run(work)

    @router.post("/sync:now", summary="Visit the hub once, now", dependencies=_MANAGE)
    async def visit() -> s.VisitView:
        def work() -> s.VisitView:
            outlook = sync().visit()
            store = sync().store
            night = store.nights(1)[:1] or [0]
            return s.VisitView(
                night=s.night_view(night[0], store.events(night[0])),
                waits=outlook.waits,
                failed=outlook.failed,
            )

        return await waiting.run(work)

    @router.post(
        "/sync/rounds/{name}:veto",
        summary="Refuse a round for good, before the box has answered it",
        status_code=204,
        dependencies=_MANAGE,
    )
    async def veto(name: s.Name, body: s.VetoBody, request: Request) -> None:
        actor = actor_of(request).actor_id
        await waiting.run(lambda: sync().veto(name, body.reason, actor))

    @router.post(
        "/sync/rounds/{name}:withdraw",
        summary="Take this box out of a round before it closes",
        dependencies=_MANAGE,
    )
    async def withdraw(name: s.Name, request: Request) -> s.WithdrawView:
        actor = actor_of(request).actor_id
        told = await waiting.run(lambda: sync().withdraw(name, actor))
        return s.WithdrawView(round=name, told=told)


def _agreement_routes(
    router: APIRouter, sync: Callable[[], SyncService], services: Services, storage: WorkPool
) -> None:
    @router.post(
        "/sync/agreements",
        summary="Record an agreement with the consortium: without a valid one there is no round",
        status_code=201,
        dependencies=_AGREE,
    )
    async def agree(body: s.AgreementBody, request: Request) -> s.AgreementView:
        def work() -> s.AgreementView:
            one = agreement_of(body, actor_of(request).actor_id, services.clock.now())
            sync().agree(one)
            return s.agreement_view(one)

        return await storage.run(work)

    @router.post(
        "/sync/agreements/{name}:end",
        summary="End an agreement: no round is joined under it any more",
        status_code=204,
        dependencies=_AGREE,
    )
    async def end(name: s.Name, request: Request) -> None:
        actor = actor_of(request).actor_id
        now = services.clock.now()
        await storage.run(lambda: sync().store.end_agreement(name, actor, now))


def agreement_of(body: s.AgreementBody, actor: str, now: int) -> Agreement:
    """Return the agreement a body describes."""
    return Agreement(
        agreement_id=body.name,
        title=body.title,
        purposes=tuple(body.purposes),
        same_region=body.same_region,
        document=bytes.fromhex(body.document_sha256),
        starts=body.starts,
        ends=body.ends,
        actor=actor,
        at=now,
    )
