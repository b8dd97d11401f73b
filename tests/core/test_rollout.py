import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError, WrongStateError
from bedside_core.findings import Rule
from bedside_core.rollout import ACTIVE, CANARY, Deployment, deployment

FIRST = Deployment(name="cxr", active="1.0.0")
RULE = Rule(threshold=0.5, low=0.4, high=0.6)


def test_activating_keeps_the_version_before_and_rolling_back_is_one_step():
    second = FIRST.activate("1.1.0")
    assert (second.active, second.previous, second.revision) == ("1.1.0", "1.0.0", 1)
    back = second.roll_back()
    assert (back.active, back.previous, back.revision) == ("1.0.0", "", 2)
    with pytest.raises(WrongStateError):
        back.roll_back()


def test_the_active_version_cannot_be_activated_again_nor_shadow_nor_be_its_own_canary():
    for change in (
        lambda: FIRST.activate("1.0.0"),
        lambda: FIRST.with_shadow("1.0.0"),
        lambda: FIRST.with_canary("1.0.0", 10),
    ):
        with pytest.raises(WrongStateError):
            change()


def test_what_becomes_active_is_no_longer_shadow_or_canary():
    both = FIRST.with_shadow("1.1.0").with_canary("1.1.0", 10)
    active = both.activate("1.1.0")
    assert (active.shadow, active.canary, active.percent) == ("", "", 0)
    other = both.activate("1.2.0")
    assert (other.shadow, other.canary, other.percent) == ("1.1.0", "1.1.0", 10)
    back = other.roll_back()
    assert (back.shadow, back.canary, back.percent) == ("", "", 0)


def test_shadow_and_canary_end():
    both = FIRST.with_shadow("1.1.0").with_canary("1.1.0", 10)
    assert both.versions == ("1.0.0", "1.1.0")
    ended = both.with_shadow("").with_canary("", 0)
    assert ended.versions == ("1.0.0",)


@pytest.mark.parametrize(("version", "percent"), [("1.1.0", 0), ("1.1.0", 100), ("", 5)])
def test_a_canary_has_a_share_and_no_canary_has_none(version, percent):
    with pytest.raises(InvalidInputError):
        FIRST.with_canary(version, percent)


def test_a_threshold_holds_for_the_version_it_was_chosen_for():
    signed = FIRST.with_threshold(RULE)
    assert signed.rule("1.0.0") == RULE
    assert signed.rule("1.1.0") is None
    assert signed.activate("1.1.0").roll_back().rule("1.0.0") == RULE
    assert signed.with_threshold(None).rule("1.0.0") is None


def test_a_study_always_meets_the_same_version_and_a_larger_share_moves_none_back():
    studies = [f"study-{number}" for number in range(2000)]
    few, more = FIRST.with_canary("1.1.0", 10), FIRST.with_canary("1.1.0", 30)
    in_few = {study for study in studies if few.reads(study) == ("1.1.0", CANARY)}
    in_more = {study for study in studies if more.reads(study)[1] == CANARY}
    assert in_few <= in_more
    assert 140 < len(in_few) < 260
    assert 500 < len(in_more) < 700
    assert all(FIRST.reads(study) == ("1.0.0", ACTIVE) for study in studies)


VERSIONS = st.sampled_from(["", "1.0.0", "1.1.0", "2.0.0"])
CHANGES = st.one_of(
    st.builds(lambda v: lambda d: d.activate(v), VERSIONS.filter(bool)),
    st.just(Deployment.roll_back),
    st.builds(lambda v: lambda d: d.with_shadow(v), VERSIONS),
    st.builds(lambda v, p: lambda d: d.with_canary(v, p), VERSIONS, st.integers(0, 99)),
    st.sampled_from([lambda d: d.with_threshold(RULE), lambda d: d.with_threshold(None)]),
)


@given(st.lists(CHANGES, max_size=12))
def test_every_history_keeps_its_parts_apart_and_survives_storage(changes):
    now = FIRST
    for change in changes:
        try:
            after = change(now)
        except (WrongStateError, InvalidInputError):
            continue
        assert after.revision == now.revision + 1
        now = after
        assert now.active
        assert now.active not in (now.shadow, now.canary)
        assert bool(now.canary) == (now.percent > 0)
        assert now.active in now.versions
        assert deployment(json.loads(json.dumps(now.document()))) == now
