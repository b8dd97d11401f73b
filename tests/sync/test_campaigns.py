"""Staged rollouts: by signed reports alone, one group after the other, stopped by failures."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidMessageError, UntrustedSignatureError, WrongStateError
from bedside_core.signatures import Algorithm, PublicKey
from bedside_sync.distribution.inventory import (
    Inventory,
    SlotReport,
    check_inventory,
    sign_inventory,
)
from bedside_sync.hub.campaigns import (
    Campaign,
    Group,
    Plan,
    Standing,
    Verdict,
    follow,
    judge,
    standing,
    stopped,
)
from bedside_sync.hub.inventories import inventories, keep_inventory, summary
from bedside_sync.hub.status_page import page
from bedside_sync.hub.store_sqlite import HubStore

PACKAGE, RECORD, NOW = "ab" * 32, "cd" * 32, 1_800_000_000
HOUR = 3600


def plan(**changes) -> Plan:
    groups = (
        Group(name="canary", boxes=("box-1",)),
        Group(name="rest", boxes=("box-2", "box-3", "box-4", "box-5")),
    )
    facts = {"name": "chest-2", "path": "models/chest/2.0.0.json", "groups": groups}
    return Plan(**(facts | changes))


def campaign(**changes) -> Campaign:
    facts = {"plan": plan(), "slot": "model/chest", "package": PACKAGE, "since": NOW}
    return Campaign(**(facts | changes))


def report(box="box-1", *, state="good", serving=1, hours=24, alarms=0, **changes) -> Inventory:
    facts = {
        "slot": "model/chest",
        "name": "b",
        "state": state,
        "package": PACKAGE,
        "release_counter": 2,
        "serving": serving,
        "record": RECORD,
        "since": NOW,
    }
    slot = SlotReport(**(facts | changes))
    return Inventory(box=box, at=NOW + hours * HOUR, alarms=alarms, slots=(slot,))


@pytest.mark.parametrize(
    ("inventory", "expected"),
    [
        (None, Standing.WAITING),
        (report(package="11" * 32), Standing.WAITING),
        (report(state="trial", serving=0), Standing.WAITING),
        (report(hours=23), Standing.SOAKING),
        (report(record=""), Standing.SOAKING),
        (report(), Standing.GOOD),
        (report(state="bad", serving=0), Standing.BAD),
        (report(alarms=1), Standing.BAD),
        (report(serving=0), Standing.BAD),
    ],
)
def test_a_box_counts_by_its_own_report(inventory, expected):
    assert standing(campaign(), inventory) is expected


def test_the_next_group_gets_it_when_the_first_ran_it_well():
    held = campaign()
    waits = judge(held, {})
    assert waits.verdict is Verdict.WAIT
    assert follow(held, waits, NOW) == held
    goes_on = judge(held, {"box-1": report()})
    after = follow(held, goes_on, NOW + 5)
    assert (goes_on.verdict, after.group, after.since) == (Verdict.ADVANCE, 1, NOW + 5)
    everybody = {f"box-{n}": report(f"box-{n}") for n in range(1, 6)}
    done = follow(after, judge(after, everybody), NOW)
    assert done.state == "done"
    with pytest.raises(WrongStateError):
        judge(done, everybody)
    with pytest.raises(WrongStateError):
        stopped(done, "late")


def test_the_first_failure_stops_it_unless_some_are_allowed():
    failed = report("box-2", state="bad", serving=0, reason="golden-mismatch")
    seen = {"box-1": report(), "box-2": failed}
    strict = judge(campaign(group=1), seen)
    assert strict.verdict is Verdict.STOP
    assert "1 of 5 boxes failed: box-2" in strict.why
    assert follow(campaign(group=1), strict, NOW).state == "stopped"
    lax = campaign(plan=plan(error_percent=20, success_percent=75), group=1)
    assert judge(lax, seen).verdict is Verdict.WAIT
    seen |= {f"box-{n}": report(f"box-{n}") for n in (3, 4, 5)}
    assert judge(lax, seen).verdict is Verdict.FINISH
    seen["box-5"] = failed
    assert judge(lax, seen).verdict is Verdict.STOP


@given(
    states=st.lists(st.sampled_from(["good", "bad", "trial", "none"]), min_size=4, max_size=4),
    allowed=st.integers(0, 100),
    needed=st.integers(1, 100),
)
def test_nobody_else_is_reached_unless_enough_run_it_and_few_failed(states, allowed, needed):
    held = campaign(plan=plan(error_percent=allowed, success_percent=needed), group=1)
    seen = {"box-1": report()}
    for number, state in enumerate(states, start=2):
        if state != "none":
            box = f"box-{number}"
            seen[box] = report(box, state=state, serving=int(state == "good"))
    verdict = judge(held, seen).verdict
    bad, good = states.count("bad"), states.count("good")
    if bad * 100 > allowed * 5:
        assert verdict is Verdict.STOP
    else:
        assert (verdict is Verdict.FINISH) is (good * 100 >= needed * 4)


def test_a_plan_names_every_box_once():
    twice = (Group(name="a", boxes=("box-1",)), Group(name="b", boxes=("box-1",)))
    with pytest.raises(ValueError, match="named once"):
        plan(groups=twice)


def test_an_inventory_is_believed_from_its_box_alone_and_never_goes_back(tmp_path):
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = PublicKey(algorithm=Algorithm.ED25519, raw=key.public_key().public_bytes_raw())
    new, old = report(hours=2), report(hours=1)
    data = sign_inventory(new, key.sign).encode()
    assert check_inventory(data, "box-1", public) == new
    with pytest.raises(InvalidMessageError):
        check_inventory(data, "box-2", public)
    with pytest.raises(UntrustedSignatureError):
        check_inventory(sign_inventory(new, other.sign).encode(), "box-1", public)
    with pytest.raises(InvalidMessageError):
        check_inventory(os.urandom(50), "box-1", public)
    store = HubStore(tmp_path / "hub")
    for one in (new, old):
        keep_inventory(store, "box-1", public, sign_inventory(one, key.sign).encode())
    assert inventories(store) == {"box-1": new}
    store.close()


def test_the_status_page_has_a_row_for_each_rollout():
    held = stopped(campaign(), "box-1 <failed>")
    drawn = page("lungs", [], {}, NOW, summary([held]))
    assert "models/chest/2.0.0.json" in drawn
    assert "canary, 1 boxes reached" in drawn
    assert "box-1 &lt;failed&gt;" in drawn
    assert "Rollouts" not in page("lungs", [], {}, NOW)
