"""`LedgerStore`: SQLite and the simulator keep the same promises."""

from pathlib import Path

import pytest

from bedside_core.errors import (
    BudgetExhaustedError,
    ClockAlarmError,
    ClosedEpochError,
    InvalidEntryError,
    LedgerLockedError,
    WitnessNeededError,
    WrongStateError,
)
from bedside_core.ledger.decide import Ask
from bedside_core.ledger.entries import (
    ClockAlarm,
    EpochClosed,
    EpochOpened,
    LedgerPolicy,
    PolicySet,
    Scope,
    ScopeKind,
    Voided,
)
from bedside_core.ledger.state import grade_scopes
from bedside_core.planner import Schedule
from bedside_core.privacy_policy import parse_privacy_policy
from bedside_core.release import ReleaseRequest, prepare
from support.fake_clock import FakeClock
from support.memory_ledger import MemoryLedger, MemoryRows
from support.privacy_house import DAY, EPOCH, T0, Hospital, policy_text

CAP, LIFETIME = 1_000_000, 10_000_000
VERSION = "v" * 64


class SqliteHouse:
    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(T0)
        self._hospital = Hospital(folder, self.clock)
        self._hospital.witness_ready = False

    def open(self):
        self._hospital.open()
        return self._hospital.ledger

    def lock_evidence(self, locked: bool) -> None:
        self._hospital.evidence_locked = locked

    def promise_witness(self) -> None:
        self._hospital.witness_ready = True

    def backup(self) -> None:
        self._hospital.close()
        self._kept = self._hospital.path.read_bytes()
        self._hospital.open()

    def restore(self):
        self._hospital.close()
        for name in ("-wal", "-shm"):
            self._hospital.path.with_name(self._hospital.path.name + name).unlink(missing_ok=True)
        self._hospital.path.write_bytes(self._kept)
        self._hospital.open()
        return self._hospital.ledger

    def close(self) -> None:
        self._hospital.close()


