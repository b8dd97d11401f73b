"""Accounts in memory with every promise of `AccessStore` but durability; a quick password hash."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from bedside_core.errors import NotFoundError, UnauthenticatedError, WrongStateError
from bedside_edge.ports.access import Account, Check, HeldLink, HeldSession, HeldToken, Tries
from bedside_edge.ports.evidence import Event

_DAY_MS = 24 * 3600 * 1000
_MOST_TRIES = 10_000


class MemoryAccess:
    """`AccessStore` over dictionaries; `events` is what a log would hold."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._links: dict[str, HeldLink] = {}
        self._sessions: dict[bytes, HeldSession] = {}
        self._tokens: dict[str, HeldToken] = {}
        self._tries: dict[str, Tries] = {}
        self._latest = 0
        self._lock = threading.RLock()
        self.events: list[Event] = []

    def latest(self) -> int:
        return self._latest

    def accounts(self) -> list[Account]:
        return list(self._accounts.values())

    def sessions(self) -> list[HeldSession]:
        return list(self._sessions.values())

    def tokens(self) -> list[HeldToken]:
        return list(self._tokens.values())

    def link(self, digest: bytes) -> HeldLink | None:
        return next((one for one in self._links.values() if one.digest == digest), None)

    def add_account(self, new: Account, link: HeldLink, event: Event) -> None:
        with self._lock:
            self._free(new)
            self._accounts[new.account_id] = new
            self._links[new.account_id] = link
            self._told(new.created)
            self.events.append(event)

    def change_account(self, account_id: str, check: Check, event: Event) -> Account:
        with self._lock:
            changed = self._change(account_id, check)
            self.events.append(event)
            return changed

    def use_link(self, digest: bytes, now: int, check: Check, event: Event) -> Account:
        with self._lock:
            link = self.link(digest)
            if link is None or link.expires <= now:
                raise NotFoundError("the link is spent, void or expired; ask for a new one")
            changed = self._change(link.account_id, check)
            del self._links[link.account_id]
            self._told(now)
            self.events.append(event)
            return changed

    def set_link(self, link: HeldLink, event: Event) -> None:
        with self._lock:
            self._account(link.account_id)
            self._links[link.account_id] = link
            self.events.append(event)

    def open_session(self, session: HeldSession, password: str | None, event: Event) -> None:
        with self._lock:
            account = self._account(session.account_id)
            if account.disabled or password not in (None, account.password):
                raise UnauthenticatedError("the account was changed meanwhile; log in again")
            self._sessions[session.digest] = session
            self._told(session.created)
            self.events.append(event)

    def end_sessions(self, digests: Sequence[bytes], event: Event) -> None:
        with self._lock:
            self.drop_sessions(digests, 0)
            self.events.append(event)

    def drop_sessions(self, digests: Sequence[bytes], now: int) -> None:
        with self._lock:
            for digest in digests:
                self._sessions.pop(digest, None)
            self._told(now)

    def rehash(self, account_id: str, old: str, new: str) -> None:
        with self._lock:
            account = self._account(account_id)
            if account.password == old:
                self._accounts[account_id] = replace(account, password=new)

    def add_token(self, token: HeldToken, event: Event) -> None:
        with self._lock:
            self._tokens[token.token_id] = token
            self._told(token.created)
            self.events.append(event)

    def revoke_token(self, token_id: str, now: int, event: Event) -> None:
        with self._lock:
            token = self._tokens.get(token_id)
            if token is None or token.revoked:
                raise NotFoundError("no token of that id is in force")
            self._tokens[token_id] = replace(token, revoked=now)
            self.events.append(event)

    def attempt(self, keys: Sequence[str], now: int, check: Callable[[str, Tries], None]) -> None:
        with self._lock:
            for key in keys:
                check(key, self._tries.get(key, Tries()))
            for key in keys:
                held = self._tries.get(key, Tries())
                self._tries[key] = Tries(failures=held.failures + 1, last=max(held.last, now))
            self._told(now)
            recent = {k: t for k, t in self._tries.items() if t.last >= now - _DAY_MS}
            worst = sorted(recent, key=lambda key: (recent[key].failures, recent[key].last))
            self._tries = {key: recent[key] for key in worst[-_MOST_TRIES:]}

    def failed(self, now: int, event: Event) -> None:
        with self._lock:
            self._told(now)
            self.events.append(event)

    def forgive(self, forget: str, undo: str = "") -> None:
        with self._lock:
            self._tries.pop(forget, None)
            if undo in self._tries:
                held = self._tries[undo]
                self._tries[undo] = replace(held, failures=held.failures - 1)
                if held.failures <= 1:
                    del self._tries[undo]

    def touch_sessions(self, digests: Sequence[bytes], now: int) -> None:
        with self._lock:
            for digest in digests:
                if digest in self._sessions:
                    held = self._sessions[digest]
                    self._sessions[digest] = replace(held, seen=max(held.seen, now))
            self._told(now)

    def touch_tokens(self, token_ids: Sequence[str], now: int) -> None:
        with self._lock:
            for token_id in token_ids:
                if token_id in self._tokens:
                    held = self._tokens[token_id]
                    self._tokens[token_id] = replace(held, last_used=max(held.last_used, now))
            self._told(now)

    def _account(self, account_id: str) -> Account:
        if account_id not in self._accounts:
            raise NotFoundError("no account of that id")
        return self._accounts[account_id]

    def _change(self, account_id: str, check: Check) -> Account:
        changed = check(self._account(account_id), list(self._accounts.values()))
        self._free(changed)
        self._accounts[account_id] = changed
        ended = [d for d, one in self._sessions.items() if one.account_id == account_id]
        self.drop_sessions(ended, 0)
        return changed

    def _free(self, account: Account) -> None:
        for one in self._accounts.values():
            if one.login == account.login and one.account_id != account.account_id:
                raise WrongStateError("the login name is taken")

    def _told(self, now: int) -> None:
        self._latest = max(self._latest, now)


class QuickPasswords:
    """`Passwords` that take no time and guard nothing: SHA-256. `looked` counts the work done."""

    def __init__(self) -> None:
        self._made = 0
        self.looked: list[str] = []

    def hash(self, password: str) -> str:
        self._made += 1
        return f"quick${self._made}${self._digest(password, str(self._made))}"

    def verify(self, encoded: str, password: str) -> bool:
        self.looked.append(encoded)
        kind, _, rest = encoded.partition("$")
        salt, _, digest = rest.partition("$")
        return kind == "quick" and digest == self._digest(password, salt)

    def outdated(self, encoded: str) -> bool:
        return not encoded.startswith("quick$")

    def _digest(self, password: str, salt: str) -> str:
        return hashlib.sha256(f"{salt}:{password}".encode()).hexdigest()
