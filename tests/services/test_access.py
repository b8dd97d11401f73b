"""Log-in, sessions, tokens and accounts: who gets in, who does not, and when it ends."""

import threading
from contextlib import suppress

import pytest

from bedside_core.access import Action, Actor, Role, actions_of
from bedside_core.errors import (
    InvalidRequestError,
    NotFoundError,
    RefusedError,
    TooManyAttemptsError,
    UnauthenticatedError,
    WeakPasswordError,
    WrongStateError,
)
from bedside_edge.ports.evidence import no_record
from bedside_edge.services.access import CONSOLE, TOKEN_PREFIX, AccessService, read_name
from bedside_edge.store.access import SqliteAccess
from bedside_edge.store.database import Database
from support.fake_clock import FakeClock, SeededBytes
from support.memory_access import MemoryAccess, QuickPasswords

HERE = "127.0.0.1"
GOOD = "violet otter climbs stairs"
OTHER = "nine green apples fall up"
MINUTE, HOUR = 60_000, 3_600_000


class Desk:
    """A service over memory, and the administrator and radiologist it knows."""

    def __init__(self):
        self.clock, self.store, self.passwords = FakeClock(), MemoryAccess(), QuickPasswords()
        self.random = SeededBytes("access")
        self.access = self.start()
        self.admin = self.access.set_password_by_link(
            self.access.ensure_setup().secret, GOOD, login="anna", name="Muster^Anna"
        )
        self.reader = self.add("bert", Role.RADIOLOGIST)
        self.by = Actor(
            actor_id=f"person:{self.admin.account_id}",
            name="Muster^Anna",
            actions=actions_of(self.admin.roles),
        )

    def start(self):
        return AccessService(self.store, self.passwords, self.clock, self.random)

    def add(self, login, *roles):
        link = self.access.add_account(login, f"{login}^x", roles, CONSOLE)
        return self.access.set_password_by_link(link.secret, GOOD)

    def log_in(self, login="bert", password=GOOD, address=HERE):
        return self.access.log_in(login, password, address)

    def fails(self, login="bert", address=HERE):
        with pytest.raises(UnauthenticatedError):
            self.log_in(login, "not this one at all", address)


@pytest.fixture
def desk():
    return Desk()


def told(desk):
    return [event.refs["what"] for event in desk.store.events]


# --- a fresh box ---------------------------------------------------------------------------------


def test_a_fresh_box_has_no_password_and_one_link_that_is_renewed_at_every_start():
    store, clock = MemoryAccess(), FakeClock()
    access = AccessService(store, QuickPasswords(), clock, SeededBytes())
    first = access.ensure_setup()
    (account,) = access.accounts()
    assert (account.password, account.roles) == ("", {Role.ADMINISTRATOR})
    for guess in ("", "admin", "administrator"):
        with pytest.raises(UnauthenticatedError):
            access.log_in(account.login, guess, HERE)
    second = AccessService(store, QuickPasswords(), clock, SeededBytes("2")).ensure_setup()
    with pytest.raises(NotFoundError):
        access.set_password_by_link(first.secret, GOOD)
    done = access.set_password_by_link(second.secret, GOOD, login="Anna", name="Muster^Anna")
    assert (done.login, done.name) == ("anna", "Muster^Anna")
    assert access.ensure_setup() is None
    with pytest.raises(NotFoundError):
        access.set_password_by_link(second.secret, OTHER)


def test_the_set_up_link_holds_for_a_day():
    clock = FakeClock()
    access = AccessService(MemoryAccess(), QuickPasswords(), clock, SeededBytes())
    link = access.ensure_setup()
    clock.advance(24 * HOUR - 1)
    assert access.link(link.secret).setup
    clock.advance(1)
    with pytest.raises(NotFoundError):
        access.link(link.secret)
    with pytest.raises(NotFoundError):
        access.set_password_by_link(link.secret, GOOD)


def test_a_box_without_an_administrator_can_still_be_set_up():
    access = AccessService(MemoryAccess(), QuickPasswords(), FakeClock(), SeededBytes())
    access.add_account("administrator", "Not^One", [Role.AUDITOR], CONSOLE)
    link = access.ensure_setup()
    assert link is not None
    assert link.account.login == "administrator2"
    assert access.ensure_setup().account == link.account


