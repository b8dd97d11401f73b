"""The models that read studies on this box, and the card of each."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from bedside_core.access import Action
from bedside_core.errors import NotFoundError
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.web.markdown import to_html
from bedside_edge.web.site import PageRoute, site


def models_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return /models and /models/{name}/card."""
    router = APIRouter(prefix="/models", include_in_schema=False, route_class=PageRoute)

    @router.get("", dependencies=[needs(Action.MONITOR)])
    async def models(request: Request) -> Response:
        loaded = await storage.run(services.models.loaded)
        names = {one.manifest.name for one in loaded}
        index = await storage.run(services.models.index)
        others = sorted({one.model.name for one in index} - names)
        return site().page(request, "models.html", models=loaded, others=others)

    @router.get("/{name}/card", dependencies=[needs(Action.MONITOR)])
    async def card(
        request: Request, name: str, version: Annotated[str, Query(max_length=32)] = ""
    ) -> Response:
        model = await storage.run(services.models.model, name, version)
        if not model.card:
            raise NotFoundError("the package has no card")
        text = to_html(model.card.decode("utf-8", "replace"))
        return site().page(request, "card.html", model=model, text=text)

    return router
