"""Which consents count, and what a notice has to say."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.consent import (
    NOTICE_PARTS,
    PURPOSES,
    Consent,
    Giver,
    check_consent,
    check_notice,
    will,
)
from bedside_core.errors import InvalidConsentError
from bedside_core.uses import Purpose

GIVEN = Consent(
    consent_id="c",
    purpose=Purpose.TRAINING,
    classes=("images",),
    notice="0" * 64,
    given_by=Giver.PATIENT,
    separate=False,
    document="",
    valid_from=100,
    valid_to=200,
    withdrawn_at=0,
)
PARTS = dict.fromkeys(NOTICE_PARTS, "words")


@pytest.mark.parametrize(("now", "counts"), [(99, False), (100, True), (199, True), (200, False)])
def test_a_consent_counts_from_its_first_to_its_last_moment(now, counts):
    assert GIVEN.counts(now) is counts
    assert replace(GIVEN, valid_to=0).counts(now) is (now >= 100)
    assert not replace(GIVEN, withdrawn_at=150).counts(now)


@given(st.sampled_from(sorted(PURPOSES)))
def test_consent_to_one_purpose_is_none_to_another(purpose):
    found = will([replace(GIVEN, purpose=purpose)], (), 150)
    assert found.consents == {purpose}
    assert not found.withdrawn


@pytest.mark.parametrize(
    ("taken", "withdrawn"),
    [((), False), (("training",), False), (("diagnosis",), True), (("all",), True)],
)
def test_withdrawing_diagnosis_or_everything_stops_every_reading(taken, withdrawn):
    assert will([GIVEN], taken, 150).withdrawn is withdrawn


def test_a_guardian_and_a_separate_consent_are_told_apart():
    both = [replace(GIVEN, given_by=Giver.GUARDIAN), replace(GIVEN, separate=True)]
    found = will(both, (), 150)
    assert (found.guardian_consent, found.separate_consent) == (True, True)
    late = will(both, (), 300)
    assert (late.guardian_consent, late.separate_consent, late.consents) == (False, False, set())


@pytest.mark.parametrize("part", sorted(NOTICE_PARTS))
def test_a_notice_that_leaves_a_part_out_is_refused(part):
    with pytest.raises(InvalidConsentError, match=part):
        check_notice(PARTS | {part: "  "})


def test_a_notice_with_other_words_is_another_notice():
    assert check_notice(PARTS) == check_notice(dict(reversed(PARTS.items())))
    assert check_notice(PARTS) != check_notice(PARTS | {"impact": "other words"})
    with pytest.raises(InvalidConsentError, match="poem"):
        check_notice(PARTS | {"poem": "words"})


def test_a_child_needs_a_guardian():
    with pytest.raises(InvalidConsentError, match="guardian"):
        check_consent(GIVEN, minor=True)
    check_consent(replace(GIVEN, given_by=Giver.GUARDIAN), minor=True)
    check_consent(GIVEN, minor=False)


@pytest.mark.parametrize(
    "wrong", [replace(GIVEN, purpose=Purpose.RIGHTS), replace(GIVEN, valid_to=100)]
)
def test_what_cannot_stand_is_refused(wrong):
    with pytest.raises(InvalidConsentError):
        check_consent(wrong, minor=False)
