"""A result as a FHIR R4B bundle over HTTP."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from bedside_core.access import Action
from bedside_core.errors import NotFoundError
from bedside_core.uses import Target, Thing, Use
from bedside_edge.api.gate import asks
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.api.tags import tagged
from bedside_edge.services.fhir import result_bundle

FHIR = "application/fhir+json"
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {FHIR: {"schema": {"type": "object"}}},
        "description": "Bundle: Patient (identifier only), ImagingStudy, Device, DiagnosticReport, "
        "Observations, Provenance, and per verdict Practitioner and AuditEvent",
        "headers": {"ETag": {"schema": {"type": "string"}}},
    },
    304: {"description": "unchanged"},
}


def fhir_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the route."""
    router = APIRouter(prefix="/api/v1", tags=["results"], responses=dict(PROBLEMS))

    @router.get(
        "/results/{result_id}/fhir",
        summary="The result as FHIR R4B, with what readers said of it",
        response_class=Response,
        responses=_ANSWERS,
        dependencies=[
            needs(Action.VIEW_RESULT),
            asks(Use.EXPORT, Thing.RESULT, target=Target.HOSPITAL),
        ],
    )
    async def get_fhir(result_id: str, if_none_match: Annotated[str, Header()] = "") -> Response:
        def look() -> bytes:
            stored = services.jobs.queue.result(result_id)
            instances = services.instances(stored.study_id)
            if not instances:
                raise NotFoundError("the images of the result are no longer held")
            found = services.outgoing.reviews.reviews(result_id)
            bundle = result_bundle(stored, json.loads(stored.body), instances, found)
            return json.dumps(bundle, separators=(",", ":")).encode()

        return tagged(await storage.run(look), FHIR, if_none_match)

    return router
