"""The figures of the card are computed as the card says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError
from bedside_models import metrics
from bedside_models.draws import seeded

LABELS = np.array([0, 0, 1, 1])


def test_auc_counts_ordered_pairs_and_halves_ties():
    assert metrics.auc(LABELS, np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert metrics.auc(LABELS, np.array([0.5, 0.5, 0.5, 0.5])) == 0.5


def test_auc_of_one_class_is_not_a_number():
    assert np.isnan(metrics.auc(np.ones(3, int), np.arange(3.0)))


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-8, 8)), min_size=2, max_size=40),
)
def test_auc_is_the_area_under_the_drawn_curve(pairs):
    labels = np.array([label for label, _ in pairs])
    scores = np.array([score for _, score in pairs], float)
    if labels.min() == labels.max():
        return
    false_positive, sensitivity = metrics.roc(labels, scores)
    area = np.sum(np.diff(false_positive) * (sensitivity[1:] + sensitivity[:-1]) / 2)
    assert metrics.auc(labels, scores) == pytest.approx(area)


def test_a_patient_with_many_images_widens_the_interval():
    labels = np.array([0, 1] * 20)
    scores = np.where(np.arange(40) % 4 < 2, labels, 1 - labels).astype(float)
    alone = metrics.bootstrap(metrics.brier, labels, scores, np.arange(40), 400, seeded(1))
    few = metrics.bootstrap(metrics.brier, labels, scores, np.arange(40) % 4, 400, seeded(1))
    assert few.high - few.low > 1.5 * (alone.high - alone.low)


def test_the_interval_repeats_for_a_seed_and_holds_the_value():
    scores = np.linspace(0, 1, 60)
    labels = (np.arange(60) % 3 > 0).astype(int)
    patients = np.arange(60) // 2
    first, second = (
        metrics.bootstrap(metrics.auc, labels, scores, patients, 200, seeded(7)) for _ in range(2)
    )
    assert first == second
    assert first.low < first.value < first.high


def test_a_group_with_one_class_has_no_figure():
    none = metrics.bootstrap(
        metrics.auc, np.ones(5, int), np.arange(5.0), np.arange(5), 100, seeded(1)
    )
    assert none.rounded() == [None, None, None]


def test_platt_scaling_recovers_the_scale_it_was_made_with():
    logits = np.linspace(-4, 4, 4001)
    chance = metrics.sigmoid(0.5 * logits - 0.7)
    labels = (np.modf(np.arange(4001) * 0.6180339887)[0] < chance).astype(int)
    scale, offset = metrics.fit_platt(labels, logits)
    assert scale == pytest.approx(0.5, abs=0.04)
    assert offset == pytest.approx(-0.7, abs=0.08)


def test_platt_scaling_of_separated_classes_stays_finite():
    scale, offset = metrics.fit_platt(LABELS, np.array([-2.0, -1.0, 1.0, 2.0]))
    assert np.isfinite([scale, offset]).all()
    with pytest.raises(InvalidInputError):
        metrics.fit_platt(np.zeros(4, int), np.arange(4.0))


def test_the_threshold_lies_in_the_widest_gap_of_the_best():
    labels = np.array([0, 0, 0, 1, 1, 1])
    probabilities = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    assert metrics.choose_threshold(labels, probabilities) == pytest.approx(0.5)


@given(st.integers(0, 2**16), st.sampled_from([0.05, 0.1, 0.2]))
def test_outside_the_band_a_class_is_wrong_at_most_alpha_of_its_images(seed, alpha):
    values = seeded(seed).permutation(200) / 200
    labels = (np.arange(200) % 2).astype(int)
    probabilities = np.clip(values * 0.8 + labels * 0.2, 0, 1)
    low, high = metrics.undetermined_band(labels, probabilities, 0.5, alpha)
    assert low <= 0.5 <= high
    assert (probabilities[labels == 1] < low).mean() <= alpha
    assert (probabilities[labels == 0] > high).mean() <= alpha


def test_calibration_error_is_zero_when_groups_come_true():
    probabilities = np.repeat([0.25, 0.75], 40)
    labels = np.concatenate([np.arange(40) % 4 == 0, np.arange(40) % 4 != 0]).astype(int)
    assert metrics.expected_calibration_error(labels, probabilities, bins=2) == pytest.approx(0)
    assert metrics.brier(labels, probabilities) == pytest.approx(0.1875)
