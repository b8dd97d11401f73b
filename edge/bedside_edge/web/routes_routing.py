"""Routes and peers: rules in force, a dry run of them, destinations with a test, who may call.

A dry run reads a header and nothing else: what is tried here is neither stored nor analysed.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from bedside_core.access import Action
from bedside_core.errors import (
    BedsideError,
    InvalidInputError,
    NotFoundError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from bedside_core.routing import Image
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes_rules import ImageBody
from bedside_edge.api.services import DryRun, Services
from bedside_edge.dicom.header import read_header
from bedside_edge.ports import InstanceState
from bedside_edge.services.outputs import DeliveryState
from bedside_edge.web.site import PageRoute, is_htmx, site

_RECENT: Final = 30
_MOST_HEAD: Final = 4 << 20  # bytes of an instance that are looked at
_SHORT: Final = 64
_Text = Annotated[str, Query(max_length=_SHORT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A dry run, or why there is none."""

    run: DryRun | None = None
    images: int = 0
    wrong: str = ""  # code


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationLine:
    """A destination of the settings and how it is doing."""

    name: str
    kind: str  # dicom, dicomweb; empty: no longer in the settings
    address: str
    objects: list[str]
    sends: bool
    fetch: str
    waiting: int
    dead: int
    failures: int
    last_success: int
    last_failure: int
    reason: str


def routing_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return /routes; calls to other machines run in `waiting`."""
    router = APIRouter(prefix="/routes", include_in_schema=False, route_class=PageRoute)

    async def page(request: Request, **more: Any) -> Response:  # noqa: ANN401  template values
        values = {"asked": {}, "tried": None, "probed": {}} | more
        settings = services.settings
        return site().page(
            request,
            "routes.html",
            rules=services.routing.rules,
            destinations=await storage.run(_destinations, services),
            recent=await storage.run(_recent, services),
            now=services.clock.now(),
            dicom=settings.dicom,
            completion=settings.completion,
            **values,
        )

    @router.get("", dependencies=[needs(Action.MANAGE_RULES)])
    async def routes(
        request: Request,
        study: _Text = "",
        modality: _Text = "",
        body_part: _Text = "",
        view: _Text = "",
        source: _Text = "",
    ) -> Response:
        described = {"modality": modality, "body_part": body_part, "view": view, "source": source}
        described = {name: value.strip() for name, value in described.items()}
        tried = None
        if study:
            tried = await storage.run(_try_study, services, study.strip())
        elif any(described.values()):
            tried = await storage.run(_try_described, services, described)
        asked = {"study": study} | described
        if is_htmx(request):
            return site().page(request, "routes_tried.html", tried=tried)
        return await page(request, asked=asked, tried=tried)

    @router.post("/file", dependencies=[needs(Action.MANAGE_RULES)])
    async def try_file(request: Request, cut: bool = False) -> Response:
        """Try the beginning of an instance that the page's script read from a file."""
        if request.headers.get("content-type", "") != "application/dicom":
            raise UnsupportedMediaTypeError("send the beginning of an instance")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_HEAD:
                raise TooLargeError("send the beginning of an instance only")
        tried = await storage.run(_try_file, services, bytes(body), cut)
        return site().page(request, "routes_tried.html", tried=tried)

    @router.post("/destinations/{name}/test", dependencies=[needs(Action.MANAGE_DELIVERIES)])
    async def probe(request: Request, name: str) -> Response:
        worker = services.outgoing.deliveries.workers.get(name)
        if worker is None:
            raise NotFoundError("no destination of that name sends")
        try:
            told: dict[str, Any] = {"ok": True, "seen": await waiting.run(worker.destination.probe)}
            worker.kick()
        except BedsideError as error:
            told = {"ok": False, "seen": str(error), "code": error.code}
        if is_htmx(request):
            return site().page(request, "routes_probe.html", told=told)
        return await page(request, probed={name: told})

    return router


# --- dry runs --------------------------------------------------------------------------------


def _try(services: Services, images: list[Image]) -> Tried:
    return Tried(run=services.routing.dry_run(images), images=len(images))


def _try_study(services: Services, study: str) -> Tried:
    try:
        held = [one for one in services.instances(study) if one.state is InstanceState.HELD]
    except NotFoundError as error:
        return Tried(wrong=error.code)
    images = [
        Image(header=one.header, source=one.source, laterality=one.header.laterality)
        for one in held
    ]
    return _try(services, images)


def _try_described(services: Services, told: dict[str, str]) -> Tried:
    header = ImageBody(modality=told["modality"], body_part=told["body_part"], view=told["view"])
    return _try(services, [Image(header=header, source=told["source"])])


def _try_file(services: Services, data: bytes, cut: bool) -> Tried:
    try:
        header = read_header(data, cut=cut)
    except InvalidInputError as error:
        return Tried(wrong=error.code)
    return _try(services, [Image(header=header, source="", laterality=header.laterality)])


# --- what there is ---------------------------------------------------------------------------


def _recent(services: Services) -> list[tuple[str, int]]:
    """Return the newest studies: id, and when they came; no names."""
    found = {job.study_id: job.created for job in reversed(services.jobs.queue.jobs(limit=_RECENT))}
    return list(reversed(found.items()))


def _destinations(services: Services) -> list[DestinationLine]:
    counts = services.outgoing.deliveries.outputs.delivery_counts()
    workers, known = services.outgoing.deliveries.workers, services.settings.destinations
    lines = []
    for name in sorted({*workers, *known}):
        setting, worker = known.get(name), workers.get(name)
        address = ""
        if setting is not None and setting.kind == "dicom":
            address = f"{setting.ae_title} {setting.host}:{setting.port}"
        elif setting is not None:
            address = setting.url
        state = worker.condition if worker else None
        lines.append(
            DestinationLine(
                name=name,
                kind=setting.kind if setting else "",
                address=address,
                objects=sorted(worker.destination.objects) if worker else [],
                sends=worker is not None,
                fetch=setting.fetch if setting else "",
                waiting=counts.get((name, DeliveryState.WAITING), 0),
                dead=counts.get((name, DeliveryState.DEAD), 0),
                failures=state.failures if state else 0,
                last_success=state.last_success if state else 0,
                last_failure=state.last_failure if state else 0,
                reason=state.reason if state else "",
            )
        )
    return lines
