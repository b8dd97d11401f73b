"""Accounts, log-ins and API tokens for administrators; links and secrets are shown this once."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from bedside_core.access import ALLOWED, PERSONS_ONLY, Action, Role
from bedside_core.errors import (
    BedsideError,
    InvalidRequestError,
    NotFoundError,
    RefusedError,
    WrongStateError,
)
from bedside_edge.api.errors import status_of
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.services.people import Link
from bedside_edge.web.forms import form_of
from bedside_edge.web.site import PageRoute, site

_MANAGE = [needs(Action.MANAGE_ACCOUNTS)]
_DONE = frozenset({"roles", "name", "disabled", "enabled", "ended", "revoked"})


def people_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return /accounts and /tokens."""
    router = APIRouter(include_in_schema=False, route_class=PageRoute, dependencies=_MANAGE)
    _add_accounts(router, services, storage)
    _add_account(router, services, storage)
    _add_tokens(router, services, storage)
    return router


def _add_accounts(router: APIRouter, services: Services, storage: WorkPool) -> None:
    access = services.access

    async def page(
        request: Request, error: BedsideError | None = None, filled: dict[str, str] | None = None
    ) -> Response:
        sessions = await storage.run(access.sessions)
        open_now = {one.account_id for one in sessions}
        return site().page(
            request,
            "accounts.html",
            status=status_of(error.code) if error else 200,
            accounts=access.accounts(),
            open_now=open_now,
            roles=list(Role),
            allowed=ALLOWED,
            filled=filled or {},
            wrong=_wrong(error),
        )

    @router.get("/accounts")
    async def accounts(request: Request) -> Response:
        return await page(request)

    @router.post("/accounts")
    async def add(request: Request) -> Response:
        fields = await form_of(request)
        name = f"{fields.get('family', '').strip()}^{fields.get('given', '').strip()}".rstrip("^")
        try:
            link = await storage.run(
                access.add_account, fields.get("login", ""), name, _roles(fields), actor_of(request)
            )
        except (InvalidRequestError, WrongStateError) as error:
            return await page(request, error, fields)
        return _once(request, link)


def _add_account(router: APIRouter, services: Services, storage: WorkPool) -> None:
    access = services.access

    async def page(
        request: Request, account_id: str, done: str = "", error: BedsideError | None = None
    ) -> Response:
        found = access.account(account_id)
        tokens = await storage.run(access.tokens)
        return site().page(
            request,
            "account_of.html",
            status=status_of(error.code) if error else 200,
            account=found,
            roles=list(Role),
            sessions=await storage.run(access.sessions, account_id),
            tokens=[one for one in tokens if one.owner == account_id and not one.revoked],
            done=done if done in _DONE else "",
            wrong=_wrong(error),
            own=actor_of(request).actor_id == f"person:{account_id}",
        )

    @router.get("/accounts/{account_id}")
    async def account(request: Request, account_id: str, done: str = "") -> Response:
        return await page(request, account_id, done)

    async def change(request: Request, account_id: str, done: str, *work: Any) -> Response:  # noqa: ANN401
        try:
            await storage.run(*work, actor_of(request))
        except (InvalidRequestError, WrongStateError) as error:
            return await page(request, account_id, error=error)
        return RedirectResponse(f"/accounts/{account_id}?done={done}", 303)

    @router.post("/accounts/{account_id}/roles")
    async def roles(request: Request, account_id: str) -> Response:
        wanted = _roles(await form_of(request))
        return await change(request, account_id, "roles", access.set_roles, account_id, wanted)

    @router.post("/accounts/{account_id}/name")
    async def name(request: Request, account_id: str) -> Response:
        wanted = (await form_of(request)).get("name", "")
        return await change(request, account_id, "name", access.set_name, account_id, wanted)

    @router.post("/accounts/{account_id}/disable")
    async def disable(request: Request, account_id: str) -> Response:
        return await change(request, account_id, "disabled", access.set_disabled, account_id, True)

    @router.post("/accounts/{account_id}/enable")
    async def enable(request: Request, account_id: str) -> Response:
        return await change(request, account_id, "enabled", access.set_disabled, account_id, False)

    @router.post("/accounts/{account_id}/link")
    async def link(request: Request, account_id: str) -> Response:
        return _once(request, await storage.run(access.reset_link, account_id, actor_of(request)))

    @router.post("/accounts/{account_id}/sessions/{session_id}/end")
    async def end(request: Request, account_id: str, session_id: str) -> Response:
        await storage.run(access.end_session, session_id, actor_of(request), account_id)
        return RedirectResponse(f"/accounts/{account_id}?done=ended", 303)


def _add_tokens(router: APIRouter, services: Services, storage: WorkPool) -> None:
    access = services.access

    async def page(
        request: Request,
        done: str = "",
        error: BedsideError | None = None,
        filled: dict[str, str] | None = None,
    ) -> Response:
        offered = actor_of(request).actions - PERSONS_ONLY
        return site().page(
            request,
            "tokens.html",
            status=status_of(error.code) if error else 200,
            tokens=list(reversed(await storage.run(access.tokens))),
            accounts=access.accounts(),
            owners={one.account_id: one.name for one in access.accounts()},
            actions=[one for one in Action if one in offered],
            now=services.clock.now(),
            done=done if done in _DONE else "",
            filled=filled or {},
            wrong=_wrong(error),
            detail=str(error) if error else "",
        )

    @router.get("/tokens")
    async def tokens(request: Request, done: str = "") -> Response:
        return await page(request, done)

    @router.post("/tokens")
    async def create(request: Request) -> Response:
        fields = await form_of(request)
        wanted = [one for one in Action if f"action.{one.value}" in fields]
        days = fields.get("days", "").strip()

        def work() -> tuple[Any, str]:
            if days and not (days.isdecimal() and len(days) < 5):
                raise InvalidRequestError("days of life are a whole number")
            return access.create_token(
                fields.get("label", ""),
                wanted,
                actor_of(request),
                owner=fields.get("owner", ""),
                days=float(days) if days else None,
            )

        try:
            token, secret = await storage.run(work)
        except (InvalidRequestError, NotFoundError) as error:
            return await page(request, error=error, filled=fields)
        except RefusedError as error:
            if type(error) is not RefusedError:  # only what the token asked too much of
                raise
            return await page(request, error=error, filled=fields)
        return site().page(request, "token_once.html", token=token, secret=secret)

    @router.post("/tokens/{token_id}/revoke")
    async def revoke(request: Request, token_id: str) -> Response:
        await storage.run(access.revoke_token, token_id, actor_of(request))
        return RedirectResponse("/tokens?done=revoked", 303)


def _roles(fields: dict[str, str]) -> list[Role]:
    return [role for role in Role if f"role.{role.value}" in fields]


def _once(request: Request, link: Link) -> Response:
    """Show a one-time link; the address is the one this page came from."""
    address = f"{str(request.base_url).rstrip('/')}/setup?link={link.secret}"
    return site().page(request, "account_link.html", link=link, address=address)


def _wrong(error: BedsideError | None) -> str:
    """Return the key of what to tell about a form that was not taken."""
    if error is None:
        return ""
    return {
        WrongStateError: "people.wrong_state",
        InvalidRequestError: "people.wrong_request",
        NotFoundError: "people.wrong_request",
        RefusedError: "people.wrong_scope",
    }[type(error)]
