"""L1, L2: what outputs betray, measured; and that there is no more noise than was paid for.

Audits run on fresh system randomness. A fault is called at a chance of one in a million per test,
so a red run means a fault. Each audit is shown to catch mechanisms that are known to be bad.
"""

import math
import os
import warnings
from fractions import Fraction

import pytest

from bedside_core.noise import discrete_gaussian, discrete_laplace
from bedside_core.statistics.catalogue import spec_of
from bedside_core.statistics.measure import gaussian_law, laplace_law, measure
from bedside_core.statistics.query import compile_query
from bedside_core.statistics.rows import StudyRow, freeze
from bedside_core.statistics.running import running
from bedside_edge.system.noise_diffprivlib import SystemNoise
from support import leaky_tools
from support.audit import SOFT, epsilon_bound, mu_bound
from support.exact_law import gaussian_law as gaussian_shares
from support.exact_law import laplace_law as laplace_shares
from support.exact_law import misfit
from support.statistics import PUBLIC

UNITS = 24_355_000_000
HALF_RHO = 500_000_000_000  # Laplace: epsilon 1
NOISE = SystemNoise()
ONE_IN_A_MILLION = 4.75


def outputs(run, count=10_000):
    return [run() for _ in range(count)]


def check(bound, promised, one, other, estimator):
    """Fail on a hard fault, warn on a soft one."""
    assert bound <= promised
    if estimator(one, other, SOFT) > promised:
        warnings.warn("an audit is above what was promised at 1e-3; run it again", stacklevel=2)


def release(count, law_of):
    """The whole path for a patient's `count` studies beside 30 others."""
    rows = [StudyRow(patient=f"p{n}", arrival=n) for n in range(30)]
    rows += [StudyRow(patient="target", arrival=99 + n) for n in range(count)]
    query = compile_query([spec_of("volume", PUBLIC)], truncation=False)
    kept = freeze(rows, "s").keep(PUBLIC.c)
    law = law_of(query)
    return lambda: measure(query, law, kept, NOISE)[0]


@pytest.mark.filterwarnings("default")
def test_a_whole_laplace_release_stays_within_its_epsilon_and_the_audit_sees_most_of_it():
    law = lambda query: laplace_law(query, HALF_RHO)  # noqa: E731
    one, other = outputs(release(0, law)), outputs(release(20, law))
    bound = epsilon_bound(one, other)
    check(bound, 1.0, one, other, epsilon_bound)
    assert bound > 0.6  # about .8 is seen; the audit is not blind


@pytest.mark.filterwarnings("default")
def test_a_whole_gaussian_release_stays_within_its_mu():
    law = lambda query: gaussian_law(query, HALF_RHO)  # noqa: E731
    one, other = outputs(release(0, law)), outputs(release(20, law))
    mu = 1.0  # sqrt(2 rho)
    bound = mu_bound(one, other)
    check(bound, mu, one, other, mu_bound)
    assert bound > 0.6  # about .82 is seen; seven standard deviations of the audit below it


def test_a_choice_stays_within_its_epsilon():
    near = [-abs(2 * x - 20) for x in range(40)]
    far = [-abs(2 * x - 21) for x in range(40)]
    run = lambda utilities: NOISE.choose(utilities, sensitivity=1, epsilon=Fraction(1))  # noqa: E731
    assert epsilon_bound(outputs(lambda: run(near)), outputs(lambda: run(far))) <= 1


def test_a_response_stays_within_its_epsilon_and_is_seen():
    said = lambda truth: NOISE.respond(truth, choices=2, epsilon=Fraction(1))  # noqa: E731
    bound = epsilon_bound(outputs(lambda: said(0)), outputs(lambda: said(1)))
    assert 0.6 < bound <= 1


# --- known-bad mechanisms ------------------------------------------------------------------------

tools = leaky_tools.tools


def test_noise_that_is_a_third_too_small_is_caught():
    small = lambda value: value + discrete_laplace(3, 2 * PUBLIC.c, os.urandom)  # noqa: E731
    one, other = outputs(lambda: small(0)), outputs(lambda: small(PUBLIC.c))
    assert epsilon_bound(one, other) > 1


def test_a_bound_that_is_forgotten_is_caught():
    query = compile_query([spec_of("volume", PUBLIC)], truncation=False)
    law = laplace_law(query, HALF_RHO)
    leak = lambda value: NOISE.laplace(value, l1=law.l1, epsilon=law.epsilon)  # noqa: E731
    assert epsilon_bound(outputs(lambda: leak(0), 4000), outputs(lambda: leak(20), 4000)) > 1


def test_gaussian_noise_that_is_half_is_caught():
    one = outputs(lambda: discrete_gaussian(46, os.urandom), 20_000)
    other = outputs(lambda: 3 + discrete_gaussian(46, os.urandom), 20_000)
    assert mu_bound(one, other) > 3 / math.sqrt(184)


