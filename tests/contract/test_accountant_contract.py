"""Every `Accountant` gives the figures of the literature and is never above the gate's."""

from fractions import Fraction

import pytest

from bedside_core.accounting import compose, epsilon, gaussian_cost, laplace_cost
from bedside_core.statistics.strata import sampling_rate
from bedside_edge.ports.accounting import GaussianSpend, LaplaceSpend, PureSpend
from bedside_edge.system.accounting_dp import DpAccounting
from bedside_edge.system.accounting_lazy import LazyAccounting

DELTA = 1e-6


@pytest.fixture(params=[DpAccounting], ids=["dp-accounting"])
def accountant(request):
    return request.param()


@pytest.mark.parametrize(
    ("spend", "expected"),
    [
        (GaussianSpend(l2sq=45, sigma2=924), 0.92728),
        (GaussianSpend(l2sq=9, sigma2=2000, times=365), 6.4972),
        (LaplaceSpend(l1=3, epsilon=Fraction(1, 10), times=12), 1.196),
        (LaplaceSpend(l1=3, epsilon=Fraction(1, 100), times=360), 0.784),
        (PureSpend(epsilon=Fraction(1, 2)), 0.5),
        (PureSpend(epsilon=Fraction(1, 10), times=12), 1.1977),
    ],
)
def test_a_schedule_fixed_in_advance_has_the_known_epsilon(accountant, spend, expected):
    assert accountant.epsilon([spend], DELTA) == pytest.approx(expected, rel=1e-3)


def test_the_printed_number_is_below_the_gate_s(accountant):
    pairs = zip((LaplaceSpend, PureSpend), ({"l1": 3}, {}), strict=True)
    gate = epsilon(compose([gaussian_cost(46, 945), laplace_cost(Fraction(1, 5))]), DELTA)
    found = [
        accountant.epsilon(
            [GaussianSpend(l2sq=46, sigma2=945), kind(epsilon=Fraction(1, 5), **more)], DELTA
        )
        for kind, more in pairs
    ]
    assert 0.9 < found[0] < found[1] < gate  # whatever is pure costs at least what Laplace does


@pytest.mark.parametrize(
    ("target", "rate", "page"),
    [(8.0, 0.0909, 0.0909), (3.0, 0.0384, 0.0385), (1.0, 0.0141, 0.0142), (0.5, 0.0074, 0.0075)],
)
def test_a_grade_s_sampling_rate_is_that_of_the_page_rounded_down(accountant, target, rate, page):
    def cost(q):
        return accountant.training_epsilon(q, 2.0, 1000, 1e-5)

    found = sampling_rate(cost, target)
    assert found == rate
    assert cost(found) <= target < cost(found + 1e-4)
    assert page - found < 1.5e-4


def test_no_sampling_costs_nothing(accountant):
    assert accountant.training_epsilon(0.0, 2.0, 1000, 1e-5) == 0


def test_the_lazy_one_answers_as_the_one_it_loads(accountant):
    spends, lazy = [GaussianSpend(l2sq=45, sigma2=924)], LazyAccounting()
    assert lazy.epsilon(spends, DELTA) == accountant.epsilon(spends, DELTA)
    known = accountant.training_epsilon(0.01, 2.0, 100, 1e-5)
    assert lazy.training_epsilon(0.01, 2.0, 100, 1e-5) == known
