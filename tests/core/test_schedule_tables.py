"""What a year of nightly numbers costs by each known method: ours is the smallest, to the figure.

One count, at most three studies of a patient, (1, 1e-6) in all. The other methods are computed here
from their published formulas; the product's own figures come from the product.
"""

import math
from collections.abc import Callable

import pytest

from bedside_core.accounting import (
    UNITS_PER_RHO,
    cap_units,
    compose,
    gaussian_cost,
    gaussian_sigma2,
)
from bedside_core.statistics.query import compile_query
from bedside_core.statistics.running import running
from bedside_core.statistics.spec import Kind, StatSpec

C, EPSILON, DELTA, NIGHTS = 3, 1.0, 1e-6, 365
CAP = cap_units(EPSILON, DELTA)


def solve(total: Callable[[float], float], goal: float) -> float:
    """Return the x whose growing `total` is `goal`."""
    low, high = 0.0, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) <= goal else (low, middle)
    return low


def advanced(epsilon: float, times: int) -> float:
    """The best total that diffprivlib's accountant knows.

    Source: Kairouz, Oh, Viswanath 2015, arXiv:1311.0776, Theorem 3.5, with all of delta as slack.
    """
    square = times * epsilon * epsilon
    drift = times * epsilon * math.tanh(epsilon / 2)
    first = drift + math.sqrt(2 * square * math.log(math.e + math.sqrt(square) / DELTA))
    second = drift + math.sqrt(2 * square * math.log(1 / DELTA))
    return min(times * epsilon, first, second)


def exact_mu(delta: float = DELTA, epsilon: float = EPSILON) -> float:
    """The largest mu of a Gaussian that is (epsilon, delta); Balle and Wang 2018, Theorem 8."""

    def upper(x: float) -> float:
        return math.erfc(x / math.sqrt(2)) / 2

    def spent(mu: float) -> float:
        if mu == 0:
            return 0.0
        low = upper(epsilon / mu + mu / 2)
        return upper(epsilon / mu - mu / 2) - math.exp(epsilon) * low

    return solve(spent, delta)


def laplace_std(epsilon: float) -> float:
    return math.sqrt(2) * C / epsilon


@pytest.mark.parametrize(
    ("times", "basic", "adv", "gaussian", "classic", "tight", "exact"),
    [
        (12, 50.9, 50.9, 149, 55.6, 47.1, 43.9),
        (360, 1527, 406, 4453, 305, 258, 241),
        (4380, 18583, 1415, 54170, 1062, 900, 839),
    ],
)
def test_noise_of_a_count_by_each_way_of_adding_up(
    times, basic, adv, gaussian, classic, tight, exact
):
    close = {"rel": 6e-3}
    assert laplace_std(EPSILON / times) == pytest.approx(basic, **close)
    assert laplace_std(solve(lambda e: advanced(e, times), EPSILON)) == pytest.approx(adv, **close)
    each = exact_mu(DELTA / times, EPSILON / times)
    assert C / each == pytest.approx(gaussian, **close)
    root = math.sqrt(math.log(1 / DELTA) + EPSILON) - math.sqrt(math.log(1 / DELTA))
    assert C * math.sqrt(times / (2 * root * root)) == pytest.approx(classic, **close)
    assert C * math.sqrt(times) / exact_mu() == pytest.approx(exact, **close)
    # the product: what one of `times` releases may spend, and the noise it then gets
    sigma2 = gaussian_sigma2(C * C, CAP // times)
    assert math.sqrt(sigma2) == pytest.approx(tight, **close)
    assert compose([gaussian_cost(C * C, sigma2)] * times) <= CAP
    assert tight < min(basic, adv, gaussian, classic)


def rms(variances: list[float]) -> tuple[float, float]:
    return math.sqrt(sum(variances) / len(variances)), math.sqrt(max(variances))


def set_bits(night: int) -> list[int]:
    return [height for height in range(night.bit_length()) if night >> height & 1]


LEVELS = NIGHTS.bit_length() + 1


@pytest.mark.parametrize(("cells", "factor"), [(1, 1.0), (12, math.sqrt(12))])
def test_running_totals_by_each_method(cells, factor):
    unit = (C / exact_mu()) ** 2 * factor * factor
    nights = range(1, NIGHTS + 1)
    tree = unit * LEVELS
    methods = {
        "total anew every night": [unit * NIGHTS for _ in nights],
        "sum of disjoint nights": [unit * night for night in nights],
        "binary tree": [tree * len(set_bits(night)) for night in nights],
        # Honaker 2015: a whole subtree is estimated from its parts too
        "Honaker tree": [
            tree * sum(1 / (2 - 2.0**-height) for height in set_bits(night)) for night in nights
        ],
    }
    wanted = {
        "total anew every night": {1: (242, 242), 12: (839, 839)},
        "sum of disjoint nights": {1: (171, 242), 12: (594, 839)},
        "binary tree": {1: (81, 113), 12: (281, 393)},
        "Honaker tree": {1: (63, 88), 12: (217, 304)},
    }
    for name, variances in methods.items():
        assert rms(variances) == pytest.approx(wanted[name][cells], rel=8e-3), name
    # the product's matrix, at the noise of exact Gaussian calibration and at its own gate
    query = compile_query([StatSpec(name="volume", kind=Kind.COUNT, c=C)], truncation=False)
    totals = running(query, NIGHTS)
    scale = query.units[0]
    for units, figures in (
        (int(exact_mu() ** 2 / 2 * UNITS_PER_RHO), {1: (35.3, 37.3), 12: (122, 129)}),
        (CAP, {1: (37.8, 40.0), 12: (131, 138.6)}),
    ):
        sigma2 = totals.sigma2(units)
        ours = rms([(factor * totals.deviation(n, sigma2) / scale) ** 2 for n in nights])
        assert ours == pytest.approx(figures[cells], rel=1e-2)
        assert ours[0] < rms(methods["Honaker tree"])[0] / 1.6
