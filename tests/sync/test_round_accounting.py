"""A round's noise and price are dp-accounting's: sigma for an epsilon, epsilon for a sigma."""

import math
from fractions import Fraction

import pytest

from bedside_sync.hub.plan import DELTA, round_epsilon
from bedside_sync.secagg.manifest import local_sigma2
from support.consortium import Consortium, Round

ORDERS = [1 + step / 20 for step in range(1, 400)] + list(range(21, 513))


@pytest.fixture(scope="module")
def plain():
    return Round(Consortium()).manifest


def planned(plain, z, sensitivity2, honest):
    sigma2 = max(25, local_sigma2(Fraction(z), sensitivity2, honest, 0))
    changes = {"sensitivity2": sensitivity2, "sigma2": sigma2, "least_boxes": honest}
    return plain.model_copy(update=changes)


def theirs(multiplier):
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(ORDERS)
    accountant.compose(dp_accounting.GaussianDpEvent(multiplier))
    return accountant.get_epsilon(DELTA)


CASES = [("1/2", 64**2, 4), ("1", 29_409**2, 5), ("2", 29_409**2, 5), ("8", 64**2, 60)]


@pytest.mark.parametrize(("z", "sensitivity2", "honest"), CASES)
def test_a_round_s_epsilon_is_that_of_the_central_mechanism_with_its_sigma(
    plain, z, sensitivity2, honest
):
    manifest = planned(plain, z, sensitivity2, honest)
    sigma = math.sqrt(honest * manifest.sigma2)
    assert sigma / math.sqrt(sensitivity2) == pytest.approx(float(Fraction(z)), rel=1e-3)
    wanted = theirs(sigma / math.sqrt(sensitivity2))
    assert round_epsilon(manifest) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("z", ["2"])
def test_the_sigma_dp_accounting_wants_for_an_epsilon_is_the_planned_one(plain, z):
    manifest = planned(plain, z, 29_409**2, 5)
    wanted, low, high = round_epsilon(manifest), 0.1, 100.0
    for _ in range(22):  # epsilon falls as sigma grows
        middle = (low + high) / 2
        low, high = (middle, high) if theirs(middle) > wanted else (low, middle)
    assert high == pytest.approx(math.sqrt(5 * manifest.sigma2) / 29_409, rel=1e-3)
