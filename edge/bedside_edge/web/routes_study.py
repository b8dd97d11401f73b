"""The study page and its pictures."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from bedside_core.access import Action
from bedside_core.errors import InvalidRequestError, MalformedHeaderError
from bedside_core.imaging import Window
from bedside_core.uses import Thing, Use
from bedside_edge.api.gate import asks, visible
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.services.pictures import Picture, View
from bedside_edge.web.site import PageRoute, person, site
from bedside_edge.web.study import StudyView, may_sign, study_view, without_results

_SMALLEST, _SIZE, _LARGEST = 64, 1536, 4096


def study_router(services: Services, storage: WorkPool, waiting: WorkPool) -> APIRouter:
    """Return /studies/{id} and the pictures below it."""
    router = APIRouter(prefix="/studies", include_in_schema=False, route_class=PageRoute)

    @router.get(
        "/{study_id}", dependencies=[needs(Action.VIEW_RESULT), asks(Use.VIEW, Thing.STUDY)]
    )
    async def study(
        request: Request,
        study_id: str,
        result: Annotated[str, Query(max_length=64)] = "",
        image: Annotated[str, Query(max_length=64)] = "",
    ) -> Response:
        def look() -> StudyView:
            view = study_view(services, study_id, result, image)
            shown = visible(request, [study_id]).results
            return view if shown else without_results(view)

        view = await storage.run(look)
        values: dict[str, Any] = {"view": view, "now": services.clock.now()}
        values["signing"] = may_sign(person(request), view.sign_off, view.body)
        return site().page(request, "study.html", **values)

    @router.get(
        "/{study_id}/images/{instance_id}/grey.json",
        dependencies=[needs(Action.VIEW_IMAGE), asks(Use.VIEW, Thing.STUDY)],
    )
    async def grey(study_id: str, instance_id: str) -> Response:
        scale, (height, width) = await waiting.run(
            services.pictures.grey_scale, study_id, instance_id
        )
        return JSONResponse(
            {
                "low": scale.low,
                "high": scale.high,
                "centre": scale.centre,
                "width": scale.width,
                "rows": height,
                "columns": width,
            }
        )

    @router.get(
        "/{study_id}/images/{instance_id}/picture.png",
        dependencies=[needs(Action.VIEW_IMAGE), asks(Use.VIEW, Thing.STUDY)],
    )
    async def picture(
        request: Request,
        study_id: str,
        instance_id: str,
        window: Annotated[str, Query(max_length=64, description="centre,width")] = "",
        invert: bool = False,
        size: Annotated[int, Query(ge=_SMALLEST, le=_LARGEST)] = _SIZE,
    ) -> Response:
        view = View(window=_window(window), inverted=invert, size=size)
        tag = await storage.run(services.pictures.tag, study_id, instance_id, view)
        if (same := _not_modified(request, tag)) is not None:
            return same
        return _png(await waiting.run(services.pictures.image, study_id, instance_id, view))

    @router.get(
        "/{study_id}/images/{instance_id}/saliency.png",
        dependencies=[needs(Action.VIEW_IMAGE), asks(Use.VIEW, Thing.RESULT)],
    )
    async def saliency(
        request: Request, instance_id: str, result: Annotated[str, Query(max_length=64)]
    ) -> Response:
        found = await waiting.run(services.pictures.saliency, result, instance_id)
        return _not_modified(request, found.tag) or _png(found)

    return router


def _window(text: str) -> Window | None:
    if not text:
        return None
    try:
        centre, width = (float(part) for part in text.split(","))
        return Window(centre=centre, width=width)
    except (ValueError, MalformedHeaderError) as cause:
        raise InvalidRequestError("window is centre,width with a width of at least 1") from cause


def _not_modified(request: Request, tag: str) -> Response | None:
    asked = request.headers.get("if-none-match", "")
    if f'"{tag}"' not in [part.strip().removeprefix("W/") for part in asked.split(",")]:
        return None
    return Response(status_code=304, headers={"ETag": f'"{tag}"'})


def _png(picture: Picture) -> Response:
    return Response(picture.body, media_type="image/png", headers={"ETag": f'"{picture.tag}"'})