def test_an_administrator_added_on_the_console_is_enough():
    access = AccessService(MemoryAccess(), QuickPasswords(), FakeClock(), SeededBytes())
    access.add_account("anna", "Muster^Anna", [Role.ADMINISTRATOR], CONSOLE)
    assert access.ensure_setup() is None


def test_a_reset_link_renames_nobody(desk):
    link = desk.access.reset_link(desk.reader.account_id, desk.by)
    with pytest.raises(InvalidRequestError):
        desk.access.set_password_by_link(link.secret, OTHER, login="root")
    with pytest.raises(WeakPasswordError):
        desk.access.set_password_by_link(link.secret, "short")
    desk.access.set_password_by_link(link.secret, OTHER)
    assert desk.log_in(password=OTHER).login == "bert"
    desk.fails()


def test_a_link_gives_back_nothing_that_was_taken_meanwhile(desk):
    link = desk.access.reset_link(desk.reader.account_id, desk.by)
    hash_ = desk.passwords.hash

    def slow(password):
        desk.access.set_disabled(desk.reader.account_id, True, desk.by)
        return hash_(password)

    desk.passwords.hash = slow
    assert desk.access.set_password_by_link(link.secret, OTHER).disabled


# --- sessions ------------------------------------------------------------------------------------


def test_a_log_in_gives_the_actor_of_the_person(desk):
    session = desk.log_in("  BERT ")
    actor = desk.access.session(session.secret).actor
    assert actor.actor_id == f"person:{desk.reader.account_id}"
    assert actor.name == "bert^x"
    assert actor.actions == actions_of(frozenset({Role.RADIOLOGIST}))
    assert told(desk)[-1] == "log-in"


def test_every_log_in_has_a_secret_of_its_own_and_the_box_keeps_none_of_them(desk):
    first, second = desk.log_in(), desk.log_in()
    assert first.secret != second.secret
    assert first.csrf != second.csrf
    kept = repr(desk.store.__dict__)
    assert first.secret not in kept
    assert first.csrf not in kept
    assert GOOD not in kept


def test_a_session_ends_when_it_is_not_used(desk):
    secret = desk.log_in().secret
    for _ in range(5):
        desk.clock.advance(29 * MINUTE)
        assert desk.access.session(secret) is not None
    desk.clock.advance(30 * MINUTE)
    assert desk.access.session(secret) is None
    assert desk.store.sessions() == []


def test_a_session_ends_after_twelve_hours_of_use(desk):
    secret = desk.log_in().secret
    for _ in range(12 * 3 - 1):
        desk.clock.advance(20 * MINUTE)
        assert desk.access.session(secret) is not None
    desk.clock.advance(20 * MINUTE)
    assert desk.access.session(secret) is None


def test_a_clock_set_back_revives_no_session(desk):
    secret = desk.log_in().secret
    desk.clock.advance(31 * MINUTE)
    assert desk.access.session(secret) is None
    desk.clock.jump(-31 * MINUTE)
    assert desk.access.session(secret) is None
    again = desk.log_in().secret
    desk.clock.jump(-24 * HOUR)
    desk.clock.advance(31 * MINUTE)  # the clock is wrong; time passes all the same
    assert desk.access.session(again) is None


def test_a_clock_set_back_while_the_box_is_off_revives_nothing(desk):
    secret = desk.log_in().secret
    token = desk.access.create_token("pacs", [Action.STORE], CONSOLE, days=1)[1]
    desk.clock.advance(25 * HOUR)
    desk.log_in("anna")  # the store has seen this time
    desk.clock.jump(-25 * HOUR)
    again = desk.start()
    assert again.session(secret) is None
    assert again.token(token) is None


def test_a_restart_keeps_sessions_and_tokens(tmp_path):
    clock, random = FakeClock(), SeededBytes()

    def started():
        database = Database(tmp_path / "access.db")
        return database, AccessService(
            SqliteAccess(database, no_record), QuickPasswords(), clock, random
        )

    database, access = started()
    access.set_password_by_link(access.ensure_setup().secret, GOOD, login="anna")
    secret = access.log_in("anna", GOOD, HERE).secret
    token = access.create_token("pacs", [Action.STORE], CONSOLE)[1]
    database.close()
    database, access = started()
    assert access.session(secret).login == "anna"
    assert access.token(token).may(Action.STORE)
    database.close()


