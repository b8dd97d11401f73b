"""Accounts, sessions, tokens and links in SQLite; a change and its evidence are one transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from bedside_core.access import Action, Role
from bedside_core.errors import NotFoundError, UnauthenticatedError, WrongStateError
from bedside_edge.ports.access import Account, Check, HeldLink, HeldSession, HeldToken, Tries
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.store.database import Database

_ACCOUNTS: Final = """
  SELECT account_id, login, name, roles, disabled, created, password FROM accounts
  ORDER BY rowid"""
_TOKENS: Final = """
  SELECT digest, token_id, label, owner, actions, created, expires, last_used, revoked
  FROM tokens ORDER BY rowid"""
_SESSIONS: Final = """
  SELECT digest, session_id, account_id, address, created, seen, expires FROM sessions"""
_CHANGE: Final = """
  UPDATE accounts SET login = ?, name = ?, roles = ?, disabled = ?, password = ?
  WHERE account_id = ?"""
_LINK: Final = """
  INSERT OR REPLACE INTO account_links (account_id, digest, setup, expires) VALUES (?, ?, ?, ?)"""
_TRIED: Final = """
  INSERT INTO login_tries (key, failures, last) VALUES (?1, 1, ?2)
  ON CONFLICT (key) DO UPDATE SET failures = failures + 1, last = max(last, ?2)"""

_FORGET_TRIES_MS: Final = 24 * 3600 * 1000
_MOST_TRIES: Final = 10_000  # rows: a flood of made-up login names must not fill the disk


class SqliteAccess:
    """`AccessStore` over the database."""

    def __init__(self, database: Database, record: Record) -> None:
        self._database, self._record = database, record

    # --- reading -----------------------------------------------------------------------------

    def latest(self) -> int:
        """Return the latest time the store was told."""
        found = self._database.read(
            lambda c: c.execute("SELECT latest FROM access_clock").fetchone()
        )
        return int(found[0])

    def accounts(self) -> list[Account]:
        """Return every account, oldest first."""
        return self._database.read(_accounts)

    def sessions(self) -> list[HeldSession]:
        """Return every session that was not ended."""
        rows = self._database.read(lambda c: c.execute(_SESSIONS).fetchall())
        return [
            HeldSession(
                digest=digest,
                session_id=session_id,
                account_id=account_id,
                address=address,
                created=created,
                seen=seen,
                expires=expires,
            )
            for digest, session_id, account_id, address, created, seen, expires in rows
        ]

    def tokens(self) -> list[HeldToken]:
        """Return every token, the revoked ones too, oldest first."""
        return [_token(row) for row in self._database.read(lambda c: c.execute(_TOKENS).fetchall())]

    def link(self, digest: bytes) -> HeldLink | None:
        """Return the link with this digest."""
        return self._database.read(lambda c: _link(c, digest))

    # --- accounts and links ------------------------------------------------------------------

    def add_account(self, new: Account, link: HeldLink, event: Event) -> None:
        """Store an account with its link; WrongStateError when the login name is taken."""

        def write(c: sqlite3.Connection) -> None:
            _free(c, new)
            c.execute(
                "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    new.account_id,
                    new.login,
                    new.name,
                    _words(new.roles),
                    int(new.disabled),
                    new.created,
                    new.password,
                ),
            )
            c.execute(_LINK, _link_row(link))
            _told(c, new.created)
            self._record(c, event)

        self._database.write(write)

    def change_account(self, account_id: str, check: Check, event: Event) -> Account:
        """Replace an account by what `check` makes of it; end its sessions. See the port."""

        def write(c: sqlite3.Connection) -> Account:
            changed = _change(c, account_id, check)
            self._record(c, event)
            return changed

        return self._database.write(write)

    def use_link(self, digest: bytes, now: int, check: Check, event: Event) -> Account:
        """Change the link's account and spend the link; see the port."""

        def write(c: sqlite3.Connection) -> Account:
            link = _link(c, digest)
            if link is None or link.expires <= now:
                raise NotFoundError("the link is spent, void or expired; ask for a new one")
            changed = _change(c, link.account_id, check)
            c.execute("DELETE FROM account_links WHERE account_id = ?", (link.account_id,))
            _told(c, now)
            self._record(c, event)
            return changed

        return self._database.write(write)

    def set_link(self, link: HeldLink, event: Event) -> None:
        """Give an account a link; the one it had is void."""

        def write(c: sqlite3.Connection) -> None:
            _account(c, link.account_id)
            c.execute(_LINK, _link_row(link))
            self._record(c, event)

        self._database.write(write)

    # --- sessions ----------------------------------------------------------------------------

    def open_session(self, session: HeldSession, password: str | None, event: Event) -> None:
        """Store a session; UnauthenticatedError when the account changed meanwhile."""

        def write(c: sqlite3.Connection) -> None:
            account = _account(c, session.account_id)
            if account.disabled or password not in (None, account.password):
                raise UnauthenticatedError("the account was changed meanwhile; log in again")
            c.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    session.digest,
                    session.session_id,
                    session.account_id,
                    session.address,
                    session.created,
                    session.seen,
                    session.expires,
                ),
            )
            _told(c, session.created)
            self._record(c, event)

        self._database.write(write)

    def end_sessions(self, digests: Sequence[bytes], event: Event) -> None:
        """Forget sessions that somebody ended."""

        def write(c: sqlite3.Connection) -> None:
            c.executemany("DELETE FROM sessions WHERE digest = ?", [(one,) for one in digests])
            self._record(c, event)

        self._database.write(write)

    def drop_sessions(self, digests: Sequence[bytes], now: int) -> None:
        """Forget sessions that ran out, without waiting for the disk."""

        def write(c: sqlite3.Connection) -> None:
            c.executemany("DELETE FROM sessions WHERE digest = ?", [(one,) for one in digests])
            _told(c, now)

        self._database.submit(write)

    def rehash(self, account_id: str, old: str, new: str) -> None:
        """Replace an encoded hash by another of the same password, if it is still `old`."""
        sql = "UPDATE accounts SET password = ? WHERE account_id = ? AND password = ?"
        self._database.write(lambda c: c.execute(sql, (new, account_id, old)) and None)

    def touch_sessions(self, digests: Sequence[bytes], now: int) -> None:
        """Note that sessions were used, without waiting for the disk."""
        rows = [(now, digest) for digest in digests]

        def write(c: sqlite3.Connection) -> None:
            c.executemany("UPDATE sessions SET seen = max(seen, ?) WHERE digest = ?", rows)
            _told(c, now)

        self._database.submit(write)

    # --- tokens ------------------------------------------------------------------------------

    def add_token(self, token: HeldToken, event: Event) -> None:
        """Store a token."""

        def write(c: sqlite3.Connection) -> None:
            c.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    token.token_id,
                    token.digest,
                    token.label,
                    token.owner,
                    _words(token.actions),
                    token.created,
                    token.expires,
                    token.last_used,
                    token.revoked,
                ),
            )
            _told(c, token.created)
            self._record(c, event)

        self._database.write(write)

    def revoke_token(self, token_id: str, now: int, event: Event) -> None:
        """Mark a token revoked; NotFoundError."""

        def write(c: sqlite3.Connection) -> None:
            sql = "UPDATE tokens SET revoked = ? WHERE token_id = ? AND revoked = 0"
            if not c.execute(sql, (now, token_id)).rowcount:
                raise NotFoundError("no token of that id is in force")
            self._record(c, event)

        self._database.write(write)

    def touch_tokens(self, token_ids: Sequence[str], now: int) -> None:
        """Note that tokens were used, without waiting for the disk."""
        rows = [(now, token_id) for token_id in token_ids]

        def write(c: sqlite3.Connection) -> None:
            c.executemany(
                "UPDATE tokens SET last_used = max(last_used, ?) WHERE token_id = ?", rows
            )
            _told(c, now)

        self._database.submit(write)

    # --- failed log-ins ----------------------------------------------------------------------

    def attempt(self, keys: Sequence[str], now: int, check: Callable[[str, Tries], None]) -> None:
        """Count a failure under every key, unless `check` refuses one; see the port."""

        def write(c: sqlite3.Connection) -> None:
            for key in keys:
                sql = "SELECT failures, last FROM login_tries WHERE key = ?"
                row = c.execute(sql, (key,)).fetchone()
                check(key, Tries(failures=row[0], last=row[1]) if row else Tries())
            c.executemany(_TRIED, [(key, now) for key in keys])
            _told(c, now)
            c.execute("DELETE FROM login_tries WHERE last < ?", (now - _FORGET_TRIES_MS,))
            (held,) = c.execute("SELECT count(*) FROM login_tries").fetchone()
            if held > _MOST_TRIES:
                c.execute(
                    "DELETE FROM login_tries WHERE key IN (SELECT key FROM login_tries"
                    " ORDER BY failures, last LIMIT ?)",
                    (held - _MOST_TRIES,),
                )

        self._database.write(write)

    def failed(self, now: int, event: Event) -> None:
        """Write into the evidence that an attempt that was counted did fail."""

        def write(c: sqlite3.Connection) -> None:
            _told(c, now)
            self._record(c, event)

        self._database.write(write)

    def forgive(self, forget: str, undo: str = "") -> None:
        """Forget the failures under one key, and take the newest back under another."""

        def write(c: sqlite3.Connection) -> None:
            c.execute("DELETE FROM login_tries WHERE key = ?", (forget,))
            c.execute("UPDATE login_tries SET failures = failures - 1 WHERE key = ?", (undo,))
            c.execute("DELETE FROM login_tries WHERE failures <= 0")

        self._database.write(write)


