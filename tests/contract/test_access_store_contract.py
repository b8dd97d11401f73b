"""Every `AccessStore` keeps the same promises; the one on disk keeps them over a restart."""

# ruff: noqa: S105, S106 -- made-up words, no secrets

import threading
from contextlib import suppress
from dataclasses import replace

import pytest

from bedside_core.access import Action, Role
from bedside_core.errors import NotFoundError, UnauthenticatedError, WrongStateError
from bedside_core.evidence.entry import Kind
from bedside_edge.ports.access import Account, HeldLink, HeldSession, HeldToken, Tries
from bedside_edge.ports.evidence import Event
from bedside_edge.store.access import SqliteAccess
from bedside_edge.store.database import Database
from support.memory_access import MemoryAccess

EVENT = Event(kind=Kind.ADMIN, actor="system:test", refs={"what": "test"})
ANNA = Account(
    account_id="a1",
    login="anna",
    name="Muster^Anna",
    roles=frozenset({Role.ADMINISTRATOR, Role.RADIOLOGIST}),
    created=1000,
)
LINK = HeldLink(digest=b"l" * 32, account_id="a1", setup=False, expires=9000)
SESSION = HeldSession(
    digest=b"s" * 32,
    session_id="a51",
    account_id="a1",
    address="127.0.0.1",
    created=2000,
    seen=2000,
    expires=8000,
)
TOKEN = HeldToken(
    digest=b"t" * 32,
    token_id="a71",
    label="pacs",
    owner="",
    actions=frozenset({Action.STORE, Action.VIEW_RESULT}),
    created=3000,
    expires=0,
)


class Kept:
    """A store, what it told the evidence log, and another handle on the same rows."""

    def __init__(self, kind, folder):
        self._path, self._kind = folder / "access.db", kind
        self.events = []
        self.fail_record = False
        self._open()

    def _open(self):
        if self._kind == "memory":
            self.store = MemoryAccess()
            self.events = self.store.events
        else:
            self._database = Database(self._path)
            self.store = SqliteAccess(self._database, self._record)

    def _record(self, _, event):
        if self.fail_record:
            raise RuntimeError("no room in the log")
        self.events.append(event)
        return len(self.events)

    def again(self):
        if self._kind == "sqlite":
            self.close()
            self._open()
        return self.store

    def close(self):
        if self._kind == "sqlite":
            self._database.close()


@pytest.fixture(params=["sqlite", "memory"])
def kept(request, tmp_path):
    kept = Kept(request.param, tmp_path)
    yield kept
    kept.close()


def same(account, _):
    return account


def test_what_was_stored_is_there_after_a_restart(kept):
    store = kept.store
    store.add_account(ANNA, LINK, EVENT)
    store.open_session(SESSION, None, EVENT)
    store.add_token(TOKEN, EVENT)
    again = kept.again()
    assert again.accounts() == [ANNA]
    assert again.link(LINK.digest) == LINK
    assert again.sessions() == [SESSION]
    assert again.tokens() == [TOKEN]
    assert again.latest() == 3000


def test_every_change_by_somebody_is_told_to_the_evidence(kept):
    store = kept.store
    store.add_account(ANNA, LINK, EVENT)
    store.set_link(replace(LINK, digest=b"m" * 32), EVENT)
    store.use_link(b"m" * 32, 5000, same, EVENT)
    store.change_account("a1", same, EVENT)
    store.open_session(SESSION, None, EVENT)
    store.end_sessions([SESSION.digest], EVENT)
    store.add_token(TOKEN, EVENT)
    store.revoke_token("a71", 6000, EVENT)
    store.failed(6000, EVENT)
    assert kept.events == [EVENT] * 9


def test_without_its_evidence_nothing_changes(tmp_path):
    kept = Kept("sqlite", tmp_path)
    kept.fail_record = True
    with pytest.raises(RuntimeError):
        kept.store.add_account(ANNA, LINK, EVENT)
    with pytest.raises(RuntimeError):
        kept.store.add_token(TOKEN, EVENT)
    assert kept.store.accounts() == []
    assert kept.store.tokens() == []
    kept.close()


def test_a_login_name_is_taken_once(kept):
    kept.store.add_account(ANNA, LINK, EVENT)
    other = replace(ANNA, account_id="a2")
    with pytest.raises(WrongStateError):
        kept.store.add_account(other, replace(LINK, account_id="a2", digest=b"2" * 32), EVENT)
    kept.store.add_account(
        replace(other, login="bert"), replace(LINK, account_id="a2", digest=b"2" * 32), EVENT
    )
    with pytest.raises(WrongStateError):
        kept.store.change_account("a2", lambda one, _: replace(one, login="anna"), EVENT)
    assert [one.login for one in kept.store.accounts()] == ["anna", "bert"]


def test_a_changed_account_loses_its_sessions_and_a_refused_change_changes_nothing(kept):
    kept.store.add_account(ANNA, LINK, EVENT)
    kept.store.open_session(SESSION, None, EVENT)

    def refuse(account, everybody):
        assert everybody == [account]
        raise WrongStateError("no")

    with pytest.raises(WrongStateError):
        kept.store.change_account("a1", refuse, EVENT)
    assert kept.store.sessions() == [SESSION]
    disabled = kept.store.change_account("a1", lambda one, _: replace(one, disabled=True), EVENT)
    assert kept.again().accounts() == [disabled]
    assert kept.store.sessions() == []
    with pytest.raises(NotFoundError):
        kept.store.change_account("none", same, EVENT)


