"""Accounts, sessions, tokens and links, as the access service sees them on disk.

Secrets are never here: of a session, a token or a link the box keeps the SHA-256, of a password
what Argon2 made of it. Times are milliseconds since 1970, UTC; 0 stands for never.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bedside_core.access import Action, Role
from bedside_edge.ports.evidence import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person who may log in."""

    account_id: str  # minted; may be logged
    login: str  # lower case, unique
    name: str = field(repr=False)  # a DICOM person name: stands in signed reports
    roles: frozenset[Role]
    disabled: bool = False
    created: int = 0
    password: str = field(default="", repr=False)  # encoded hash; empty until one is set


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSession:
    """A log-in that still counts."""

    digest: bytes = field(repr=False)  # SHA-256 of the secret in the cookie
    session_id: str
    account_id: str
    address: str = field(repr=False)
    created: int
    seen: int  # to about a minute
    expires: int  # whatever it did meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldToken:
    """An API token of a person or of a system."""

    digest: bytes = field(repr=False)
    token_id: str
    label: str
    owner: str  # account id; empty: a system's
    actions: frozenset[Action]
    created: int
    expires: int  # 0: never
    last_used: int = 0  # to about an hour
    revoked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLink:
    """A one-time link with which its owner sets a password; an account has one at most."""

    digest: bytes = field(repr=False)
    account_id: str
    setup: bool  # of a fresh box: whoever follows it chooses login and name
    expires: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """How often somebody failed to log in, under a hashed key: a login name or an address."""

    failures: int = 0
    last: int = 0


Check = Callable[[Account, Sequence[Account]], Account]


class AccessStore(Protocol):
    """What outlives a restart. Every change is durable, with its evidence, when it returns."""

    def latest(self) -> int:
        """Return the latest time the store was told: a clock set back shows against it."""
        ...

    def accounts(self) -> list[Account]:
        """Return every account, oldest first."""
        ...

    def sessions(self) -> list[HeldSession]:
        """Return every session that was not ended."""
        ...

    def tokens(self) -> list[HeldToken]:
        """Return every token, the revoked ones too, oldest first."""
        ...

    def link(self, digest: bytes) -> HeldLink | None:
        """Return the link with this digest, None when it is spent or void."""
        ...

    def add_account(self, new: Account, link: HeldLink, event: Event) -> None:
        """Store an account with its link; WrongStateError when the login name is taken."""
        ...

    def change_account(self, account_id: str, check: Check, event: Event) -> Account:
        """Replace an account by what `check` makes of it and of all accounts; end its sessions.

        `check` runs inside the transaction: what it raises leaves everything as it was, so two
        administrators cannot each remove the other.

        Raises:
            NotFoundError: no such account.
            WrongStateError: its new login name is taken.
        """
        ...

    def use_link(self, digest: bytes, now: int, check: Check, event: Event) -> Account:
        """Do as `change_account` does to the link's account, and spend the link.

        Raises:
            NotFoundError: no such link, spent, or expired at `now`.
        """
        ...

    def set_link(self, link: HeldLink, event: Event) -> None:
        """Give an account a link; the one it had is void."""
        ...

    def open_session(self, session: HeldSession, password: str | None, event: Event) -> None:
        """Store a session.

        Args:
            session: to store.
            password: the encoded hash the caller verified against; None for another proof.
            event: for the evidence.

        Raises:
            UnauthenticatedError: meanwhile the account was disabled or its password changed.
        """
        ...

    def end_sessions(self, digests: Sequence[bytes], event: Event) -> None:
        """Forget sessions that somebody ended."""
        ...

    def drop_sessions(self, digests: Sequence[bytes], now: int) -> None:
        """Forget sessions that ran out, without waiting for the disk."""
        ...

    def rehash(self, account_id: str, old: str, new: str) -> None:
        """Replace an encoded hash by another of the same password, if it is still `old`."""
        ...

    def add_token(self, token: HeldToken, event: Event) -> None:
        """Store a token."""
        ...

    def revoke_token(self, token_id: str, now: int, event: Event) -> None:
        """Mark a token revoked; NotFoundError."""
        ...

    def attempt(self, keys: Sequence[str], now: int, check: Callable[[str, Tries], None]) -> None:
        """Count a failure under every key before the password is looked at, durably.

        `check` sees what is held under each key first and may raise: then nothing is counted.
        """
        ...

    def failed(self, now: int, event: Event) -> None:
        """Write into the evidence that an attempt that was counted did fail."""
        ...

    def forgive(self, forget: str, undo: str = "") -> None:
        """Forget the failures under one key, and take the newest back under another."""
        ...

    def touch_sessions(self, digests: Sequence[bytes], now: int) -> None:
        """Note that sessions were used, without waiting for the disk."""
        ...

    def touch_tokens(self, token_ids: Sequence[str], now: int) -> None:
        """Note that tokens were used, without waiting for the disk."""
        ...


class Passwords(Protocol):
    """Slow hashing of passwords. Calls take tens of milliseconds: never on the event loop."""

    def hash(self, password: str) -> str:
        """Return the encoded hash with a salt of its own."""
        ...

    def verify(self, encoded: str, password: str) -> bool:
        """Whether the password is the one; a damaged or empty hash is like a wrong password."""
        ...

    def outdated(self, encoded: str) -> bool:
        """Whether the hash was made with weaker parameters than today's."""
        ...
