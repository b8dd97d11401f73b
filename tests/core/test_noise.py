"""Draws follow their law exactly: by walking every path, then by counting, at any size."""

import ast
import math
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core import noise
from bedside_core.errors import InvalidInputError, UnavailableError
from bedside_core.noise import bernoulli_exp, discrete_gaussian, discrete_laplace, uniform_below
from support.byte_source import EndOfScriptError, ScriptedBytes, SeededBytes
from support.exact_law import RestartError, gaussian_law, laplace_law, misfit, outcomes

ONE_IN_A_MILLION = 4.75  # standard deviations; the bytes are fixed, so these tests never flicker


def unused(count):
    raise AssertionError(f"{count} bytes were drawn where none is needed")


# --- integers below a bound ----------------------------------------------------------------------


@pytest.mark.parametrize("bound", [2, 3, 5, 127, 128, 129, 255, 256, 257, 1000, 40_000])
def test_of_all_byte_strings_as_many_lead_to_each_integer_below_the_bound(bound):
    size = ((bound - 1).bit_length() + 7) // 8
    counts = Counter()
    for script in range(256**size):
        try:
            counts[uniform_below(bound, ScriptedBytes(script.to_bytes(size, "big")))] += 1
        except EndOfScriptError:
            counts["again"] += 1
    again = counts.pop("again", 0)
    assert sorted(counts) == list(range(bound))
    assert len(set(counts.values())) == 1
    assert again < 256**size / 2


def test_one_possible_integer_needs_no_bytes():
    assert uniform_below(1, unused) == 0


@given(bound=st.integers(1, 2**300), label=st.text("abc", max_size=4))
def test_an_integer_below_any_bound_stays_below_it(bound, label):
    assert 0 <= uniform_below(bound, SeededBytes(label)) < bound


def test_a_bound_of_two_hundred_digits_is_reached_evenly():
    bound, source = 3 * 2**700, SeededBytes("thirds")
    thirds = [uniform_below(bound, source) // 2**700 for _ in range(6_000)]
    assert misfit(thirds, dict.fromkeys(range(3), 1 / 3)) < ONE_IN_A_MILLION


# --- coins of probability exp(-n / d) ------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(0, 1), (1, 9), (1, 2), (2, 3), (1, 1), (4, 3), (7, 2)])
def test_a_coin_has_exactly_its_probability(monkeypatch, n, d):
    def run(choose):
        def uniform(bound, random):
            return choose([Fraction(1, bound)] * bound)

        monkeypatch.setattr(noise, "uniform_below", uniform)
        return bernoulli_exp(n, d, unused)

    mass = {True: Fraction(0), False: Fraction(0)}
    for outcome, probability in outcomes(run, least=1e-10):
        mass[outcome] += probability
    cut_off = 1 - sum(mass.values())
    assert cut_off < 1e-5
    assert mass[True] - Fraction(1, 10**15) <= Fraction(math.exp(-n / d)) <= mass[True] + cut_off


def test_a_coin_that_never_lands_costs_next_to_nothing():
    source = SeededBytes("hopeless")
    assert not any(bernoulli_exp(10**400, 7, source) for _ in range(200))


# --- discrete Laplace ----------------------------------------------------------------------------


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 1), (1, 3), (2, 3), (5, 2), (3, 7)])
def test_a_laplace_pass_ends_in_each_integer_in_proportion_to_its_law(
    monkeypatch, numerator, denominator
):
    def run(choose):
        uniforms, coins = [], []

        def uniform(bound, random):
            if len(uniforms) == 2 or (uniforms and coins == [False]):
                raise RestartError
            uniforms.append(choose([1 / bound] * bound))
            return uniforms[-1]

        def coin(n, d, random):
            coins.append(choose([1 - math.exp(-n / d), math.exp(-n / d)]) == 1)
            return coins[-1]

        monkeypatch.setattr(noise, "uniform_below", uniform)
        monkeypatch.setattr(noise, "bernoulli_exp", coin)
        return discrete_laplace(numerator, denominator, unused)

    mass = Counter()
    for outcome, probability in outcomes(run, least=1e-16):
        mass[outcome] += probability
    total = sum(mass.values())
    for x, expected in laplace_law(numerator, denominator, 6).items():
        assert mass[x] / total == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 1), (1, 3), (3, 2), (1, 30)])
def test_laplace_draws_follow_the_law(numerator, denominator):
    source = SeededBytes(f"laplace {numerator}/{denominator}")
    draws = [discrete_laplace(numerator, denominator, source) for _ in range(10_000)]
    law = laplace_law(numerator, denominator, 50 * denominator)
    assert misfit(draws, law) < ONE_IN_A_MILLION


def test_a_slightly_wrong_scale_is_seen():
    source = SeededBytes("laplace 10/33")
    draws = [discrete_laplace(10, 33, source) for _ in range(10_000)]
    assert misfit(draws, laplace_law(10, 30, 200)) > ONE_IN_A_MILLION


def test_a_zero_that_comes_twice_as_often_is_seen():
    source = SeededBytes("minus zero")
    draws = [discrete_laplace(1, 3, source) for _ in range(10_000)]
    draws += [0] * draws.count(0)
    assert misfit(draws, laplace_law(1, 3, 150)) > ONE_IN_A_MILLION


# --- discrete Gaussian ---------------------------------------------------------------------------