def test_of_two_changes_at_once_the_second_sees_the_first(kept):
    both = ("a1", "a2")
    for number in both:
        one = replace(ANNA, account_id=number, login=number)
        kept.store.add_account(
            one, HeldLink(digest=number.encode(), account_id=number, setup=False, expires=1), EVENT
        )

    def leave(account, everybody):
        if not any(one.account_id != account.account_id and one.roles for one in everybody):
            raise WrongStateError("the last one")
        return replace(account, roles=frozenset())

    def change(number):
        with suppress(WrongStateError):
            kept.store.change_account(number, leave, EVENT)

    threads = [threading.Thread(target=change, args=(number,)) for number in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(bool(one.roles) for one in kept.store.accounts()) == 1


def test_a_link_works_once_and_only_before_it_expires(kept):
    kept.store.add_account(ANNA, LINK, EVENT)
    with pytest.raises(NotFoundError):
        kept.store.use_link(LINK.digest, LINK.expires, same, EVENT)
    set_ = kept.store.use_link(LINK.digest, 8999, lambda a, _: replace(a, password="x"), EVENT)
    assert kept.again().accounts() == [set_]
    with pytest.raises(NotFoundError):
        kept.store.use_link(LINK.digest, 8999, same, EVENT)
    assert kept.store.link(LINK.digest) is None


def test_a_new_link_makes_the_old_one_void(kept):
    kept.store.add_account(ANNA, LINK, EVENT)
    kept.store.set_link(replace(LINK, digest=b"m" * 32), EVENT)
    assert kept.again().link(LINK.digest) is None
    assert kept.store.link(b"m" * 32) is not None
    with pytest.raises(NotFoundError):
        kept.store.set_link(replace(LINK, account_id="none"), EVENT)


def test_a_session_is_not_opened_on_what_does_not_hold_any_more(kept):
    kept.store.add_account(replace(ANNA, password="new"), LINK, EVENT)
    with pytest.raises(UnauthenticatedError):
        kept.store.open_session(SESSION, "old", EVENT)
    kept.store.change_account("a1", lambda one, _: replace(one, disabled=True), EVENT)
    with pytest.raises(UnauthenticatedError):
        kept.store.open_session(SESSION, "new", EVENT)
    assert kept.again().sessions() == []


def test_use_is_noted_and_never_set_back(kept):
    kept.store.add_account(ANNA, LINK, EVENT)
    kept.store.open_session(SESSION, None, EVENT)
    kept.store.add_token(TOKEN, EVENT)
    kept.store.touch_sessions([SESSION.digest], 7000)
    kept.store.touch_sessions([SESSION.digest], 6000)
    kept.store.touch_tokens(["a71"], 7500)
    again = kept.again()
    assert again.sessions() == [replace(SESSION, seen=7000)]
    assert again.tokens() == [replace(TOKEN, last_used=7500)]
    assert again.latest() == 7500
    again.drop_sessions([SESSION.digest], 9000)
    assert kept.again().sessions() == []
    assert kept.store.latest() == 9000


def test_a_token_is_revoked_once(kept):
    kept.store.add_token(TOKEN, EVENT)
    kept.store.revoke_token("a71", 4000, EVENT)
    assert kept.again().tokens() == [replace(TOKEN, revoked=4000)]
    with pytest.raises(NotFoundError):
        kept.store.revoke_token("a71", 5000, EVENT)


def test_failures_add_up_over_a_restart_until_they_are_forgiven(kept):
    seen = []

    def look(key, tries):
        seen.append((key, tries))

    kept.store.attempt(["name", "address"], 100, look)
    kept.again().attempt(["name", "address"], 200, look)
    once = Tries(failures=1, last=100)
    assert seen[2:] == [("name", once), ("address", once)]
    kept.store.forgive("name", "address")
    seen.clear()
    kept.again().attempt(["name", "address"], 300, look)
    assert [tries.failures for _, tries in seen] == [0, 1]


def test_a_refused_attempt_counts_nowhere(kept):
    def refuse(key, _):
        if key == "address":
            raise WrongStateError("wait")

    with pytest.raises(WrongStateError):
        kept.store.attempt(["name", "address"], 100, refuse)
    seen = []
    kept.store.attempt(["name"], 200, lambda _, tries: seen.append(tries))
    assert seen == [Tries()]


def test_old_failures_and_floods_of_names_do_not_pile_up(kept):
    kept.store.attempt(["old"], 0, lambda *_: None)
    many = [f"k{number}" for number in range(10_050)]
    kept.store.attempt(many, 24 * 3600 * 1000 + 1, lambda *_: None)
    kept.store.attempt(["k10049"], 24 * 3600 * 1000 + 2, lambda *_: None)
    seen = {}
    kept.store.attempt(
        ["old", *many], 24 * 3600 * 1000 + 3, lambda key, tries: seen.update({key: tries.failures})
    )
    assert seen["old"] == 0
    assert seen["k10049"] == 2
    assert sum(count > 0 for count in seen.values()) == 10_000


def test_a_hash_is_replaced_only_while_it_is_the_same(kept):
    kept.store.add_account(replace(ANNA, password="old"), LINK, EVENT)
    kept.store.rehash("a1", "other", "new")
    assert kept.store.accounts()[0].password == "old"
    kept.store.rehash("a1", "old", "new")
    assert kept.again().accounts()[0].password == "new"
