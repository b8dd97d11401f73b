"""How readers and the box agree, by reader and by model version; figures, no patient."""

from typing import Any

from fastapi import APIRouter, Request, Response

from bedside_core.access import Action
from bedside_core.findings import Decision
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.web.agreement import by_week, labels_of
from bedside_edge.web.site import PageRoute, site


def agreement_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return /agreement."""
    router = APIRouter(include_in_schema=False, route_class=PageRoute)

    def look() -> dict[str, Any]:
        reviews = services.outgoing.reviews
        figures = reviews.agreement()
        readers = [(services.access.name_of(i), one) for i, one in figures.by_reader.items()]
        return {
            "figures": figures,
            "readers": sorted(readers, key=lambda pair: pair[0]),
            "weeks": by_week(labels_of(reviews)),
            "decisions": list(Decision),
        }

    @router.get("/agreement", dependencies=[needs(Action.READ_AUDIT)])
    async def agreement(request: Request) -> Response:
        return site().page(request, "agreement.html", **await storage.run(look))

    return router
