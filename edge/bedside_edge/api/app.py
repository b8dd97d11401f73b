"""The HTTP application, assembled: raw handlers for bulk, FastAPI for the rest, one shell around.

`create_app` returns a FastAPI object whose ASGI call is already wrapped; nothing listens yet.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from bedside_core.access import Action
from bedside_core.errors import (
    BedsideError,
    InvalidInputError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
)
from bedside_edge.api import analyze, explain, infer, repository, stow
from bedside_edge.api.auth import ActorFromScope, Authenticator
from bedside_edge.api.doors import Doors
from bedside_edge.api.errors import error_reply
from bedside_edge.api.following import Following
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.once import Once
from bedside_edge.api.openapi import document
from bedside_edge.api.pool import WorkPool, close_pools
from bedside_edge.api.reply import Reply
from bedside_edge.api.room import Room
from bedside_edge.api.routes import health_router, jobs_router, results_router
from bedside_edge.api.routes_access import accounts_router, own_router
from bedside_edge.api.routes_card import card_router
from bedside_edge.api.routes_events import events_router
from bedside_edge.api.routes_evidence import evidence_router
from bedside_edge.api.routes_fhir import fhir_router
from bedside_edge.api.routes_flashing import flashing_router
from bedside_edge.api.routes_hardware import hardware_router
from bedside_edge.api.routes_incidents import incidents_router
from bedside_edge.api.routes_keeping import erasure_router, holds_router
from bedside_edge.api.routes_learning import learning_router
from bedside_edge.api.routes_models import models_router
from bedside_edge.api.routes_outputs import outputs_router
from bedside_edge.api.routes_overlap import overlap_router
from bedside_edge.api.routes_policy import policy_router
from bedside_edge.api.routes_privacy import privacy_router
from bedside_edge.api.routes_qido import qido_router
from bedside_edge.api.routes_reviews import reviews_router
from bedside_edge.api.routes_rights import consents_router, requests_router
from bedside_edge.api.routes_rules import rules_router
from bedside_edge.api.routes_sync import sync_router
from bedside_edge.api.routes_updates import updates_router
from bedside_edge.api.routes_ups import ups_router
from bedside_edge.api.routes_v2 import v2_router
from bedside_edge.api.routes_wado import wado_router
from bedside_edge.api.routes_witness import witness_router
from bedside_edge.api.routes_worklist import worklist_router
from bedside_edge.api.services import Services
from bedside_edge.api.shell import ErrorPage, HotRoute, Shell, in_browser
from bedside_edge.config import Http

Pages = Callable[[Services, WorkPool, WorkPool], APIRouter]

_WAITING_THREADS = 16
_PASSWORD_THREADS = 2  # each hash takes a core and 19 MiB
_PASSWORDS_WAITING = 16
_POST_ONLY = (
    analyze.PATH,
    stow.PATH,
    infer.PATH,
    explain.PATH,
    repository.INDEX_PATH,
    repository.CHANGE_PATH,
)
# FastAPI can send spans with paths, bodies and stack traces to whoever an environment variable
# names: nothing of that leaves the box, and a request need not ask whether it should
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,40}")
_CLOSE_S = 1.0  # the requests are over by then; this is for threads in their last call


def create_app(
    services: Services,
    settings: Http | None = None,
    *,
    inference_workers: int = 1,
    metrics: Metrics | None = None,
    pages: Pages | None = None,
    actor_from_scope: ActorFromScope | None = None,
    error_page: ErrorPage | None = None,
) -> FastAPI:
    """Return the application over the given services.

    Args:
        services: what it stands on.
        settings: section `[http]` of the settings.
        inference_workers: threads that run the model, as the hardware profile says.
        metrics: where it counts; handed in when others count there too.
        actor_from_scope: what the transport knows of its peer, where it knows something.
        pages: makes the routes for people from the services and two pools: rows, and waiting.
        error_page: makes the answer to an error that a person sees.
    """
    settings, metrics = settings or Http(), metrics or Metrics()
    storage = WorkPool("storage", settings.storage_threads)
    waiting = WorkPool("waiting", _WAITING_THREADS)
    inference = WorkPool("inference", inference_workers, settings.max_waiting)
    passwords = WorkPool("passwords", _PASSWORD_THREADS, _PASSWORDS_WAITING)
    room = Room(settings.max_uploads, settings.max_held_bytes)
    stops = _Stops()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        stops.begin()
        close_pools((waiting, inference, passwords, storage), _CLOSE_S)

    following = Following(services, storage, stops, longest_s=settings.event_stream_s)
    app = _framework(services, storage, inference, waiting, metrics, lifespan, following, passwords)
    app.state.gate = services.gate
    if pages is not None:
        app.include_router(pages(services, storage, waiting))
    analyzer = analyze.AnalyzeHandler(
        services,
        storage=storage,
        waiting=waiting,
        metrics=metrics,
        settings=settings,
        stopping=stops,
        room=room,
    )
    app.add_middleware(
        Shell,
        hot=[
            HotRoute(
                "/v2/models/{model}/infer",
                infer.PATH,
                infer.InferHandler(
                    services.models, services.gate, inference, metrics, settings, room
                ),
                Action.INFER,
            ),
            HotRoute(
                "/v2/models/{model}/explain",
                explain.PATH,
                explain.ExplainHandler(
                    services.models, services.gate, inference, metrics, settings, room
                ),
                Action.INFER,
            ),
            HotRoute(
                "/v2/repository/index",
                repository.INDEX_PATH,
                repository.IndexHandler(services.models, storage, settings),
                Action.MONITOR,
            ),
            HotRoute(
                "/v2/repository/models/{model}/{change}",
                repository.CHANGE_PATH,
                repository.ChangeHandler(services.models, waiting, settings),
                Action.MANAGE_MODELS,
            ),
            HotRoute(
                "/dicom-web/studies",
                stow.PATH,
                stow.StowHandler(services.ingest, storage, metrics, settings, room),
                Action.STORE,
            ),
            HotRoute("/api/v1/studies:analyze", analyze.PATH, analyzer, Action.ANALYZE),
        ],
        doors=Doors(lambda: app.routes),
        authenticator=Authenticator(services.access, actor_from_scope),
        metrics=metrics,
        random=services.random,
        stopping=stops,
        names=settings.names,
        idle_s=settings.upload_idle_s,
        error_page=error_page,
    )
    app.state.stop = stops.begin
    app.state.error_page = error_page
    plain = app.openapi
    app.openapi = lambda: document(plain())  # type: ignore[method-assign]
    return app


def _framework(
    services: Services,
    storage: WorkPool,
    inference: WorkPool,
    waiting: WorkPool,
    metrics: Metrics,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    following: Following | None = None,
    passwords: WorkPool | None = None,
) -> FastAPI:
    """Return FastAPI with the routes that are not hot; the arguments are used when called."""
    app = FastAPI(
        title="Bedside",
        version=version("bedside"),
        lifespan=lifespan,
        docs_url=None,  # the pages load scripts from elsewhere; the document is enough
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
    )
    once = Once(services)
    for router in (
        health_router(services, storage, metrics),
        own_router(services, storage, passwords or storage),
        accounts_router(services, storage),
        jobs_router(services, storage, once),
        outputs_router(services, storage, waiting, once),  # before results: /results/{id}.dcm
        results_router(services, storage, inference),
        v2_router(services, storage),
        rules_router(services, storage),
        policy_router(services, storage, waiting),
        privacy_router(services, storage, waiting),
        models_router(services, waiting),
        flashing_router(services, storage, waiting),
        updates_router(services, storage),
        card_router(services, storage),
        fhir_router(services, storage),
        reviews_router(services, storage, once),
        events_router(services, storage, following or Following(services, storage)),
        qido_router(services, storage),
        wado_router(services, storage),
        ups_router(services, storage),
        worklist_router(services, storage),
        evidence_router(services, storage),
        witness_router(services, storage, waiting),
        erasure_router(services, storage, waiting),
        holds_router(services, storage, waiting),
        incidents_router(services, storage, waiting),
        consents_router(services, storage),
        requests_router(services, storage, waiting),
        learning_router(services, storage, waiting),
        sync_router(services, storage, waiting),
        overlap_router(services, storage, waiting),
        hardware_router(services, storage),
    ):
        app.include_router(router)
    app.add_exception_handler(BedsideError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    return app


class _Stops:
    """Whether the service is on its way down: new work is refused, waiting ends early."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> None:
        self._begun = True

    def __call__(self) -> bool:
        return self._begun


