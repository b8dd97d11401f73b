"""dp-accounting and OpenDP agree with our rho and epsilon to 1e-3.

dp-accounting is in the lock; OpenDP is large and an extra (`make oracles-env`), without which its
test skips. The last two compare with what the libraries answered.
"""

import math
from fractions import Fraction

import pytest

from bedside_core.accounting import UNITS_PER_RHO, compose, epsilon, gaussian_cost, laplace_cost

DELTA = 1e-6
ORDERS = [1 + step / 10 for step in range(1, 200)]
ORDERS += [*range(21, 256), 300, 400, 512, 1024, 2048, 4096]

# (squared sensitivity, sigma2, releases): epsilon by dp-accounting 0.6.0, RDP at ORDERS and exact
GAUSSIANS = {
    (45, 924, 1): (0.9998832274415813, 0.9272832614821448),
    (1, 36, 12): (2.832084025222265, 2.641143952114003),
    (444_558_240, 9_126_631_904, 1): (0.9999789416744569, 0.9273724471379586),
    (9, 2_000, 365): (6.930808746185095, 6.497199518697004),
}
# (parameter, releases): epsilon by dp-accounting 0.6.0 of the zCDP event, and of Laplace noise
PURE = {
    (Fraction(1, 10), 12): (1.623760692649038, 1.1959921130258613),
    (Fraction(1, 100), 360): (0.8507044526920813, 0.8445752633446464),
    (Fraction(5, 100), 360): (4.9200634231350335, 4.83782513448071),
}


def gaussian_epsilon(l2sq, sigma2, releases):
    return epsilon(compose([gaussian_cost(l2sq, sigma2)] * releases), DELTA)


def library(name):
    return pytest.importorskip(name, reason=f"{name} is not installed; run `make oracles-env`")


def rdp_epsilon(event, releases):
    accountant = library("dp_accounting.rdp").RdpAccountant(ORDERS)
    accountant.compose(event, releases)
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize(("l2sq", "sigma2", "releases"), GAUSSIANS)
def test_gaussian_epsilon_is_dp_accounting_s(l2sq, sigma2, releases):
    event = library("dp_accounting").GaussianDpEvent(math.sqrt(sigma2 / l2sq))
    ours = gaussian_epsilon(l2sq, sigma2, releases)
    assert ours == pytest.approx(rdp_epsilon(event, releases), rel=1e-3)


@pytest.mark.parametrize(("parameter", "releases"), PURE)
def test_zcdp_epsilon_is_dp_accounting_s(parameter, releases):
    event = library("dp_accounting").ZCDpEvent(float(parameter) ** 2 / 2)
    ours = epsilon(compose([laplace_cost(parameter)] * releases), DELTA)
    assert ours == pytest.approx(rdp_epsilon(event, releases), rel=1e-3)


@pytest.mark.parametrize(("l2sq", "sigma2"), [(45, 924), (1, 36), (9, 2_000)])
def test_rho_is_opendp_s(l2sq, sigma2):
    dp = library("opendp.prelude")
    dp.enable_features("contrib")
    vectors = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    noise = dp.m.make_gaussian(*vectors, scale=math.sqrt(sigma2))
    ours = gaussian_cost(l2sq, sigma2)
    assert ours / UNITS_PER_RHO == pytest.approx(noise.map(math.sqrt(l2sq)), rel=1e-9)


@pytest.mark.parametrize(("release", "recorded"), GAUSSIANS.items())
def test_gaussian_epsilon_is_the_recorded_one_and_above_the_exact_one(release, recorded):
    by_rdp, exact = recorded
    assert exact < gaussian_epsilon(*release) == pytest.approx(by_rdp, rel=1e-3)


@pytest.mark.parametrize(("release", "recorded"), PURE.items())
def test_zcdp_epsilon_is_the_recorded_one_and_above_what_the_noise_alone_would_give(
    release, recorded
):
    parameter, releases = release
    as_zcdp, as_laplace = recorded
    ours = epsilon(compose([laplace_cost(parameter)] * releases), DELTA)
    assert as_laplace < ours == pytest.approx(as_zcdp, rel=1e-3)
