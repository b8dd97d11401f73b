"""Choices follow their law exactly: every path walked, then counted, at sizes floats lose."""

import math
from collections import Counter
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core import noise
from bedside_core.errors import InvalidInputError
from bedside_core.noise import exponential_choice, permute_and_flip, randomised_response
from support.byte_source import SeededBytes
from support.exact_law import RestartError, misfit, outcomes

ONE_IN_A_MILLION = 4.75
UTILITIES = st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=30)


def unused(count):
    raise AssertionError(f"{count} bytes were drawn where none is needed")


def exponential_law(utilities, n, d):
    best = max(utilities)
    weights = [math.exp(-float(Fraction((best - u) * n, d))) for u in utilities]
    return [weight / math.fsum(weights) for weight in weights]


def flip_law(utilities, n, d):
    best = max(utilities)
    coins = [math.exp(-float(Fraction((best - u) * n, d))) for u in utilities]
    law = [0.0] * len(coins)
    orders = list(permutations(range(len(coins))))
    for order in orders:
        left = 1 / len(orders)
        for index in order:
            law[index] += left * coins[index]
            left *= 1 - coins[index]
    return law


def walked(monkeypatch, call, rounds_restart):
    """The mass of each outcome of one round, every path of coins and uniforms walked."""

    def run(choose):
        uniforms = []

        def uniform(bound, random):
            if rounds_restart and uniforms and bound == rounds_restart:
                raise RestartError  # the next round begins with this draw
            uniforms.append(bound)
            return choose([1 / bound] * bound)

        def coin(n, d, random):
            return choose([1 - math.exp(-n / d), math.exp(-n / d)]) == 1

        monkeypatch.setattr(noise, "uniform_below", uniform)
        monkeypatch.setattr(noise, "bernoulli_exp", coin)
        return call()

    mass = Counter()
    for outcome, probability in outcomes(run, least=1e-8):
        mass[outcome] += probability
    return mass


