"""Who may ask: log-in, sessions, tokens, accounts. Every answer is no unless something says yes.

Sessions and tokens are looked up in memory, without a lock and without the disk: the hot routes
pay some microseconds. Whatever changes them is durable first and then takes effect at once, so a
revoked token fails with the next request. Only one process has the state folder open.

A clock that is set back revives nothing: time here never goes back, not even over a restart.
"""

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bedside_core.access import PERSONS_ONLY, Action, Actor, Role, actions_of
from bedside_core.errors import (
    InvalidRequestError,
    NotFoundError,
    RefusedError,
    UnauthenticatedError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind
from bedside_edge.ports import Clock, RandomBytes
from bedside_edge.ports.access import (
    AccessStore,
    Account,
    HeldLink,
    HeldSession,
    HeldToken,
    Passwords,
)
from bedside_edge.ports.evidence import Event
from bedside_edge.services.checking import Checking
from bedside_edge.services.people import (
    CONSOLE,
    SETUP_LOGIN,
    Link,
    Session,
    access_event,
    digest_of,
    person,
    read_login,
    read_name,
    runs_box,
    session_of,
    setup_logins,
    some_roles,
)

__all__ = ["CONSOLE", "LINK_MS", "TOKEN_PREFIX", "AccessService", "Link", "Session", "read_name"]

TOKEN_PREFIX: Final = "bst_"  # noqa: S105  so that scanners of leaked secrets know it
LINK_MS: Final = 24 * 3600 * 1000

_SECRET_BYTES: Final = 32
_SEEN_MS: Final = 60_000
_USED_MS: Final = 3_600_000
_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
_WRONG: Final = "login name or password is wrong"


@dataclass(frozen=True, slots=True)
class _Token:
    """A token that counts, as held in memory."""

    actor: Actor
    held: HeldToken


@dataclass(frozen=True, slots=True)
class _Opened:
    """A session that counts, as held in memory."""

    actor: Actor
    login: str
    held: HeldSession


class AccessService:
    """Synchronous and safe to call from several threads; see the module.

    `token`, `session` and `opened` neither wait nor read the disk and may be called on the event
    loop. Everything else may take milliseconds, whatever looks at a password tens of them.
    """

    def __init__(
        self,
        store: AccessStore,
        passwords: Passwords,
        clock: Clock,
        random: RandomBytes,
        *,
        idle_s: float = 1800.0,
        longest_s: float = 43_200.0,
    ) -> None:
        """Read what is held.

        Args:
            store: what outlives a restart.
            passwords: the slow hash.
            clock: time.
            random: where secrets and ids come from.
            idle_s: a session ends when it was not used for so long.
            longest_s: a session ends after so long, whatever it does.
        """
        self._store, self._clock, self._random = store, clock, random
        self._checking = Checking(store, passwords, random(_SECRET_BYTES).hex())
        self._idle_ms, self._longest_ms = int(idle_s * 1000), int(longest_s * 1000)
        self._base = (max(store.latest(), clock.now()), clock.monotonic())
        self._changing = threading.RLock()
        self._accounts: dict[str, Account] = {}
        self._sessions: dict[bytes, _Opened] = {}
        self._tokens: dict[bytes, _Token] = {}
        self._seen: dict[bytes, int] = {}  # of sessions and tokens; nothing is revived through it
        self._load()

    # --- on every request: no waiting, no disk -----------------------------------------------

    def token(self, secret: str) -> Actor | None:
        """Return who sent this token, None when it does not count."""
        digest = digest_of(secret)
        live = self._tokens.get(digest)
        if live is None:
            return None
        held, now = live.held, self._now()
        if held.expires and now >= held.expires:
            return None
        if now - self._seen.get(digest, 0) >= _USED_MS:
            self._seen[digest] = now
            self._store.touch_tokens([held.token_id], now)
        return live.actor

    def session(self, secret: str, *, used: bool = True) -> Session | None:
        """Return the session of a cookie, None when it does not count.

        `used` is False when a page asks by itself: an unattended screen must not keep its
        session alive.
        """
        digest = digest_of(secret)
        live = self._sessions.get(digest)
        if live is None:
            return None
        held, now = live.held, self._now()
        seen = self._seen.get(digest, held.seen)
        if now >= held.expires or now - seen >= self._idle_ms:
            self._sessions.pop(digest, None)
            self._store.drop_sessions([digest], now)
            return None
        if used and now - seen >= _SEEN_MS:
            self._seen[digest] = now
            self._store.touch_sessions([digest], now)
        return session_of(live.actor, live.login, held, secret)

    def opened(self) -> int:
        """Return how many sessions are held."""
        return len(self._sessions)

    # --- logging in and out ------------------------------------------------------------------

    def log_in(self, login: str, password: str, address: str) -> Session:
        """Return a new session; its `secret` is the cookie.

        Args:
            login: as typed; case does not matter.
            password: as typed.
            address: of the peer, for the rate limit and the list of sessions.

        Raises:
            UnauthenticatedError: wrong, unknown, disabled or never set up; which is not told.
            TooManyAttemptsError: too many failures under this name or from this address.
            QueueFullError: too many log-ins at a time.
        """
        name = login.strip().casefold()[:64]
        account = next((one for one in self._accounts.values() if one.login == name), None)
        self._checking.count(name, address, self._now())
        right = self._checking.verify(account, password)
        if account is None or not right:
            actor = f"person:{account.account_id}" if account else "person:unknown"
            refs = {"what": "log-in-failed"}
            self._store.failed(self._now(), Event(kind=Kind.ACCESS, actor=actor, refs=refs))
            raise UnauthenticatedError(_WRONG)
        self._checking.right(name, address)
        if encoded := self._checking.renewed(account, password):
            account = self._rehash(account, encoded)
        return self._open(account, address, account.password)

    def open_session(self, account_id: str, address: str) -> Session:
        """Return a new session of somebody who proved who they are in another way (OIDC).

        Raises:
            UnauthenticatedError: no such account, or it is disabled.
        """
        account = self._accounts.get(account_id)
        if account is None or account.disabled:
            raise UnauthenticatedError(_WRONG)
        return self._open(account, address, None)

    def log_out(self, secret: str) -> None:
        """End the session of a cookie; one that does not count is no error."""
        live = self._sessions.get(digest_of(secret))
        if live is not None:
            self._end([digest_of(secret)], access_event(Kind.ACCESS, live.actor, "log-out"))

    def sessions(self, account_id: str = "") -> list[HeldSession]:
        """Return the sessions that count, of one account or all, newest first."""
        now = self._now()
        found = [
            replace(live.held, seen=self._seen.get(live.held.digest, live.held.seen))
            for live in list(self._sessions.values())
            if account_id in ("", live.held.account_id)
        ]
        alive = [s for s in found if now < s.expires and now - s.seen < self._idle_ms]
        return sorted(alive, key=lambda one: -one.created)

    def end_session(self, session_id: str, by: Actor, account_id: str = "") -> None:
        """End one session; NotFoundError when there is none, or it is of another account."""
        for one in self.sessions(account_id):
            if one.session_id == session_id:
                self._end(
                    [one.digest], access_event(Kind.ACCESS, by, "session-ended", one.account_id)
                )
                return
        raise NotFoundError("no session of that id")

    # --- passwords and links -----------------------------------------------------------------

    def link(self, secret: str) -> Link:
        """Return whose link this is; NotFoundError when it is spent, void or expired."""
        held = self._store.link(digest_of(secret))
        account = self._accounts.get(held.account_id) if held else None
        if held is None or account is None or held.expires <= self._now():
            raise NotFoundError("the link is spent, void or expired; ask for a new one")
        return Link(account=account, setup=held.setup, expires=held.expires)

    def set_password_by_link(
        self, secret: str, password: str, *, login: str = "", name: str = ""
    ) -> Account:
        """Set the password of the link's account; the link is spent, its sessions end.

        Args:
            secret: from the link.
            password: the new one.
            login: only for the link of a fresh box: the login name to take.
            name: only for the link of a fresh box: the person's name.

        Raises:
            NotFoundError: the link is spent, void or expired.
            WeakPasswordError: the password is no good; the link stays.
            InvalidRequestError, WrongStateError: the login name is no good, or taken.
        """
        found = self.link(secret)
        if (login or name) and not found.setup:
            raise InvalidRequestError("this link sets a password, nothing else")
        login = read_login(login) if login else found.account.login
        name = read_name(name) if name else found.account.name
        account = replace(found.account, login=login, name=name)
        encoded = self._checking.hash(password, account)

        def check(now: Account, _: Sequence[Account]) -> Account:
            if not found.setup:  # everything else as it is by now
                return replace(now, password=encoded)
            return replace(now, login=login, name=name, password=encoded)

        actor = Actor(actor_id=f"person:{account.account_id}", name=account.name)
        event = access_event(Kind.ADMIN, actor, "password-by-link", account.account_id)
        with self._changing:
            changed = self._store.use_link(digest_of(secret), self._now(), check, event)
            self._load()
        self._checking.right(changed.login)
        return changed

    def change_password(self, actor: Actor, old: str, new: str, address: str) -> Session:
        """Change one's own password; all sessions end, the one returned is new.

        Raises:
            UnauthenticatedError: the old password is wrong.
            WeakPasswordError: the new one is no good.
            TooManyAttemptsError: too many wrong ones.
            WrongStateError: the actor is no person with a password.
        """
        account = self._accounts.get(actor.actor_id.removeprefix("person:"))
        if account is None or not account.password:
            raise WrongStateError("only a person with a password can change it")
        self._checking.count(account.login, address, self._now())
        if not self._checking.verify(account, old):
            self._store.failed(self._now(), access_event(Kind.ACCESS, actor, "log-in-failed"))
            raise UnauthenticatedError("the old password is wrong")
        encoded = self._checking.hash(new, account)
        event = access_event(Kind.ADMIN, actor, "password-changed", account.account_id)
        changed = self._change(
            account.account_id, event, lambda one: replace(one, password=encoded)
        )
        self._checking.right(account.login, address)
        return self._open(changed, address, changed.password)

    def ensure_setup(self) -> Link | None:
        """Return a new set-up link of a box nobody has set up yet, None for any other.

        The link made at an earlier start is void.
        """
        held = list(self._accounts.values())
        administrators = [one for one in held if Role.ADMINISTRATOR in one.roles]
        if administrators:
            first, *others = administrators
            waits = first.login.startswith(SETUP_LOGIN) and not first.password and not others
            # any other was set up, or added on the console and has a link of its own
            return self._new_link(first, CONSOLE, setup=True) if waits else None
        taken = {one.login for one in held}
        account = Account(
            account_id=self._mint(),
            login=next(name for name in setup_logins() if name not in taken),
            name="Administrator",
            roles=frozenset({Role.ADMINISTRATOR}),
            created=self._now(),
        )
        return self._add(account, CONSOLE, setup=True)

    # --- accounts ----------------------------------------------------------------------------

    def accounts(self) -> list[Account]:
        """Return every account, oldest first."""
        return list(self._accounts.values())

    def account(self, account_id: str) -> Account:
        """Return one account; NotFoundError."""
        found = self._accounts.get(account_id)
        if found is None:
            raise NotFoundError("no account of that id")
        return found

    def by_login(self, login: str) -> Account:
        """Return the account with this login name; NotFoundError."""
        for one in self._accounts.values():
            if one.login == login.strip().casefold():
                return one
        raise NotFoundError("no account of that login name")

    def name_of(self, actor_id: str) -> str:
        """Return what pages show for an actor id in a history; the id itself when unknown."""
        kind, _, inner = actor_id.partition(":")
        if kind == "person" and inner in self._accounts:
            return self._accounts[inner].name
        if kind == "token":
            return next((t.label for t in self._store.tokens() if t.token_id == inner), actor_id)
        return actor_id

    def add_account(self, login: str, name: str, roles: Iterable[Role], by: Actor) -> Link:
        """Add an account and return the link with which its owner sets a password.

        Raises:
            InvalidRequestError: login name, name or roles are no good.
            WrongStateError: the login name is taken.
        """
        account = Account(
            account_id=self._mint(),
            login=read_login(login),
            name=read_name(name),
            roles=some_roles(roles),
            created=self._now(),
        )
        return self._add(account, by, setup=False)

    def set_roles(self, account_id: str, roles: Iterable[Role], by: Actor) -> Account:
        """Give an account other roles; its sessions end.

        Raises:
            NotFoundError: no such account.
            WrongStateError: it is the last administrator who can log in.
        """
        wanted = some_roles(roles)
        event = access_event(Kind.ADMIN, by, "account-roles", account_id, "+".join(sorted(wanted)))
        return self._change(account_id, event, lambda one: replace(one, roles=wanted))

    def set_name(self, account_id: str, name: str, by: Actor) -> Account:
        """Correct the name that stands in signed reports; the account's sessions end."""
        wanted = read_name(name)
        event = access_event(Kind.ADMIN, by, "account-name", account_id)
        return self._change(account_id, event, lambda one: replace(one, name=wanted))

    def set_disabled(self, account_id: str, disabled: bool, by: Actor) -> Account:
        """Disable an account or enable it again; its sessions end and its tokens fail.

        Raises:
            NotFoundError: no such account.
            WrongStateError: it is the last administrator who can log in.
        """
        what = "account-disabled" if disabled else "account-enabled"
        event = access_event(Kind.ADMIN, by, what, account_id)
        return self._change(account_id, event, lambda one: replace(one, disabled=disabled))

    def reset_link(self, account_id: str, by: Actor) -> Link:
        """Return a link with which an account's owner sets a new password; the old one holds."""
        return self._new_link(self.account(account_id), by, setup=False)

    # --- tokens ------------------------------------------------------------------------------

    def tokens(self) -> list[HeldToken]:
        """Return every token, revoked and expired ones too, oldest first."""
        return [
            replace(one, last_used=max(one.last_used, self._seen.get(one.digest, 0)))
            for one in self._store.tokens()
        ]

    def create_token(
        self,
        label: str,
        actions: Iterable[Action],
        by: Actor,
        *,
        owner: str = "",
        days: float | None = None,
    ) -> tuple[HeldToken, str]:
        """Return a new token and its secret, which is shown this once.

        Args:
            label: for people.
            actions: what it may do; never more than whoever makes it, or its owner, may.
            by: who makes it.
            owner: account id; empty for a system's token.
            days: of life; None for no end.

        Raises:
            InvalidRequestError: no label, no action, or no life.
            RefusedError: more than a token may have.
            NotFoundError: no such owner.
        """
        wanted = frozenset(actions)
        if not _LABEL.fullmatch(label.strip()):
            raise InvalidRequestError("a token needs a label of 1 to 64 characters")
        if not wanted or (days is not None and not 0 < days <= 3660):
            raise InvalidRequestError("a token needs an action and, if it ends, 1 to 3660 days")
        allowed = by.actions
        if owner:
            allowed &= actions_of(self.account(owner).roles)
        if wanted & PERSONS_ONLY:
            raise RefusedError("a signature needs a person: no token may sign off")
        if not wanted <= allowed:
            more = ", ".join(sorted(wanted - allowed))
            raise RefusedError(f"a token has no more than its maker and its owner have: {more}")
        secret = TOKEN_PREFIX + self._random(_SECRET_BYTES).hex()
        now = self._now()
        token = HeldToken(
            digest=digest_of(secret),
            token_id=self._mint(),
            label=label.strip(),
            owner=owner,
            actions=wanted,
            created=now,
            expires=now + int(days * 86_400_000) if days is not None else 0,
        )
        event = access_event(
            Kind.ADMIN, by, "token-created", token.token_id, "+".join(sorted(wanted))
        )
        with self._changing:
            self._store.add_token(token, event)
            self._load()
        return token, secret

    def revoke_token(self, token_id: str, by: Actor) -> None:
        """End a token now; NotFoundError when none of that id is in force."""
        event = access_event(Kind.ADMIN, by, "token-revoked", token_id)
        with self._changing:
            self._store.revoke_token(token_id, self._now(), event)
            self._load()

    # --- inside ------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read what is held anew; called under `_changing`, and once before anybody asks."""
        accounts = {one.account_id: one for one in self._store.accounts()}
        tokens: dict[bytes, _Token] = {}
        for token in self._store.tokens():
            actions = token.actions - PERSONS_ONLY
            if token.owner:
                owner = accounts.get(token.owner)
                fit = owner is not None and not owner.disabled
                actions &= actions_of(owner.roles) if owner and fit else frozenset()
            if actions and not token.revoked:
                actor = Actor(actor_id=f"token:{token.token_id}", name=token.label, actions=actions)
                tokens[token.digest] = _Token(actor, token)
        sessions = {}
        for session in self._store.sessions():
            account = accounts.get(session.account_id)
            if account is not None and not account.disabled:
                sessions[session.digest] = _Opened(person(account), account.login, session)
        seen = list(self._seen.items())
        self._seen = {key: at for key, at in seen if key in tokens or key in sessions}
        self._accounts, self._sessions, self._tokens = accounts, sessions, tokens

    def _change(self, account_id: str, event: Event, make: Callable[[Account], Account]) -> Account:
        def check(now: Account, everybody: Sequence[Account]) -> Account:
            new = make(now)
            if runs_box(now) and not runs_box(new) and sum(map(runs_box, everybody)) == 1:
                raise WrongStateError("the last administrator who can log in stays one")
            return new

        with self._changing:
            changed = self._store.change_account(account_id, check, event)
            self._load()
        return changed

    def _add(self, account: Account, by: Actor, *, setup: bool) -> Link:
        link, secret = self._link(account, setup)
        roles = "+".join(sorted(account.roles))
        event = access_event(Kind.ADMIN, by, "account-added", account.account_id, roles)
        with self._changing:
            self._store.add_account(account, link, event)
            self._load()
        return Link(account=account, setup=setup, expires=link.expires, secret=secret)

    def _new_link(self, account: Account, by: Actor, *, setup: bool) -> Link:
        link, secret = self._link(account, setup)
        event = access_event(Kind.ADMIN, by, "link-made", account.account_id)
        self._store.set_link(link, event)
        return Link(account=account, setup=setup, expires=link.expires, secret=secret)

    def _link(self, account: Account, setup: bool) -> tuple[HeldLink, str]:
        secret = self._random(_SECRET_BYTES).hex()
        link = HeldLink(
            digest=digest_of(secret),
            account_id=account.account_id,
            setup=setup,
            expires=self._now() + LINK_MS,
        )
        return link, secret

    def _open(self, account: Account, address: str, password: str | None) -> Session:
        secret, now = self._random(_SECRET_BYTES).hex(), self._now()
        held = HeldSession(
            digest=digest_of(secret),
            session_id=self._mint(),
            account_id=account.account_id,
            address=address,
            created=now,
            seen=now,
            expires=now + self._longest_ms,
        )
        actor = person(account)
        with self._changing:
            self._store.open_session(held, password, access_event(Kind.ACCESS, actor, "log-in"))
            self._load()
        return replace(session_of(actor, account.login, held, secret), secret=secret)

    def _end(self, digests: Sequence[bytes], event: Event) -> None:
        with self._changing:
            self._store.end_sessions(digests, event)
            self._load()

    def _rehash(self, account: Account, encoded: str) -> Account:
        with self._changing:
            self._store.rehash(account.account_id, account.password, encoded)
            self._load()
        return self._accounts.get(account.account_id, account)

    def _now(self) -> int:
        """Return the time; it never goes back, and goes on while the clock stands in the past."""
        base, since = self._base
        told, mono = self._clock.now(), self._clock.monotonic()
        passed = base + int((mono - since) * 1000)
        if told > passed:
            self._base = (told, mono)
            return told
        return passed

    def _mint(self) -> str:
        return "a" + self._random(8).hex()
