"""Log-in, the one-time link of a fresh box or a forgotten password, and one's own account."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from bedside_core.access import Action
from bedside_core.errors import (
    BedsideError,
    InvalidRequestError,
    NotFoundError,
    QueueFullError,
    TooManyAttemptsError,
    UnauthenticatedError,
    WeakPasswordError,
    WrongStateError,
)
from bedside_edge.api.auth import address_of, clear_cookie, cookie_of, safe_next, set_cookie
from bedside_edge.api.errors import retry_headers, status_of
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.services.passwords import LONGEST, SHORTEST
from bedside_edge.web.forms import form_of
from bedside_edge.web.site import PageRoute, person, site, start_of

# what a person may be told about a log-in that failed: never whether the name exists
_SAID: dict[type[BedsideError], str] = {
    UnauthenticatedError: "login.wrong",
    TooManyAttemptsError: "login.too_many",
    QueueFullError: "login.busy",
    WeakPasswordError: "account.weak",
    WrongStateError: "account.taken",
    InvalidRequestError: "account.bad_login",
    NotFoundError: "setup.void",
}
_DONE = frozenset({"password-set", "logged-out"})


def access_router(services: Services, waiting: WorkPool) -> APIRouter:
    """Return /login, /setup, /logout and /account; passwords are hashed in `waiting`."""
    router = APIRouter(include_in_schema=False, route_class=PageRoute)
    _add_login(router, services, waiting)
    _add_setup(router, services, waiting)
    _add_account(router, services, waiting)
    return router


def _add_login(router: APIRouter, services: Services, waiting: WorkPool) -> None:
    access, offered = services.access, services.sign_on is not None

    @router.get("/login")
    async def login_page(
        request: Request,
        next: Annotated[str, Query(max_length=2048)] = "/",  # noqa: A002
        done: str = "",
    ) -> Response:
        if person(request) is not None:
            return RedirectResponse(safe_next(next), 303)
        told = done if done in _DONE else ""
        return site().page(
            request, "login.html", next=safe_next(next), done=told, wrong="", sign_on=offered
        )

    @router.post("/login")
    async def login(request: Request) -> Response:
        fields = await form_of(request)
        wanted = safe_next(fields.get("next", "/"))
        try:
            session = await waiting.run(
                access.log_in,
                fields.get("login", ""),
                fields.get("password", "")[:LONGEST],
                address_of(request),
            )
        except (UnauthenticatedError, TooManyAttemptsError, QueueFullError) as error:
            return _again(request, "login.html", error, next=wanted, done="", sign_on=offered)
        answer = RedirectResponse(start_of(session.actor) if wanted == "/" else wanted, 303)
        set_cookie(answer, request, session)
        return answer

    @router.post("/logout", dependencies=[needs(Action.VIEW_OWN)])
    async def logout(request: Request) -> Response:
        await waiting.run(access.log_out, cookie_of(request))
        answer = RedirectResponse("/login?done=logged-out", 303)
        clear_cookie(answer, request)
        return answer


def _add_setup(router: APIRouter, services: Services, waiting: WorkPool) -> None:
    access = services.access

    @router.get("/setup")
    async def setup_page(
        request: Request, link: Annotated[str, Query(max_length=256)] = ""
    ) -> Response:
        try:
            found = await waiting.run(access.link, link)
        except NotFoundError as error:
            return _again(request, "setup_void.html", error)
        return site().page(
            request, "setup.html", link=link, found=found, wrong="", shortest=SHORTEST, filled={}
        )

    @router.post("/setup")
    async def setup(request: Request) -> Response:
        fields = await form_of(request)
        secret, password = fields.get("link", ""), fields.get("password", "")
        try:
            found = await waiting.run(access.link, secret)
        except NotFoundError as error:
            return _again(request, "setup_void.html", error)
        more: dict[str, Any] = {"link": secret, "found": found, "shortest": SHORTEST}
        more["filled"] = {name: fields.get(name, "") for name in ("login", "family", "given")}
        if password != fields.get("again", ""):
            wrong = InvalidRequestError("the two passwords differ")
            return _again(request, "setup.html", wrong, said="account.differ", **more)

        def put() -> None:
            if found.setup:
                name = f"{fields.get('family', '').strip()}^{fields.get('given', '').strip()}"
                access.set_password_by_link(
                    secret, password, login=fields.get("login", ""), name=name.rstrip("^")
                )
            else:
                access.set_password_by_link(secret, password)

        try:
            await waiting.run(put)
        except (WeakPasswordError, WrongStateError, InvalidRequestError, NotFoundError) as error:
            return _again(request, "setup.html", error, **more)
        return RedirectResponse("/login?done=password-set", 303)


def _add_account(router: APIRouter, services: Services, waiting: WorkPool) -> None:
    access = services.access

    def values(request: Request) -> dict[str, Any]:
        actor = actor_of(request)
        account_id = actor.actor_id.removeprefix("person:")
        session = getattr(request.state, "session", None)
        return {
            "login": session.login if session else "",
            "mine": session.session_id if session else "",
            "sessions": access.sessions(account_id) if session else [],
            "shortest": SHORTEST,
            "done": "",
        }

    @router.get("/account", dependencies=[needs(Action.VIEW_OWN)])
    async def account(request: Request, done: str = "") -> Response:
        found = values(request) | {"done": "password" if done == "password" else ""}
        return site().page(request, "account.html", wrong="", **found)

    @router.post("/account/password", dependencies=[needs(Action.VIEW_OWN)])
    async def password(request: Request) -> Response:
        fields = await form_of(request)
        if fields.get("password", "") != fields.get("again", ""):
            wrong = InvalidRequestError("the two passwords differ")
            return _again(request, "account.html", wrong, said="account.differ", **values(request))
        try:
            session = await waiting.run(
                access.change_password,
                actor_of(request),
                fields.get("old", "")[:LONGEST],
                fields.get("password", ""),
                address_of(request),
            )
        except (UnauthenticatedError, WeakPasswordError, TooManyAttemptsError) as error:
            said = "account.old_wrong" if isinstance(error, UnauthenticatedError) else ""
            return _again(request, "account.html", error, said=said, **values(request))
        answer = RedirectResponse("/account?done=password", 303)
        set_cookie(answer, request, session)
        return answer

    @router.post("/account/sessions/{session_id}/end", dependencies=[needs(Action.VIEW_OWN)])
    async def end(request: Request, session_id: str) -> Response:
        actor = actor_of(request)
        own = actor.actor_id.removeprefix("person:")
        await waiting.run(access.end_session, session_id, actor, own)
        return RedirectResponse("/account", 303)


def _again(
    request: Request, template: str, error: BedsideError, *, said: str = "", **values: object
) -> Response:
    """Return the form once more with what was wrong, under the error's own status."""
    # 401 would make browsers and scripts ask for other credentials than this form's
    status = 422 if isinstance(error, UnauthenticatedError) else status_of(error.code)
    words = said or _SAID.get(type(error), "account.bad_login")
    response = site().page(request, template, status=status, wrong=words, **values)
    for name, value in retry_headers(error.code, status):
        response.headers[name.decode()] = value.decode()
    return response
