"""Routes about incidents: seal at once, open again by two people, clocks and notices."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request

from bedside_core.access import Action
from bedside_core.errors import NotReadyError
from bedside_core.uses import Ask, Facts, Incident, Purpose, Situation, Thing, Use
from bedside_edge.api import schemas_incidents as schemas
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.schemas_incidents import (
    AskBody,
    AskView,
    FactsBody,
    IncidentBody,
    IncidentList,
    IncidentView,
    NoticeView,
    SealBody,
    StateBody,
    StateList,
    StateView,
)
from bedside_edge.api.services import Services
from bedside_edge.services.gate import asker_of
from bedside_edge.services.incident import IncidentService

_MANAGE = [needs(Action.MANAGE_INCIDENT)]
_READ = [needs(Action.READ_AUDIT)]
_PEOPLE = 2


def incidents_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the routes about incidents; what runs checks runs in `waiting`."""
    router = APIRouter(prefix="/api/v1", tags=["incidents"], responses=dict(PROBLEMS))
    _state_routes(router, lambda: _incidents(services), services, storage, waiting)
    _incident_routes(router, lambda: _incidents(services), storage)
    return router


def _incidents(services: Services) -> IncidentService:
    if services.incidents is None:
        raise NotReadyError("this service keeps no incidents")
    return services.incidents


def _state_routes(
    router: APIRouter,
    incidents: Callable[[], IncidentService],
    services: Services,
    storage: WorkPool,
    waiting: WorkPool,
) -> None:
    @router.get("/incidents/state", summary="How the box is and was", dependencies=_READ)
    async def get_state() -> StateList:
        def look() -> StateList:
            return StateList(
                states=[schemas.state_view(one) for one in incidents().store.history()]
            )

        return await storage.run(look)

    @router.post(
        "/incidents:seal",
        summary="Seal the box: nothing comes in, is read, changed or sent until two people agree",
        dependencies=_MANAGE,
    )
    async def seal(body: SealBody, request: Request) -> StateView:
        def work() -> StateView:
            incidents().seal(
                actor_of(request).actor_id,
                cause=body.cause,
                reason=body.reason,
                aware_at=body.aware_at,
            )
            return schemas.state_view(incidents().store.state())

        return await storage.run(work)

    @router.post(
        "/incidents:unseal",
        summary="Ask for what two people have to agree on; another person confirms it",
        status_code=202,
        dependencies=_MANAGE,
    )
    async def ask(body: AskBody, request: Request) -> AskView:
        def work() -> AskView:
            asker = actor_of(request).actor_id
            return schemas.ask_view(incidents().ask(Incident(body.state), asker, body.reason))

        return await waiting.run(work)

    @router.post(
        "/incidents/asks/{ask_id}:confirm",
        summary="Agree, as another person than who asked",
        dependencies=_MANAGE,
    )
    async def confirm(ask_id: str, request: Request) -> StateView:
        def work() -> StateView:
            actor = actor_of(request)
            asked = incidents().store.asked(ask_id)
            people = len({asked.actor, actor.actor_id})
            situation = Situation(
                purpose=Purpose.OPERATION,
                incident=incidents().store.state().state,
                people=people,
            )
            question = Ask(
                use=Use.UNSEAL,
                asker=asker_of(actor),
                facts=Facts(thing=Thing.BOX),
                situation=situation,
            )
            services.gate.decide(question).must()
            incidents().confirm(ask_id, actor.actor_id)
            return schemas.state_view(incidents().store.state())

        return await waiting.run(work)

    @router.post(
        "/incidents:state",
        summary="Raise or end an alarm, patching or a drill",
        dependencies=_MANAGE,
    )
    async def move(body: StateBody, request: Request) -> StateView:
        def work() -> StateView:
            actor = actor_of(request).actor_id
            incidents().move(Incident(body.state), actor, body.reason)
            return schemas.state_view(incidents().store.state())

        return await waiting.run(work)


def _incident_routes(
    router: APIRouter, incidents: Callable[[], IncidentService], storage: WorkPool
) -> None:
    def view(incident_id: str) -> IncidentView:
        return schemas.incident_view(incidents().store.incident(incident_id), incidents())

    @router.post(
        "/incidents",
        summary="Open an incident: its clocks start",
        status_code=201,
        dependencies=_MANAGE,
    )
    async def open_incident(body: IncidentBody, request: Request) -> IncidentView:
        def work() -> IncidentView:
            return view(
                incidents().open(
                    actor_of(request).actor_id,
                    cause=body.cause,
                    facts=body.facts,
                    aware_at=body.aware_at,
                    earliest=body.earliest,
                    drill=body.drill,
                )
            )

        return await storage.run(work)

    @router.get("/incidents", summary="Incidents, newest first", dependencies=_READ)
    async def list_incidents(closed: Annotated[bool, Query()] = True) -> IncidentList:
        def look() -> IncidentList:
            found = incidents().store.incidents(closed=closed)
            return IncidentList(
                incidents=[schemas.incident_view(one, incidents()) for one in found]
            )

        return await storage.run(look)

    @router.get("/incidents/{incident_id}", summary="One incident", dependencies=_READ)
    async def get_incident(incident_id: str) -> IncidentView:
        return await storage.run(view, incident_id)

    @router.patch(
        "/incidents/{incident_id}",
        summary="Add to what is known; empty words take a part away",
        dependencies=_MANAGE,
    )
    async def learn(incident_id: str, body: FactsBody, request: Request) -> IncidentView:
        def work() -> IncidentView:
            incidents().learn(incident_id, body.facts, actor_of(request).actor_id)
            return view(incident_id)

        return await storage.run(work)

    @router.post(
        "/incidents/{incident_id}:close", summary="Close an incident", dependencies=_MANAGE
    )
    async def close(incident_id: str, request: Request) -> IncidentView:
        def work() -> IncidentView:
            incidents().close(incident_id, actor_of(request).actor_id)
            return view(incident_id)

        return await storage.run(work)

    @router.get(
        "/incidents/{incident_id}/notices/{duty_id}",
        summary="Draft of a notice; the box sends none",
        dependencies=_READ,
    )
    async def get_notice(incident_id: str, duty_id: str) -> NoticeView:
        def look() -> NoticeView:
            return NoticeView(text=incidents().notice(incident_id, duty_id))

        return await storage.run(look)

    @router.post(
        "/incidents/{incident_id}/notices/{duty_id}:sign",
        summary="Sign a notice in one's own name; its digest goes into the evidence log",
        dependencies=_MANAGE,
    )
    async def sign(incident_id: str, duty_id: str, request: Request) -> NoticeView:
        def work() -> NoticeView:
            text = incidents().notice(incident_id, duty_id)
            digest = incidents().sign(incident_id, duty_id, actor_of(request).actor_id)
            return NoticeView(text=text, digest=digest)

        return await storage.run(work)
