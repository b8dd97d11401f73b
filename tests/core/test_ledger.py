"""The ledger never forgets, never refunds and never goes back, in any order of events."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.accounting import MAX_UNITS
from bedside_core.errors import (
    BudgetExhaustedError,
    ClockAlarmError,
    ClosedEpochError,
    InvalidEntryError,
    InvalidInputError,
    LedgerLockedError,
    WitnessNeededError,
    WrongStateError,
)
from bedside_core.ledger.codec import decode, encode, kind_of
from bedside_core.ledger.decide import (
    Ask,
    TimeProof,
    check_position,
    finish,
    open_epoch,
    reserve,
    time_now,
    write_off,
)
from bedside_core.ledger.entries import (
    Burned,
    ClockAlarm,
    EpochClosed,
    EpochOpened,
    Finished,
    LedgerPolicy,
    PolicySet,
    Reserved,
    Scope,
    ScopeKind,
    Voided,
    Witnessed,
)
from bedside_core.ledger.state import Ledger, Status, apply, epoch_scope, fold, grade_scopes
from bedside_core.planner import plan
from bedside_core.statistics.query import compile_query
from support.statistics import VECTORS

DAY = 86_400_000
YEAR = 365 * DAY
POLICY = LedgerPolicy(
    version="p1",
    epoch_cap=1000,
    lifetime_cap=1500,
    requesters={"registry": 900, "ministry": 5000},
    purposes={"quality": 5000},
)
START = [
    PolicySet(at=1, policy=POLICY, signers=2),
    EpochOpened(at=2, dataset="chest", number=1, starts=0, ends=YEAR),
]
HOUR = 3_600_000


def asked(fingerprint="f1", cost=100, **values):
    given = {
        "fingerprint": fingerprint, "dataset": "chest", "epoch": 1, "requester": "registry",
        "purpose": "quality", "cost": cost,
    }  # fmt: skip
    return Ask(**(given | values))


def charged(ledger, fingerprint="f1", cost=100, clock=HOUR, **values):
    entry = reserve(ledger, asked(fingerprint, cost, **values), clock, witness_ready=True)
    return apply(ledger, entry)


@pytest.fixture
def ledger():
    return fold(START)


# --- charging ------------------------------------------------------------------------------------


def test_a_release_is_charged_to_every_scope(ledger):
    after = charged(ledger, cost=300)
    assert {scope.kind: after.budget(scope).spent for scope in after.spent} == dict.fromkeys(
        set(ScopeKind) - {ScopeKind.GRADE}, 300
    )
    assert after.budget(epoch_scope("chest", 1)).left == 700
    assert after.charges["f1"].status is Status.RESERVED


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({"cost": 901}, 900),  # the requester's cap
        ({"cost": 1001, "requester": "ministry"}, 1000),  # the epoch's
        ({"cost": 1, "requester": "stranger"}, 0),
        ({"cost": 1, "purpose": "curiosity"}, 0),
    ],
)
def test_a_scope_that_lacks_it_refuses_and_nothing_changes(ledger, values, left):
    with pytest.raises(BudgetExhaustedError) as refusal:
        reserve(ledger, asked(**values), HOUR, witness_ready=True)
    assert refusal.value.left == left
    assert ledger.spent == {}


def test_the_lifetime_cap_holds_over_epochs(ledger):
    after = charged(ledger, cost=1000, requester="ministry")
    after = fold([EpochClosed(at=YEAR, dataset="chest", number=1)], after)
    proof = TimeProof(elapsed_ms=YEAR)
    after = apply(after, open_epoch(after, "chest", YEAR, 2 * YEAR, YEAR + 1, proof))
    with pytest.raises(BudgetExhaustedError) as refusal:
        reserve(after, asked("f2", 501, epoch=2, requester="ministry"), YEAR + 2)
    assert refusal.value.left == 500
    assert after.budget(epoch_scope("chest", 2)).left == 1000


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "finish", "void", "burn", "witness", "policy"]),
        st.integers(0, 5),
        st.integers(1, 700),
    ),
    max_size=25,
)


@given(events=EVENTS)
def test_no_order_of_events_overspends_or_refunds(events):
    entries, ledger, spent = list(START), fold(START), {}
    for number, (what, index, cost) in enumerate(events):
        clock, name = HOUR + number, f"f{index}"
        try:
            if what == "reserve":
                entry = reserve(ledger, asked(name, cost), clock, witness_ready=cost % 2 == 0)
            elif what == "finish":
                entry = finish(ledger, name, 0, "ab" * 32, clock)
            elif what == "void":
                entry = Voided(at=clock, fingerprint=name)
            elif what == "burn":
                entry = Burned(at=clock, dataset="chest", epoch=1)
            elif what == "witness":
                entry = Witnessed(at=clock, seen=clock)
            else:
                values = {"requesters": {"registry": cost}, "purposes": {"quality": cost}}
                policy = LedgerPolicy(version="p2", epoch_cap=cost, lifetime_cap=cost, **values)
                entry = PolicySet(at=clock, policy=policy, signers=2)
            if entry is not None:
                after = apply(ledger, entry)
                entries, ledger = [*entries, entry], after
        except (BudgetExhaustedError, WitnessNeededError, WrongStateError, InvalidEntryError):
            continue
        for scope, before in spent.items():
            assert ledger.spent[scope] >= before
        spent = dict(ledger.spent)
        for scope in spent:
            assert ledger.budget(scope).left >= 0
    assert fold(entries) == ledger  # a restart comes to the same
    assert fold(decode(encode(entry)) for entry in entries) == ledger
    assert ledger.seq == len(entries)


@given(index=st.integers(0, len(VECTORS) - 1), units=st.integers(10**6, 10**12))
def test_the_charge_is_the_plan_s_price_to_the_unit(index, units):
    price = plan(compile_query([VECTORS[index]]), units, 1000).cost
    wide = LedgerPolicy(
        version="w", epoch_cap=MAX_UNITS, lifetime_cap=MAX_UNITS,
        requesters={"registry": MAX_UNITS}, purposes={"quality": MAX_UNITS},
    )  # fmt: skip
    ledger = charged(fold([PolicySet(at=1, policy=wide, signers=2), START[1]]), cost=price)
    assert set(ledger.spent.values()) == {price}


def test_spend_nobody_has_seen_stops_at_five_percent(ledger):
    ledger = apply(ledger, reserve(ledger, asked("a", 50), HOUR))
    with pytest.raises(WitnessNeededError):
        reserve(ledger, asked("b", 1), HOUR)
    seen = apply(ledger, Witnessed(at=HOUR, seen=HOUR))
    assert reserve(seen, asked("b", 50), HOUR) is not None


# --- answers -------------------------------------------------------------------------------------


def test_asked_again_a_release_is_not_charged_again_and_its_answer_stays(ledger):
    after = charged(ledger)
    assert reserve(after, asked(cost=999_999), HOUR) is None  # whatever else is asked
    assert after.replay("f1") is None
    done = apply(after, finish(after, "f1", 0, "aa" * 32, HOUR))
    assert done.replay("f1") == "aa" * 32
    assert done.charges["f1"].status is Status.FINAL
    assert finish(done, "f1", 0, "bb" * 32, HOUR) is None  # another worker won: use the stored
    assert done.spent == after.spent
    assert done.replay("f2") is None


def test_a_schedule_is_charged_once_and_has_an_answer_for_each_night(ledger):
    after = charged(ledger, cost=400, nights=3)
    for night in range(3):
        assert after.charges["f1"].status is Status.RESERVED
        after = apply(after, finish(after, "f1", night, f"{night:064x}", HOUR))
    assert after.charges["f1"].status is Status.FINAL
    assert after.replay("f1", 2) == f"{2:064x}"
    assert after.spent[epoch_scope("chest", 1)] == 400


def test_what_was_never_reserved_has_no_answer(ledger):
    after = charged(ledger)
    void = apply(after, Voided(at=HOUR, fingerprint="f1"))
    assert void.charges["f1"].status is Status.VOID
    assert void.spent == after.spent
    for state, name, night in ((ledger, "f1", 0), (after, "f1", 1), (void, "f1", 0)):
        with pytest.raises(WrongStateError):
            finish(state, name, night, "aa" * 32, HOUR)
    with pytest.raises(WrongStateError, match="voided"):
        reserve(void, asked(), HOUR)


# --- time and place ------------------------------------------------------------------------------


def test_the_clock_never_counts_as_earlier_and_far_behind_only_reading_is_left(ledger):
    after = charged(ledger, clock=10 * DAY)
    assert time_now(after, 10 * DAY - 60_000) == 10 * DAY
    assert time_now(after, 11 * DAY) == 11 * DAY
    back = 10 * DAY - 400 * DAY
    for call in (
        lambda: reserve(after, asked("f2"), back),
        lambda: finish(after, "f1", 0, "aa", back),
        lambda: open_epoch(after, "chest", YEAR, 2 * YEAR, back, TimeProof(two_people=True)),
    ):
        with pytest.raises(ClockAlarmError):
            call()
    alarmed = apply(after, ClockAlarm(at=after.floor, wrong=back))
    assert alarmed.spent == after.spent
    assert alarmed.seq == after.seq + 1


def test_a_ledger_behind_what_was_seen_is_locked_and_a_burn_leaves_nothing(ledger):
    after = charged(ledger)
    check_position(after, [0, 2, after.seq])
    check_position(after, [])
    with pytest.raises(LedgerLockedError):
        check_position(after, [1, after.seq + 1])
    burned = apply(after, Burned(at=HOUR, dataset="chest", epoch=1))
    assert burned.budget(epoch_scope("chest", 1)).left == 0
    assert burned.budget(Scope(ScopeKind.LIFETIME, "chest")).left == 500
    with pytest.raises(BudgetExhaustedError):
        reserve(burned, asked("f2", 1), HOUR, witness_ready=True)


def closed_year():
    return fold([*START, EpochClosed(at=YEAR, dataset="chest", number=1)])


@pytest.mark.parametrize(
    "proof", [TimeProof(elapsed_ms=YEAR), TimeProof(two_people=True)], ids=["ran", "two"]
)
def test_an_epoch_is_renewed_when_time_really_passed(proof):
    entry = open_epoch(closed_year(), "chest", YEAR, 2 * YEAR, YEAR, proof)
    assert (entry.number, entry.starts) == (2, YEAR)
    assert fold([entry], closed_year()).epochs["chest"].number == 2


def test_a_witness_s_time_renews_too_and_a_clock_set_forward_alone_does_not():
    with pytest.raises(ClosedEpochError, match="nothing but the clock"):
        open_epoch(closed_year(), "chest", YEAR, 2 * YEAR, 5 * YEAR, TimeProof(elapsed_ms=DAY))
    seen = apply(closed_year(), Witnessed(at=YEAR, seen=YEAR))
    assert open_epoch(seen, "chest", YEAR, 2 * YEAR, YEAR, TimeProof()).number == 2


@pytest.mark.parametrize(
    ("ledger_of", "starts", "ends", "clock"),
    [
        (lambda: fold(START), YEAR, 2 * YEAR, YEAR),  # not closed
        (lambda: fold([*START, EpochClosed(at=9, dataset="chest", number=1)]), YEAR, 2 * YEAR, 10),
        (closed_year, YEAR - 1, 2 * YEAR, YEAR),  # overlaps
        (closed_year, 2 * YEAR, 2 * YEAR, YEAR),  # empty
    ],
)
def test_an_epoch_that_does_not_follow_is_refused(ledger_of, starts, ends, clock):
    with pytest.raises(ClosedEpochError):
        open_epoch(ledger_of(), "chest", starts, ends, clock, TimeProof(two_people=True))


def test_the_first_epoch_of_a_data_set_has_number_one(ledger):
    assert open_epoch(ledger, "knee", 0, YEAR, HOUR, TimeProof()).number == 1


@pytest.mark.parametrize("values", [{"epoch": 0}, {"epoch": 2}, {"dataset": "knee"}])
def test_a_release_of_another_epoch_is_refused(ledger, values):
    with pytest.raises(ClosedEpochError):
        reserve(ledger, asked(**values), HOUR)


def test_a_release_after_the_calendar_or_the_closing_is_refused(ledger):
    with pytest.raises(ClosedEpochError):
        reserve(ledger, asked(), YEAR)
    closed = apply(ledger, EpochClosed(at=9, dataset="chest", number=1))
    with pytest.raises(ClosedEpochError):
        reserve(closed, asked(), HOUR)


@pytest.mark.parametrize("values", [{"nights": 0}, {"nights": 1.0}, {"cost": 0}, {"cost": 1.5}])
def test_a_release_of_nothing_is_refused(ledger, values):
    with pytest.raises(InvalidInputError):
        reserve(ledger, asked(**values), HOUR)


def test_without_a_policy_nothing_is_released():
    ledger = fold(START[1:])
    assert ledger.budget(epoch_scope("chest", 1)).left == 0
    with pytest.raises(InvalidInputError, match="policy"):
        reserve(ledger, asked(), HOUR)


# --- policy --------------------------------------------------------------------------------------


def policy(**values):
    given = {
        "version": "p2", "epoch_cap": 1000, "lifetime_cap": 1500,
        "requesters": {"registry": 900, "ministry": 5000}, "purposes": {"quality": 5000},
    }  # fmt: skip
    return LedgerPolicy(**(given | values))


@pytest.mark.parametrize(
    "values",
    [{"epoch_cap": 1001}, {"lifetime_cap": 1501}, {"requesters": {"new": 1}},
     {"purposes": {"quality": 5001}}],
)  # fmt: skip
def test_loosening_a_cap_needs_two_signatures(ledger, values):
    looser = policy(**values)
    assert looser.loosens(POLICY)
    with pytest.raises(InvalidEntryError, match="two signatures"):
        apply(ledger, PolicySet(at=9, policy=looser, signers=1))
    assert apply(ledger, PolicySet(at=9, policy=looser, signers=2)).policy == looser
    with pytest.raises(InvalidEntryError):
        apply(Ledger(), PolicySet(at=9, policy=POLICY, signers=1))


def test_a_tighter_policy_carries_the_spend_over(ledger):
    after = charged(ledger, cost=500)
    tight = policy(epoch_cap=300)
    assert not tight.loosens(POLICY)
    after = apply(after, PolicySet(at=HOUR, policy=tight, signers=1))
    budget = after.budget(epoch_scope("chest", 1))
    assert (budget.spent, budget.left) == (500, 0)


# --- budgets of the grades -----------------------------------------------------------------------

CAPS = {"1": 900, "2": 900, "3": 800, "4": 400, "5": 50}
COSTS = (100, 100, 50, 25, 6)


def grades_of(ledger, epoch=1):
    return [ledger.spent.get(scope, 0) for scope in grade_scopes("chest", epoch)]


@pytest.fixture
def graded(ledger):
    return apply(ledger, PolicySet(at=9, policy=policy(grades=CAPS), signers=1))


def test_each_grade_pays_its_own_cost_out_of_its_own_budget(graded):
    after = charged(graded, strata=COSTS)
    assert grades_of(after) == list(COSTS)
    assert after.budget(epoch_scope("chest", 1)).spent == 100  # the largest, not the sum
    plain = charged(after, "f2", cost=10)  # one noise for all: every grade pays it
    assert grades_of(plain) == [cost + 10 for cost in COSTS]
    assert decode(encode(plain.charges["f1"].reserved)) == plain.charges["f1"].reserved


def test_a_release_that_the_strictest_grade_cannot_pay_is_refused_and_charges_nobody(graded):
    after = graded
    for number in range(8):
        after = charged(after, f"f{number}", strata=COSTS)  # 48 of 50
    for cost, strata in ((10, ()), (100, COSTS)):
        with pytest.raises(BudgetExhaustedError) as told:
            charged(after, "more", cost=cost, strata=strata)
        assert told.value.left == 2
    assert charged(after, "less", cost=2).spent[epoch_scope("chest", 1)] == 802


def test_without_budgets_of_grades_only_the_largest_cost_is_charged(ledger):
    after = charged(ledger, strata=COSTS)
    assert {scope.kind for scope in after.spent} == set(ScopeKind) - {ScopeKind.GRADE}
    assert after.spent[epoch_scope("chest", 1)] == 100


def test_what_was_spent_before_grades_had_budgets_counts_for_all_of_them(ledger):
    before = charged(ledger, cost=40)
    after = apply(before, PolicySet(at=HOUR, policy=policy(grades=CAPS), signers=1))
    assert grades_of(after) == [40] * 5
    again = apply(after, PolicySet(at=HOUR, policy=policy(grades=CAPS), signers=1))
    assert grades_of(again) == [40] * 5
    bare = apply(charged(again, "f2", strata=(5, 4, 3, 2, 1), cost=5, clock=HOUR),
                 PolicySet(at=HOUR, policy=policy(), signers=2))  # fmt: skip
    unseen = charged(bare, "f3", cost=5)  # spent while grades had no budgets
    back = apply(unseen, PolicySet(at=HOUR, policy=policy(grades=CAPS), signers=1))
    assert grades_of(back) == [50] * 5
    closed = apply(back, EpochClosed(at=YEAR, dataset="chest", number=1))
    opened = EpochOpened(at=YEAR, dataset="chest", number=2, starts=YEAR, ends=2 * YEAR)
    assert grades_of(apply(closed, opened), 2) == [0] * 5


def test_a_burn_leaves_no_grade_anything(graded):
    after = apply(charged(graded, strata=COSTS), Burned(at=HOUR, dataset="chest", epoch=1))
    assert grades_of(after) == list(CAPS.values())
    with pytest.raises(BudgetExhaustedError):
        charged(after, "f2", cost=1)


def test_higher_caps_of_grades_or_none_loosen_and_their_arrival_does_not(ledger):
    caps = policy(grades=CAPS)
    assert not caps.loosens(policy())
    assert policy().loosens(caps)
    assert policy(grades={**CAPS, "5": 51}).loosens(caps)
    assert not policy(grades={**CAPS, "5": 49}).loosens(caps)
    for bad in ({"1": 5}, {**CAPS, "5": 500}, {**CAPS, "6": 1}, {**CAPS, "1": -1}):
        with pytest.raises(InvalidInputError):
            policy(grades=bad)


def test_entries_without_grades_are_written_as_they_always_were(graded):
    assert b"grades" not in encode(PolicySet(at=9, policy=policy(), signers=1))
    assert b"strata" not in encode(RESERVED)
    for entry in (PolicySet(at=9, policy=policy(grades=CAPS), signers=1),
                  replace(RESERVED, strata=(5, 4, 3, 2, 1))):  # fmt: skip
        assert decode(encode(entry)) == entry
    empty = encode(RESERVED).replace(b'"v":1', b'"strata":[],"v":1')
    with pytest.raises(InvalidEntryError, match="canonical"):
        decode(empty)
    for strata in ((5, 4), (4, 4, 4, 4, 4), (5, 4, 3, 2, 0), (5, 4, 3, 2, 1.0), (5, 4, 3, 2, 6)):
        with pytest.raises(InvalidEntryError):
            apply(graded, replace(RESERVED, strata=strata))


@pytest.mark.parametrize(
    "values",
    [{"version": ""}, {"epoch_cap": -1}, {"epoch_cap": 1.0}, {"requesters": {"a": True}},
     {"lifetime_cap": MAX_UNITS + 1}],
)  # fmt: skip
def test_a_policy_that_cannot_be_does_not_exist(values):
    with pytest.raises(InvalidInputError):
        policy(**values)


# --- entries no rule would have written ----------------------------------------------------------

RESERVED = Reserved(
    at=HOUR, fingerprint="f1", dataset="chest", epoch=1, requester="registry", purpose="quality",
    policy="p1", cost=5,
)  # fmt: skip


@pytest.mark.parametrize(
    "entry",
    [
        Witnessed(at=1, seen=1),  # before the newest entry
        Witnessed(at=2.5, seen=1),
        EpochOpened(at=9, dataset="chest", number=2, starts=YEAR, ends=2 * YEAR),  # not closed
        EpochOpened(at=9, dataset="knee", number=2, starts=0, ends=YEAR),
        EpochOpened(at=9, dataset="knee", number=1, starts=5, ends=5),
        EpochClosed(at=9, dataset="knee", number=1),
        Finished(at=9, fingerprint="f9", night=0, answer=""),
        Voided(at=9, fingerprint="f9"),
        Burned(at=9, dataset="chest", epoch=7),
    ],
)
def test_a_forged_entry_is_found_when_the_ledger_is_read(ledger, entry):
    with pytest.raises(InvalidEntryError):
        apply(ledger, entry)


def test_a_reservation_or_answer_is_never_there_twice(ledger):
    after = apply(ledger, RESERVED)
    done = Finished(at=HOUR, fingerprint="f1", night=0, answer="aa")
    with pytest.raises(InvalidEntryError):
        apply(after, RESERVED)
    for again in (done, Finished(at=HOUR, fingerprint="f1", night=1, answer="aa")):
        with pytest.raises(InvalidEntryError):
            apply(apply(after, done), again)
    closed = apply(ledger, EpochClosed(at=9, dataset="chest", number=1))
    with pytest.raises(InvalidEntryError, match="not open"):
        apply(closed, RESERVED)


# --- bytes ---------------------------------------------------------------------------------------

ALL = [
    *START, RESERVED, EpochClosed(at=HOUR, dataset="chest", number=1),
    Finished(at=HOUR, fingerprint="f1", night=0, answer="aa"), Voided(at=HOUR, fingerprint="f1"),
    Burned(at=HOUR, dataset="chest", epoch=1), Witnessed(at=HOUR, seen=5),
    ClockAlarm(at=HOUR, wrong=-5),
]  # fmt: skip


@pytest.mark.parametrize("entry", ALL, ids=kind_of)
def test_an_entry_is_the_same_after_bytes_and_back(entry):
    assert decode(encode(entry)) == entry


def test_the_bytes_of_a_reservation_never_change():
    assert encode(RESERVED) == (
        b'{"at":3600000,"cost":5,"dataset":"chest","epoch":1,"fingerprint":"f1","kind":"reserve",'
        b'"nights":1,"policy":"p1","purpose":"quality","requester":"registry","v":1}'
    )


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"kind": "refund"}, {"more": 1}, {"cost": "5"}, {"cost": 5.0}, {"at": True}],
)
def test_an_entry_of_another_shape_is_refused(change):
    document = json.loads(encode(RESERVED)) | change
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(InvalidEntryError):
        decode(data)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", encode(RESERVED) + b" "])
def test_bytes_that_are_no_entry_are_refused(data):
    with pytest.raises(InvalidEntryError):
        decode(data)
    with pytest.raises(InvalidEntryError):
        decode(encode(START[0]).replace(b'"version":"p1"', b'"version":""'))


def lifetime_left(ledger, entries):
    return fold(entries, ledger).budget(Scope(ScopeKind.LIFETIME, "chest")).left


def test_what_lost_entries_may_have_spent_counts_as_spent():
    policy = PolicySet(at=1, policy=replace(POLICY, lifetime_cap=3500), signers=2)
    opened = EpochOpened(at=1, dataset="chest", number=1, starts=0, ends=YEAR)
    closed = EpochClosed(at=5, dataset="chest", number=1)
    running, over = fold([policy, opened]), fold([policy, opened, closed])
    # the epoch runs: it alone can have been spent
    assert write_off(running, "chest", DAY, 99) == (Burned(at=DAY, dataset="chest", epoch=1),)
    assert write_off(over, "chest", DAY, 99) == ()
    # its calendar is over: others may have been opened, spent and lost
    for start, rest in ((running, 1500), (over, 2500)):
        assert lifetime_left(start, write_off(start, "chest", 2 * YEAR, 4)) == rest
        assert lifetime_left(start, write_off(start, "chest", 2 * YEAR, 99)) == 0
    assert lifetime_left(running, write_off(running, "chest", 2 * YEAR, 2)) == 2500
    assert write_off(over, "chest", 2 * YEAR, 2) == ()
    # none was known
    first = fold([policy])
    assert lifetime_left(first, write_off(first, "chest", DAY, 3)) == 2500
    again = fold(write_off(first, "chest", DAY, 3), first)
    proof = TimeProof(two_people=True)
    assert open_epoch(again, "chest", DAY, YEAR, DAY, proof).number == 2
