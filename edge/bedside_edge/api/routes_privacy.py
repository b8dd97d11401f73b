"""Statistics that may leave: catalogue, plan, budget, releases, ledger, epochs, transparency.

What charges, replays or refuses a release answers at a slot, so that the time says nothing of data.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from bedside_core.access import Action
from bedside_core.errors import NotReadyError
from bedside_core.release_page import pictures, release_page
from bedside_core.transparency import Publication
from bedside_edge.api import schemas_privacy as s
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.routes_policy import EnvelopeBody
from bedside_edge.api.schemas import Problem
from bedside_edge.api.services import Services
from bedside_edge.services.gate import asker_of
from bedside_edge.services.privacy_desk import PrivacyDesk, Who

_NO_POLICY: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "no privacy policy is in force yet"}
}
_READ = [needs(Action.READ_PRIVACY)]
_RELEASE = [needs(Action.RELEASE)]
_POLICY = [needs(Action.MANAGE_POLICY)]
_Fingerprint = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
_Night = Annotated[int, Query(ge=0, le=3660, description="of a schedule, from 0")]


def privacy_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes; what waits for a slot runs in `waiting`."""
    router = APIRouter(prefix="/api/v1/privacy", tags=["privacy"], responses=dict(PROBLEMS))
    _add_planning(router, services, storage)
    _add_releases(router, services, storage, waiting)
    _add_files(router, services, storage)
    _add_ledger(router, services, storage)
    _add_epochs(router, services, storage)
    return router


def desk_of(services: Services) -> PrivacyDesk:
    """Return the desk; NotReadyError where nothing is released."""
    if services.privacy is None:
        raise NotReadyError("this service releases no statistics")
    return services.privacy.desk


def who_of(request: Request) -> Who:
    """Return who asks."""
    actor = actor_of(request)
    return Who.of(actor, asker_of(actor))


def _add_planning(router: APIRouter, services: Services, storage: WorkPool) -> None:
    @router.get("/catalogue", summary="What can be asked", responses=_NO_POLICY, dependencies=_READ)
    async def get_catalogue() -> s.CatalogueView:
        return s.CatalogueView(**await storage.run(lambda: desk_of(services).catalogue()))

    @router.post("/plan", summary="Price and expected error; touches no data", dependencies=_READ)
    async def make_plan(body: s.PlanBody) -> s.PlanView:
        def work() -> dict[str, Any]:
            return desk_of(services).plan(body.wish(), body.size, picture=body.picture)

        return s.PlanView(**await storage.run(work))

    @router.get("/budget", summary="What is spent and what is left", dependencies=_READ)
    async def get_budget() -> s.BudgetView:
        return s.BudgetView(**await storage.run(lambda: desk_of(services).budget()))


def _add_releases(
    router: APIRouter, services: Services, storage: WorkPool, waiting: WorkPool
) -> None:
    @router.get("/snapshots", summary="Frozen snapshots", dependencies=_READ)
    async def list_snapshots() -> s.SnapshotList:
        return s.SnapshotList(**await storage.run(lambda: desk_of(services).snapshot_list()))

    @router.post(
        "/snapshots", summary="Freeze arrivals of the epoch", status_code=201, dependencies=_RELEASE
    )
    async def freeze(body: s.SnapshotBody) -> s.SnapshotView:
        def work() -> dict[str, Any]:
            return desk_of(services).freeze(body.starts, body.ends)

        return s.SnapshotView(**await waiting.run(work))

    @router.post(
        "/releases",
        summary="Release statistics, or open a schedule; asked again, the stored answer",
        dependencies=_RELEASE,
    )
    async def release(body: s.ReleaseBody, request: Request) -> s.AnswerView:
        who, wish = who_of(request), body.wish(body.snapshot, body.purpose)
        return s.AnswerView(**await waiting.run(lambda: desk_of(services).release(wish, who)))

    @router.get("/releases", summary="Charged releases, newest first", dependencies=_READ)
    async def list_releases(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    ) -> s.HeldList:
        def work() -> dict[str, Any]:
            return desk_of(services).release_list(limit, before)

        return s.HeldList(**await storage.run(work))

    @router.get("/releases/{fingerprint}", summary="A stored answer, free", dependencies=_READ)
    async def replay(fingerprint: _Fingerprint, night: _Night = 0) -> s.AnswerView:
        found = await waiting.run(lambda: desk_of(services).replay(fingerprint, night))
        return s.AnswerView(**found)

    @router.post(
        "/local-answers",
        summary="One result for an outsider, true by chance; asked again, the same",
        dependencies=_RELEASE,
    )
    async def local_answer(body: s.LocalBody, request: Request) -> s.EnvelopeView:
        who = who_of(request)

        def work() -> dict[str, Any]:
            return desk_of(services).answer(body.study, body.recipient, body.epsilon, who)

        return s.EnvelopeView(**await waiting.run(work))


