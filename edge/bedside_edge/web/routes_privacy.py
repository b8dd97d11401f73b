"""Privacy for people: the budget, releases with their intervals, and the planner."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from markupsafe import Markup

from bedside_core.access import Action
from bedside_core.errors import BedsideError, NotReadyError, WrongStateError
from bedside_core.planner import Schedule
from bedside_core.release_page import estimand_words, noise_words, pictures, unprotected
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.services.privacy_desk import PrivacyDesk, Wish
from bedside_edge.web.site import PageRoute, site, words_of

_READ: Final = [needs(Action.READ_PRIVACY)]
_LISTED: Final = 100
_EPSILON, _SIZE, _NIGHTS = 1.0, 100, 365


def privacy_pages(services: Services, storage: WorkPool) -> APIRouter:
    """Return /privacy, /privacy/releases/{fingerprint} and /privacy/plan."""
    router = APIRouter(prefix="/privacy", include_in_schema=False, route_class=PageRoute)

    def desk() -> PrivacyDesk:
        if services.privacy is None:
            raise NotReadyError("this service releases no statistics")
        return services.privacy.desk

    def overview() -> dict[str, Any]:
        found = desk().budget()
        return {"found": found, "releases": desk().release_list(_LISTED, None)["releases"]}

    @router.get("", dependencies=_READ)
    async def budget(request: Request) -> Response:
        values = await storage.run(overview)
        growth = values["found"]["growth"]
        chart = {
            "kind": "growth",
            "x": [one["at"] / 1000 for one in growth],
            "y": [one["epsilon"] for one in growth],
            "cap": values["found"]["scopes"][0]["cap"]["epsilon"] if growth else 0,
        }
        return site().page(request, "privacy.html", chart=chart, **values)

    @router.get("/releases/{fingerprint}", dependencies=_READ)
    async def release(
        request: Request,
        fingerprint: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")],
        night: Annotated[int, Query(ge=0, le=3660)] = 0,
    ) -> Response:
        document = await storage.run(lambda: desk().document(fingerprint, night))
        language = words_of(request).language
        return site().page(
            request,
            "privacy_release.html",
            document=document,
            # our own drawing, every text in it escaped
            drawn=[(name, Markup(svg)) for name, svg in pictures(document, language)],  # noqa: S704
            noise=noise_words(document["noise"]),
            estimand=estimand_words(document, language),
            unprotected=unprotected(document, language),
            fingerprint=fingerprint,
            night=night,
        )

    @router.get("/plan", dependencies=_READ)
    async def plan(
        request: Request,
        statistics: Annotated[list[str] | None, Query(max_length=64)] = None,
        epsilon: Annotated[float, Query(gt=0, le=100, allow_inf_nan=False)] = _EPSILON,
        size: Annotated[int, Query(ge=1, le=10**9)] = _SIZE,
        schedule: Schedule = Schedule.ONE_OFF,
        nights: Annotated[int, Query(ge=1, le=3660)] = _NIGHTS,
    ) -> Response:
        chosen = tuple(statistics or ())
        nightly = schedule is not Schedule.ONE_OFF
        wish = Wish(
            statistics=chosen,
            epsilon=epsilon,
            schedule=schedule,
            nights=nights if nightly else 1,
        )

        def work() -> dict[str, Any]:
            try:
                names = [one["name"] for one in desk().catalogue()["statistics"]]
            except WrongStateError:
                return {"names": [], "plan": None, "code": ""}
            if not chosen:
                return {"names": names, "plan": None, "code": ""}
            try:
                made = desk().plan(wish, size, picture=True)
            except BedsideError as error:
                return {"names": names, "plan": None, "code": error.code}
            return {"names": names, "plan": made, "code": ""}

        values = await storage.run(work)
        picture = Markup(values["plan"]["picture"]) if values["plan"] else ""  # noqa: S704
        return site().page(
            request,
            "privacy_plan.html",
            chosen=chosen,
            epsilon=epsilon,
            size=size,
            schedule=str(schedule),
            schedules=[str(one) for one in Schedule],
            nights=nights,
            picture=picture,
            **values,
        )

    return router
