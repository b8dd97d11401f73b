"""Server-sent events over HTTP: one job, or everything that changes on the box."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from bedside_core.access import Action
from bedside_edge.api.following import Following
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.services.worker import ENDED

LastEventId = Annotated[
    str,
    Header(max_length=64, description="id of the last event that arrived; what followed is sent"),
]
# of each event (OpenAPI 3.2, 4.14.4)
_EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "event": {"enum": ["hello", "reload", "job", "result", "review", "delivery", "night"]},
        "data": {"type": "string"},
        "id": {"type": "string"},
        "retry": {"type": "integer"},
    },
}
# not as `response_class`: the framework then takes the route itself for the generator of events
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": _EVENT}},
        "description": "events, without end",
    }
}
_WORDS = (
    "`hello` first (its id is where the stream starts), then `job`, `result`, `review`, "
    "`delivery` and `night` with ids and states, a comment every 15 s. `reload`: something may "
    "have been missed, load the page again."
)


def events_router(services: Services, storage: WorkPool, following: Following) -> APIRouter:
    """Return the routes; `following` holds the listeners."""
    router = APIRouter(prefix="/api/v1", tags=["events"], responses=dict(PROBLEMS))

    @router.get(
        "/events",
        summary="Follow everything that changes",
        description=_WORDS,
        response_class=Response,
        responses=_STREAM,
        dependencies=[needs(Action.VIEW_WORKLIST)],
    )
    async def follow(request: Request, last_event_id: LastEventId = "") -> Response:
        return await following.start(actor_of(request).actor_id, last_event_id)

    @router.get(
        "/jobs/{job_id}/events",
        summary="Follow one job to its end",
        description=_WORDS + " The job's present state comes behind `hello`, and the stream ends "
        "when the job has; asked again after that it answers 204, which ends an EventSource.",
        response_class=Response,
        responses={
            **_STREAM,
            204: {"description": "the job has ended and nothing is left to tell"},
        },
        dependencies=[needs(Action.VIEW_WORKLIST)],
    )
    async def follow_job(
        job_id: str, request: Request, last_event_id: LastEventId = ""
    ) -> Response:
        job = await storage.run(services.jobs.queue.job, job_id)
        if last_event_id and job.state in ENDED:
            return Response(status_code=204)
        return await following.start(actor_of(request).actor_id, last_event_id, job)

    return router
