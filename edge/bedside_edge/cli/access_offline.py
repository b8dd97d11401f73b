"""The answers of the accounts API over a folder that no box has open: the same words, no HTTP."""

import re
from collections.abc import Callable
from typing import Any

from bedside_core.access import Action, Role
from bedside_core.errors import NotFoundError
from bedside_edge.api import schemas_access as schemas
from bedside_edge.services.access import CONSOLE, AccessService

Json = dict[str, Any]


class Offline:
    """Answers a request as the API would; see `bedside_edge.api.routes_access`."""

    def __init__(self, access: AccessService) -> None:
        self._access = access
        self._ways: tuple[tuple[str, Callable[..., Any]], ...] = (
            (r"GET /accounts", self._accounts),
            (r"POST /accounts", self._add),
            (r"PUT /accounts/([^/]+)/roles", self._roles),
            (r"PUT /accounts/([^/]+)/disabled", self._disabled),
            (r"POST /accounts/([^/]+):reset-link", self._reset_link),
            (r"GET /tokens", self._tokens),
            (r"POST /tokens", self._create_token),
            (r"DELETE /tokens/([^/]+)", self._revoke_token),
        )

    def __call__(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer's document."""
        for pattern, way in self._ways:
            if found := re.fullmatch(pattern, f"{method} {path}"):
                answer = way(*found.groups(), **(body or {}))
                return dict(answer.model_dump(mode="json")) if answer is not None else {}
        raise NotFoundError("no such resource")

    def _accounts(self) -> schemas.AccountList:
        found = [schemas.account_view(one) for one in self._access.accounts()]
        return schemas.AccountList(accounts=found)

    def _add(self, login: str, name: str, roles: list[str]) -> schemas.LinkView:
        link = self._access.add_account(login, name, map(Role, roles), CONSOLE)
        return schemas.link_view(link)

    def _roles(self, account_id: str, roles: list[str]) -> schemas.AccountView:
        return schemas.account_view(self._access.set_roles(account_id, map(Role, roles), CONSOLE))

    def _disabled(self, account_id: str, disabled: bool) -> schemas.AccountView:
        return schemas.account_view(self._access.set_disabled(account_id, disabled, CONSOLE))

    def _reset_link(self, account_id: str) -> schemas.LinkView:
        return schemas.link_view(self._access.reset_link(account_id, CONSOLE))

    def _tokens(self) -> schemas.TokenList:
        return schemas.TokenList(tokens=[schemas.token_view(t) for t in self._access.tokens()])

    def _create_token(
        self, label: str, actions: list[str], days: float | None, owner: str = ""
    ) -> schemas.NewTokenView:
        token, secret = self._access.create_token(
            label, map(Action, actions), CONSOLE, owner=owner, days=days
        )
        return schemas.NewTokenView(token=schemas.token_view(token), secret=secret)

    def _revoke_token(self, token_id: str) -> None:
        self._access.revoke_token(token_id, CONSOLE)
