"""Every page of the box as one router; `box` hands it to the application."""

from fastapi import APIRouter, Request
from starlette.types import Scope

from bedside_core.errors import BedsideError
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.reply import Reply
from bedside_edge.api.services import Services
from bedside_edge.web.routes_access import access_router
from bedside_edge.web.routes_agreement import agreement_router
from bedside_edge.web.routes_incident import incident_router
from bedside_edge.web.routes_models import models_router
from bedside_edge.web.routes_nights import nights_router
from bedside_edge.web.routes_oidc import oidc_router
from bedside_edge.web.routes_patients import patients_router
from bedside_edge.web.routes_people import people_router
from bedside_edge.web.routes_privacy import privacy_pages
from bedside_edge.web.routes_queues import queues_router
from bedside_edge.web.routes_review import review_router
from bedside_edge.web.routes_rollout import rollout_router
from bedside_edge.web.routes_routing import routing_router
from bedside_edge.web.routes_site import site_router
from bedside_edge.web.routes_study import study_router
from bedside_edge.web.routes_system import system_router
from bedside_edge.web.routes_worklist import worklist_router
from bedside_edge.web.site import site


def pages_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return the pages.

    Args:
        services: what they show.
        storage: threads for what reads and writes rows.
        waiting: threads for what takes its time, such as pictures.
    """
    router = APIRouter(include_in_schema=False)
    router.include_router(site_router())
    router.include_router(access_router(services, waiting))
    router.include_router(oidc_router(services, waiting))
    router.include_router(worklist_router(services, storage))
    router.include_router(study_router(services, storage, waiting))
    router.include_router(review_router(services, storage))
    router.include_router(models_router(services, storage))
    router.include_router(rollout_router(services, waiting))
    router.include_router(queues_router(services, storage))
    router.include_router(routing_router(services, storage, waiting))
    router.include_router(people_router(services, storage))
    router.include_router(agreement_router(services, storage))
    router.include_router(system_router(services, storage))
    router.include_router(incident_router(services, storage, waiting))
    router.include_router(patients_router(services, storage, waiting))
    router.include_router(privacy_pages(services, storage))
    router.include_router(nights_router(services, storage))
    return router


def error_page(scope: Scope, error: BedsideError) -> Reply:
    """Return what a person sees of an error that no page has turned into words."""
    made = site().error(Request(scope), error)
    headers = [(n, v) for n, v in made.raw_headers if n not in (b"content-length", b"content-type")]
    kind = made.headers.get("content-type", "text/html; charset=utf-8").encode()
    return Reply(status=made.status_code, body=bytes(made.body), content_type=kind, headers=headers)