@pytest.mark.parametrize("change", ["password", "link", "roles", "disabled", "name", "log-out"])
def test_whatever_changes_an_account_ends_its_sessions_and_nobody_elses(desk, change):
    secret, others = desk.log_in().secret, desk.log_in("anna").secret
    second = desk.log_in().secret
    access, reader = desk.access, desk.reader.account_id
    actor = access.session(secret).actor
    if change == "password":
        assert access.session(access.change_password(actor, GOOD, OTHER, HERE).secret) is not None
    elif change == "link":
        access.set_password_by_link(access.reset_link(reader, desk.by).secret, OTHER)
    elif change == "roles":
        access.set_roles(reader, [Role.AUDITOR], desk.by)
    elif change == "disabled":
        access.set_disabled(reader, True, desk.by)
    elif change == "name":
        access.set_name(reader, "Beispiel^Bert", desk.by)
    else:
        access.log_out(secret)
        access.log_out("nonsense")
    assert access.session(secret) is None
    assert (access.session(second) is not None) == (change == "log-out")
    assert access.session(others) is not None


def test_a_person_ends_their_own_sessions_and_an_administrator_anybodys(desk):
    session = desk.log_in()
    me = session.actor
    with pytest.raises(NotFoundError):
        desk.access.end_session(session.session_id, me, "another account")
    assert [s.session_id for s in desk.access.sessions(desk.reader.account_id)] == [
        session.session_id
    ]
    desk.access.end_session(session.session_id, me, desk.reader.account_id)
    assert desk.access.session(session.secret) is None
    second = desk.log_in()
    desk.access.end_session(second.session_id, desk.by)
    assert desk.access.session(second.secret) is None


def test_a_secret_that_was_made_up_opens_nothing(desk):
    desk.log_in()
    for made_up in ("", "0" * 64, "\udcff", "x" * 10_000):
        assert desk.access.session(made_up) is None
        assert desk.access.token(made_up) is None


def test_a_log_in_loses_against_an_account_disabled_meanwhile(desk):
    verify = desk.passwords.verify

    def slow(encoded, password):
        desk.access.set_disabled(desk.reader.account_id, True, desk.by)
        return verify(encoded, password)

    desk.passwords.verify = slow
    with pytest.raises(UnauthenticatedError):
        desk.log_in()
    assert desk.access.sessions(desk.reader.account_id) == []


def test_another_proof_of_identity_opens_a_session_unless_the_account_is_disabled(desk):
    session = desk.access.open_session(desk.reader.account_id, HERE)
    assert desk.access.session(session.secret).login == "bert"
    desk.access.set_disabled(desk.reader.account_id, True, desk.by)
    for account_id in (desk.reader.account_id, "none"):
        with pytest.raises(UnauthenticatedError):
            desk.access.open_session(account_id, HERE)


# --- guessing ------------------------------------------------------------------------------------


def test_unknown_disabled_and_wrong_sound_alike_and_cost_the_same_work(desk):
    desk.add("carl", Role.AUDITOR)
    desk.access.set_disabled(desk.access.by_login("carl").account_id, True, desk.by)
    desk.access.add_account("dora", "Neu^Dora", [Role.AUDITOR], desk.by)  # never set up
    said, work, evidence = set(), [], []
    for login in ("bert", "carl", "dora", "nobody"):
        before, entries = len(desk.passwords.looked), len(desk.store.events)
        with pytest.raises(UnauthenticatedError) as failed:
            desk.log_in(login, "not this one at all", f"10.0.0.{len(work)}")
        said.add(str(failed.value))
        work.append(len(desk.passwords.looked) - before)
        evidence.append(len(desk.store.events) - entries)
    assert len(said) == 1
    assert work == [1, 1, 1, 1]
    assert evidence == [1, 1, 1, 1]


def test_the_right_password_of_a_disabled_account_opens_nothing(desk):
    desk.access.set_disabled(desk.reader.account_id, True, desk.by)
    with pytest.raises(UnauthenticatedError):
        desk.log_in()
    desk.access.set_disabled(desk.reader.account_id, False, desk.by)
    assert desk.log_in()


def test_guesses_at_one_account_wait_longer_and_longer_from_whatever_address(desk):
    for number in range(5):
        desk.fails(address=f"10.0.0.{number}")
    waits = []
    for number in range(12):
        with pytest.raises(TooManyAttemptsError) as told_to_wait:
            desk.log_in(address=f"10.1.0.{number}")  # even with the right password
        waits.append(told_to_wait.value.retry_after_s)
        desk.clock.advance(waits[-1] * 1000)
        desk.fails(address=f"10.2.0.{number}")
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
    assert desk.log_in("anna")  # another account is not held up


