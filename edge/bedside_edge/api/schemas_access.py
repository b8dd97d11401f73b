"""Bodies of the routes about accounts, sessions and tokens. Times: milliseconds since 1970, UTC."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from bedside_core.access import Action, Role
from bedside_edge.ports.access import Account, HeldSession, HeldToken
from bedside_edge.services.access import Link, Session

_Text = Annotated[str, Field(max_length=256)]
_Password = Annotated[SecretStr, Field(max_length=1024)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoginBody(_Body):
    """POST /api/v1/login."""

    login: _Text
    password: _Password


class PasswordBody(_Body):
    """POST /api/v1/me/password."""

    old: _Password
    new: _Password


class SetupBody(_Body):
    """POST /api/v1/setup: what follows a one-time link."""

    link: _Text
    password: _Password
    login: Annotated[_Text, Field(description="only for the link of a fresh box")] = ""
    name: Annotated[_Text, Field(description="only for the link of a fresh box")] = ""


class AccountBody(_Body):
    """POST /api/v1/accounts."""

    login: _Text
    name: Annotated[_Text, Field(description="a DICOM person name: Family^Given")]
    roles: list[Role]


class RolesBody(_Body):
    """PUT /api/v1/accounts/{id}/roles."""

    roles: list[Role]


class DisabledBody(_Body):
    """PUT /api/v1/accounts/{id}/disabled."""

    disabled: bool


class TokenBody(_Body):
    """POST /api/v1/tokens."""

    label: _Text
    actions: list[Action]
    owner: Annotated[_Text, Field(description="account id; empty: a system's token")] = ""
    days: Annotated[
        float | None, Field(gt=0, le=3660, description="life; null: until it is revoked")
    ] = None


class SessionView(_Body):
    """Who is logged in here."""

    actor: Annotated[str, Field(description="minted id, as in the evidence")]
    name: str
    roles: list[Role]
    actions: list[Action]
    session: str | None
    csrf: Annotated[
        str | None,
        Field(description="goes with every change, as X-CSRF-Token; null: not in a browser"),
    ]
    expires: int | None


class AccountView(_Body):
    """A person who may log in."""

    id: str
    login: str
    name: str
    roles: list[Role]
    disabled: bool
    password_set: bool
    created: int


class LinkView(_Body):
    """A one-time link, told this once."""

    account: AccountView
    link: Annotated[str, Field(description="path of the page that sets a password")]
    expires: int


class AccountList(_Body):
    """Every account, oldest first."""

    accounts: list[AccountView]


class HeldSessionView(_Body):
    """A log-in that counts."""

    id: str
    account: str
    address: str
    created: int
    seen: int
    expires: int


class SessionList(_Body):
    """Log-ins that count, newest first."""

    sessions: list[HeldSessionView]


class TokenView(_Body):
    """A token; its secret is never shown again."""

    id: str
    label: str
    owner: str | None
    actions: list[Action]
    created: int
    expires: int | None
    last_used: Annotated[int | None, Field(description="to about an hour")]
    revoked: int | None


class NewTokenView(_Body):
    """A token with its secret, told this once."""

    token: TokenView
    secret: str


class TokenList(_Body):
    """Every token, revoked and expired ones too."""

    tokens: list[TokenView]


def session_view(session: Session) -> SessionView:
    """Return a session as its own browser may see it."""
    return SessionView(
        actor=session.actor.actor_id,
        name=session.actor.name,
        roles=sorted(session.actor.roles),
        actions=sorted(session.actor.actions),
        session=session.session_id,
        csrf=session.csrf,
        expires=session.expires,
    )


def account_view(account: Account) -> AccountView:
    """Return an account without its password's hash."""
    return AccountView(
        id=account.account_id,
        login=account.login,
        name=account.name,
        roles=sorted(account.roles),
        disabled=account.disabled,
        password_set=bool(account.password),
        created=account.created,
    )


def link_view(link: Link) -> LinkView:
    """Return a new link."""
    path = f"/setup?link={link.secret}"
    return LinkView(account=account_view(link.account), link=path, expires=link.expires)


def held_session_view(held: HeldSession) -> HeldSessionView:
    """Return one line of the list of log-ins."""
    return HeldSessionView(
        id=held.session_id,
        account=held.account_id,
        address=held.address,
        created=held.created,
        seen=held.seen,
        expires=held.expires,
    )


def token_view(held: HeldToken) -> TokenView:
    """Return a token without its secret, which nobody has."""
    return TokenView(
        id=held.token_id,
        label=held.label,
        owner=held.owner or None,
        actions=sorted(held.actions),
        created=held.created,
        expires=held.expires or None,
        last_used=held.last_used or None,
        revoked=held.revoked or None,
    )
