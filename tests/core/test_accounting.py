"""Costs round up, the filter never passes its cap, epsilon and intervals err to the safe side."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.accounting import (
    MAX_UNITS,
    UNITS_PER_RHO,
    Budget,
    cap_units,
    charge_all,
    compose,
    compose_disjoint,
    epsilon,
    exponential_cost,
    gaussian_cost,
    gaussian_half_width,
    gaussian_sigma2,
    gaussian_sum_half_width,
    gaussian_tail,
    laplace_cost,
    laplace_half_width,
    laplace_tail,
)
from bedside_core.errors import BudgetExhaustedError, InvalidInputError
from support.exact_law import gaussian_law

SQUARES = st.integers(1, 10**20)
UNITS = st.integers(1, 10**15)
EPSILONS = st.fractions(Fraction(1, 10**9), 100)
DELTAS = st.floats(1e-30, 0.5)

# --- costs ---------------------------------------------------------------------------------------


@given(l2sq=SQUARES, sigma2=SQUARES)
def test_a_gaussian_cost_is_its_rho_rounded_up(l2sq, sigma2):
    exact = Fraction(l2sq, 2 * sigma2) * UNITS_PER_RHO
    assert exact <= gaussian_cost(l2sq, sigma2) < exact + 1


@given(l2sq=SQUARES, units=UNITS)
def test_the_noise_for_a_rho_is_the_least_that_costs_no_more(l2sq, units):
    sigma2 = gaussian_sigma2(l2sq, units)
    assert gaussian_cost(l2sq, sigma2) <= units
    assert sigma2 == 1 or gaussian_cost(l2sq, sigma2 - 1) > units


@given(parameter=EPSILONS)
def test_pure_and_bounded_range_costs_are_their_rho_rounded_up(parameter):
    for cost, divisor in ((laplace_cost(parameter), 2), (exponential_cost(parameter), 8)):
        exact = parameter**2 * UNITS_PER_RHO / divisor
        assert exact <= cost < exact + 1


def test_noise_that_hardly_costs_anything_costs_one_unit():
    assert gaussian_cost(1, 10**40) == 1
    assert laplace_cost(Fraction(1, 10**40)) == exponential_cost(Fraction(1, 10**40)) == 1


@given(costs=st.lists(UNITS, max_size=6))
def test_costs_add_up_for_one_patient_and_do_not_for_disjoint_patients(costs):
    assert compose(costs) == sum(costs)
    assert compose_disjoint(costs) == max([0, *costs])
    assert compose_disjoint(costs) <= compose(costs)


def test_a_known_request_gives_the_known_noise_and_charge():
    assert gaussian_sigma2(45, 24_355_000_000) == 924
    assert gaussian_cost(45, 924) == 24_350_649_351
    assert gaussian_sigma2(444_558_240, 24_355_000_000) == 9_126_631_904
    assert gaussian_cost(444_558_240, 7_934_436_221) == 28_014_481_913
    assert gaussian_sigma2(46, 24_355_000_000) == 945


# --- the filter ----------------------------------------------------------------------------------


@given(cap=st.integers(0, 10**6), costs=st.lists(st.integers(1, 10**6), max_size=30))
def test_no_order_of_requests_spends_more_than_the_cap(cap, costs):
    budget, spent = Budget(cap=cap), 0
    for cost in costs:
        if spent + cost <= cap:
            budget, spent = budget.charge(cost), spent + cost
        else:
            with pytest.raises(BudgetExhaustedError) as refusal:
                budget.charge(cost)
            assert (refusal.value.asked, refusal.value.left) == (cost, cap - spent)
        assert budget.spent == spent <= cap
        assert budget.left == cap - spent


def test_the_last_unit_can_be_spent_and_not_one_more():
    budget = Budget(cap=MAX_UNITS, spent=MAX_UNITS - 1).charge(1)
    with pytest.raises(BudgetExhaustedError, match="0 are left"):
        budget.charge(1)


@given(
    rooms=st.lists(st.integers(0, 100), min_size=1, max_size=5),
    cost=st.integers(1, 100),
)
def test_a_release_is_charged_to_every_budget_or_to_none(rooms, cost):
    budgets = tuple(Budget(cap=room + 7, spent=7) for room in rooms)
    if min(rooms) >= cost:
        assert [after.spent for after in charge_all(budgets, cost)] == [7 + cost] * len(rooms)
    else:
        with pytest.raises(BudgetExhaustedError) as refusal:
            charge_all(budgets, cost)
        assert refusal.value.left == min(rooms)


@pytest.mark.parametrize("cost", [0, -1, True, 1.0, np.int64(1), math.nan])
def test_no_release_is_free_and_no_cost_is_a_float(cost):
    for call in (
        lambda: Budget(cap=9).charge(cost),
        lambda: charge_all([Budget(cap=9)], cost),
        lambda: compose([1, cost]),
        lambda: compose_disjoint([1, cost]),
    ):
        with pytest.raises(InvalidInputError):
            call()


def test_a_release_with_no_budget_to_charge_is_refused():
    with pytest.raises(InvalidInputError, match="at least one budget"):
        charge_all([], 1)


@pytest.mark.parametrize(
    "fields",
    [{"cap": 1, "spent": 2}, {"cap": -1}, {"cap": 1, "spent": -1}, {"cap": 1.0}, {"cap": 2**63}],
)
def test_a_budget_that_cannot_be_does_not_exist(fields):
    with pytest.raises(InvalidInputError):
        Budget(**fields)


# --- rho as (epsilon, delta) ---------------------------------------------------------------------


def best_bound(units, delta):
    """Corollary 13 minimised over alpha, to 40 digits."""
    with localcontext() as context:
        context.prec = 60
        rho, log_delta = Decimal(units) / UNITS_PER_RHO, -Decimal(delta).ln()
        low, high = Decimal(0), (log_delta / rho).sqrt()
        for _ in range(200):
            middle = (low + high) / 2
            if rho * middle**2 + (1 + middle).ln() < log_delta:
                low = middle
            else:
                high = middle
        x = high
        log_alpha = (1 + x).ln()
        return rho * (1 + x) + (log_delta - log_alpha) / x + x.ln() - log_alpha


@given(units=UNITS, delta=DELTAS)
def test_epsilon_is_never_below_the_best_bound_and_hardly_above_it(units, delta):
    shown, exact = Decimal(epsilon(units, delta)), best_bound(units, delta)
    if shown == 0:
        assert exact <= 0 or 2 * Decimal(delta) ** 2 >= Decimal(units) / UNITS_PER_RHO
    else:
        assert exact <= shown <= max(exact, 0) + Decimal("1e-11") * (1 + Decimal(units) / 10**12)


@given(units=UNITS, more=UNITS, delta=DELTAS)
def test_epsilon_grows_with_rho_and_falls_with_delta(units, more, delta):
    shown = epsilon(units, delta)
    assert shown <= epsilon(units + more, delta) * (1 + 1e-9) + 1e-9
    assert epsilon(units, delta * 1.5) <= shown * (1 + 1e-9) + 1e-9
    rho, log_delta = units / UNITS_PER_RHO, -math.log(delta)
    assert shown <= (rho + 2 * math.sqrt(rho * log_delta)) * (1 + 1e-9)  # the textbook's


@pytest.mark.parametrize(
    ("target", "units"),
    [
        (0.1, 321_040_000),
        (0.5, 6_641_500_000),
        (1.0, 24_355_000_000),
        (2.0, 88_152_000_000),
        (4.0, 311_060_000_000),
        (8.0, 1_052_350_000_000),
    ],
)
def test_known_caps_at_delta_one_in_a_million_stay_at_or_below_their_epsilon(target, units):
    assert epsilon(units, 1e-6) <= target
    cap = cap_units(target, 1e-6)
    assert units <= cap < units * 1.0001
    assert epsilon(cap, 1e-6) <= target < epsilon(cap + 1000, 1e-6)


@pytest.mark.parametrize(
    ("releases", "parameter", "expected"),
    [
        (12, Fraction(1, 10), 1.624),
        (360, Fraction(1, 100), 0.851),
        (360, Fraction(5, 100), 4.920),
        (360, Fraction(1, 10), 10.975),
        (4380, Fraction(1, 100), 3.292),
        (4380, Fraction(5, 100), 21.772),
    ],
)
def test_many_laplace_releases_have_the_known_total(releases, parameter, expected):
    total = compose([laplace_cost(parameter)] * releases)
    assert epsilon(total, 1e-6) == pytest.approx(expected, rel=1e-3)


def test_nothing_spent_is_epsilon_zero_and_so_is_what_delta_covers():
    assert epsilon(0, 1e-6) == 0
    delta = 2.0**-20  # 2 * delta^2 is 1.8 units of rho
    assert epsilon(1, delta) == 0 < epsilon(2, delta)
    assert cap_units(0.0, delta) == 1


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, math.nan, math.inf, 1, "1e-6"])
def test_a_delta_that_is_no_probability_is_refused(delta):
    with pytest.raises(InvalidInputError, match="delta"):
        epsilon(1, delta)


@pytest.mark.parametrize("units", [-1, 1.0, True, MAX_UNITS + 1])
def test_a_rho_that_no_ledger_holds_is_refused(units):
    with pytest.raises(InvalidInputError):
        epsilon(units, 1e-6)


@pytest.mark.parametrize("target", [-0.1, math.nan, math.inf, 1001.0, 1])
def test_an_epsilon_nobody_should_aim_at_is_refused(target):
    with pytest.raises(InvalidInputError, match="aim"):
        cap_units(target, 1e-6)


def test_the_largest_epsilon_to_aim_at_has_a_cap():
    assert epsilon(cap_units(1000.0, 0.999), 0.999) <= 1000


# --- intervals -----------------------------------------------------------------------------------


@given(numerator=st.integers(1, 50), denominator=st.integers(1, 50), reach=st.integers(0, 60))
def test_a_laplace_tail_is_never_too_small(numerator, denominator, reach):
    with localcontext() as context:
        context.prec = 50
        a = Decimal(numerator) / denominator
        exact = 2 * (-a * (reach + 1)).exp() / (1 + (-a).exp())
    shown = Decimal(laplace_tail(numerator, denominator, reach))
    assert exact <= shown <= exact * (1 + Decimal("1e-9")) + Decimal("1e-300")


@given(
    numerator=st.integers(1, 10**6),
    denominator=st.integers(1, 10**9),
    miss=st.floats(1e-9, 0.3),
)
def test_a_laplace_interval_covers_and_one_step_less_does_not(numerator, denominator, miss):
    width = laplace_half_width(numerator, denominator, miss)
    assert laplace_tail(numerator, denominator, width) <= miss * (1 + 1e-9)
    if width:
        assert laplace_tail(numerator, denominator, width - 1) > miss * (1 - 1e-9)


@pytest.mark.parametrize(
    ("numerator", "denominator", "at_95", "at_99"), [(1, 1, 3, 4), (1, 3, 9, 14), (1, 30, 90, 138)]
)
def test_known_laplace_intervals(numerator, denominator, at_95, at_99):
    assert laplace_half_width(numerator, denominator, 0.05) == at_95
    assert laplace_half_width(numerator, denominator, 0.01) == at_99


@pytest.mark.parametrize("sigma2", [1, 2, 3, 7, 36, 924, 10_000])
def test_a_gaussian_tail_is_the_sum_of_its_terms(sigma2):
    law = gaussian_law(sigma2, 14 * math.isqrt(sigma2) + 14)
    for reach in range(0, 6 * math.isqrt(sigma2) + 2, max(1, math.isqrt(sigma2) // 2)):
        exact = math.fsum(p for x, p in law.items() if abs(x) > reach)
        assert gaussian_tail(sigma2, reach) == pytest.approx(exact, rel=1e-10)


@given(sigma2=st.integers(1, 200), miss=st.floats(1e-9, 0.3))
def test_a_gaussian_interval_covers_and_is_the_narrowest_that_does(sigma2, miss):
    width = gaussian_half_width(sigma2, miss)
    law = gaussian_law(sigma2, 14 * math.isqrt(sigma2) + 14)
    outside = math.fsum(p for x, p in law.items() if abs(x) > width)
    assert outside <= miss
    if width:
        edge = math.fsum(p for x, p in law.items() if abs(x) == width)
        assert outside + edge > miss * (1 - 1e-9)


@pytest.mark.parametrize(("sigma2", "at_95", "at_99"), [(924, 60, 78), (2218, 92, 121)])
def test_known_gaussian_intervals(sigma2, at_95, at_99):
    assert gaussian_half_width(sigma2, 0.05) == at_95
    assert gaussian_half_width(sigma2, 0.01) == at_99


def test_the_bound_for_large_noise_agrees_with_the_sum_for_small():
    just_below, just_above = 10**6, 10**6 + 1
    for reach in (1000, 1959, 2576, 6000):
        summed, bounded = gaussian_tail(just_below, reach), gaussian_tail(just_above, reach)
        assert bounded == pytest.approx(summed, rel=1e-4)
    for miss in (0.3, 0.05, 1e-9):
        assert (
            0 <= gaussian_half_width(just_above, miss) - gaussian_half_width(just_below, miss) <= 1
        )


def test_an_interval_of_noise_of_any_size_is_the_bell_s():
    assert gaussian_half_width(10**40, 0.05) / 10**20 == pytest.approx(1.959963984540054, rel=1e-12)
    assert laplace_half_width(1, 10**40, 0.05) / 10**40 == pytest.approx(math.log(20), rel=1e-12)
    assert laplace_half_width(10**400, 1, 0.05) == 0
    assert gaussian_tail(10**500, 5 * 10**250) == pytest.approx(5.733e-7, rel=1e-3)


def test_a_tail_beyond_every_float_is_small_and_not_nothing():
    for tail in (
        gaussian_tail(1, 10**9),
        gaussian_tail(10**7, 10**9),
        laplace_tail(1, 1, 10**400),
        laplace_tail(10**400, 1, 3),
    ):
        assert 0 < tail < 1e-300


def test_a_tail_is_at_most_one_and_says_so_where_its_bound_does_not_hold():
    assert gaussian_tail(10**6 + 1, 0) == 1
    assert laplace_tail(1, 10**12, 0) == pytest.approx(1)
    assert laplace_tail(1, 10**12, 0) <= 1


def sum_law(sigma2s):
    """P(sum = x) of independent discrete Gaussians, by convolution of their exact laws."""
    law = {0: 1.0}
    for sigma2 in sigma2s:
        reach = 14 * (math.isqrt(sigma2) + 1)
        weights = {x: math.exp(-x * x / (2 * sigma2)) for x in range(-reach, reach + 1)}
        whole, more = math.fsum(weights.values()), {}
        for x, p in law.items():
            for y, w in weights.items():
                more[x + y] = more.get(x + y, 0.0) + p * w / whole
        law = more
    return law


@pytest.mark.parametrize(
    "sigma2s", [[1, 1], [1, 1, 1, 1, 1], [1, 50], [2, 3, 4], [9, 9, 18, 36, 144], [7]]
)
@pytest.mark.parametrize("miss", [0.3, 0.05, 1e-4])
def test_the_interval_of_a_sum_holds_against_the_convolution_of_the_exact_laws(sigma2s, miss):
    law, width = sum_law(sigma2s), gaussian_sum_half_width(sigma2s, miss)
    beyond = [math.fsum(p for x, p in law.items() if abs(x) > h) for h in (width, width - 1)]
    assert beyond[0] <= miss * (1 + 1e-12)
    assert beyond[1] > miss * (1 - 3e-4)  # and no narrower one does, up to the proof's factor


def test_the_interval_of_a_sum_of_wide_laws_is_that_of_one_law():
    for sigma2s in ([10**4, 10**6, 10**30], [4, 5], [10**12] * 5):
        alone = gaussian_half_width(sum(sigma2s), 0.05)
        assert alone <= gaussian_sum_half_width(sigma2s, 0.05) <= alone * (1 + 1e-12)
    for bad in ([], [0], [1, True], [2.0]):
        with pytest.raises(InvalidInputError):
            gaussian_sum_half_width(bad, 0.05)
    with pytest.raises(InvalidInputError):
        gaussian_sum_half_width([4, 5], 0.5)


@pytest.mark.parametrize("miss", [0.0, 0.31, 1e-10, math.nan, 1, "0.05"])
def test_a_chance_to_miss_outside_the_useful_range_is_refused(miss):
    with pytest.raises(InvalidInputError, match="miss"):
        gaussian_half_width(9, miss)
    with pytest.raises(InvalidInputError, match="miss"):
        laplace_half_width(1, 9, miss)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, np.int64(4)])
def test_a_parameter_that_is_no_positive_integer_is_refused(bad):
    for call in (
        lambda: gaussian_cost(bad, 1),
        lambda: gaussian_cost(1, bad),
        lambda: gaussian_sigma2(bad, 1),
        lambda: gaussian_sigma2(1, bad),
        lambda: gaussian_tail(bad, 1),
        lambda: gaussian_half_width(bad, 0.05),
        lambda: laplace_tail(bad, 1, 1),
        lambda: laplace_tail(1, bad, 1),
        lambda: laplace_half_width(bad, 1, 0.05),
    ):
        with pytest.raises(InvalidInputError, match="integer of at least 1"):
            call()


@pytest.mark.parametrize("bad", [Fraction(0), Fraction(-1, 3), 0.1, 1])
def test_a_pure_epsilon_that_is_no_positive_fraction_is_refused(bad):
    for cost in (laplace_cost, exponential_cost):
        with pytest.raises(InvalidInputError, match="fraction"):
            cost(bad)


@pytest.mark.parametrize("bad", [-1, 0.5, True])
def test_a_reach_below_nothing_is_refused(bad):
    with pytest.raises(InvalidInputError, match="reach"):
        gaussian_tail(4, bad)
    with pytest.raises(InvalidInputError, match="reach"):
        laplace_tail(1, 4, bad)