class MemoryHouse:
    def __init__(self, _: Path) -> None:
        self.clock, self._rows = FakeClock(T0), MemoryRows()
        self._locked = self._witness = False

    def open(self):
        return MemoryLedger(
            self.clock,
            self._rows,
            evidence_locked=lambda: self._locked,
            witness_ready=lambda: self._witness,
        )

    def lock_evidence(self, locked: bool) -> None:
        self._locked = locked

    def promise_witness(self) -> None:
        self._witness = True

    def backup(self) -> None:
        self._kept = list(self._rows.entries)

    def restore(self):
        self._rows.entries = list(self._kept)
        return self.open()

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(params=[SqliteHouse, MemoryHouse], ids=["sqlite", "memory"])
def house(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.close()


def policy(**more) -> LedgerPolicy:
    fields = {"epoch_cap": CAP, "lifetime_cap": LIFETIME, "version": VERSION}
    listed = {"requesters": {"person:anna": LIFETIME}, "purposes": {"quality": LIFETIME}}
    return LedgerPolicy(**(fields | listed | more))


@pytest.fixture
def ledger(house):
    found = house.open()
    house.promise_witness()
    found.append(PolicySet(at=T0, policy=policy(), signers=2))
    found.append(EpochOpened(at=T0, dataset="studies", number=1, starts=EPOCH[0], ends=EPOCH[1]))
    return found


SPEC = parse_privacy_policy(policy_text()).spec("volume")


def request(label: str = "s1", **more) -> ReleaseRequest:
    fields = {"units": 1000, "dataset": "studies", "epoch": 1, "purpose": "quality"}
    return ReleaseRequest(specs=(SPEC,), snapshot=label, policy=VERSION, **(fields | more))


def ask(made: ReleaseRequest, cost: int = 1000, **more) -> Ask:
    fields = {"dataset": "studies", "epoch": 1, "requester": "person:anna", "purpose": "quality"}
    fields |= {"nights": made.nights, "cost": cost, "fingerprint": prepare(made).fingerprint}
    return Ask(**(fields | more))


def charge(ledger, made: ReleaseRequest, cost: int = 1000) -> str:
    assert ledger.reserve(ask(made, cost), made)
    return prepare(made).fingerprint


def spent(ledger) -> set[int]:
    return set(ledger.ledger().spent.values())


def test_a_charge_is_there_after_a_restart_and_is_charged_once(house, ledger):
    name = charge(ledger, request())
    again = house.open()
    assert spent(again) == {1000}
    assert not again.reserve(ask(request()), request())
    assert spent(again) == {1000}
    held = again.held(name)
    assert (held.state, held.cost, held.seq, held.answered) == ("reserved", 1000, 3, ())
    assert held.request == request()
    assert again.unfinished() == (name,)


def test_the_first_answer_is_the_answer_for_everybody_for_ever(house, ledger):
    name = charge(ledger, request())
    assert ledger.replay(name) is None
    first = ledger.finish(name, 0, b'{"a":1}', b"sig", {})
    second = ledger.finish(name, 0, b'{"a":2}', b"gis", {})
    again = house.open()
    assert first == second == again.replay(name)
    assert first.document == b'{"a":1}'
    assert again.unfinished() == ()
    assert again.held(name).state == "final"
    assert again.verify() == 4


def test_a_cap_is_spent_to_the_unit_and_no_further(ledger):
    charge(ledger, request("s1"), CAP - 1)
    with pytest.raises(BudgetExhaustedError):
        ledger.reserve(ask(request("s2"), 2), request("s2"))
    charge(ledger, request("s3"), 1)
    with pytest.raises(BudgetExhaustedError):
        ledger.reserve(ask(request("s4"), 1), request("s4"))
    assert spent(ledger) == {CAP}


def test_grades_pay_from_budgets_of_their_own_over_restarts(house, ledger):
    charge(ledger, request("before"), 7)
    caps = {"1": CAP, "2": CAP, "3": CAP, "4": CAP, "5": 60}
    ledger.append(PolicySet(at=T0, policy=policy(grades=caps), signers=1))
    first, second = request("s1"), request("s2")
    assert ledger.reserve(ask(first, 100, strata=(100, 90, 80, 70, 50)), first)
    again = house.open()
    scopes = grade_scopes("studies", 1)
    assert [again.ledger().spent[one] for one in scopes] == [107, 97, 87, 77, 57]
    assert again.verify() == 5
    with pytest.raises(BudgetExhaustedError):  # three units are left to the strictest
        again.reserve(ask(second, 4), second)
    assert again.reserve(ask(second, 9, strata=(9, 9, 9, 9, 3)), second)
    assert [again.ledger().budget(one).left for one in scopes][4] == 0
    assert again.verify() == 6


@pytest.mark.parametrize("who", [{"requester": "person:eve"}, {"purpose": "gossip"}])
def test_who_is_not_listed_spends_nothing(ledger, who):
    with pytest.raises(BudgetExhaustedError):
        ledger.reserve(ask(request(), **who), request())
    assert spent(ledger) == set()


def test_a_refusal_writes_nothing(ledger):
    before = ledger.ledger()
    with pytest.raises(BudgetExhaustedError):
        ledger.reserve(ask(request(), CAP + 1), request())
    with pytest.raises(ClosedEpochError):
        ledger.reserve(ask(request(), epoch=2), request())
    assert ledger.ledger() == before
    assert ledger.held(prepare(request()).fingerprint) is None


def test_a_void_release_keeps_its_cost_and_is_never_answered(ledger):
    name = charge(ledger, request())
    ledger.append(Voided(at=T0, fingerprint=name))
    assert spent(ledger) == {1000}
    assert ledger.held(name).state == "void"
    assert ledger.unfinished() == ()
    with pytest.raises(WrongStateError):
        ledger.finish(name, 0, b"{}", b"", {})
    with pytest.raises(WrongStateError):
        ledger.reserve(ask(request()), request())


def test_nothing_is_answered_that_was_not_charged(ledger):
    with pytest.raises(WrongStateError):
        ledger.finish("0" * 64, 0, b"{}", b"", {})


def test_counters_of_a_schedule_only_grow_and_go_when_it_ends(house, ledger):
    made = request("year", schedule=Schedule.RUNNING, nights=3)
    name = charge(ledger, made)
    ledger.finish(name, 0, b'{"n":0}', b"", {"p1": 2, "p2": 0}, (5, 6))
    ledger.finish(name, 1, b'{"n":1}', b"", {"p1": 1, "p3": 1}, (7, 8))
    again = house.open()
    assert again.used(name) == {"p1": 2, "p3": 1}
    assert again.carried(name) == [(5, 6), (7, 8)]
    assert again.held(name).answered == (0, 1)
    again.finish(name, 2, b'{"n":2}', b"", {}, (9, 9))
    assert again.held(name).state == "final"
    assert (again.used(name), again.carried(name)) == ({}, [])
    with pytest.raises(WrongStateError):
        again.finish(name, 3, b"{}", b"", {})


def test_a_clock_set_back_stops_charges_and_answers_and_leaves_one_alarm(house, ledger):
    name = charge(ledger, request())
    house.clock.jump(-400 * DAY)
    for _ in range(3):
        with pytest.raises(ClockAlarmError):
            ledger.reserve(ask(request("s2")), request("s2"))
        with pytest.raises(ClockAlarmError):
            ledger.finish(name, 0, b"{}", b"", {})
    alarms = [entry for _, entry, _ in ledger.entries(1, 99) if isinstance(entry, ClockAlarm)]
    assert [one.wrong for one in alarms] == [T0 - 400 * DAY]
    assert spent(ledger) == {1000}
    house.clock.jump(400 * DAY)
    ledger.finish(name, 0, b"{}", b"", {})


def test_time_in_the_ledger_never_falls(ledger):
    with pytest.raises(InvalidEntryError):
        ledger.append(EpochClosed(at=T0 - 1, dataset="studies", number=1))
    assert ledger.ledger().seq == 2


def test_an_epoch_that_was_closed_stays_closed(ledger):
    ledger.append(EpochClosed(at=T0, dataset="studies", number=1))
    with pytest.raises(ClosedEpochError):
        ledger.reserve(ask(request()), request())
    for number in (1, 3):
        with pytest.raises(InvalidEntryError):
            ledger.append(
                EpochOpened(
                    at=T0, dataset="studies", number=number, starts=EPOCH[1], ends=2 * EPOCH[1]
                )
            )


def test_only_a_share_of_the_cap_is_spent_while_no_witness_sees_it(house, ledger):
    ledger.witness_ready = lambda: False
    charge(ledger, request("s1"), CAP // 20)
    with pytest.raises(WitnessNeededError):
        ledger.reserve(ask(request("s2"), 1), request("s2"))


def test_a_log_behind_its_witness_locks_the_ledger(house, ledger):
    name = charge(ledger, request())
    house.lock_evidence(True)
    assert ledger.locked()
    with pytest.raises(LedgerLockedError):
        ledger.reserve(ask(request("s2")), request("s2"))
    with pytest.raises(LedgerLockedError):
        ledger.finish(name, 0, b"{}", b"", {})
    house.lock_evidence(False)
    assert not ledger.locked()


def test_yesterdays_backup_is_noticed_without_a_witness_and_a_burn_unlocks_it(house, ledger):
    charge(ledger, request("s1"))
    house.backup()
    later = house.open()  # a lost charge without an answer has told nobody anything
    later.finish(charge(later, request("s2"), 5000), 0, b"{}", b"", {})
    restored = house.restore()
    assert restored.locked()
    with pytest.raises(LedgerLockedError):
        restored.reserve(ask(request("s3")), request("s3"))
    for _ in range(3):  # or it would grow up to where it was
        with pytest.raises(LedgerLockedError):
            restored.append(EpochClosed(at=T0, dataset="studies", number=1))
    restored.unlock("studies", "person:anna", "person:bela")
    again = house.open()
    assert not again.locked()
    assert again.burned_until() >= T0
    with pytest.raises(BudgetExhaustedError):
        again.reserve(ask(request("s3")), request("s3"))


def test_a_backup_from_before_an_epoch_pays_for_that_epoch_too(house, ledger):
    """Else whoever restores a backup from between two epochs has the second for nothing."""
    house.clock.jump(EPOCH[1] - T0)
    ledger.append(EpochClosed(at=EPOCH[1], dataset="studies", number=1))
    house.backup()
    later, ends = house.open(), EPOCH[1] + 365 * DAY
    later.append(EpochOpened(at=EPOCH[1], dataset="studies", number=2, starts=EPOCH[1], ends=ends))
    made = request(epoch=2)
    later.reserve(ask(made, epoch=2), made)
    later.finish(prepare(made).fingerprint, 0, b"{}", b"", {})
    restored = house.restore()
    restored.unlock("studies", "person:anna", "person:bela")
    whole = Scope(ScopeKind.LIFETIME, "studies")
    assert restored.ledger().budget(whole).spent == CAP
    assert not house.open().locked()


def test_releases_are_listed_newest_first_in_pages(ledger):
    names = [charge(ledger, request(f"s{n}")) for n in range(3)]
    assert [one.fingerprint for one in ledger.releases()] == names[::-1]
    first = ledger.releases(limit=1)[0]
    assert [one.fingerprint for one in ledger.releases(before=first.seq)] == names[1::-1]


def test_a_policy_comes_with_its_text(ledger):
    document = policy_text()
    entry = PolicySet(at=T0, policy=parse_privacy_policy(document).ledger, signers=2)
    ledger.keep_policy(entry, document, b"envelope", "person:anna")
    version = ledger.ledger().policy.version
    assert ledger.policy_document(version) == document
    assert ledger.policy_document("x") is None
