"""How the box is: health, disk, evidence, policy, certificates of what it reads with, versions."""

import platform
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from bedside_core.access import Action
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.web.site import PageRoute, site

_ENTRIES: Final = 25
_PACKAGES: Final = ("onnxruntime", "openvino", "pydicom", "pynetdicom", "cryptography", "fastapi")


def system_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return /system."""
    router = APIRouter(include_in_schema=False, route_class=PageRoute)

    def look() -> dict[str, Any]:
        log, (policy, stored) = services.evidence.log, services.policies.in_force
        head = log.latest_checkpoint()
        lines = head.decode().split("\n") if head else []
        return {
            "checks": services.health.checks(),
            "gauges": services.health.gauges(),
            "disk": services.settings.disk,
            "origin": log.origin,
            "size": log.size(),
            "head": {"size": lines[1], "root": lines[2]} if len(lines) > 2 else None,
            "entries": log.newest(limit=_ENTRIES),
            "policy": policy.document,
            "stored": stored,
            "named": services.access.name_of,
            "models": services.models.loaded(),
            "hardware": services.hardware.serving if services.hardware else None,
            "versions": {"bedside": version("bedside"), "python": platform.python_version()}
            | {name: version(name) for name in _PACKAGES},
        }

    @router.get("/system", dependencies=[needs(Action.READ_AUDIT)])
    async def system(request: Request) -> Response:
        return site().page(request, "system.html", **await storage.run(look))

    return router