def _response(reply: Reply, headers: dict[str, str] | None = None) -> Response:
    response = Response(reply.body, reply.status, headers, reply.content_type.decode())
    for name, value in reply.headers:
        response.headers[name.decode()] = value.decode()
    return response


def _request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


async def _on_error(request: Request, error: Exception) -> Response:
    return _response(error_reply(error, request.url.path, _request_id(request)))


async def _on_http_error(request: Request, error: Exception) -> Response:
    """The framework's own refusals: unknown path, wrong method, unreadable body."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    allowed = dict(getattr(error, "headers", None) or {})
    if status == 404 and any(path.fullmatch(request.url.path) for path in _POST_ONLY):
        status, allowed = 405, {"Allow": "POST"}  # the framework does not know the hot routes
    known: dict[int, BedsideError] = {
        404: NotFoundError("no such resource"),
        405: MethodNotAllowedError("the resource does not answer this method"),
    }
    ours = known.get(status, InvalidInputError("the request cannot be read"))
    page: ErrorPage | None = getattr(request.app.state, "error_page", None)
    if page is not None and in_browser(request.scope, dict(request.headers.raw)):
        return _response(page(request.scope, ours), allowed)
    return _response(error_reply(ours, request.url.path, _request_id(request)), allowed)


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Say which parameter is wrong and why, never what was sent."""
    wrong = error.errors() if isinstance(error, RequestValidationError) else []
    detail = "; ".join(f"{'.'.join(_shown(step) for step in e['loc'])}: {e['msg']}" for e in wrong)
    ours = InvalidRequestError(detail)
    return _response(error_reply(ours, request.url.path, _request_id(request)))


def _shown(step: object) -> str:
    """Return a step to what is wrong; a name of the sender's own that is no identifier is not."""
    return str(step) if _IDENTIFIER.fullmatch(str(step)) else "a field"


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document; it does not depend on the services behind the routes."""
    nothing = cast("Any", None)  # routes look at their services only when they are called
    return document(_framework(nothing, nothing, nothing, nothing, nothing).openapi())
