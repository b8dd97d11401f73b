"""People, sessions and links as values, and what a login name and a person's name may be."""

import hashlib
import hmac
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from bedside_core.access import Action, Actor, Role, actions_of
from bedside_core.errors import InvalidRequestError
from bedside_core.evidence.entry import Kind
from bedside_edge.ports.access import Account, HeldSession
from bedside_edge.ports.evidence import Event

CONSOLE: Final = Actor(actor_id="system:console", name="console", actions=frozenset(Action))
SETUP_LOGIN: Final = "administrator"

_LOGIN: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A log-in as pages and routes see it.

    Attributes:
        session_id: minted; may be logged.
        actor: who it is.
        login: with which they log in.
        csrf: what a form or script of our own page sends along; useless without the cookie.
        created: when it was opened; milliseconds since 1970, UTC.
        expires: when it ends at the latest.
        secret: the cookie's value; only `log_in` and `open_session` return it.
    """

    session_id: str
    actor: Actor
    login: str = field(repr=False)
    csrf: str = field(repr=False)
    created: int
    expires: int
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A one-time link; `secret` is only known to whoever made it."""

    account: Account
    setup: bool
    expires: int
    secret: str = field(default="", repr=False)


def setup_logins() -> Iterator[str]:
    """Yield login names for the account of a fresh box, the usual one first."""
    yield SETUP_LOGIN
    yield from (f"{SETUP_LOGIN}{number}" for number in itertools.count(2))


def read_login(text: str) -> str:
    """Return a login name in its one form; InvalidRequestError."""
    login = unicodedata.normalize("NFKC", text).strip().casefold()
    if not _LOGIN.fullmatch(login):
        raise InvalidRequestError("a login name has 2 to 64 of a-z 0-9 . _ @ + -")
    return login


def read_name(text: str) -> str:
    """Return a person name as DICOM writes it (PS3.5 6.2, VR PN); InvalidRequestError."""
    name = unicodedata.normalize("NFC", text).strip()
    groups = name.split("=")
    fits = all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    printable = all(char.isprintable() and char != "\\" for char in name)
    if not name.strip("^= ") or len(groups) > 3 or not fits or not printable:
        raise InvalidRequestError("a name is Family^Given, 64 characters at most")
    return name


def some_roles(roles: Iterable[Role]) -> frozenset[Role]:
    """Return the roles as a set; InvalidRequestError when there is none."""
    wanted = frozenset(roles)
    if not wanted:
        raise InvalidRequestError("an account has at least one role; disable it instead")
    return wanted


def person(account: Account) -> Actor:
    """Return the actor an account stands for."""
    return Actor(
        actor_id=f"person:{account.account_id}",
        name=account.name,
        roles=account.roles,
        actions=actions_of(account.roles),
    )


def runs_box(account: Account) -> bool:
    """Whether this is an administrator who can log in."""
    return Role.ADMINISTRATOR in account.roles and not account.disabled and bool(account.password)


def session_of(actor: Actor, login: str, held: HeldSession, secret: str) -> Session:
    """Return a held session as pages see it; without the cookie's value."""
    return Session(
        session_id=held.session_id,
        actor=actor,
        login=login,
        csrf=hmac.digest(secret.encode(), b"bedside csrf v1", "sha256").hex(),
        created=held.created,
        expires=held.expires,
    )


def access_event(kind: Kind, by: Actor, what: str, about: str = "", detail: str = "") -> Event:
    """Return what the evidence says of a change: minted ids, never names."""
    refs: dict[str, int | str] = {"what": what}
    refs |= {"about": about} if about else {}
    payload = json.dumps({"about": about, "detail": detail, "what": what}, sort_keys=True).encode()
    return Event(kind=kind, actor=by.actor_id, refs=refs, payload=payload if detail else None)


def digest_of(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
