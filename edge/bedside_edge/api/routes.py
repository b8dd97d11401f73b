"""The appliance API and the operator's routes: jobs, results, alarms, health, metrics."""

import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from bedside_core.access import Action
from bedside_core.uses import Thing, Use
from bedside_edge.api import schemas
from bedside_edge.api.gate import asks
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.metrics import CONTENT_TYPE, Metrics
from bedside_edge.api.once import IdempotencyKey, Once
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.schemas import (
    AlarmList,
    JobList,
    JobView,
    PriorityBody,
    PriorityName,
    Problem,
    Readiness,
    ResultView,
    read_priority,
)
from bedside_edge.api.services import ServedModel, Services
from bedside_edge.ports import Job, JobState

_Responses = dict[int | str, dict[str, Any]]

PROBLEMS: _Responses = {
    "4XX": {"model": Problem, "description": "the request is at fault"},
    "5XX": {"model": Problem, "description": "the box is at fault"},
}
_PNG: _Responses = {
    200: {"content": {"image/png": {}}, "description": "the image with its saliency"}
}


def health_router(services: Services, storage: WorkPool, metrics: Metrics) -> APIRouter:
    """Return /livez, /readyz and /metrics."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="The process runs")
    async def livez() -> dict[str, bool]:
        return {"live": True}

    @router.get(
        "/readyz",
        summary="The box can take and analyse a study",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "at least one check fails"}},
    )
    async def readyz() -> Response:
        checks = await storage.run(services.health.checks)
        ready = all(check.passed for check in checks.values())
        body = {
            "ready": ready,
            "checks": {
                name: {"ok": check.passed, "reason": check.reason} for name, check in checks.items()
            },
        }
        return Response(
            json.dumps(body),
            200 if ready else 503,
            media_type="application/json",
            headers={} if ready else {"Retry-After": "5"},
        )

    @router.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        dependencies=[needs(Action.MONITOR)],
    )
    async def metrics_page() -> Response:
        gauges = await storage.run(services.health.gauges)
        return Response(metrics.text(gauges), headers={"Content-Type": CONTENT_TYPE.decode()})

    return router


def jobs_router(services: Services, storage: WorkPool, once: Once) -> APIRouter:
    """Return the routes that read and steer study jobs."""
    router = APIRouter(prefix="/api/v1", tags=["jobs"], responses=dict(PROBLEMS))

    def view(job: Job) -> JobView:
        return schemas.job_view(job, services.clock.now())

    async def change(
        request: Request, key: str, job_id: str, work: Callable[[], object]
    ) -> JobView:
        """Change a job once, whatever the network makes of the request; answer with the job."""

        def carry_out() -> str:
            work()
            return job_id

        await once(storage, request, key, carry_out)
        return view(await storage.run(services.jobs.queue.job, job_id))

    @router.get("/jobs", summary="Jobs, newest first", dependencies=[needs(Action.VIEW_WORKLIST)])
    async def list_jobs(
        state: Annotated[list[JobState] | None, Query(description="any of these states")] = None,
        priority: Annotated[PriorityName | None, Query()] = None,
        study: Annotated[str, Query(max_length=64, description="our id of a study")] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> JobList:
        def look() -> list[Job]:
            level = None if priority is None else read_priority(priority)
            queue = services.jobs.queue
            return queue.jobs(states=state or (), study_id=study, priority=level, limit=limit)

        found = await storage.run(look)
        return JobList(jobs=[view(job) for job in found])

    @router.get(
        "/jobs/{job_id}",
        summary="One job: state, age, why not processed",
        dependencies=[needs(Action.VIEW_WORKLIST)],
    )
    async def get_job(job_id: str) -> JobView:
        return view(await storage.run(services.jobs.queue.job, job_id))

    @router.post(
        "/jobs/{job_id}:retry",
        summary="Put a dead job back",
        dependencies=[needs(Action.MANAGE_JOBS)],
    )
    async def retry_job(
        request: Request, job_id: str, idempotency_key: IdempotencyKey = ""
    ) -> JobView:
        work = partial(services.jobs.replay, job_id, actor_of(request).actor_id)
        return await change(request, idempotency_key, job_id, work)

    @router.post(
        "/jobs/{job_id}:cancel",
        summary="Cancel a job that has not ended",
        dependencies=[needs(Action.MANAGE_JOBS)],
    )
    async def cancel_job(
        request: Request, job_id: str, idempotency_key: IdempotencyKey = ""
    ) -> JobView:
        now, actor = services.clock.now(), actor_of(request).actor_id
        work = partial(services.jobs.queue.cancel, job_id, now, actor)
        return await change(request, idempotency_key, job_id, work)

    @router.post(
        "/jobs/{job_id}:complete",
        summary="Expect no more instances: analyse now",
        dependencies=[needs(Action.MANAGE_JOBS)],
    )
    async def complete_job(
        request: Request, job_id: str, idempotency_key: IdempotencyKey = ""
    ) -> JobView:
        def complete() -> None:
            services.ingest.complete([services.jobs.queue.job(job_id).study_id])

        return await change(request, idempotency_key, job_id, complete)

    @router.post(
        "/jobs/{job_id}:priority",
        summary="Change the priority",
        dependencies=[needs(Action.PRIORITISE)],
    )
    async def prioritise_job(
        request: Request, job_id: str, body: PriorityBody, idempotency_key: IdempotencyKey = ""
    ) -> JobView:
        level, now = read_priority(body.priority), services.clock.now()
        actor = actor_of(request).actor_id
        work = partial(services.jobs.queue.prioritise, job_id, level, now, actor)
        return await change(request, idempotency_key, job_id, work)

    @router.get(
        "/alarms",
        summary="What a person should look at",
        dependencies=[needs(Action.VIEW_WORKLIST)],
    )
    async def list_alarms() -> AlarmList:
        found = await storage.run(services.alarms)
        return AlarmList(alarms=[schemas.alarm_view(alarm) for alarm in found])

    return router


def results_router(services: Services, storage: WorkPool, inference: WorkPool) -> APIRouter:
    """Return the routes that read results."""
    router = APIRouter(prefix="/api/v1", tags=["results"], responses=dict(PROBLEMS))

    @router.get(
        "/results/{result_id}",
        summary="A result",
        response_model=ResultView,
        dependencies=[needs(Action.VIEW_RESULT), asks(Use.VIEW, Thing.RESULT)],
    )
    async def get_result(result_id: str) -> Response:
        stored = await storage.run(services.jobs.queue.result, result_id)
        return Response(schemas.result_json(stored), media_type="application/json")

    @router.get(
        "/results/{result_id}/heatmap.png",
        summary="The image with its saliency",
        response_class=Response,
        responses=_PNG,
        dependencies=[needs(Action.VIEW_IMAGE), asks(Use.VIEW, Thing.RESULT)],
    )
    async def get_heatmap(result_id: str) -> Response:
        return Response(await inference.run(services.overlay, result_id), media_type="image/png")

    @router.get(
        "/models",
        summary="The loaded models, the one that reads studies first",
        dependencies=[needs(Action.MONITOR)],
    )
    async def list_models() -> dict[str, list[dict[str, object]]]:
        return {"models": [_model_entry(model) for model in services.models.loaded()]}

    return router


def _model_entry(model: ServedModel) -> dict[str, object]:
    manifest, info = model.manifest, model.engine.info
    return {
        "name": manifest.name,
        "version": manifest.version,
        "release": manifest.release,
        "intended_use": manifest.intended_use,
        "not_a_medical_device": manifest.not_a_medical_device,
        "finding": manifest.finding.model_dump(),
        "decision": manifest.decision.model_dump(),
        "accepts": manifest.accepts.model_dump(),
        "package": model.package_digest,
        "profile": model.profile_name,
        "engine": {
            "name": info.engine,
            "version": info.version,
            "device": info.device,
            "precision": info.precision,
            "threads": info.threads,
            "model_sha256": info.model_sha256,
        },
    }
