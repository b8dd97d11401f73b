"""The model card over HTTP: the package's own text, byte for byte, or with its facts as JSON."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from bedside_core.access import Action
from bedside_core.errors import NotFoundError
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.api.tags import tagged

MARKDOWN = "text/markdown"
_CARD: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            MARKDOWN: {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object"}},
        },
        "description": "the card: Markdown, or JSON when Accept asks for it",
        "headers": {"ETag": {"schema": {"type": "string"}}},
    },
    304: {"description": "unchanged"},
}


def card_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the route."""
    router = APIRouter(prefix="/api/v1", tags=["models"], responses=dict(PROBLEMS))

    @router.get(
        "/models/{name}/card",
        summary="The card of a loaded model",
        response_class=Response,
        responses=_CARD,
        dependencies=[needs(Action.MONITOR)],
    )
    async def get_card(
        name: str,
        version: Annotated[str, Query(max_length=32, description="default: the active one")] = "",
        accept: Annotated[str, Header()] = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Response:
        model = await storage.run(services.models.model, name, version)
        if not model.card:
            raise NotFoundError("the package has no card")
        if "application/json" not in accept:
            return tagged(
                model.card, f"{MARKDOWN}; charset=utf-8", if_none_match, {"Vary": "Accept"}
            )
        manifest = model.manifest
        document = {
            "name": manifest.name,
            "version": manifest.version,
            "release": manifest.release,
            "package": model.package_digest,
            "intended_use": manifest.intended_use,
            "not_a_medical_device": manifest.not_a_medical_device,
            "finding": manifest.finding.model_dump(),
            "decision": manifest.decision.model_dump(),
            "accepts": manifest.accepts.model_dump(),
            "card": model.card.decode("utf-8", "replace"),
        }
        body = json.dumps(document, sort_keys=True).encode()
        return tagged(body, "application/json", if_none_match, {"Vary": "Accept"})

    return router
