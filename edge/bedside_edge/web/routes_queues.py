"""Queues for administrators: jobs, dead letters, deliveries and alarms, and what to do about them.

Patients' names are not shown here: a study is a link, and who opens it is in the evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from bedside_core.access import Action
from bedside_core.errors import InvalidRequestError, NotFoundError, WrongStateError
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.schemas import read_priority
from bedside_edge.api.services import Services
from bedside_edge.ports import Job, JobState
from bedside_edge.services.delivery import Deliveries
from bedside_edge.services.outputs import Delivery, DeliveryState
from bedside_edge.web.forms import form_of
from bedside_edge.web.site import PageRoute, site

_OPEN: Final = (JobState.COLLECTING, JobState.READY, JobState.RUNNING)
_SHOWN: Final[Mapping[str, tuple[JobState, ...]]] = {
    "dead": (JobState.DEAD,),
    "open": _OPEN,
    "refused": (JobState.REFUSED,),
    "ended": (JobState.DONE, JobState.CANCELLED),
}
_ROWS = 100
_MOST_OPEN = 5_000  # looked at for the oldest
_MOST_AGAIN = 1_000  # dead letters that one press puts back
_ALARMS = 50
_DONE = frozenset({"retry", "cancel", "complete", "priority", "resend"})
_BACK = "/queues"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """The page."""

    show: str
    tabs: Mapping[str, int]
    counts: Mapping[JobState, int]
    oldest: Mapping[JobState, int]  # when it came; only of states that have one
    jobs: list[Job]
    dead: list[Delivery]
    waiting: list[Delivery]
    ways: Mapping[str, Mapping[str, int]]  # destination, state
    alarms: list[Any]
    more_alarms: int


def queue_view(services: Services, show: str) -> QueueView:
    """Return what the page shows."""
    queue, outputs = services.jobs.queue, services.outgoing.deliveries.outputs
    counts = queue.counts()
    tabs = {name: sum(counts.get(one, 0) for one in states) for name, states in _SHOWN.items()}
    if show not in _SHOWN:
        show = "dead" if tabs["dead"] else "open"
    oldest: dict[JobState, int] = {}
    for job in queue.jobs(states=_OPEN, limit=_MOST_OPEN):
        oldest[job.state] = min(job.created, oldest.get(job.state, job.created))
    ways: dict[str, dict[str, int]] = {}
    for name in services.outgoing.deliveries.workers:
        ways[name] = {}
    for (name, state), count in outputs.delivery_counts().items():
        ways.setdefault(name, {})[str(state)] = count
    alarms = services.alarms()
    return QueueView(
        show=show,
        tabs=tabs,
        counts=counts,
        oldest=oldest,
        jobs=queue.jobs(states=_SHOWN[show], limit=_ROWS),
        dead=outputs.deliveries(states=[DeliveryState.DEAD], limit=_ROWS),
        waiting=outputs.deliveries(states=[DeliveryState.WAITING], limit=20),
        ways=dict(sorted(ways.items())),
        alarms=alarms[:_ALARMS],
        more_alarms=max(0, len(alarms) - _ALARMS),
    )


def queues_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return /queues and what can be done there."""
    router = APIRouter(prefix="/queues", include_in_schema=False, route_class=PageRoute)
    _add_pages(router, services, storage)
    _add_jobs(router, services, storage)
    _add_deliveries(router, services, storage)
    return router


