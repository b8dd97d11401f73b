"""Logging in and out, one's own account, everybody's accounts, tokens."""

from fastapi import APIRouter, Request, Response

from bedside_core.access import Action
from bedside_edge.api import schemas_access as schemas
from bedside_edge.api.auth import address_of, clear_cookie, cookie_of, set_cookie
from bedside_edge.api.guard import actor_of, needs, session_of
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.schemas_access import (
    AccountBody,
    AccountList,
    AccountView,
    DisabledBody,
    HeldSessionView,
    LinkView,
    LoginBody,
    NewTokenView,
    PasswordBody,
    RolesBody,
    SessionList,
    SessionView,
    SetupBody,
    TokenBody,
    TokenList,
)
from bedside_edge.api.services import Services
from bedside_edge.services.access import Session

_OWN = [needs(Action.VIEW_OWN)]
_MANAGE = [needs(Action.MANAGE_ACCOUNTS)]


def own_router(services: Services, storage: WorkPool, passwords: WorkPool) -> APIRouter:
    """Return the routes by which people come and go; looking at a password takes its own pool."""
    router = APIRouter(prefix="/api/v1", tags=["access"], responses=dict(PROBLEMS))

    def opened(session: Session, request: Request, response: Response) -> SessionView:
        set_cookie(response, request, session)
        return schemas.session_view(session)

    @router.post("/login", summary="Log in; the session is in a cookie")
    async def log_in(body: LoginBody, request: Request, response: Response) -> SessionView:
        def work() -> Session:
            secret, address = body.password.get_secret_value(), address_of(request)
            session = services.access.log_in(body.login, secret, address)
            services.access.log_out(cookie_of(request))  # whatever was open in this browser
            return session

        return opened(await passwords.run(work), request, response)

    @router.post("/setup", summary="Set a password with a one-time link")
    async def set_up(body: SetupBody) -> AccountView:
        def work() -> AccountView:
            account = services.access.set_password_by_link(
                body.link, body.password.get_secret_value(), login=body.login, name=body.name
            )
            return schemas.account_view(account)

        return await passwords.run(work)

    @router.post("/logout", summary="Log out", status_code=204, dependencies=_OWN)
    async def log_out(request: Request) -> Response:
        await storage.run(services.access.log_out, cookie_of(request))
        response = Response(status_code=204)
        clear_cookie(response, request)
        return response

    @router.get("/me", summary="Who asks, and what they may do", dependencies=_OWN)
    async def who_am_i(request: Request) -> SessionView:
        session = session_of(request)
        if session is not None:
            return schemas.session_view(session)
        actor = actor_of(request)
        return SessionView(
            actor=actor.actor_id,
            name=actor.name,
            roles=sorted(actor.roles),
            actions=sorted(actor.actions),
            session=None,
            csrf=None,
            expires=None,
        )

    @router.post(
        "/me/password", summary="Change one's own password; every log-in ends", dependencies=_OWN
    )
    async def change_password(
        body: PasswordBody, request: Request, response: Response
    ) -> SessionView:
        old, new = body.old.get_secret_value(), body.new.get_secret_value()
        change, address = services.access.change_password, address_of(request)
        session = await passwords.run(change, actor_of(request), old, new, address)
        return opened(session, request, response)

    @router.get("/me/sessions", summary="One's own log-ins", dependencies=_OWN)
    async def own_sessions(request: Request) -> SessionList:
        found = await storage.run(services.access.sessions, _account_id(request))
        return SessionList(sessions=[schemas.held_session_view(one) for one in found])

    @router.delete(
        "/me/sessions/{session_id}",
        summary="End one of one's own log-ins",
        status_code=204,
        dependencies=_OWN,
    )
    async def end_own_session(session_id: str, request: Request) -> None:
        end, actor = services.access.end_session, actor_of(request)
        await storage.run(end, session_id, actor, _account_id(request))

    return router


def accounts_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the routes by which administrators manage accounts and tokens."""
    router = APIRouter(prefix="/api/v1", tags=["access"], responses=dict(PROBLEMS))

    @router.get("/accounts", summary="Every account", dependencies=_MANAGE)
    async def list_accounts() -> AccountList:
        return AccountList(accounts=[schemas.account_view(a) for a in services.access.accounts()])

    @router.post(
        "/accounts",
        summary="Add an account; its owner sets the password with the link",
        status_code=201,
        dependencies=_MANAGE,
    )
    async def add_account(body: AccountBody, request: Request) -> LinkView:
        add, by = services.access.add_account, actor_of(request)
        return schemas.link_view(await storage.run(add, body.login, body.name, body.roles, by))

    @router.get("/accounts/{account_id}", summary="One account", dependencies=_MANAGE)
    async def get_account(account_id: str) -> AccountView:
        return schemas.account_view(services.access.account(account_id))

    @router.put(
        "/accounts/{account_id}/roles",
        summary="Other roles; the account's log-ins end",
        dependencies=_MANAGE,
    )
    async def set_roles(account_id: str, body: RolesBody, request: Request) -> AccountView:
        change, by = services.access.set_roles, actor_of(request)
        return schemas.account_view(await storage.run(change, account_id, body.roles, by))

    @router.put(
        "/accounts/{account_id}/disabled",
        summary="Disable or enable; log-ins end, tokens of the account fail",
        dependencies=_MANAGE,
    )
    async def set_disabled(account_id: str, body: DisabledBody, request: Request) -> AccountView:
        change, by = services.access.set_disabled, actor_of(request)
        return schemas.account_view(await storage.run(change, account_id, body.disabled, by))

    @router.post(
        "/accounts/{account_id}:reset-link",
        summary="A one-time link that sets a new password",
        dependencies=_MANAGE,
    )
    async def reset_link(account_id: str, request: Request) -> LinkView:
        return schemas.link_view(
            await storage.run(services.access.reset_link, account_id, actor_of(request))
        )

    @router.get("/sessions", summary="Everybody's log-ins", dependencies=_MANAGE)
    async def list_sessions() -> SessionList:
        found: list[HeldSessionView] = [
            schemas.held_session_view(one) for one in await storage.run(services.access.sessions)
        ]
        return SessionList(sessions=found)

    @router.delete(
        "/sessions/{session_id}", summary="End a log-in", status_code=204, dependencies=_MANAGE
    )
    async def end_session(session_id: str, request: Request) -> None:
        await storage.run(services.access.end_session, session_id, actor_of(request))

    @router.get("/tokens", summary="Every token", dependencies=_MANAGE)
    async def list_tokens() -> TokenList:
        found = await storage.run(services.access.tokens)
        return TokenList(tokens=[schemas.token_view(one) for one in found])

    @router.post(
        "/tokens",
        summary="A new token; its secret is told this once",
        status_code=201,
        dependencies=_MANAGE,
    )
    async def create_token(body: TokenBody, request: Request) -> NewTokenView:
        by = actor_of(request)

        def work() -> NewTokenView:
            token, secret = services.access.create_token(
                body.label, body.actions, by, owner=body.owner, days=body.days
            )
            return NewTokenView(token=schemas.token_view(token), secret=secret)

        return await storage.run(work)

    @router.delete(
        "/tokens/{token_id}", summary="Revoke a token, now", status_code=204, dependencies=_MANAGE
    )
    async def revoke_token(token_id: str, request: Request) -> None:
        await storage.run(services.access.revoke_token, token_id, actor_of(request))

    return router


def _account_id(request: Request) -> str:
    """Return the account of a person; of anybody else a name that no account has."""
    kind, _, inner = actor_of(request).actor_id.partition(":")
    return inner if kind == "person" else "none"
