"""Every page of the box as one router; `box` hands it to the application."""

from fastapi import APIRouter

from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.web.routes_access import access_router
from bedside_edge.web.routes_models import models_router
from bedside_edge.web.routes_oidc import oidc_router
from bedside_edge.web.routes_review import review_router
from bedside_edge.web.routes_site import site_router
from bedside_edge.web.routes_study import study_router
from bedside_edge.web.routes_worklist import worklist_router


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
    return router
