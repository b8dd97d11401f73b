"""Files the pages load, and the switch of language. Open to everybody: nothing of a patient."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from bedside_core.errors import NotFoundError
from bedside_edge.api.auth import safe_next
from bedside_edge.web import language
from bedside_edge.web.site import PageRoute, asset_response

_YEAR_S = 31_536_000


def site_router() -> APIRouter:
    """Return /static and /language."""
    router = APIRouter(include_in_schema=False, route_class=PageRoute)

    @router.get("/static/{name:path}")
    async def static(name: str, v: str = "") -> Response:
        found = asset_response(name, v)
        if found is None:
            raise NotFoundError("no such file")
        return found

    @router.get("/language/{code}")
    async def switch(request: Request, code: str, next: str = "/") -> Response:  # noqa: A002
        if code not in language.LANGUAGES:
            raise NotFoundError("no such language")
        answer = RedirectResponse(safe_next(next), 303)
        answer.set_cookie(
            language.COOKIE,
            code,
            max_age=_YEAR_S,
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
        return answer

    return router
