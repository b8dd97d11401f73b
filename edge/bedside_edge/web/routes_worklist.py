"""The worklist page, and the part of it that fetches itself anew when something changed."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from bedside_core.access import Action
from bedside_edge.api.gate import permitted_page
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.schemas import read_priority
from bedside_edge.api.services import Services
from bedside_edge.services.worklist import Show, WorkQuery
from bedside_edge.web.site import PageRoute, site

_MOST = 2000
_PAGE = 50
_LONGEST = 128


def worklist_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return / and /worklist."""
    router = APIRouter(
        include_in_schema=False,
        route_class=PageRoute,
        dependencies=[needs(Action.VIEW_WORKLIST)],
    )

    async def values(
        request: Request, q: str, show: str, priority: str, page: int, size: int
    ) -> dict[str, Any]:
        part = Show(show) if show in set(Show) else Show.ALL
        query = WorkQuery(
            text=q[:_LONGEST],
            show=part,
            priority=read_priority(priority) if priority else None,
            offset=(page - 1) * size,
            limit=size,
        )
        found = await storage.run(permitted_page, request, services, query)
        kept = {"q": q[:_LONGEST], "priority": priority, "size": "" if size == _PAGE else size}

        def address(path: str = "/", **changes: object) -> str:
            asked = {"show": part, "page": page} | kept | changes
            told = {name: value for name, value in asked.items() if value not in ("", "all", 1)}
            return path + ("?" + urlencode(told) if told else "")

        return {
            "found": found,
            "query": query,
            "page": page,
            "now": services.clock.now(),
            "address": address,
            "priority": priority,
            "parts_shown": list(Show),
            "box": await storage.run(services.gate.incident),
        }

    @router.get("/")
    async def worklist(
        request: Request,
        q: str = "",
        show: str = "all",
        priority: str = "",
        page: Annotated[int, Query(ge=1, le=100_000)] = 1,
        size: Annotated[int, Query(ge=1, le=_MOST)] = _PAGE,
    ) -> Response:
        found = await values(request, q, show, priority, page, size)
        return site().page(request, "worklist.html", **found)

    @router.get("/worklist")
    async def part(
        request: Request,
        q: str = "",
        show: str = "all",
        priority: str = "",
        page: Annotated[int, Query(ge=1, le=100_000)] = 1,
        size: Annotated[int, Query(ge=1, le=_MOST)] = _PAGE,
    ) -> Response:
        found = await values(request, q, show, priority, page, size)
        return site().page(request, "worklist_part.html", **found)

    return router