def _accounts(c: sqlite3.Connection) -> list[Account]:
    return [
        Account(
            account_id=account_id,
            login=login,
            name=name,
            roles=frozenset(Role(word) for word in roles.split()),
            disabled=bool(disabled),
            created=created,
            password=password,
        )
        for account_id, login, name, roles, disabled, created, password in c.execute(_ACCOUNTS)
    ]


def _account(c: sqlite3.Connection, account_id: str) -> Account:
    for account in _accounts(c):
        if account.account_id == account_id:
            return account
    raise NotFoundError("no account of that id")


def _change(c: sqlite3.Connection, account_id: str, check: Check) -> Account:
    everybody = _accounts(c)
    changed = check(_account(c, account_id), everybody)
    _free(c, changed)
    c.execute(
        _CHANGE,
        (
            changed.login,
            changed.name,
            _words(changed.roles),
            int(changed.disabled),
            changed.password,
            account_id,
        ),
    )
    c.execute("DELETE FROM sessions WHERE account_id = ?", (account_id,))
    return changed


def _free(c: sqlite3.Connection, account: Account) -> None:
    sql = "SELECT 1 FROM accounts WHERE login = ? AND account_id <> ?"
    if c.execute(sql, (account.login, account.account_id)).fetchone():
        raise WrongStateError("the login name is taken")


def _link(c: sqlite3.Connection, digest: bytes) -> HeldLink | None:
    sql = "SELECT account_id, setup, expires FROM account_links WHERE digest = ?"
    row = c.execute(sql, (digest,)).fetchone()
    if row is None:
        return None
    return HeldLink(digest=digest, account_id=row[0], setup=bool(row[1]), expires=row[2])


def _link_row(link: HeldLink) -> tuple[str, bytes, int, int]:
    return link.account_id, link.digest, int(link.setup), link.expires


def _token(row: tuple[Any, ...]) -> HeldToken:
    digest, token_id, label, owner, actions, created, expires, last_used, revoked = row
    return HeldToken(
        digest=digest,
        token_id=token_id,
        label=label,
        owner=owner,
        actions=frozenset(Action(word) for word in actions.split()),
        created=created,
        expires=expires,
        last_used=last_used,
        revoked=revoked,
    )


def _words(words: frozenset[Role] | frozenset[Action]) -> str:
    return " ".join(sorted(words))


def _told(c: sqlite3.Connection, now: int) -> None:
    c.execute("UPDATE access_clock SET latest = max(latest, ?)", (now,))
