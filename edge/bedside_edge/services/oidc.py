"""Single sign-on by OpenID Connect: authorization code with PKCE, state and nonce.

The provider says who somebody is and which groups they are in; the settings say which groups are
which role, and nobody else decides. A person of the provider gets an account of their own, never
one that was there before: a name that happens to be equal proves nothing. Local accounts do not
depend on any of this.
"""

import base64
import hashlib
import hmac
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from bedside_core.access import Actor, Role
from bedside_core.errors import (
    IdentityProviderError,
    InvalidIdTokenError,
    InvalidRequestError,
    NoRoleError,
    NotFoundError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind
from bedside_edge.ports import Clock, RandomBytes
from bedside_edge.ports.access import Account
from bedside_edge.ports.evidence import Event
from bedside_edge.ports.oidc import Provider, SubjectLinks
from bedside_edge.services.access import AccessService, Session, read_name
from bedside_edge.services.id_token import UnknownKeyError, read_id_token

log = logging.getLogger(__name__)

CALLBACK: Final = "/login/oidc/callback"
_BY: Final = Actor(actor_id="system:oidc", name="oidc")
_PENDING_S: Final = 600.0
_MOST_PENDING: Final = 1_000
_KEPT_S: Final = 3_600.0
_AGAIN_S: Final = 60.0  # between two looks for keys nobody knows
_LOGIN: Final = re.compile(r"[^a-z0-9._+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """Section `[oidc]` as a value."""

    issuer: str
    client_id: str
    public_url: str
    scopes: tuple[str, ...]
    algorithms: tuple[str, ...]
    roles_claim: str
    roles: Mapping[Role, frozenset[str]]

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends people back to."""
        return self.public_url.rstrip("/") + CALLBACK


@dataclass(frozen=True, slots=True)
class _Pending:
    """A log-in that went to the provider and has not come back."""

    browser: bytes = field(repr=False)  # SHA-256 of the secret in the browser's cookie
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    wanted: str
    until: float


@dataclass(frozen=True, slots=True)
class Begun:
    """Where to send a browser, and the secret its cookie has to keep."""

    url: str
    browser: str = field(repr=False)


class SingleSignOn:
    """Log-ins through the provider. Safe to call from several threads; calls may wait for it."""

    def __init__(
        self,
        settings: OidcSettings,
        provider: Provider,
        links: SubjectLinks,
        access: AccessService,
        clock: Clock,
        random: RandomBytes,
    ) -> None:
        self._settings, self._provider, self._links = settings, provider, links
        self._access, self._clock, self._random = access, clock, random
        self._lock = threading.Lock()
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._kept: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._looked = -_AGAIN_S

    def begin(self, wanted: str) -> Begun:
        """Start a log-in that ends at the page `wanted`.

        Raises:
            IdentityProviderError: the provider does not answer, or not as it should.
        """
        metadata = self._metadata()
        state, nonce, verifier, browser = (self._secret() for _ in range(4))
        challenge = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._settings.redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        now = self._clock.monotonic()
        pending = _Pending(_hash(browser), nonce, verifier, wanted, now + _PENDING_S)
        with self._lock:
            self._pending[state] = pending
            while len(self._pending) > _MOST_PENDING:
                self._pending.popitem(last=False)
        endpoint = str(metadata["authorization_endpoint"])
        separator = "&" if urlsplit(endpoint).query else "?"
        return Begun(endpoint + separator + urlencode(query), browser)

    def finish(
        self, *, state: str, code: str, issuer: str, browser: str, address: str
    ) -> tuple[Session, str]:
        """Return the new session and the page it was for.

        Args:
            state: as it came back; counts once.
            code: as it came back.
            issuer: `iss` as it came back (RFC 9207); empty when it did not.
            browser: the secret in the browser's cookie.
            address: of the peer.

        Raises:
            InvalidIdTokenError: state, code or token do not hold.
            IdentityProviderError: the provider does not answer, or not as it should.
            NoRoleError: the person has no role here.
            UnauthenticatedError: the account is disabled.
        """
        with self._lock:
            pending = self._pending.pop(state, None)
        if pending is None or pending.until <= self._clock.monotonic():
            raise InvalidIdTokenError("this log-in was not begun here, or too long ago")
        if not hmac.compare_digest(pending.browser, _hash(browser)):
            raise InvalidIdTokenError("this log-in was begun in another browser")
        if issuer not in ("", self._settings.issuer):
            raise InvalidIdTokenError("the answer is of another provider")
        claims = self._claims(code, pending)
        account = self._account(claims)
        return self._access.open_session(account.account_id, address), pending.wanted

    def abandon(self, state: str) -> None:
        """Forget a log-in the provider refused."""
        with self._lock:
            self._pending.pop(state, None)

    # --- the provider --------------------------------------------------------------------------

    def _claims(self, code: str, pending: _Pending) -> Mapping[str, Any]:
        answer = self._provider.exchange(
            str(self._metadata()["token_endpoint"]),
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self._settings.redirect_uri,
                "client_id": self._settings.client_id,
                "code_verifier": pending.verifier,
            },
        )
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise IdentityProviderError("the provider answered without an ID token")
        try:
            return self._read(token, pending.nonce, self._keys())
        except UnknownKeyError:
            pass
        try:
            return self._read(token, pending.nonce, self._keys(fresh=True))
        except UnknownKeyError:
            raise InvalidIdTokenError("no key of the provider signed the ID token") from None

    def _read(self, token: str, nonce: str, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        settings = self._settings
        return read_id_token(
            token,
            keys,
            algorithms=settings.algorithms,
            issuer=settings.issuer,
            client_id=settings.client_id,
            nonce=nonce,
            now_s=self._clock.now() // 1000,
        )

    def _metadata(self) -> Mapping[str, Any]:
        issuer = self._settings.issuer
        found = self._cached(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise IdentityProviderError("the provider calls itself by another name")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not may_call(str(found.get(name, "")), issuer):
                raise IdentityProviderError(f"the provider's {name} is no https address")
        return found

    def _keys(self, *, fresh: bool = False) -> Mapping[str, Any]:
        """Return the provider's keys; looked up anew at most once a minute, whoever asks."""
        url = str(self._metadata()["jwks_uri"])
        if fresh:
            now = self._clock.monotonic()
            with self._lock:
                if now - self._looked < _AGAIN_S:
                    return self._kept.get(url, (now, {}))[1]
                self._looked = now
                self._kept.pop(url, None)
        return self._cached(url)

    def _cached(self, url: str) -> Mapping[str, Any]:
        now = self._clock.monotonic()
        with self._lock:
            kept = self._kept.get(url)
        if kept is not None and now < kept[0] + _KEPT_S:
            return kept[1]
        found = self._provider.get(url)
        with self._lock:
            if len(self._kept) > 8:  # a provider that changes its addresses all the time
                self._kept.clear()
            self._kept[url] = (now, found)
        return found

    # --- the person ----------------------------------------------------------------------------

    def _account(self, claims: Mapping[str, Any]) -> Account:
        """Return the person's account, made at their first log-in, its roles as of today."""
        roles = self._roles(claims)
        if not roles:
            raise NoRoleError("no group of the person is a role here")
        subject = _hash(f"{self._settings.issuer}\n{claims['sub']}").hex()
        found = self._links.account_of(subject)
        if found:
            account = self._access.account(found)
            if account.roles != roles and not account.disabled:
                account = self._access.set_roles(found, roles, _BY)
            return account
        account = self._new_account(claims, roles)
        refs = {"what": "oidc-linked", "about": account.account_id}
        self._links.link(
            subject, account.account_id, Event(kind=Kind.ADMIN, actor=_BY.actor_id, refs=refs)
        )
        log.info("account made for a person of the provider")
        return account

    def _roles(self, claims: Mapping[str, Any]) -> frozenset[Role]:
        held: Any = claims
        for step in self._settings.roles_claim.split("."):  # realm_access.roles, for one
            held = held.get(step) if isinstance(held, dict) else None
        listed = held if isinstance(held, list) else [held]
        groups = {one for one in listed if isinstance(one, str)}
        return frozenset(role for role, named in self._settings.roles.items() if named & groups)

    def _new_account(self, claims: Mapping[str, Any], roles: frozenset[Role]) -> Account:
        wanted = str(claims.get("preferred_username") or claims.get("email") or "person")
        base = _LOGIN.sub("-", wanted.casefold()).strip("-._+")[:32] or "person"
        host = (urlsplit(self._settings.issuer).hostname or "oidc")[:24]
        for number in range(1, 1_000):
            login = f"{base}{number if number > 1 else ''}@{host}"
            try:
                self._access.by_login(login)
            except NotFoundError:
                break
        try:
            made = self._access.add_account(login, _name(claims, base), roles, _BY)
        except (WrongStateError, InvalidRequestError) as cause:
            raise NoRoleError("no account could be made for the person") from cause
        return made.account

    def _secret(self) -> str:
        return base64.urlsafe_b64encode(self._random(32)).rstrip(b"=").decode()


def may_call(url: str, issuer: str) -> bool:
    """Tell whether an address of the provider is one to call: https, or this machine for tests."""
    parts = urlsplit(url)
    if parts.username or parts.password or not parts.hostname:
        return False
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    return parts.scheme == "https" or (
        parts.scheme == "http" and local and urlsplit(issuer).scheme == "http"
    )


def _name(claims: Mapping[str, Any], fallback: str) -> str:
    """Return a DICOM person name from the claims; what cannot stand in one is left out."""
    family, given = str(claims.get("family_name") or ""), str(claims.get("given_name") or "")
    whole = str(claims.get("name") or "")
    for parts in ((family, given), (whole,), (fallback,)):
        text = "^".join(re.sub(r"[\^=\\]", " ", part).strip()[:28] for part in parts).strip("^ ")
        try:
            return read_name(text)
        except InvalidRequestError:
            continue
    return "Person"


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def role_table(named: Iterable[tuple[str, Sequence[str]]]) -> dict[Role, frozenset[str]]:
    """Return the mapping of the settings as values."""
    return {Role(role): frozenset(groups) for role, groups in named}