@pytest.mark.parametrize("sigma2", [1, 2, 3, 4, 5, 24, 25, 36, 924])
def test_a_gaussian_pass_keeps_each_integer_in_proportion_to_its_law(monkeypatch, sigma2):
    t = math.isqrt(sigma2) + 1
    kept = {}
    for y, proposed in laplace_law(1, t, 40 * t).items():

        def propose(numerator, denominator, random, y=y):
            assert (numerator, denominator) == (1, t)
            return y

        def coin(n, d, random, y=y, proposed=proposed):
            kept[y] = proposed * math.exp(-n / d)
            return True

        monkeypatch.setattr(noise, "discrete_laplace", propose)
        monkeypatch.setattr(noise, "bernoulli_exp", coin)
        assert discrete_gaussian(sigma2, unused) == y
    total = sum(kept.values())
    assert total > 0.5  # of the proposals
    law = gaussian_law(sigma2, 40 * t)
    assert max(abs(kept[x] / total - law[x]) for x in law) < 1e-12


def test_a_rejected_proposal_is_drawn_again(monkeypatch):
    proposals, coins = iter([5, -3, 2]), iter([False, False, True])
    monkeypatch.setattr(noise, "discrete_laplace", lambda *_: next(proposals))
    monkeypatch.setattr(noise, "bernoulli_exp", lambda *_: next(coins))
    assert discrete_gaussian(9, unused) == 2


@pytest.mark.parametrize("sigma2", [1, 2, 36, 924])
def test_gaussian_draws_follow_the_law(sigma2):
    source = SeededBytes(f"gaussian {sigma2}")
    draws = [discrete_gaussian(sigma2, source) for _ in range(10_000)]
    assert misfit(draws, gaussian_law(sigma2, 15 * math.isqrt(sigma2) + 15)) < ONE_IN_A_MILLION


@pytest.mark.parametrize("sigma2", [9_126_631_904, 10**40, 7 * 10**401])
def test_a_gaussian_of_any_size_has_the_shape_of_the_bell(sigma2):
    source, count = SeededBytes(f"big {sigma2}"), 2_000
    scale = math.isqrt(2 * sigma2)
    points = sorted(
        (1 + math.erf(float(Fraction(discrete_gaussian(sigma2, source), scale)))) / 2
        for _ in range(count)
    )
    distance = max(abs(p - (rank + 0.5) / count) for rank, p in enumerate(points))
    assert distance * math.sqrt(count) < 2.7  # Kolmogorov: 2 exp(-2 * 2.7^2) = 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "law"),
    [
        (lambda source: discrete_gaussian(924, source), gaussian_law(924, 500)),
        (lambda source: discrete_laplace(1, 30, source), laplace_law(1, 30, 1500)),
    ],
    ids=["gaussian", "laplace"],
)
def test_two_hundred_thousand_draws_have_the_law_and_its_spread(draw, law):
    source = SeededBytes("long")
    draws = [draw(source) for _ in range(200_000)]
    assert misfit(draws, law) < ONE_IN_A_MILLION
    spread = math.sqrt(sum(x * x * p for x, p in law.items()))
    assert math.sqrt(sum(x * x for x in draws) / len(draws)) == pytest.approx(spread, rel=0.01)


# --- what is refused -----------------------------------------------------------------------------

NO_POSITIVE_INTEGERS = [0, -1, True, 1.0, np.int64(3), None, "3"]


@pytest.mark.parametrize("bad", NO_POSITIVE_INTEGERS)
def test_a_parameter_that_is_no_positive_integer_is_refused_before_a_byte_is_drawn(bad):
    for call in (
        lambda: uniform_below(bad, unused),
        lambda: bernoulli_exp(1, bad, unused),
        lambda: discrete_laplace(bad, 1, unused),
        lambda: discrete_laplace(1, bad, unused),
        lambda: discrete_gaussian(bad, unused),
    ):
        with pytest.raises(InvalidInputError, match="integer of at least 1"):
            call()


@pytest.mark.parametrize("bad", [-1, False, 0.5, np.int64(0)])
def test_a_coin_with_a_bad_numerator_is_refused(bad):
    with pytest.raises(InvalidInputError, match="numerator"):
        bernoulli_exp(bad, 1, unused)


@pytest.mark.parametrize("given_bytes", [b"", b"\x01", b"\x01\x02\x03"])
def test_a_source_that_gives_another_number_of_bytes_gives_no_noise(given_bytes):
    with pytest.raises(UnavailableError, match="random source"):
        uniform_below(1000, lambda _: given_bytes)


@given(sigma2=st.integers(1, 10**30), label=st.text("abc", max_size=3))
def test_the_same_bytes_give_the_same_noise(sigma2, label):
    first = discrete_gaussian(sigma2, SeededBytes(label))
    assert discrete_gaussian(sigma2, SeededBytes(label)) == first


def floats_in(source):
    """Whatever makes or uses a float (constants, true division, powers), and all of math."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield "constant"
        if isinstance(node, ast.Div | ast.Pow):
            yield type(node).__name__
        if isinstance(node, ast.Name) and node.id in {"float", "complex", "round", "np"}:
            yield node.id
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "math":
            yield f"math.{node.attr}"


def test_no_float_is_anywhere_in_the_samplers():
    source = Path(noise.__file__).read_text(encoding="utf-8")
    assert set(floats_in(source)) == {"math.isqrt"}
    planted = source + "\nX = float(1) / 0.5 + math.exp(2) ** 2\n"
    assert {"Div", "Pow", "constant", "float", "math.exp"} < set(floats_in(planted))
