"""Answers are read honestly: exact intervals, no ratio over a denominator that may be zero."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError
from bedside_core.noise import discrete_gaussian
from bedside_core.statistics import rates
from bedside_core.statistics.catalogue import spec_of
from bedside_core.statistics.measure import GaussianLaw, gaussian_law, measure
from bedside_core.statistics.query import compile_query
from bedside_core.statistics.reading import (
    NOT_REPORTED,
    answer,
    difference,
    estimate,
    ratio,
    shares,
    shifted,
)
from bedside_core.statistics.rows import StudyRow, freeze
from bedside_core.statistics.running import GRID, running
from bedside_core.statistics.spec import Weight
from bedside_core.statistics.strata import sampling_rate, strata, total
from support.byte_source import SeededBytes
from support.statistics import PUBLIC, NoNoise

EPS_ONE = 24_355_000_000
QUIET = 10**17  # so little noise that a number is its truth to many digits


def rows(count=400):
    """Every tenth patient ill; scores 0.05 to 0.95, higher for the ill; one study each."""
    made = []
    for n in range(count):
        ill = n % 10 == 0
        score = (0.55 + 0.1 * (n // 10 % 5)) if ill else (0.05 + 0.1 * (n % 7))
        made.append(
            StudyRow(
                patient=f"p{n}",
                arrival=n,
                sex="female" if n % 3 else "male",
                decision="present" if score > 0.5 else "absent",
                label="positive" if ill else "negative",
                score=score,
                minutes=float(n % 60),
                grade=n % 5 + 1,
            )
        )
    return made


def read(*names, units=QUIET, studies=None, noise=None, c=PUBLIC.c):
    query = compile_query([spec_of(name, PUBLIC) for name in names])
    law = gaussian_law(query, units)
    kept = freeze(rows() if studies is None else studies, "s").keep(c)
    return answer(query, law, measure(query, law, kept, noise or NoNoise()))


# --- counts and ratios ---------------------------------------------------------------------------


def test_a_count_is_shown_with_the_exact_interval_of_its_law():
    query = compile_query([spec_of(n, PUBLIC) for n in ("prevalence",)])
    law = GaussianLaw(l2sq=query.l2sq, units=EPS_ONE)
    found = answer(query, law, [1287, -5, 3]).counts()
    width = law.half_width(0.05)
    one = found["studies"]
    assert (one.value, one.low, one.high) == (1287, 1287 - width, 1287 + width)
    assert not one.grey
    below = found["positives"]
    assert (below.value, below.shown, below.low) == (-5, 0, 0)
    assert below.grey
    assert below.relative == width / 5
    assert estimate(0.0, -1.0, 1.0).relative == math.inf


def test_a_vector_of_another_length_or_an_unknown_cell_is_refused():
    query = compile_query([spec_of("volume", PUBLIC)])
    law = gaussian_law(query, EPS_ONE)
    with pytest.raises(InvalidInputError):
        answer(query, law, [1])
    with pytest.raises(InvalidInputError):
        answer(query, law, [1, 2]).natural("patients called Li")


def test_shares_and_prevalence_are_those_of_the_data_when_noise_is_small():
    one = read("prevalence", "sex-counts")
    present = sum(row.decision == "present" for row in rows())
    assert rates.prevalence(one).value == pytest.approx(present / 400, abs=1e-3)
    sexes = shares(one, [cell for cell in one.query.cells if cell.startswith("sex")])
    assert sexes["sex female"].value == pytest.approx(266 / 400, abs=1e-3)


def test_a_ratio_over_nothing_is_not_reported():
    assert ratio((3.0, 1.0), (4.0, 4.0, 0.0), 1.96) is NOT_REPORTED
    assert ratio((3.0, -50.0), (4.0, 4.0, 0.0), 1.96) is NOT_REPORTED
    assert not NOT_REPORTED.reported
    assert shifted(NOT_REPORTED, 1.0) is NOT_REPORTED
    sure = estimate(0.5, 0.4, 0.6)
    assert difference(sure, NOT_REPORTED) is NOT_REPORTED
    assert difference(NOT_REPORTED, sure) is NOT_REPORTED
    assert difference(sure, sure).value == 0


@pytest.mark.parametrize("shared", [False, True])
def test_fieller_s_interval_covers_as_often_as_it_says(shared):
    source, hits, runs = SeededBytes(f"fieller {shared}"), 0, 3000
    for _ in range(runs):
        x, rest = 40 + discrete_gaussian(100, source), 80 + discrete_gaussian(100, source)
        if shared:
            one = ratio((x, x + rest), (100.0, 200.0, 100.0), 1.96)
            truth = 40 / 120
        else:
            one, truth = ratio((x, rest), (100.0, 100.0, 0.0), 1.96), 40 / 80
        hits += one.reported and one.low <= truth <= one.high
    assert 0.93 < hits / runs < 0.97


# --- means, rates, AUC ---------------------------------------------------------------------------


def test_moments_are_those_of_the_data_when_noise_is_small():
    scores = [row.score for row in rows()]
    mean = sum(scores) / len(scores)
    spread = sum((score - mean) ** 2 for score in scores) / len(scores)
    one = read("score-variance", units=10**22)
    number = spec_of("score-mean", PUBLIC).number
    assert rates.mean(one, number).value == pytest.approx(mean, abs=2e-4)
    found = rates.variance(one, number)
    assert found.value == pytest.approx(spread, abs=1e-3)
    assert found.low <= spread <= found.high
    minutes = read("turnaround-mean", units=10**22)
    assert rates.mean(minutes, spec_of("turnaround-mean", PUBLIC).number).shown == pytest.approx(
        sum(row.minutes for row in rows()) / 400, abs=0.2
    )
    errors = [(row.score - (row.label == "positive")) ** 2 for row in rows()]
    assert rates.brier(read("brier", units=10**22)).value == pytest.approx(
        sum(errors) / 400, abs=1e-3
    )


def test_a_variance_around_the_middle_has_a_floor_of_zero_for_the_mean_s_square():
    flat = [StudyRow(patient=f"p{n}", score=0.5) for n in range(50)]
    one = read("score-variance", studies=flat, units=10**13)
    found = rates.variance(one, spec_of("score-mean", PUBLIC).number)
    assert found.reported
    assert found.low <= 0 <= found.high


def test_a_variance_of_nobody_is_not_reported():
    number = spec_of("score-mean", PUBLIC).number
    assert rates.variance(read("score-variance", studies=[]), number) is NOT_REPORTED


def test_rates_and_gaps_are_those_of_the_confusion_counts():
    by = spec_of("fairness-by-sex", PUBLIC).by
    found = rates.rates(read("fairness-by-sex"), by)
    assert [one.group for one in found] == ["sex female", "sex male", "sex other"]
    assert found[0].sensitivity.value == pytest.approx(1, abs=0.01)
    women = [row for row in rows() if row.sex == "female" and row.label == "negative"]
    called = sum(row.decision == "present" for row in women) / len(women)
    assert found[0].false_positive_rate.value == pytest.approx(called, abs=0.01)
    assert found[0].specificity.value == pytest.approx(1 - called, abs=0.01)
    assert found[0].undetermined.value == pytest.approx(0, abs=0.01)
    assert found[2].sensitivity is NOT_REPORTED
    gaps = rates.gaps(found)
    assert gaps["sex male"].value == pytest.approx(0, abs=0.02)
    assert gaps["sex other"] is NOT_REPORTED
    assert rates.rates(read("confusion"))[0].group == ""


def true_auc(studies):
    ill = [round(row.score, 2) for row in studies if row.label == "positive"]
    well = [round(row.score, 2) for row in studies if row.label == "negative"]
    wins = sum((a > b) + (a == b) / 2 for a in ill for b in well)
    return wins / len(ill) / len(well)


def test_the_area_is_that_of_the_binned_scores_and_its_interval_covers():
    assert rates.auc(read("auc"), 10).value == pytest.approx(true_auc(rows()), abs=1e-3)
    source, hits, runs = SeededBytes("auc"), 0, 400
    base = read("auc", units=10**13)
    sigma2 = base.variance

    for _ in range(runs):
        noisy = [value + discrete_gaussian(int(sigma2), source) for value in base.values]
        one = rates.auc(answer(base.query, gaussian_law(base.query, 10**13), noisy), 10)
        hits += one.reported and one.low <= true_auc(rows()) <= one.high
    assert 0.9 < hits / runs <= 0.99


def test_no_area_without_both_labels():
    healthy = [row for row in rows() if row.label == "negative"]
    assert rates.auc(read("auc", studies=healthy), 10) is NOT_REPORTED
    assert rates.auc(read("auc", studies=[]), 10) is NOT_REPORTED


def test_calibration_is_mean_score_minus_share_of_positives_per_bin():
    one = read("calibration", units=10**22)
    found = rates.calibration(one, 10)
    in_bin = [row for row in rows() if 0.6 <= row.score < 0.7]
    gap = sum(row.score - (row.label == "positive") for row in in_bin) / len(in_bin)
    assert found[6].value == pytest.approx(gap, abs=1e-3)
    assert rates.calibration_error(one, 10).value > 0
    assert rates.calibration_error(read("calibration", studies=[]), 10) is NOT_REPORTED


def test_any_quantile_can_be_read_from_one_histogram():
    one, number = read("score-histogram"), spec_of("score-histogram", PUBLIC).number
    scores = sorted(row.score for row in rows())
    for q in (0.1, 0.5, 0.9, 1.0):
        value = rates.histogram_quantile(one, number, 10, q)
        assert value == pytest.approx(scores[min(399, int(q * 400))], abs=0.1)
    empty = answer(one.query, gaussian_law(one.query, EPS_ONE), [-1] * len(one.values))
    assert rates.histogram_quantile(empty, number, 10, 0.5) is None


# --- running totals ------------------------------------------------------------------------------


def volume_running(nights=365):
    return running(compile_query([spec_of("volume", PUBLIC)], truncation=False), nights)


def test_the_factorisation_has_the_integers_of_the_page():
    year = volume_running()
    assert year.coefficients[:6] == (4096, 2048, 1536, 1280, 1120, 1008)
    assert year.coefficients[364] == 121
    assert sum(value * value for value in year.coefficients) == 49_395_360
    assert year.l2sq == 444_558_240
    assert year.sigma2(EPS_ONE) == 9_126_631_904
    assert year.cost(7_934_436_221) == 28_014_481_913
    assert math.sqrt(49_395_360) / GRID == pytest.approx(1.715865, abs=1e-6)


@pytest.mark.parametrize(("sigma2", "rms"), [(7_934_436_221, 35.26), (9_126_631_904, 37.81)])
def test_a_year_s_totals_have_the_error_of_the_theory(sigma2, rms):
    year = volume_running()
    errors = [year.deviation(night, sigma2) for night in range(1, 366)]
    assert math.sqrt(sum(e * e for e in errors) / 365) == pytest.approx(rms, abs=0.01)
    assert year.half_width(365, sigma2) == pytest.approx(1.96 * errors[-1], rel=1e-4)


@settings(max_examples=25)
@given(
    nights=st.lists(
        st.lists(st.integers(0, 10**6), min_size=3, max_size=3), min_size=1, max_size=40
    )
)
def test_without_noise_a_total_is_the_sum_of_the_nights(nights):
    query = compile_query([spec_of("prevalence", PUBLIC)])
    epoch = running(query, 40)
    measured = [epoch.carry(nights[: n + 1]) for n in range(len(nights))]
    sums = [sum(column) for column in zip(*nights, strict=True)]
    assert epoch.totals(measured) == pytest.approx(sums, abs=1e-3)
    noise = NoNoise()
    assert epoch.measure(nights, EPS_ONE, noise) == measured[-1]
    assert {parameters for _, parameters, _ in noise.calls} == {(epoch.l2sq, EPS_ONE)}


@settings(max_examples=25)
@given(where=st.lists(st.integers(0, 59), min_size=1, max_size=3))
def test_a_patient_s_nights_move_the_measured_year_by_no_more_than_declared(where):
    epoch = volume_running(60)
    nights = [[where.count(night)] for night in range(60)]
    moved = [epoch.carry(nights[: n + 1])[0] for n in range(60)]
    assert sum(value * value for value in moved) <= epoch.l2sq
    worst = [[3 * (night == 0)] for night in range(60)]
    reached = [epoch.carry(worst[: n + 1])[0] for n in range(60)]
    assert sum(value * value for value in reached) == epoch.l2sq


def test_nights_outside_the_epoch_are_refused():
    epoch = volume_running(3)
    query = compile_query([spec_of("volume", PUBLIC, Weight.PATIENT)])
    for call in (
        lambda: epoch.carry([]),
        lambda: epoch.carry([[1]] * 4),
        lambda: epoch.totals([[1, 2]]),
        lambda: epoch.deviation(0, 9),
        lambda: epoch.deviation(4, 9),
        lambda: running(query, 3),
        lambda: running(epoch.query, 0),
        lambda: running(epoch.query, 10**6),
    ):
        with pytest.raises(InvalidInputError):
            call()


# --- grades --------------------------------------------------------------------------------------

BUDGETS = {1: EPS_ONE, 2: EPS_ONE, 3: 6_641_500_000, 4: 321_040_000, 5: 321_040_000}


def test_strata_cost_a_patient_the_grade_s_own_price_and_add_up():
    query = compile_query([spec_of("prevalence", PUBLIC)])
    graded = strata(query, BUDGETS)
    assert graded.cost == max(graded.costs.values()) <= EPS_ONE
    assert graded.costs[4] < graded.costs[3] < graded.costs[1]
    kept, noise = freeze(rows(), "s").keep(PUBLIC.c), NoNoise()
    answers = graded.measure(kept, noise)
    assert list(answers) == [1, 2, 3, 4, 5]
    assert total(list(answers.values())) == query.exact(kept)
    assert len(noise.calls) == 5 * len(query.cells)
    assert graded.variance == sum(law.sigma2 for law in graded.laws.values())


def test_a_patient_stands_in_one_stratum_and_bound_hits_are_counted_there():
    studies = [StudyRow(patient="a", arrival=n, grade=1 + n) for n in range(3)]
    kept = freeze(studies, "s").keep(3)
    assert [kept.of_grade(g).hits for g in (1, 2, 3)] == [0, 0, 1]
    assert [len(kept.of_grade(g).rows) for g in (1, 2, 3)] == [0, 0, 3]


def test_budgets_that_rise_with_the_grade_or_miss_one_are_refused():
    query = compile_query([spec_of("volume", PUBLIC)])
    for bad in ({**BUDGETS, 5: EPS_ONE}, {1: 5}, {**BUDGETS, 6: 1}):
        with pytest.raises(InvalidInputError):
            strata(query, bad)


def test_a_sampling_rate_is_the_largest_that_fits_and_never_rounded_up():
    assert sampling_rate(lambda rate: 10 * rate, 0.123456) == 0.0123
    assert sampling_rate(lambda rate: rate, 5.0) == 1.0
    assert sampling_rate(lambda rate: 9.0, 5.0) == 0.0
    for bad in (0.0, -1.0, 1, math.nan):
        with pytest.raises(InvalidInputError):
            sampling_rate(lambda rate: rate, bad)
