"""Nights for people: the consortium, rounds with their price, what each night did."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from bedside_core.access import Action
from bedside_core.errors import NotReadyError
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.web.nights import draw
from bedside_edge.web.site import PageRoute, site

_READ: Final = [needs(Action.READ_PRIVACY)]
_SHOWN: Final = 7


def nights_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return /nights and the part of it that keeps itself up to date."""
    router = APIRouter(prefix="/nights", include_in_schema=False, route_class=PageRoute)

    def look() -> dict[str, Any]:
        if services.sync is None:
            raise NotReadyError("this service takes part in no rounds")
        store = services.sync.store
        return {
            "found": services.sync.status(),
            "nights": [draw(one, store.events(one)) for one in store.nights(_SHOWN)],
        }

    @router.get("", dependencies=_READ)
    async def nights(request: Request) -> Response:
        return site().page(request, "nights.html", **await storage.run(look))

    @router.get("/part", dependencies=_READ)
    async def part(request: Request) -> Response:
        return site().page(request, "nights_part.html", **await storage.run(look))

    return router
