"""Which studies go: the oldest that may, never one that must stay, and never more than needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidConfigError
from bedside_core.retention import (
    DAY_MS,
    Go,
    RetentionRules,
    Stay,
    StudyFacts,
    batches,
    decide,
    room_needed,
)

NOW = 1_700_000_000_000
RULES = RetentionRules()
OLD = NOW - 200 * DAY_MS


def study(name="s", *, age_days=200.0, size=10, **facts):
    received = NOW - int(age_days * DAY_MS)
    return StudyFacts(study_id=name, size=size, received=received, **facts)


def one(facts, rules=RULES, needed=1):
    (verdict,) = decide([facts], rules, NOW, needed)
    return verdict.reason


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (study(), Go.ROOM),
        (study(age_days=29.9), Stay.YOUNG),
        (study(age_days=30), Go.ROOM),
        (study(resulted=NOW - 89 * DAY_MS), Stay.YOUNG),
        (study(resulted=NOW - 90 * DAY_MS), Go.ROOM),
        (study(resulted=OLD, reviewed=NOW - 89 * DAY_MS), Stay.YOUNG),
        (study(resulted=OLD, reviewed=OLD), Go.ROOM),
        (study(held=True), Stay.HELD),
        (study(open_jobs=1), Stay.IN_JOB),
        (study(dead_jobs=1), Stay.FAILED),
        (study(undelivered=1), Stay.UNDELIVERED),
        (study(signed=False), Stay.UNSIGNED),
        (study(age_days=-1), Stay.YOUNG),
        (study(held=True, open_jobs=1, undelivered=1), Stay.HELD),
    ],
)
def test_a_study_goes_only_when_nothing_keeps_it(facts, reason):
    assert one(facts) is reason


def test_without_need_nothing_goes_before_its_maximum_age():
    assert one(study(), needed=0) is Stay.ROOM
    rules = RetentionRules(at_most_days=150)
    assert one(study(), rules, needed=0) is Go.MAXIMUM
    assert one(study(age_days=149), rules, needed=0) is Stay.ROOM
    assert one(study(resulted=NOW - 100 * DAY_MS), rules, needed=0) is Stay.ROOM
    assert one(study(undelivered=1), rules, needed=0) is Stay.UNDELIVERED


def test_unsigned_studies_go_if_the_setting_says_so():
    assert one(study(signed=False), RetentionRules(keep_unsigned=False)) is Go.ROOM


def test_the_oldest_go_first_and_no_more_than_needed():
    studies = [study(f"s{n}", age_days=40 + n, size=10) for n in range(5)]
    verdicts = decide(studies, RULES, NOW, 25)
    assert [v.study.study_id for v in verdicts] == ["s4", "s3", "s2", "s1", "s0"]
    assert [v.goes for v in verdicts] == [True, True, True, False, False]
    assert batches(verdicts, 2) == [["s4", "s3"], ["s2"]]


@pytest.mark.parametrize(("used", "needed"), [(0, 0), (80, 0), (81, 1), (100, 20)])
def test_room_is_needed_above_the_low_watermark(used, needed):
    assert room_needed(used, 100, RULES) == needed


@pytest.mark.parametrize(
    "wrong",
    [
        {"received_days": -1},
        {"low_watermark": 0},
        {"low_watermark": 1.1},
        {"at_most_days": 60},
    ],
)
def test_rules_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(InvalidConfigError):
        RetentionRules(**wrong)


FACTS = st.builds(
    study,
    st.uuids().map(str),
    age_days=st.floats(0, 400),
    size=st.integers(0, 100),
    signed=st.booleans(),
    open_jobs=st.integers(0, 1),
    dead_jobs=st.integers(0, 1),
    undelivered=st.integers(0, 1),
    held=st.booleans(),
)


@given(
    studies=st.lists(FACTS, max_size=20),
    needed=st.integers(0, 500),
    at_most=st.sampled_from([0, 120]),
)
def test_what_must_stay_stays_and_the_last_that_goes_was_needed(studies, needed, at_most):
    verdicts = decide(studies, RetentionRules(at_most_days=at_most), NOW, needed)
    assert len(verdicts) == len(studies)
    freed = 0
    for verdict in verdicts:
        s = verdict.study
        if verdict.goes:
            assert not any((s.held, s.open_jobs, s.dead_jobs, s.undelivered))
            assert s.signed
            assert NOW - s.received >= 30 * DAY_MS
        if verdict.reason is Go.ROOM:
            assert freed < needed
        freed += s.size * verdict.goes
