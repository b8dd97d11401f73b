"""A plan says what the page says, costs what the law costs, and touches no data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.accounting import epsilon
from bedside_core.errors import InvalidInputError
from bedside_core.planner import Schedule, curve, plan, plan_choice, units_for_width
from bedside_core.statistics.catalogue import Public, spec_of
from bedside_core.statistics.choice import compile_choice
from bedside_core.statistics.measure import choice_law, gaussian_law
from bedside_core.statistics.query import compile_query
from bedside_core.statistics.running import running
from bedside_core.statistics.spec import Weight
from support.statistics import PUBLIC, QUANTILES, VECTORS

EPS_ONE = 24_355_000_000
ONE_FINDING = Public(
    c=3, devices=("a",), age_bands=("b",), findings=("x", "y"), minutes=600, bins=20, l2_cells=1
)
TWELVE = compile_query(
    [
        spec_of(name, ONE_FINDING)
        for name in (
            "prevalence", "device-counts", "sex-counts", "age-counts", "group-counts",
            "score-histogram", "confusion", "fairness-by-sex", "fairness-by-age", "auc",
            "finding-counts",
        )
    ],
    truncation=False,
)  # fmt: skip
VOLUME = compile_query([spec_of("volume", PUBLIC)], truncation=False)


def test_twelve_statistics_a_night_at_one_hundred_studies_are_the_page_s_warning():
    assert TWELVE.l2sq == 3**2 * 12
    one = plan(TWELVE, EPS_ONE, 100, Schedule.NIGHTLY, 365)
    assert "47 % error at 100 studies a night; weekly gives 18 %" in one.warnings
    assert one.weekly_release == pytest.approx(one.relative / 7)
    assert one.lines[0].deviation == pytest.approx(47.1, abs=0.05)


@pytest.mark.parametrize(("eps", "units", "deviation"), [
    (1, EPS_ONE, 30.4), (2, 88_152_000_000, 16.0), (4, 311_060_000_000, 8.5),
    (8, 1_052_350_000_000, 4.6),
])  # fmt: skip
def test_five_cells_have_the_noise_of_the_page(eps, units, deviation):
    names = ("prevalence", "device-counts", "score-histogram", "confusion")
    query = compile_query([spec_of(name, PUBLIC) for name in names], truncation=False)
    one = plan(query, units, 100, Schedule.NIGHTLY, 365)
    assert one.lines[0].deviation == pytest.approx(deviation, abs=0.1)  # sigma2 is whole
    assert one.epsilon <= eps


@given(units=st.integers(10**6, 10**13), index=st.integers(0, len(VECTORS) - 1))
def test_a_plan_costs_what_the_law_is_charged(units, index):
    query = compile_query([VECTORS[index]])
    one = plan(query, units, 1000)
    assert one.cost == gaussian_law(query, units).cost <= units
    assert one.epsilon == epsilon(one.cost, 1e-6)
    assert [line.cell for line in one.lines] == list(query.cells)
    if query.weight is Weight.STUDY:
        epoch = running(query, 30)
        later = plan(query, units, 1000, Schedule.RUNNING, 30)
        assert later.cost == epoch.cost(epoch.sigma2(units)) <= units


@given(units=st.integers(10**6, 10**12), index=st.integers(0, len(QUANTILES) - 1))
def test_a_quantile_s_plan_costs_what_its_law_is_charged(units, index):
    choice = compile_choice(QUANTILES[index])
    one = plan_choice(choice, units, 1000)
    assert one.cost == choice_law(choice, units).cost <= units
    assert one.rank_error > 0


def test_a_year_s_running_total_has_the_error_of_the_page():
    one = plan(VOLUME, EPS_ONE, 100, Schedule.RUNNING, 365)
    assert one.lines[0].deviation == pytest.approx(40.0, abs=0.1)
    assert one.relative == pytest.approx(40.0 / 36_500, rel=0.01)
    assert any("early totals" in text for text in one.warnings)


def test_useless_numbers_are_called_so_before_budget_is_spent():
    assert plan(VOLUME, EPS_ONE, 10_000).warnings == ()
    few = plan(VOLUME, EPS_ONE, 20).warnings
    assert any("longer window" in text for text in few)
    assert any("greyed" in text for text in few)
    choice = compile_choice(spec_of("turnaround-quantiles", PUBLIC))
    assert plan_choice(choice, EPS_ONE, 10**6).warnings == ()
    assert plan_choice(choice, EPS_ONE, 10).warnings


def test_sums_have_no_relative_error_and_a_vector_of_sums_its_first_unit():
    one = plan(compile_query([spec_of("score-mean", PUBLIC)]), EPS_ONE, 1000)
    by_cell = {line.cell: line for line in one.lines}
    assert by_cell["score - middle"].relative is None
    assert by_cell["score: studies with one"].relative == one.relative


def test_a_wanted_width_gives_the_least_price():
    units = units_for_width(VOLUME, "studies", 30.0)
    assert gaussian_law(VOLUME, units).half_width(0.05) <= 30
    assert gaussian_law(VOLUME, units - 1).half_width(0.05) > 30
    for cell, width in (("x", 1.0), ("studies", 0.0), ("studies", float("nan")),
                        ("studies", "3"), ("studies", 0.5), ("studies", True)):  # fmt: skip
        with pytest.raises(InvalidInputError):
            units_for_width(VOLUME, cell, width)
    fine = compile_query([spec_of("score-mean", PUBLIC)])
    with pytest.raises(InvalidInputError, match="no noise"):
        units_for_width(fine, "score - middle", 0.0002)


def test_more_budget_buys_less_error():
    points = curve(VOLUME, [0.1, 1.0, 8.0], 1000)
    assert [epsilon for epsilon, _ in points] == [0.1, 1.0, 8.0]
    errors = [error for _, error in points]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    ("size", "schedule", "nights"),
    [(0, Schedule.ONE_OFF, 1), (1.0, Schedule.ONE_OFF, 1), (5, Schedule.ONE_OFF, 2),
     (5, Schedule.NIGHTLY, 0), (10**10, Schedule.NIGHTLY, 3)],
)  # fmt: skip
def test_a_plan_of_nothing_is_refused(size, schedule, nights):
    with pytest.raises(InvalidInputError):
        plan(VOLUME, EPS_ONE, size, schedule, nights)