def test_guesses_from_one_address_wait_whatever_the_account(desk):
    for number in range(30):
        desk.fails(f"name{number}")
    with pytest.raises(TooManyAttemptsError):
        desk.log_in("anna")
    assert desk.log_in("anna", address="10.0.0.1")


def test_an_unknown_name_has_to_wait_like_a_known_one(desk):
    for _ in range(5):
        desk.fails("nobody")
    with pytest.raises(TooManyAttemptsError):
        desk.log_in("nobody")


def test_waiting_survives_a_restart_and_ends_with_the_right_password(desk):
    for _ in range(5):
        desk.fails()
    desk.access = desk.start()
    with pytest.raises(TooManyAttemptsError):
        desk.log_in()
    desk.clock.advance(1000)
    assert desk.log_in()
    for _ in range(4):
        desk.fails()
    assert desk.log_in()


def test_right_passwords_never_use_up_the_address(desk):
    for _ in range(100):
        desk.log_in()
    for number in range(29):
        desk.fails(f"name{number}")
    assert desk.log_in("anna")


def test_guesses_sent_at_once_count_like_guesses_one_after_the_other(desk):
    looked = len(desk.passwords.looked)

    def guess():
        with suppress(TooManyAttemptsError, UnauthenticatedError):
            desk.log_in("bert", "not this one at all")

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desk.passwords.looked) - looked == 5


def test_a_stolen_session_cannot_guess_the_password(desk):
    actor = desk.log_in().actor
    for _ in range(5):
        with pytest.raises(UnauthenticatedError):
            desk.access.change_password(actor, "not this one at all", OTHER, HERE)
    with pytest.raises(TooManyAttemptsError):
        desk.access.change_password(actor, GOOD, OTHER, HERE)
    with pytest.raises(WrongStateError):
        desk.access.change_password(CONSOLE, GOOD, OTHER, HERE)


def test_a_hash_made_with_weaker_parameters_is_made_anew_at_log_in(desk):
    weak = {desk.access.account(desk.reader.account_id).password}
    desk.passwords.outdated = lambda encoded: encoded in weak
    session = desk.log_in()
    assert desk.access.account(desk.reader.account_id).password not in weak
    assert desk.access.session(session.secret)
    assert desk.log_in()


# --- accounts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["roles", "disabled"])
def test_the_last_administrator_who_can_log_in_stays(desk, change):
    desk.access.add_account("eve", "Eva^x", [Role.ADMINISTRATOR], desk.by)  # has no password yet

    def leave(account_id):
        if change == "roles":
            desk.access.set_roles(account_id, [Role.AUDITOR], desk.by)
        else:
            desk.access.set_disabled(account_id, True, desk.by)

    with pytest.raises(WrongStateError):
        leave(desk.admin.account_id)
    second = desk.add("fritz", Role.ADMINISTRATOR, Role.AUDITOR)
    leave(desk.admin.account_id)
    with pytest.raises(WrongStateError):
        leave(second.account_id)
    assert desk.log_in("fritz")


@pytest.mark.parametrize("login", ["", "a", "a b", "ümlaut", "a/b", "x" * 65, "-a", "a\n"])
def test_a_login_name_is_plain(desk, login):
    with pytest.raises(InvalidRequestError):
        desk.access.add_account(login, "A^B", [Role.AUDITOR], desk.by)


@pytest.mark.parametrize(
    "name", ["", "^^", "A\\B", "A\nB", "x" * 65, "a^b^c^d^e^f", "a=b=c=d", "A\u202eB"]
)
def test_a_name_is_a_dicom_person_name(name):
    with pytest.raises(InvalidRequestError):
        read_name(name)


def test_names_of_other_scripts_are_names(desk):
    assert read_name(" Wang^Min=王^敏 ") == "Wang^Min=王^敏"


def test_an_account_has_a_role_and_a_login_name_of_its_own(desk):
    with pytest.raises(InvalidRequestError):
        desk.access.add_account("carl", "C^C", [], desk.by)
    with pytest.raises(WrongStateError):
        desk.access.add_account("BERT", "C^C", [Role.AUDITOR], desk.by)
    with pytest.raises(NotFoundError):
        desk.access.set_roles("none", [Role.AUDITOR], desk.by)


