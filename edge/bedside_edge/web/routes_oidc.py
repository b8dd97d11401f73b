"""Single sign-on in the browser: off to the identity provider, and back."""

import html
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from bedside_core.errors import (
    BedsideError,
    IdentityProviderError,
    InvalidIdTokenError,
    NoRoleError,
    NotFoundError,
    UnauthenticatedError,
)
from bedside_edge.api.auth import address_of, safe_next, set_cookie
from bedside_edge.api.errors import status_of
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.services.oidc import SingleSignOn
from bedside_edge.web.site import PageRoute, site

_PATH: Final = "/login/oidc"
_KEPT_S: Final = 600
_SAID: Final[dict[type[BedsideError], str]] = {
    IdentityProviderError: "login.oidc_away",
    InvalidIdTokenError: "login.oidc_refused",
    NoRoleError: "login.oidc_no_role",
    UnauthenticatedError: "login.oidc_disabled",
}
_Text = Annotated[str, Query(max_length=2048)]


def oidc_router(services: Services, waiting: WorkPool) -> APIRouter:
    """Return /login/oidc and its way back; both wait for the provider in `waiting`."""
    router = APIRouter(include_in_schema=False, route_class=PageRoute)

    @router.get(_PATH)
    async def begin(request: Request, next: _Text = "/") -> Response:  # noqa: A002
        sign_on = _offered(services)
        wanted = safe_next(next)
        try:
            begun = await waiting.run(sign_on.begin, wanted)
        except IdentityProviderError as error:
            return _local(request, error, wanted)
        answer = RedirectResponse(begun.url, 303)
        answer.set_cookie(
            _cookie(request),
            begun.browser,
            max_age=_KEPT_S,
            path="/" if request.url.scheme == "https" else _PATH,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",  # the way back begins at the provider's site
        )
        return answer

    @router.get(_PATH + "/callback")
    async def callback(
        request: Request,
        state: _Text = "",
        code: _Text = "",
        iss: _Text = "",
        error: _Text = "",
    ) -> Response:
        sign_on = _offered(services)
        browser, address = request.cookies.get(_cookie(request), ""), address_of(request)
        if error or not code:
            await waiting.run(sign_on.abandon, state)
            return _local(request, InvalidIdTokenError("the provider refused the log-in"), "/")

        def work() -> Response:
            session, wanted = sign_on.finish(
                state=state, code=code, issuer=iss, browser=browser, address=address
            )
            # a redirect would still belong to the provider's navigation, which brings no cookie
            # that is SameSite=Strict; a page of ours that goes on does not
            answer = HTMLResponse(_GO_ON.format(html.escape(wanted, quote=True)))
            set_cookie(answer, request, session)
            return answer

        try:
            answer = await waiting.run(work)
        except (
            IdentityProviderError,
            InvalidIdTokenError,
            NoRoleError,
            UnauthenticatedError,
        ) as refused:
            return _local(request, refused, "/")
        path = "/" if request.url.scheme == "https" else _PATH
        answer.delete_cookie(_cookie(request), path=path, secure=request.url.scheme == "https")
        return answer

    return router


_GO_ON: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Bedside</title>'
    '<meta http-equiv="refresh" content="0;url={0}"><p><a href="{0}">Bedside</a></p></html>'
)


def _offered(services: Services) -> SingleSignOn:
    if services.sign_on is None:
        raise NotFoundError("single sign-on is not configured")
    return services.sign_on


def _cookie(request: Request) -> str:
    return "__Host-bedside-oidc" if request.url.scheme == "https" else "bedside-oidc"


def _local(request: Request, error: BedsideError, wanted: str) -> Response:
    """Return the log-in page with what happened: local accounts go on working."""
    status = 422 if isinstance(error, UnauthenticatedError) else status_of(error.code)
    words = _SAID[type(error)]
    return site().page(
        request, "login.html", status=status, next=wanted, done="", wrong=words, sign_on=True
    )