def _add_pages(router: APIRouter, services: Services, storage: WorkPool) -> None:
    async def values(show: str, done: str) -> dict[str, Any]:
        view = await storage.run(queue_view, services, show)
        told = done if done in _DONE else ""
        return {"view": view, "now": services.clock.now(), "done": told, "states": list(JobState)}

    @router.get("", dependencies=[needs(Action.MANAGE_JOBS)])
    async def queues(request: Request, show: str = "", done: str = "") -> Response:
        return site().page(request, "queues.html", **await values(show, done))

    @router.get("/part", dependencies=[needs(Action.MANAGE_JOBS)])
    async def part(request: Request, show: str = "") -> Response:
        return site().page(request, "queues_part.html", **await values(show, ""))

    @router.get("/jobs/{job_id}", dependencies=[needs(Action.MANAGE_JOBS)])
    async def job(request: Request, job_id: str) -> Response:
        found = await storage.run(services.jobs.queue.job, job_id)
        return site().page(
            request,
            "queue_job.html",
            job=found,
            now=services.clock.now(),
            open=found.state in _OPEN,
        )


def _add_jobs(router: APIRouter, services: Services, storage: WorkPool) -> None:
    def replay_all(actor: str) -> None:
        for one in services.jobs.queue.jobs(states=[JobState.DEAD], limit=_MOST_AGAIN):
            try:
                services.jobs.replay(one.job_id, actor)
            except (WrongStateError, NotFoundError):
                continue  # somebody else was faster, or it was erased

    @router.post("/retry", dependencies=[needs(Action.MANAGE_JOBS)])
    async def retry_all(request: Request) -> Response:
        await storage.run(replay_all, actor_of(request).actor_id)
        return _back("retry")

    @router.post("/jobs/{job_id}/retry", dependencies=[needs(Action.MANAGE_JOBS)])
    async def retry(request: Request, job_id: str) -> Response:
        await storage.run(services.jobs.replay, job_id, actor_of(request).actor_id)
        return _back("retry")

    @router.post("/jobs/{job_id}/cancel", dependencies=[needs(Action.MANAGE_JOBS)])
    async def cancel(request: Request, job_id: str) -> Response:
        actor, now = actor_of(request).actor_id, services.clock.now()
        await storage.run(services.jobs.queue.cancel, job_id, now, actor)
        return _back("cancel")

    @router.post("/jobs/{job_id}/complete", dependencies=[needs(Action.MANAGE_JOBS)])
    async def complete(job_id: str) -> Response:
        def work() -> None:
            services.ingest.complete([services.jobs.queue.job(job_id).study_id])

        await storage.run(work)
        return _back("complete")

    @router.post("/jobs/{job_id}/priority", dependencies=[needs(Action.PRIORITISE)])
    async def priority(request: Request, job_id: str) -> Response:
        told = (await form_of(request)).get("priority", "")
        if told not in ("stat", "urgent", "routine"):
            raise InvalidRequestError("the form has a value this page does not offer")
        actor, now = actor_of(request).actor_id, services.clock.now()
        change = services.jobs.queue.prioritise
        await storage.run(change, job_id, read_priority(told), now, actor)
        return _back("priority")


def _add_deliveries(router: APIRouter, services: Services, storage: WorkPool) -> None:
    def deliveries() -> Deliveries:  # looked up when asked
        return services.outgoing.deliveries

    def send_all(destination: str, actor: str) -> None:
        found = deliveries().outputs.deliveries(
            states=[DeliveryState.DEAD], destination=destination, limit=_MOST_AGAIN
        )
        for one in reversed(found):  # in the order they were made
            try:
                deliveries().retry(one.delivery_id, actor)
            except (WrongStateError, NotFoundError):
                continue

    @router.post("/deliveries/{delivery_id}/retry", dependencies=[needs(Action.MANAGE_DELIVERIES)])
    async def resend(request: Request, delivery_id: str) -> Response:
        await storage.run(deliveries().retry, delivery_id, actor_of(request).actor_id)
        return _back("resend")

    @router.post("/destinations/{name}/retry", dependencies=[needs(Action.MANAGE_DELIVERIES)])
    async def resend_all(request: Request, name: str) -> Response:
        await storage.run(send_all, name, actor_of(request).actor_id)
        return _back("resend")


def _back(done: str) -> Response:
    return RedirectResponse(f"{_BACK}?done={done}", 303)