def test_who_changed_what_is_in_the_evidence_by_minted_ids_only(desk):
    desk.access.set_roles(desk.reader.account_id, [Role.AUDITOR], desk.by)
    event = desk.store.events[-1]
    assert event.actor == desk.by.actor_id
    assert event.refs == {"what": "account-roles", "about": desk.reader.account_id}
    assert "Muster" not in repr(desk.store.events)
    assert "bert" not in repr([event.refs for event in desk.store.events])


def test_pages_can_name_whoever_stands_in_a_history(desk):
    token, _ = desk.access.create_token("pacs", [Action.STORE], CONSOLE)
    assert desk.access.name_of(desk.by.actor_id) == "Muster^Anna"
    assert desk.access.name_of(f"token:{token.token_id}") == "pacs"
    assert desk.access.name_of("service:worker") == "service:worker"


# --- tokens --------------------------------------------------------------------------------------


def test_a_token_may_what_it_was_made_for_until_it_is_revoked(desk):
    token, secret = desk.access.create_token("pacs", [Action.STORE], desk.by)
    actor = desk.access.token(secret)
    assert secret.startswith(TOKEN_PREFIX)
    assert (actor.actor_id, actor.actions) == (f"token:{token.token_id}", {Action.STORE})
    assert secret not in repr(desk.store.__dict__)
    desk.access.revoke_token(token.token_id, desk.by)
    assert desk.access.token(secret) is None
    assert desk.start().token(secret) is None
    with pytest.raises(NotFoundError):
        desk.access.revoke_token(token.token_id, desk.by)


def test_a_token_ends_with_its_days(desk):
    _, secret = desk.access.create_token("pacs", [Action.STORE], desk.by, days=1)
    desk.clock.advance(24 * HOUR - 1)
    assert desk.access.token(secret)
    desk.clock.advance(1)
    assert desk.access.token(secret) is None


def test_no_token_ever_signs_off(desk):
    with pytest.raises(RefusedError, match="person"):
        desk.access.create_token("robot", [Action.REVIEW], CONSOLE)
    with pytest.raises(RefusedError, match="person"):
        desk.access.create_token("robot", [Action.REVIEW], CONSOLE, owner=desk.reader.account_id)


def test_a_token_has_no_more_than_its_maker_and_its_owner(desk):
    with pytest.raises(RefusedError, match="release"):
        desk.access.create_token("stats", [Action.RELEASE], desk.by)
    with pytest.raises(RefusedError, match="manage-models"):
        desk.access.create_token(
            "mine", [Action.MANAGE_MODELS], CONSOLE, owner=desk.reader.account_id
        )


def test_a_token_of_a_person_follows_the_person(desk):
    wanted = [Action.VIEW_RESULT, Action.MONITOR]
    _, secret = desk.access.create_token("mine", wanted, desk.by, owner=desk.reader.account_id)
    desk.access.set_roles(desk.reader.account_id, [Role.VENDOR], desk.by)
    assert desk.access.token(secret).actions == {Action.MONITOR}
    desk.access.set_disabled(desk.reader.account_id, True, desk.by)
    assert desk.access.token(secret) is None
    desk.access.set_disabled(desk.reader.account_id, False, desk.by)
    assert desk.access.token(secret).actions == {Action.MONITOR}


@pytest.mark.parametrize(
    ("label", "actions", "days"),
    [
        ("", [Action.STORE], None),
        ("x" * 65, [Action.STORE], None),
        ("a\nb", [Action.STORE], None),
        ("pacs", [], None),
        ("pacs", [Action.STORE], 0),
        ("pacs", [Action.STORE], 1e9),
    ],
)
def test_a_token_has_a_label_an_action_and_a_life(desk, label, actions, days):
    with pytest.raises(InvalidRequestError):
        desk.access.create_token(label, actions, desk.by, days=days)


def test_last_use_of_a_token_is_noted_to_the_hour(desk):
    _, secret = desk.access.create_token("pacs", [Action.STORE], desk.by)
    start = desk.clock.now()
    for _ in range(10):
        desk.access.token(secret)
        desk.clock.advance(10 * MINUTE)
    (token,) = desk.access.tokens()
    assert token.last_used == start + HOUR
