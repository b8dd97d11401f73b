"""The Open Inference Protocol's metadata and health routes; `infer` itself is in infer.py."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response

from bedside_core.access import Action
from bedside_edge.api import oip
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services

EXTENSIONS = [
    "binary_tensor_data",
    "model_repository",
    "model_repository(unload_dependents)",  # taken and without effect: no model depends on another
    "bedside_dicom",
    "bedside_explain",
]


def v2_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the routes under /v2."""
    router = APIRouter(prefix="/v2", tags=["inference protocol"])

    async def ready() -> bool:
        checks = await storage.run(services.health.checks)
        return all(check.passed for check in checks.values())

    @router.get("", summary="Server metadata", dependencies=[needs(Action.MONITOR)])
    async def server() -> dict[str, Any]:
        return {"name": "bedside", "version": version("bedside"), "extensions": EXTENSIONS}

    @router.get("/health/live", summary="The process runs", response_class=Response)
    async def live() -> Response:
        return Response()

    @router.get("/health/ready", summary="Every model can answer", response_class=Response)
    async def server_ready() -> Response:
        return Response(status_code=200 if await ready() else 503)

    @router.get("/models/{model}", summary="Model metadata", dependencies=[needs(Action.MONITOR)])
    @router.get(
        "/models/{model}/versions/{model_version}",
        summary="Model metadata",
        dependencies=[needs(Action.MONITOR)],
    )
    async def model_metadata(model: str, model_version: str = "") -> dict[str, Any]:
        served = services.models.model(model, model_version)
        return oip.metadata(served.manifest, served.engine.info.engine)

    @router.get(
        "/models/{model}/ready",
        summary="The model can answer",
        response_class=Response,
        dependencies=[needs(Action.MONITOR)],
    )
    @router.get(
        "/models/{model}/versions/{model_version}/ready",
        summary="The model can answer",
        response_class=Response,
        dependencies=[needs(Action.MONITOR)],
    )
    async def model_ready(model: str, model_version: str = "") -> Response:
        services.models.model(model, model_version)
        return Response(status_code=200 if await ready() else 503)

    return router
