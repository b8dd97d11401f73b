"""From logit to decision, and whether the image is one the model was made for."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError
from bedside_core.findings import (
    Calibration,
    Decision,
    Familiar,
    Rule,
    feature_check,
    intensity_check,
    saliency,
)
from bedside_core.imaging import Intensity

LOGITS = st.floats(-1e6, 1e6)
CHANCES = st.floats(0, 1)


# --- calibration -------------------------------------------------------------------------------


def test_known_probabilities():
    assert Calibration().probability(0.0) == 0.5
    assert Calibration().probability(math.log(3)) == pytest.approx(0.75)
    assert Calibration(scale=2.0, offset=-1.0).probability(1.0) == pytest.approx(
        1 / (1 + math.exp(-1))
    )


@given(low=LOGITS, high=LOGITS, scale=st.floats(1e-3, 100), offset=st.floats(-50, 50))
def test_a_probability_lies_in_0_to_1_and_never_falls_with_the_logit(low, high, scale, offset):
    calibration = Calibration(scale=scale, offset=offset)
    low, high = sorted((low, high))
    assert 0.0 <= calibration.probability(low) <= calibration.probability(high) <= 1.0


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_no_probability_is_made_up_for_what_is_no_number(logit):
    with pytest.raises(InvalidInputError):
        Calibration().probability(logit)


# --- decision ----------------------------------------------------------------------------------

RULE = Rule(threshold=0.5, low=0.4, high=0.6)


@pytest.mark.parametrize(
    ("probability", "decision"),
    [
        (0.0, Decision.ABSENT),
        (0.4, Decision.ABSENT),
        (0.4000001, Decision.UNDETERMINED),
        (0.5, Decision.UNDETERMINED),
        (0.5999999, Decision.UNDETERMINED),
        (0.6, Decision.PRESENT),
        (1.0, Decision.PRESENT),
    ],
)
def test_the_bands_edges_belong_to_the_clear_answers(probability, decision):
    assert RULE.decide(probability) is decision


def test_without_a_band_the_threshold_itself_is_present():
    rule = Rule(threshold=0.3, low=0.3, high=0.3)
    assert rule.decide(0.3) is Decision.PRESENT
    assert rule.decide(math.nextafter(0.3, 0)) is Decision.ABSENT


@example(one=0.0, other=0.5, cuts=[0.0, 0.0, 1.0])  # threshold on the band's lower edge
@given(one=CHANCES, other=CHANCES, cuts=st.lists(CHANCES, min_size=3, max_size=3))
def test_a_higher_probability_is_never_a_lesser_finding(one, other, cuts):
    low, threshold, high = sorted(cuts)
    rule = Rule(threshold=threshold, low=low, high=high)
    order = [Decision.ABSENT, Decision.UNDETERMINED, Decision.PRESENT]
    one, other = sorted((one, other))
    assert order.index(rule.decide(one)) <= order.index(rule.decide(other))


@pytest.mark.parametrize(
    "fields",
    [
        {"threshold": 0.5, "low": 0.6, "high": 0.7},
        {"threshold": 0.5, "low": 0.3, "high": 0.4},
        {"threshold": 0.5, "low": -0.1, "high": 0.6},
        {"threshold": 0.5, "low": 0.4, "high": 1.1},
        {"threshold": math.nan, "low": 0.4, "high": 0.6},
    ],
)
def test_a_rule_that_contradicts_itself_cannot_exist(fields):
    with pytest.raises(InvalidInputError):
        Rule(**fields)


# --- familiar images ---------------------------------------------------------------------------


def familiar(chol=None, **changes):
    fields = {
        "mean": np.array([1.0, 2.0], np.float32),
        "precision_chol": np.eye(2, dtype=np.float32) if chol is None else chol,
        "cutoff": 3.0,
        "intensity": {"mean": (0.2, 0.8), "std": (0.1, 0.4)},
    }
    return Familiar(**(fields | changes))


def test_the_distance_is_mahalanobis():
    covariance = np.array([[4.0, 1.0], [1.0, 2.0]])
    chol = np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)
    gap = np.array([3.0, -1.0])
    expected = math.sqrt(gap @ np.linalg.inv(covariance) @ gap)
    features = (np.array([1.0, 2.0]) + gap).astype(np.float32)
    assert familiar(chol).distance(features) == pytest.approx(expected, rel=1e-5)


def test_the_distance_to_the_mean_is_zero():
    assert familiar().distance(np.array([1.0, 2.0], np.float32)) == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_are_infinitely_far(value):
    check = feature_check(np.array([1.0, value], np.float32), familiar())
    assert not check.passed


@pytest.mark.parametrize(("offset", "passed"), [(2.99, True), (3.0, True), (3.01, False)])
def test_the_cut_off_itself_is_familiar(offset, passed):
    check = feature_check(np.array([1.0 + offset, 2.0], np.float32), familiar())
    assert (check.name, check.passed) == ("features", passed)
    assert "cut-off 3.0" in check.reason


def seen(**changes):
    return Intensity(**({"black": 0.1, "white": 0.0, "mean": 0.5, "std": 0.2} | changes))


def test_a_grey_scale_like_trainings_passes():
    assert intensity_check(seen(), familiar()).passed
    assert intensity_check(seen(mean=0.2, std=0.4), familiar()).passed


@pytest.mark.parametrize(
    ("change", "named"), [({"mean": 0.9}, "mean 0.900"), ({"std": 0.05}, "std 0.050")]
)
def test_the_statistic_outside_its_range_is_named(change, named):
    check = intensity_check(seen(**change), familiar())
    assert not check.passed
    assert named in check.reason


def test_a_statistic_that_is_no_number_never_passes():
    assert not intensity_check(seen(mean=math.nan), familiar()).passed


# --- saliency ----------------------------------------------------------------------------------


def test_saliency_is_absolute_and_shows_only_evidence_for_the_finding():
    cam = np.array([[-3.0, 0.0], [7.5, 30.0]], np.float32)
    assert saliency(cam).tolist() == [[0.0, 0.0], [0.5, 1.0]]
    assert saliency(cam).dtype == np.float32
    assert saliency(np.full((2, 2), 0.01, np.float32)).max() < 0.01, "noise never glows"