BAD = {
    "3 count_nonzero": (tools.count_nonzero, [1] * 10, [1] * 11, {}),
    "3 sum": (tools.sum, [1.0] * 10, [1.0] * 11, {"bounds": (0.0, 1.0)}),
    "5 NaN": (tools.mean, [0.5] * 10, [0.5] * 9 + [math.nan], {"bounds": (0.0, 1.0)}),
    "2 nanmean": (
        tools.nanmean,
        [math.nan] * 99 + [0.0],
        [math.nan] * 99 + [1.0],
        {"bounds": (0.0, 1.0)},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_tool_of_the_library_that_leaks_is_caught(name):
    tool, one, other, named = BAD[name]

    def run(values):
        return float(leaky_tools.quiet(tool, values, epsilon=1.0, **named))

    assert epsilon_bound(outputs(lambda: run(one), 1500), outputs(lambda: run(other), 1500)) > 1


def test_a_tool_that_is_right_passes():
    def run(values):
        return float(leaky_tools.quiet(tools.mean, values, epsilon=1.0, bounds=(0.0, 1.0)))

    one, other = [0.5] * 10, [0.5] * 9 + [1.0]
    assert epsilon_bound(outputs(lambda: run(one), 1500), outputs(lambda: run(other), 1500)) <= 1


def test_6_low_bits_of_float_noise_betray_the_value():
    laplace = leaky_tools.mechanisms.Laplace(epsilon=1.0, sensitivity=1.0)

    def off_grid(value):
        """1 for an output near zero that is no multiple of 2^-53: only 0 can give it."""
        out = laplace.randomise(value)
        return float(abs(out) < 1 and out * 2.0**53 != math.floor(out * 2.0**53))

    zero, one = outputs(lambda: off_grid(0.0)), outputs(lambda: off_grid(1.0))
    assert epsilon_bound(zero, one) > 3
    ours = lambda v: float(NOISE.laplace(v, l1=1, epsilon=Fraction(1)) % 1)  # noqa: E731
    assert epsilon_bound(outputs(lambda: ours(0), 3000), outputs(lambda: ours(1), 3000)) == 0


# --- no more noise than was paid for -------------------------------------------------------------


@pytest.mark.parametrize("name", ["volume", "prevalence", "device-counts", "score-mean"])
def test_the_error_of_a_release_is_that_of_the_theory(name):
    query = compile_query([spec_of(name, PUBLIC)])
    law, kept = gaussian_law(query, UNITS), freeze([], "s").keep(PUBLIC.c)
    draws = -(-20_000 // len(query.cells))
    values = [v for _ in range(draws) for v in measure(query, law, kept, NOISE)]
    rms = math.sqrt(sum(v * v for v in values) / len(values))
    assert rms == pytest.approx(math.sqrt(law.variance), rel=0.05)


def test_a_year_of_running_totals_has_the_error_of_the_page():
    year = running(compile_query([spec_of("volume", PUBLIC)], truncation=False), 365)
    total, runs = 0.0, 40
    for _ in range(runs):
        noise = [[NOISE.gaussian(0, l2sq=year.l2sq, rho_units=UNITS)] for _ in range(365)]
        errors = [year.totals(noise[: night + 1])[0] for night in range(4, 365, 20)]
        total += sum(error * error for error in errors) / len(errors)
    assert 29 < math.sqrt(total / runs) < 47  # theory 37.8; an rms of 40 runs varies by 1.3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_two_hundred_thousand_draws_have_their_law_and_betray_no_more_than_it(kind):
    count = 200_000
    if kind == "gaussian":
        draw = lambda value: NOISE.gaussian(value, l2sq=9, rho_units=9 * 10**12 // 72)  # noqa: E731
        shares, spread = gaussian_shares(36, 100), 6.0
    else:
        draw = lambda value: NOISE.laplace(value, l1=3, epsilon=Fraction(1))  # noqa: E731
        shares = laplace_shares(1, 3, 200)
        spread = math.sqrt(sum(x * x * p for x, p in shares.items()))
    zero = outputs(lambda: draw(0), count)
    three = outputs(lambda: draw(3), count)
    assert misfit(zero, shares) < ONE_IN_A_MILLION
    assert math.sqrt(sum(x * x for x in zero) / count) == pytest.approx(spread, rel=0.01)
    if kind == "laplace":
        assert 0.9 < epsilon_bound(zero, three) <= 1
    else:
        assert 0.85 * 0.5 < mu_bound(zero, three) <= 0.5


@pytest.mark.slow
def test_200_years_of_running_totals_have_the_error_of_the_page():
    year = running(compile_query([spec_of("volume", PUBLIC)], truncation=False), 365)
    squares = []
    for _ in range(200):
        noise = [[NOISE.gaussian(0, l2sq=year.l2sq, rho_units=UNITS)] for _ in range(365)]
        squares += [year.totals(noise[: night + 1])[0] ** 2 for night in range(365)]
    assert 35.3 < math.sqrt(sum(squares) / len(squares)) < 40.3


@pytest.mark.slow
def test_noise_that_is_a_tenth_too_small_is_caught_by_the_long_audit():
    small = lambda value: value + discrete_laplace(115, 300, os.urandom)  # noqa: E731
    one, other = outputs(lambda: small(0), 200_000), outputs(lambda: small(3), 200_000)
    assert epsilon_bound(one, other) > 1