@pytest.mark.parametrize(
    ("utilities", "n", "d"),
    [
        ([0, -1, -2], 1, 1),
        ([5, 5, 4, -3], 2, 3),
        ([0, -7, -9, -1], 1, 2),  # far indices: three bits of edge
        ([0, -4, -5, -5, -6, -40], 3, 4),
    ],
)
def test_a_choice_falls_on_each_index_in_proportion_to_its_law(monkeypatch, utilities, n, d):
    gaps = [(max(utilities) - u) * n // d for u in utilities]
    near = [gap for gap in gaps if gap < len(gaps).bit_length()]
    widest = max(Counter(near).values())
    monkeypatch.setattr(noise, "_two_over_e", lambda random: noise.bernoulli_exp(1, 2, random))
    # the coin of 2/e is walked on its own below; here its place is taken by one of exp(-1/2)
    mass = walked(monkeypatch, lambda: exponential_choice(utilities, n, d, unused), widest + 1)
    edge, total = len(gaps).bit_length(), sum(mass.values())
    correction = (math.exp(-1) * 2 / math.exp(-0.5)) ** edge  # of what replaced the coin
    found = [mass[i] * (correction if gap >= edge else 1) for i, gap in enumerate(gaps)]
    assert total > 0.05
    law = exponential_law(utilities, n, d)
    assert [one / math.fsum(found) for one in found] == pytest.approx(law, rel=1e-3, abs=1e-5)


def test_the_coin_of_two_over_e_has_exactly_its_probability(monkeypatch):
    mass = walked(monkeypatch, lambda: noise._two_over_e(unused), None)
    assert mass[True] == pytest.approx(2 / math.e, abs=1e-6)


@pytest.mark.parametrize(("utilities", "n", "d"), [([0, -1, -3], 1, 2), ([2, 2, 0, 1], 2, 3)])
def test_permute_and_flip_falls_on_each_index_by_its_law(monkeypatch, utilities, n, d):
    mass = walked(monkeypatch, lambda: permute_and_flip(utilities, n, d, unused), None)
    assert sum(mass.values()) == pytest.approx(1, abs=1e-6)
    assert [mass[i] for i in range(len(utilities))] == pytest.approx(
        flip_law(utilities, n, d), abs=1e-6
    )


@pytest.mark.parametrize("draw", [exponential_choice, permute_and_flip])
def test_draws_follow_the_law(draw):
    utilities, n, d = [-abs(x - 9) for x in range(40)], 1, 3
    source = SeededBytes(f"choice {draw.__name__}")
    draws = [draw(utilities, n, d, source) for _ in range(10_000)]
    if draw is exponential_choice:
        law = exponential_law(utilities, n, d)
        assert misfit(draws, dict(enumerate(law))) < ONE_IN_A_MILLION
        wrong = exponential_law(utilities, 11, 30)
        assert misfit(draws, dict(enumerate(wrong))) > ONE_IN_A_MILLION
    best = draws.count(9) / len(draws)
    chance = exponential_law(utilities, n, d)[9]
    assert best >= chance - 0.02  # permute-and-flip is never worse
    assert draw is exponential_choice or best > chance + 0.02


def test_far_candidates_keep_their_chance():
    utilities = [0, *([-8] * 100), *([-3] * 9)]  # edge 7: the hundred are far, 2 % together
    source = SeededBytes("far")
    draws = [exponential_choice(utilities, 1, 1, source) for _ in range(6000)]
    kinds = [0 if x == 0 else 1 if x <= 100 else 2 for x in draws]
    weights = [1, 100 * math.exp(-8), 9 * math.exp(-3)]
    law = {k: w / sum(weights) for k, w in enumerate(weights)}
    assert misfit(kinds, law) < ONE_IN_A_MILLION
    assert kinds.count(1) > 60


@given(utilities=UTILITIES, n=st.integers(1, 2**40), d=st.integers(1, 2**90))
def test_a_choice_is_one_of_the_candidates_at_any_size(utilities, n, d):
    for draw in (exponential_choice, permute_and_flip):
        chosen = draw(utilities, n, d, SeededBytes("any size"))
        assert 0 <= chosen < len(utilities)


def test_a_candidate_far_behind_is_not_chosen_and_costs_next_to_nothing():
    source = SeededBytes("hopeless")
    assert all(exponential_choice([-(10**300), 0], 1, 1, source) == 1 for _ in range(50))


@pytest.mark.parametrize(("choices", "n", "d", "keep"), [(2, 1, 1, 0.731), (2, 4, 1, 0.982)])
def test_a_response_is_true_as_often_as_the_page_says(choices, n, d, keep):
    source = SeededBytes(f"respond {n}")
    says = [randomised_response(1, choices, n, d, source) for _ in range(20_000)]
    assert says.count(1) / 20_000 == pytest.approx(keep, abs=0.016 if n == 1 else 0.005)


def test_a_response_of_many_choices_lies_evenly():
    source = SeededBytes("k-ary")
    says = [randomised_response(2, 5, 3, 2, source) for _ in range(10_000)]
    weights = [1, 1, math.exp(1.5), 1, 1]
    law = {k: w / sum(weights) for k, w in enumerate(weights)}
    assert misfit(says, law) < ONE_IN_A_MILLION


@pytest.mark.parametrize("bad", [[], [1.0], [True], [np.int64(1)], [0, None]])
def test_utilities_that_are_no_integers_are_refused_before_a_byte_is_drawn(bad):
    for draw in (exponential_choice, permute_and_flip):
        with pytest.raises(InvalidInputError, match="utilities"):
            draw(bad, 1, 1, unused)


@pytest.mark.parametrize("bad", [0, -1, True, 1.0])
def test_a_rate_that_is_no_positive_fraction_is_refused(bad):
    for draw in (exponential_choice, permute_and_flip):
        for rate in ((bad, 1), (1, bad)):
            with pytest.raises(InvalidInputError, match="at least 1"):
                draw([0, 1], *rate, unused)


@pytest.mark.parametrize(("truth", "choices"), [(0, 1), (0, 2.0), (2, 2), (-1, 2), (True, 2)])
def test_a_response_outside_its_choices_is_refused(truth, choices):
    with pytest.raises(InvalidInputError):
        randomised_response(truth, choices, 1, 1, unused)
