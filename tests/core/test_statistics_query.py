"""No patient moves a statistic by more than it declares, whatever stands in the rows."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError, UnknownStatisticError
from bedside_core.statistics.catalogue import CATALOGUE, Public, spec_of
from bedside_core.statistics.choice import compile_choice
from bedside_core.statistics.measure import (
    ChoiceLaw,
    GaussianLaw,
    LaplaceLaw,
    choice_law,
    choose,
    gaussian_law,
    laplace_law,
    measure,
)
from bedside_core.statistics.query import BOUND_HITS, compile_query, parts_of
from bedside_core.statistics.rows import Snapshot, StudyRow, freeze
from bedside_core.statistics.spec import (
    PATIENT_WEIGHT,
    KeySet,
    Kind,
    Number,
    StatSpec,
    Weight,
)
from support.statistics import (
    PUBLIC,
    QUANTILES,
    ROWS,
    VECTORS,
    NoNoise,
    changed,
    first_studies,
    fixed,
    name_of,
    without,
)

EPS_ONE = 24_355_000_000
QUERIES = [compile_query([spec]) for spec in VECTORS]
JOINTS = [
    compile_query([spec for spec in VECTORS if spec.weight is weight and spec.kind in kinds])
    for weight in Weight
    for kinds in ({Kind.COUNT, Kind.PREVALENCE, Kind.KEYS}, {Kind.COUNT, Kind.CONFUSION, Kind.BINS})
]
MIXED = compile_query([spec_of(n, PUBLIC) for n in ("volume", "score-mean", "turnaround-mean")])


# --- the sensitivity law -------------------------------------------------------------------------


@settings(max_examples=60)
@given(rows=ROWS)
def test_no_patient_moves_a_vector_by_more_than_its_sensitivity(rows):
    whole = freeze(rows, "s").keep(PUBLIC.c)
    for patient in {name_of(row) for row in rows}:
        rest = freeze(without(rows, patient), "s").keep(PUBLIC.c)
        for query in [*QUERIES, *JOINTS, MIXED]:
            moved = [a - b for a, b in zip(query.exact(whole), query.exact(rest), strict=True)]
            assert sum(map(abs, moved)) <= query.l1
            assert sum(one * one for one in moved) <= query.l2sq


@settings(max_examples=40)
@given(rows=ROWS)
def test_no_patient_moves_a_utility_by_more_than_its_sensitivity(rows):
    whole = freeze(rows, "s").keep(PUBLIC.c)
    for patient in {name_of(row) for row in rows}:
        rest = freeze(without(rows, patient), "s").keep(PUBLIC.c)
        for spec in QUANTILES:
            choice = compile_choice(spec)
            both = zip(choice.utilities(whole), choice.utilities(rest), strict=True)
            for (one, other), most in zip(both, choice.sensitivities, strict=True):
                assert len(one) == len(other) == len(choice.values)
                assert max(abs(a - b) for a, b in zip(one, other, strict=True)) <= most


def heaviest(spec, count):
    """Studies of one patient that touch as much as any can."""
    row = StudyRow(
        patient="p", sex="female", age_band="65+", device="CR1", decision="present",
        label="positive", score=0.0, minutes=0.0, findings=PUBLIC.findings,
    )  # fmt: skip
    return [changed(row, arrival=n) for n in range(count)]


@pytest.mark.parametrize("spec", VECTORS, ids=lambda spec: f"{spec.name}-{spec.weight}")
def test_the_declared_sensitivity_is_reached(spec):
    query = compile_query([spec])
    worst = 0
    for score, decision in ((0.0, "present"), (1.0, "present"), (0.5, "absent")):
        rows = [
            changed(row, score=score, decision=decision, minutes=600 * score)
            for row in heaviest(spec, 6)
        ]
        vector = query.exact(freeze(rows, "s").keep(PUBLIC.c))
        worst = max(worst, sum(value * value for value in vector))
    if spec.weight is Weight.ONCE and spec.kind in {Kind.CONFUSION, Kind.BINS, Kind.LABEL_BINS}:
        assert worst < query.l2sq  # reached only by studies of several kinds
    elif spec.weight is Weight.ONCE and spec.kind is Kind.FINDINGS:
        assert worst == 2 + 1 < query.l2sq == 3 + 1  # the same two findings each time
    elif spec.weight is Weight.PATIENT:
        assert worst == pytest.approx(query.l2sq, rel=1e-5)  # W is not a multiple of 3
    else:
        assert worst == query.l2sq


def test_the_joint_profile_has_the_sensitivity_of_the_page():
    names = ("prevalence", "device-counts", "score-histogram", "fairness-by-sex")
    five = compile_query([spec_of(name, PUBLIC) for name in names], truncation=False)
    assert five.l2sq == 3**2 * 5
    assert compile_query([spec_of(name, PUBLIC) for name in names]).l2sq == 46
    assert gaussian_law(five, EPS_ONE).sigma2 == 924


def test_equal_cells_are_paid_for_once():
    once = compile_query([spec_of("volume", PUBLIC), spec_of("prevalence", PUBLIC)])
    assert once.cells == ("studies", "positives", BOUND_HITS)
    assert once.l2sq == compile_query([spec_of("prevalence", PUBLIC)]).l2sq


def test_every_cell_of_a_mixed_vector_moves_about_as_far():
    steps = dict(zip(MIXED.cells, MIXED.grid_steps(), strict=True))
    assert steps["score - middle"] == 10_000
    assert steps["minutes - middle"] == 10
    moved = dict(zip(MIXED.cells, MIXED.scales, strict=True))
    bounds = {"studies": 1, "score - middle": 5000, "minutes - middle": 3000, BOUND_HITS: 1}
    assert {cell: moved[cell] * bound for cell, bound in bounds.items()} == dict.fromkeys(
        bounds, 5000
    ) | {"minutes - middle": 3000}


# --- exact values, against plain loops -----------------------------------------------------------

PLAIN_ROWS = st.lists(
    st.builds(
        StudyRow,
        patient=st.sampled_from(["a", "b", "c"]),
        arrival=st.integers(0, 10**6),
        sex=st.sampled_from(["female", "male", "?"]),
        device=st.sampled_from(["CR1", "CR2", "unknown"]),
        decision=st.sampled_from(["present", "absent", "undetermined", ""]),
        label=st.sampled_from(["positive", "negative", ""]),
        score=st.none() | st.floats(-0.2, 1.2) | st.just(math.nan),
        minutes=st.none() | st.floats(0, 700),
        findings=st.lists(st.sampled_from([*PUBLIC.findings, "z"]), max_size=5).map(tuple),
        grade=st.integers(1, 5),
    ),
    max_size=20,
    unique_by=lambda row: row.arrival,
)


def exact(name, rows, weight=Weight.STUDY):
    query = compile_query([spec_of(name, PUBLIC, weight)], truncation=False)
    values = query.exact(freeze(rows, "s").keep(PUBLIC.c))
    return {
        cell: Fraction(value, scale)
        for cell, value, scale in zip(query.cells, values, query.scales, strict=True)
    }


@settings(max_examples=60)
@given(rows=PLAIN_ROWS)
def test_counts_are_those_of_plain_loops(rows):
    kept = first_studies(rows, PUBLIC.c)
    assert exact("volume", rows) == {"studies": len(kept)}
    positives = sum(row.decision == "present" for row in kept)
    assert exact("prevalence", rows)["positives"] == positives
    device = Counter(row.device for row in kept)
    unknown = device["unknown"]
    assert list(exact("device-counts", rows).values()) == [device["CR1"], device["CR2"], unknown]
    found = Counter(
        finding
        for row in kept
        for finding in [f for f in PUBLIC.findings if f in row.findings][: PUBLIC.l2_cells]
    )
    assert exact("finding-counts", rows) == {name: found[name] for name in PUBLIC.findings}
    confusion = Counter((row.label, row.decision or "undetermined") for row in kept if row.label)
    for cell, value in exact("confusion", rows).items():
        assert value == confusion[tuple(cell.split(", "))]


@settings(max_examples=60)
@given(rows=PLAIN_ROWS)
def test_sums_are_those_of_exact_arithmetic(rows):
    kept = [row for row in first_studies(rows, PUBLIC.c) if row.score is not None]
    steps = [fixed(row.score, 0, 1, 10_000) for row in kept]
    mean = exact("score-variance", rows)
    assert mean["score: studies with one"] == len(kept)
    assert mean["score - middle"] == sum(step - 5000 for step in steps)
    assert mean["(score - middle)^2"] == sum((step - 5000) ** 2 for step in steps)
    histogram = Counter(min(step * 10 // 10_000, 9) for step in steps)
    assert list(exact("score-histogram", rows).values()) == [histogram[b] for b in range(10)]
    labelled = [
        (step, 10_000 * (row.label == "positive"))
        for row, step in zip(kept, steps, strict=True)
        if row.label
    ]
    brier = exact("brier", rows)
    assert brier["labelled with a score"] == len(labelled)
    errors = sum((s - y) ** 2 // 10_000 - 5000 for s, y in labelled)
    assert brier["squared error - 1/2"] == errors
    gaps = exact("calibration", rows)
    assert sum(gaps[f"score - label, bin {b}"] for b in range(10)) == sum(
        s - y for s, y in labelled
    )
    auc = exact("auc", rows)
    assert sum(auc.values()) == len(labelled)
    assert sum(v for cell, v in auc.items() if "positive" in cell) == sum(
        y > 0 for _, y in labelled
    )


@settings(max_examples=60)
@given(rows=PLAIN_ROWS)
def test_a_patient_weighs_one_and_counts_once(rows):
    kept = first_studies(rows, PUBLIC.c)
    patients = {row.patient for row in kept}
    per = Counter(row.patient for row in kept)
    weighed = exact("prevalence", rows, Weight.PATIENT)
    shares = sum(PATIENT_WEIGHT // per[row.patient] for row in kept if row.decision == "present")
    assert weighed["positives"] * PATIENT_WEIGHT == shares
    assert float(weighed["studies"]) == pytest.approx(len(patients), abs=1e-4)
    assert exact("volume", rows, Weight.ONCE) == {"studies": len(patients)}
    first = {}
    for row in kept:
        first.setdefault(row.patient, row.sex)
    sexes = Counter(sex if sex != "?" else "other" for sex in first.values())
    assert exact("sex-counts", rows, Weight.ONCE) == {
        f"sex {sex}": sexes[sex] for sex in ("female", "male", "other")
    }
    had = Counter((first[p], f) for p in patients for f in {
        f
        for row in kept
        if row.patient == p
        for f in [f for f in PUBLIC.findings if f in row.findings][: PUBLIC.l2_cells]
    })  # fmt: skip
    for cell, value in exact("finding-counts-by-sex", rows, Weight.ONCE).items():
        sex, finding = cell.removeprefix("sex ").split(", ")
        assert value == had["?" if sex == "other" else sex, finding]


@given(rows=PLAIN_ROWS)
def test_a_quantile_s_best_value_lies_on_the_quantile(rows):
    spec = spec_of("turnaround-quantiles", PUBLIC)
    choice = compile_choice(spec)
    kept = freeze(rows, "s").keep(PUBLIC.c)
    law = choice_law(choice, EPS_ONE)
    chosen = choose(choice, law, kept, NoNoise())
    minutes = sorted(
        fixed(row.minutes, 0, 600, 1)
        for row in first_studies(rows, PUBLIC.c)
        if row.minutes is not None
    )
    for index, q in zip(chosen, spec.probabilities, strict=True):
        value, target = choice.values[index], q * len(minutes)
        assert sum(m < value for m in minutes) <= target <= sum(m <= value for m in minutes)


def test_the_quantile_of_a_tied_column_is_the_tie():
    rows = [
        StudyRow(patient=f"p{n}", arrival=n, minutes=37.0 if n % 10 else 99.0) for n in range(200)
    ]
    choice = compile_choice(spec_of("turnaround-quantiles", PUBLIC))
    chosen = choose(choice, choice_law(choice, EPS_ONE), freeze(rows, "s").keep(3), NoNoise())
    assert [choice.values[index] for index in chosen[:3]] == [37, 37, 37]


def test_sums_do_not_wrap():
    number = Number(field="minutes", lower=0, upper=2 * 10**6, grid=1)
    spec = StatSpec(name="v", kind=Kind.VARIANCE, c=5000, number=number)
    rows = [StudyRow(patient="p", arrival=n, minutes=0.0) for n in range(5000)]
    values = compile_query([spec], truncation=False).exact(freeze(rows, "s").keep(5000))
    assert values[2] == 5000 * 10**12


# --- measuring -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", VECTORS, ids=lambda spec: f"{spec.name}-{spec.weight}")
def test_measuring_draws_once_per_cell_and_changes_nothing_else(spec):
    query, noise = compile_query([spec]), NoNoise()
    kept = freeze(heaviest(spec, 2), "s").keep(PUBLIC.c)
    for law in (gaussian_law(query, EPS_ONE), laplace_law(query, EPS_ONE)):
        noise.calls.clear()
        assert measure(query, law, kept, noise) == query.exact(kept)
        assert len(noise.calls) == len(query.cells)
        assert law.cost <= EPS_ONE
        assert law.variance > 0 < law.half_width(0.05)


def test_laws_spend_what_was_asked_and_hardly_less():
    query = compile_query([spec_of("volume", PUBLIC)], truncation=False)
    assert laplace_law(query, 500_000_000_000) == LaplaceLaw(l1=3, epsilon=Fraction(1))
    assert laplace_law(query, 500_000_000_000).variance == pytest.approx(2 * 9, rel=0.02)
    choice = compile_choice(spec_of("turnaround-quantiles", PUBLIC))
    law = choice_law(choice, EPS_ONE)
    assert 0.999 * EPS_ONE < law.cost <= EPS_ONE
    assert law == ChoiceLaw(draws=4, epsilon=law.epsilon)


def test_a_law_or_a_bounding_of_another_query_is_refused():
    query = compile_query([spec_of("volume", PUBLIC)])
    kept, noise = freeze([], "s").keep(PUBLIC.c), NoNoise()
    for law in (GaussianLaw(l2sq=99, units=5), LaplaceLaw(l1=99, epsilon=Fraction(1))):
        with pytest.raises(InvalidInputError, match="another sensitivity"):
            measure(query, law, kept, noise)
    with pytest.raises(InvalidInputError, match="bounded by c = 2"):
        query.exact(freeze([], "s").keep(2))
    choice = compile_choice(spec_of("score-quantiles", PUBLIC))
    with pytest.raises(InvalidInputError, match="another number"):
        choose(choice, ChoiceLaw(draws=1, epsilon=Fraction(1)), kept, noise)
    with pytest.raises(InvalidInputError, match="bounded by c = 2"):
        choice.utilities(freeze([], "s").keep(2))
    assert noise.calls == []


def test_a_price_too_small_for_an_epsilon_buys_nothing():
    with pytest.raises(InvalidInputError, match="buys no answer"):
        choice_law(compile_choice(spec_of("score-quantiles", PUBLIC)), 3)


@pytest.mark.parametrize("units", [0, -1, 1.0, True])
def test_a_price_that_is_none_is_refused(units):
    query = compile_query([spec_of("volume", PUBLIC)])
    choice = compile_choice(spec_of("score-quantiles", PUBLIC))
    for call in (
        lambda: gaussian_law(query, units),
        lambda: laplace_law(query, units),
        lambda: choice_law(choice, units),
    ):
        with pytest.raises(InvalidInputError):
            call()


# --- rows ----------------------------------------------------------------------------------------


@given(rows=ROWS)
def test_any_row_can_be_frozen_and_a_patient_keeps_at_most_c(rows):
    snapshot = freeze(rows, "night")
    kept = snapshot.keep(2)
    assert isinstance(snapshot, Snapshot)
    assert kept.studies_of.max(initial=0) <= 2
    assert kept.hits == sum(count >= 2 for count in Counter(map(name_of, rows)).values())
    assert set(snapshot.patients) == {name_of(row) for row in rows}
    assert repr(kept).count("patient") == 0


@given(rows=PLAIN_ROWS, cut=st.integers(0, 20))
def test_an_epoch_of_nights_keeps_what_one_night_would(rows, cut):
    rows = sorted(rows, key=lambda row: row.arrival)
    first = freeze(rows[:cut], "one").keep(PUBLIC.c)
    second = freeze(rows[cut:], "two").keep(PUBLIC.c, first.used)
    whole = freeze(rows, "both").keep(PUBLIC.c)
    assert first.hits + second.hits == whole.hits
    for query in QUERIES[:3]:
        if query.weight is Weight.STUDY:
            parts = zip(query.exact(first), query.exact(second), strict=True)
            assert tuple(a + b for a, b in parts) == query.exact(whole)
    assert {**first.used, **second.used} == whole.used


def test_values_of_other_types_have_public_meanings():
    odd = [math.nan, math.inf, True, "0.5", 10**400, [1]]
    rows = [StudyRow(patient=f"p{n}", score=value) for n, value in enumerate(odd)]
    rows += [StudyRow(patient="none", score=None), StudyRow(patient="np", score=np.float64(0.5))]
    values = exact("score-mean", rows)
    assert values["score: studies with one"] == 7  # all but None
    assert values["score - middle"] == 0  # the middle each
    graded = [StudyRow(patient="a", grade=2), StudyRow(patient="a", grade=4)]
    graded += [StudyRow(patient="b", grade=True), StudyRow(patient="c", grade=9)]
    assert freeze(graded, "s").grades.tolist() == [4, 5, 5]


def test_the_first_studies_count_whatever_their_values():
    rows = [StudyRow(patient="a", arrival=n, decision="present" if n < 2 else "") for n in range(9)]
    assert exact("prevalence", rows[::-1])["positives"] == 2


@pytest.mark.parametrize("c", [0, -1, 1.0, True, 10_001])
def test_a_bound_that_is_none_is_refused(c):
    with pytest.raises(InvalidInputError):
        freeze([], "s").keep(c)
    with pytest.raises(InvalidInputError):
        StatSpec(name="v", kind=Kind.COUNT, c=c)


# --- what cannot be asked ------------------------------------------------------------------------

SCORE = Number(field="score", lower=0, upper=1, grid=100)
SEX = KeySet(field="sex", keys=("female", "other"))


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": Kind.MEAN},  # no bounds
        {"kind": Kind.COUNT, "number": SCORE},
        {"kind": Kind.BRIER, "number": Number(field="minutes", lower=0, upper=2, grid=1)},
        {"kind": Kind.BINS, "number": SCORE},
        {"kind": Kind.BINS, "number": SCORE, "bins": 7},
        {"kind": Kind.BINS, "number": SCORE, "bins": True},
        {"kind": Kind.MEAN, "number": SCORE, "bins": 10},
        {"kind": Kind.MEAN, "number": Number(field="score", lower=0, upper=1, grid=3)},
        {"kind": Kind.VARIANCE, "number": Number(field="score", lower=0, upper=1, grid=2**30)},
        {"kind": Kind.QUANTILE, "number": Number(field="score", lower=0, upper=1, grid=10**6)},
        {"kind": Kind.QUANTILE, "number": SCORE},
        {"kind": Kind.QUANTILE, "number": SCORE, "probabilities": (Fraction(1),)},
        {"kind": Kind.QUANTILE, "number": SCORE, "probabilities": (0.5,)},
        {"kind": Kind.QUANTILE, "number": SCORE, "probabilities": (Fraction(1, 10**9),)},
        {"kind": Kind.COUNT, "by": (SEX,)},
        {"kind": Kind.KEYS},
        {"kind": Kind.KEYS, "by": (SEX, SEX)},
        {"kind": Kind.FINDINGS},
        {"kind": Kind.COUNT, "findings": ("x",)},
        {"kind": Kind.FINDINGS, "findings": ("x", "x")},
        {"kind": Kind.FINDINGS, "findings": ("x",), "l2_cells": 2},
        {"kind": Kind.FINDINGS, "findings": ("x",), "l2_cells": 0},
        {"kind": Kind.FINDINGS, "findings": ("x",), "l2_cells": 1.0},
        {"kind": Kind.MEAN, "number": SCORE, "weight": Weight.ONCE},
        {"kind": Kind.BOUND_HITS, "weight": Weight.PATIENT},
    ],
)
def test_a_statistic_that_cannot_be_does_not_exist(fields):
    with pytest.raises(InvalidInputError):
        StatSpec(name="s", c=3, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"field": "age", "lower": 0, "upper": 1, "grid": 1},
        {"field": "score", "lower": 0, "upper": None, "grid": 1},
        {"field": "score", "lower": 0.0, "upper": 1, "grid": 1},
        {"field": "score", "lower": 1, "upper": 1, "grid": 1},
        {"field": "score", "lower": 0, "upper": 1, "grid": 0},
        {"field": "score", "lower": 0, "upper": 2**31, "grid": 2},
    ],
)
def test_a_range_without_public_bounds_does_not_exist(fields):
    with pytest.raises(InvalidInputError):
        Number(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"field": "name", "keys": ("other",)},
        {"field": "sex", "keys": ()},
        {"field": "sex", "keys": ("female",)},
        {"field": "sex", "keys": ("a", "a", "other")},
        {"field": "sex", "keys": ("", "other")},
        {"field": "sex", "keys": (1, "other")},
    ],
)
def test_keys_are_distinct_words_and_end_with_other(fields):
    with pytest.raises(InvalidInputError):
        KeySet(**fields)


def test_what_cannot_be_summed_together_is_refused():
    quantile = spec_of("score-quantiles", PUBLIC)
    other_c = StatSpec(name="volume", kind=Kind.COUNT, c=4)
    coarse = StatSpec(name="m", kind=Kind.MEAN, c=3, number=SCORE)
    for specs in (
        [],
        [quantile],
        [spec_of("volume", PUBLIC), other_c],
        [coarse, spec_of("score-mean", PUBLIC)],  # one cell name, two grids
    ):
        with pytest.raises(InvalidInputError):
            compile_query(specs)
    for spec in (other_c,):
        with pytest.raises(InvalidInputError):
            compile_choice(spec)


def test_a_name_outside_the_catalogue_is_refused():
    with pytest.raises(UnknownStatisticError):
        spec_of("select * from patients", PUBLIC)
    with pytest.raises(TypeError):
        Public(c=3)  # a bound that is missing


def test_the_bound_hits_are_the_truncation_cell_alone():
    query = compile_query([spec_of("bound-hits", PUBLIC)], truncation=False)
    assert query.cells == (BOUND_HITS,)
    assert (query.l1, query.l2sq) == (1, 1)
    assert parts_of(spec_of("bound-hits", PUBLIC)) == ()
    assert len(CATALOGUE) >= 20
