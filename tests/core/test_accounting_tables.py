"""The tables of schedules: total epsilon of many releases, noise of a count under a total.

Ours is the zCDP column; the other columns are recomputed by dp-accounting and by their formulas, so
that what the page compares with is what those give.
"""

import math
from fractions import Fraction

import pytest

from bedside_core.accounting import (
    cap_units,
    compose,
    epsilon,
    gaussian_cost,
    gaussian_sigma2,
    laplace_cost,
)

dp = pytest.importorskip("dp_accounting", reason="dp-accounting is in the lock; install it")
from dp_accounting.mechanism_calibration import calibrate_dp_mechanism  # noqa: E402
from dp_accounting.pld import PLDAccountant  # noqa: E402
from dp_accounting.pld.privacy_loss_distribution import from_discrete_laplace_mechanism  # noqa: E402
from dp_accounting.rdp import RdpAccountant  # noqa: E402

DELTA = 1e-6
EPS_ONE = 24_355_000_000
ORDERS = [1 + step / 10 for step in range(1, 200)]
ORDERS += [*range(21, 256), 300, 400, 512, 1024, 2048, 4096]

# k, eps0: basic, diffprivlib slack 1e-6, zCDP, RDP, PLD Laplace, PLD discrete
PURE = {
    (12, "0.1"): (1.20, 1.20, 1.624, 1.196, 1.196, 1.197),
    (360, "0.01"): (3.60, 0.953, 0.851, 0.845, 0.784, 0.784),
    (360, "0.05"): (18.0, 5.427, 4.920, 4.838, 4.533, 4.538),
    (360, "0.1"): (36.0, 11.772, 10.975, 10.660, 10.041, 10.063),
    (4380, "0.01"): (43.8, 3.645, 3.292, 3.284, 3.066, 3.074),
    (4380, "0.05"): (219.0, 22.868, 21.772, 21.529, 20.351, 20.410),
}
TOLERANCE = 1.1e-3  # the page rounds to three decimals


def advanced(k, eps):
    """What diffprivlib's accountant says at slack 1e-6, its least bound."""
    slack = DELTA
    basic = k * eps
    drv = k * eps * math.expm1(eps) / (math.exp(eps) + 1)
    root = k * eps**2
    kov = drv + math.sqrt(2 * root * math.log(math.e + math.sqrt(root) / slack))
    other = drv + math.sqrt(2 * root * math.log(1 / slack))
    return min(basic, kov, other)


@pytest.mark.parametrize(("k", "eps"), PURE)
def test_table_3a_of_pure_releases(k, eps):
    basic, library, zcdp, rdp, pld, discrete = PURE[k, eps]
    one = float(eps)
    assert k * one == pytest.approx(basic)
    assert advanced(k, one) == pytest.approx(library, rel=TOLERANCE)
    assert epsilon(compose([laplace_cost(Fraction(eps))] * k), DELTA) == pytest.approx(
        zcdp, rel=TOLERANCE
    )
    by_rdp = RdpAccountant(ORDERS)
    by_rdp.compose(dp.LaplaceDpEvent(1 / one), k)
    assert by_rdp.get_epsilon(DELTA) == pytest.approx(rdp, rel=TOLERANCE)
    grid = 1e-4 if k <= 1000 else 1e-3
    by_pld = PLDAccountant(value_discretization_interval=grid)
    by_pld.compose(dp.LaplaceDpEvent(1 / one), k)
    assert by_pld.get_epsilon(DELTA) == pytest.approx(pld, rel=TOLERANCE)
    law = from_discrete_laplace_mechanism(
        one / 3, sensitivity=3, value_discretization_interval=grid
    )
    whole = law.self_compose(k).get_epsilon_for_delta(DELTA)
    assert whole == pytest.approx(discrete, rel=2e-3)


@pytest.mark.parametrize(
    ("k", "zcdp", "exact"), [(360, 1.784, 1.660), (4380, 7.159, 6.712)], ids=["360", "4380"]
)
def test_table_3a_of_gaussian_releases(k, zcdp, exact):
    sigma = dp.get_sigma_gaussian(0.1, 1e-9)
    ours = epsilon(compose([gaussian_cost(10**10, round(sigma**2 * 10**10))] * k), DELTA)
    assert ours == pytest.approx(zcdp, rel=TOLERANCE)
    assert dp.get_epsilon_gaussian(sigma / math.sqrt(k), DELTA) == pytest.approx(
        exact, rel=TOLERANCE
    )


@pytest.mark.parametrize(
    ("cells", "classic", "tight", "exact"),
    [(12, 55.6, 47.1, 43.9), (30 * 12, 305, 258, 241), (365 * 12, 1062, 900, 839),
     (5, None, 30.4, 28.3)],
)  # fmt: skip
def test_table_3b_noise_of_a_count_under_a_total(cells, classic, tight, exact):
    l2sq = 9 * cells
    assert math.sqrt(gaussian_sigma2(l2sq, EPS_ONE)) == pytest.approx(tight, rel=3e-3)
    if classic:
        rho = (math.sqrt(1 + math.log(1e6)) - math.sqrt(math.log(1e6))) ** 2
        assert math.sqrt(l2sq / (2 * rho)) == pytest.approx(classic, rel=3e-3)
    best = dp.get_sigma_gaussian(1.0, DELTA) * math.sqrt(l2sq)
    assert best == pytest.approx(exact, rel=3e-3)
    assert best < math.sqrt(gaussian_sigma2(l2sq, EPS_ONE))


def test_table_3b_of_laplace_noise_over_nights():
    """30 nights of 12 counts: PLD calibration, as the page has it."""
    found = calibrate_dp_mechanism(
        lambda: PLDAccountant(value_discretization_interval=1e-3),
        lambda scale: dp.SelfComposedDpEvent(dp.LaplaceDpEvent(scale), 360),
        1.0,
        DELTA,
    )
    assert found * 3 * math.sqrt(2) == pytest.approx(338, rel=0.02)


@pytest.mark.parametrize(("cells", "error"), [(1, 37.81), (12, 130.97)])
def test_table_3c_running_totals_through_the_gate(cells, error):
    """The page's 35 and 122 are at exact-Gaussian calibration; the gate costs 1.072 of it."""
    squares = 49_395_360
    sigma2 = gaussian_sigma2(9 * cells * squares, EPS_ONE)
    exact = dp.get_sigma_gaussian(1.0, DELTA) ** 2 * 9 * cells * squares
    assert math.sqrt(sigma2 / exact) == pytest.approx(1.072, abs=1e-3)
    assert error / math.sqrt(sigma2 / exact) == pytest.approx(35.26 * math.sqrt(cells), rel=1e-3)


def test_the_caps_are_at_most_their_epsilon_and_the_next_thousand_units_are_not():
    for target in (0.1, 0.5, 1.0, 2.0, 4.0, 8.0):
        cap = cap_units(target, DELTA)
        event = dp.ZCDpEvent(cap / 1e12)
        accountant = RdpAccountant([1 + 10 ** (x / 200) for x in range(-800, 1000)])
        accountant.compose(event)
        assert accountant.get_epsilon(DELTA) == pytest.approx(target, rel=1e-3)