def _add_files(router: APIRouter, services: Services, storage: WorkPool) -> None:
    @router.get(
        "/releases/{fingerprint}/file",
        summary="Signed document and log proof in one file, verifiable offline",
        response_class=Response,
        responses={200: {"content": {"application/json": {}}}},
        dependencies=_READ,
    )
    async def get_file(fingerprint: _Fingerprint, night: _Night = 0) -> Response:
        made = await storage.run(lambda: desk_of(services).file(fingerprint, night))
        name = f'attachment; filename="release-{fingerprint[:12]}-{night}.json"'
        headers = {"Content-Disposition": name}
        return Response(made, media_type="application/json", headers=headers)

    @router.get(
        "/releases/{fingerprint}/page",
        summary="The release as one readable HTML file",
        response_class=Response,
        responses={200: {"content": {"text/html": {}}}},
        dependencies=_READ,
    )
    async def get_page(
        fingerprint: _Fingerprint, night: _Night = 0, language: s.Text = "en"
    ) -> Response:
        def work() -> str:
            return release_page(desk_of(services).document(fingerprint, night), language)

        # an attachment: a page of its own style is opened from disk, outside the box's pages
        name = f'attachment; filename="release-{fingerprint[:12]}-{night}.html"'
        headers = {"Content-Disposition": name}
        return Response(await storage.run(work), media_type="text/html", headers=headers)

    @router.get(
        "/releases/{fingerprint}/picture.svg",
        summary="The values with their intervals",
        response_class=Response,
        responses={200: {"content": {"image/svg+xml": {}}}},
        dependencies=_READ,
    )
    async def get_picture(
        fingerprint: _Fingerprint, night: _Night = 0, language: s.Text = "en"
    ) -> Response:
        def work() -> str:
            drawn = pictures(desk_of(services).document(fingerprint, night), language)
            return drawn[0][1] if drawn else ""

        return Response(await storage.run(work), media_type="image/svg+xml")


def _add_ledger(router: APIRouter, services: Services, storage: WorkPool) -> None:
    @router.get("/ledger", summary="Entries of the privacy ledger", dependencies=_READ)
    async def get_ledger(
        start: Annotated[int, Query(ge=1, le=2**53)] = 1,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> s.LedgerView:
        return s.LedgerView(**await storage.run(lambda: desk_of(services).entries(start, limit)))

    @router.get("/ledger:verify", summary="Fold every entry anew and compare", dependencies=_READ)
    async def verify_ledger() -> s.CheckedView:
        return s.CheckedView(**await storage.run(lambda: desk_of(services).verify()))

    @router.get(
        "/policy",
        summary="The privacy policy in force",
        responses=_NO_POLICY,
        dependencies=_READ,
    )
    async def get_policy() -> s.PrivacyPolicyView:
        return s.PrivacyPolicyView(**await storage.run(lambda: desk_of(services).policy()))

    @router.put("/policy", summary="Put a signed privacy policy in force", dependencies=_POLICY)
    async def put_policy(body: EnvelopeBody, request: Request) -> s.PrivacyPolicyView:
        who, data = who_of(request), body.data()
        found = await storage.run(lambda: desk_of(services).activate(data, who))
        return s.PrivacyPolicyView(**found)


def _add_epochs(router: APIRouter, services: Services, storage: WorkPool) -> None:
    number = Annotated[int, Path(ge=1, le=10**6)]

    @router.get("/epochs", summary="The newest epoch", dependencies=_READ)
    async def get_epochs() -> s.EpochState:
        return s.EpochState(**await storage.run(lambda: desk_of(services).epochs()))

    @router.post("/epochs", summary="Open the next epoch", status_code=201, dependencies=_RELEASE)
    async def open_epoch(body: s.EpochBody, request: Request) -> s.EpochState:
        who = who_of(request)

        def work() -> dict[str, Any]:
            return desk_of(services).open_epoch(body.starts, body.ends, who)

        return s.EpochState(**await storage.run(work))

    @router.post(
        "/epochs:close",
        summary="Close the open epoch: nothing more is charged",
        dependencies=_RELEASE,
    )
    async def close_epoch(request: Request) -> s.EpochState:
        who = who_of(request)
        return s.EpochState(**await storage.run(lambda: desk_of(services).close_epoch(who)))

    @router.get(
        "/epochs/{epoch}/summary", summary="What an epoch spent, signed", dependencies=_READ
    )
    async def get_summary(epoch: number) -> s.EnvelopeView:
        return s.EnvelopeView(**await storage.run(lambda: desk_of(services).summary(epoch)))

    @router.get(
        "/epochs/{epoch}/accounting",
        summary="What an epoch spent by privacy loss distributions; never the gate",
        dependencies=_READ,
    )
    async def get_accounting(epoch: number) -> s.AccountingView:
        return s.AccountingView(**await storage.run(lambda: desk_of(services).accounting(epoch)))

    @router.post(
        "/epochs/{epoch}/transparency",
        summary="The epoch's file for the public registry of deployments",
        dependencies=_READ,
    )
    async def get_transparency(epoch: number, body: s.PublicationBody) -> s.TransparencyView:
        def work() -> dict[str, Any]:
            about, desk = Publication(**body.model_dump()), desk_of(services)
            return {"yaml": desk.transparency(epoch, about), "summary": desk.summary(epoch)}

        return s.TransparencyView(**await storage.run(work))
