"""What a release costs, what is left, what it means as (epsilon, delta), and how far noise reaches.

The currency is rho of zero-concentrated differential privacy (zCDP) in integer units of 1e-12.
Integers add exactly, so the gate decides without a float: costs round up and a sum never passes
its cap. Floats appear only in numbers that are printed, and those err to one side: epsilon is
never too small and an interval never too narrow. This module draws nothing and stores nothing.

Sources: Bun, Steinke 2016, arXiv:1605.02065 (BS); Canonne, Kamath, Steinke 2020, arXiv:2004.00010
(CKS); Cesar, Rogers 2021, arXiv:2004.07223 (CR).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from bedside_core.errors import BudgetExhaustedError, InvalidInputError

UNITS_PER_RHO = 10**12
MAX_UNITS = 2**63 - 1  # a ledger's integer column holds no more

# A printed bound is a few rounded operations and logarithms, or a sum of positive terms: each errs
# by a unit in the last place (2^-53) or two; 32 and 512 such units cover them several times over.
_SLACK = 2.0**-48
_TAIL_SLACK = 2.0**-44
_TINY = 2.0**-1000  # above what is lost when a probability runs out of float range
_EXACT_SUM_SIGMA2 = 10**6  # up to here a Gaussian tail is summed term by term, about 2 ms
_MISS_RANGE = (1e-9, 0.3)


# --- costs, in units, rounded up -----------------------------------------------------------------


def gaussian_cost(l2sq: int, sigma2: int) -> int:
    """Return what discrete Gaussian noise of `sigma2` on every cell costs: l2sq / (2 * sigma2).

    Args:
        l2sq: squared L2 sensitivity of the integer vector, at least 1.
        sigma2: the noise's squared scale in the same squared units, at least 1.

    Source: CKS, section 2. Rounded up, so at least 1 unit.
    """
    _require("l2sq", l2sq, 1)
    _require("sigma2", sigma2, 1)
    return _ceil_div(UNITS_PER_RHO * l2sq, 2 * sigma2)


def gaussian_sigma2(l2sq: int, units: int) -> int:
    """Return the smallest integer sigma2 whose cost is at most `units` of rho.

    `gaussian_cost(l2sq, gaussian_sigma2(l2sq, units))` is what to charge: never above `units`,
    often a little below, because sigma2 is rounded up to an integer.
    """
    _require("l2sq", l2sq, 1)
    _require("units", units, 1)
    return _ceil_div(UNITS_PER_RHO * l2sq, 2 * units)


def laplace_cost(epsilon: Fraction) -> int:
    """Return what a pure epsilon-DP mechanism (discrete Laplace) costs: epsilon^2 / 2.

    Source: BS, Proposition 1.4. Rounded up, so at least 1 unit.
    """
    return _square_cost(epsilon, 2)


def exponential_cost(epsilon: Fraction) -> int:
    """Return what the exponential mechanism with parameter epsilon costs: epsilon^2 / 8.

    Only for mechanisms of bounded range epsilon (the exponential mechanism is one; permute-and-flip
    is not and pays `laplace_cost`). Source: CR, section 3. Rounded up, so at least 1 unit.
    """
    return _square_cost(epsilon, 8)


def compose(costs: Iterable[int]) -> int:
    """Return the cost of releases about the same patients, adaptive or not: the sum.

    Source: BS, Lemma 1.7.
    """
    return sum(_checked(costs))


def compose_disjoint(costs: Iterable[int]) -> int:
    """Return the cost of releases about disjoint sets of patients: the largest, 0 for none.

    Holds when the sets are public or fixed for each patient before any answer, and neighbours
    differ by adding or removing one patient: that patient stands in one set only.
    """
    return max(_checked(costs), default=0)


# --- the filter ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A cap and what is spent of it, both in units of 1e-12 rho; spent never passes the cap.

    A zCDP filter: it stays valid when the next release is chosen after looking at earlier answers,
    because each cost is fixed before its noise is drawn and the costs add up to at most a constant
    (Feldman, Zrnic 2021, arXiv:2008.11193). Nothing is refunded.
    """

    cap: int
    spent: int = 0

    def __post_init__(self) -> None:
        _require("spent", self.spent, 0)
        _require("cap", self.cap, self.spent)
        if self.cap > MAX_UNITS:
            raise InvalidInputError(f"a cap is at most {MAX_UNITS} units")

    @property
    def left(self) -> int:
        """Units that may still be spent."""
        return self.cap - self.spent

    def charge(self, cost: int) -> "Budget":
        """Return the budget after a release of `cost` units.

        Raises:
            BudgetExhaustedError: less than `cost` is left. Whether it fits depends on the cap, on
                what was spent and on `cost`, never on data.
            InvalidInputError: `cost` is not an integer of at least 1; no release is free.
        """
        _require("cost", cost, 1)
        if cost > self.left:
            raise BudgetExhaustedError(cost, self.left)
        return replace(self, spent=self.spent + cost)


def charge_all(budgets: Iterable[Budget], cost: int) -> tuple[Budget, ...]:
    """Return every budget after one release of `cost` units that all of them must allow.

    Raises:
        BudgetExhaustedError: one does not allow it; none is changed, and the smallest rest is said.
        InvalidInputError: `cost` is not an integer of at least 1, or there is no budget to charge.
    """
    held = tuple(budgets)
    if not held:
        raise InvalidInputError("a release is charged to at least one budget")
    min(held, key=lambda budget: budget.left).charge(cost)
    return tuple(budget.charge(cost) for budget in held)


# --- rho as (epsilon, delta) ---------------------------------------------------------------------


@lru_cache(maxsize=4096, typed=True)  # every document says the same caps again
def epsilon(units: int, delta: float) -> float:
    """Return an epsilon such that `units` of rho imply (epsilon, delta)-DP; never too small.

    The least of three bounds, each valid alone:
    - CKS, section 2.3: for any alpha > 1, alpha * rho + (ln(1 / delta) - ln alpha) / (alpha - 1) +
      ln(1 - 1 / alpha). Its derivative in alpha is rho - (ln(1 / delta) - ln alpha) / (alpha -
      1)^2, with one root; bisection finds it, and a root that is a little off is valid too.
    - BS, Proposition 1.3: rho + 2 * sqrt(rho * ln(1 / delta)).
    - 0 when 2 * delta^2 >= rho (Pinsker: total variation is at most sqrt(rho / 2)), in rationals.

    Args:
        units: rho in units of 1e-12, at least 0.
        delta: taken as the exact binary fraction it is, strictly between 0 and 1.

    Returns:
        The bound plus a slack above its rounding error (relative 1e-14 of its largest term).

    Raises:
        InvalidInputError: an argument is out of range or of another type.
    """
    _require("units", units, 0)
    if units > MAX_UNITS:
        raise InvalidInputError(f"rho is at most {MAX_UNITS} units")
    if type(delta) is not float or not 0 < delta < 1:
        raise InvalidInputError("delta must be a float strictly between 0 and 1")
    if 2 * Fraction(delta) ** 2 >= Fraction(units, UNITS_PER_RHO):
        return 0.0
    rho = units / UNITS_PER_RHO
    log_delta = -math.log(delta)
    x = _best_alpha_less_one(rho, log_delta)
    log_alpha = math.log1p(x)
    tight = _sum_up(rho, rho * x, log_delta / x, -log_alpha / x, math.log(x), -log_alpha)
    return max(0.0, min(tight, _sum_up(rho, 2 * math.sqrt(rho * log_delta))))


def _best_alpha_less_one(rho: float, log_delta: float) -> float:
    """Bisect rho * x^2 + ln(1 + x) = ln(1 / delta) for x = alpha - 1 > 0; the left side grows."""
    low, high = 0.0, math.sqrt(log_delta / rho)
    for _ in range(60):
        middle = (low + high) / 2
        if rho * middle * middle + math.log1p(middle) < log_delta:
            low = middle
        else:
            high = middle
    return high


def cap_units(target: float, delta: float) -> int:
    """Return the most units of rho whose epsilon at `delta`, as printed, is at most `target`.

    Rounded down: the cap never means more than the epsilon somebody agreed to.

    Raises:
        InvalidInputError: `target` is not a float of 0 to 1,000, or `delta` is out of range.
    """
    if type(target) is not float or not 0 <= target <= 1000:
        raise InvalidInputError("an epsilon to aim at is a float of 0 to 1,000")
    low, high = 0, 2 * 1000 * UNITS_PER_RHO  # epsilon at delta < 1 is above 1,000 there or 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if epsilon(middle, delta) <= target else (low, middle - 1)
    return low


# --- how far the noise reaches -------------------------------------------------------------------


def laplace_tail(numerator: int, denominator: int, reach: int) -> float:
    """Return P(|noise| > reach) of `noise.discrete_laplace`, never too small.

    With a = numerator / denominator it is 2 * exp(-(reach + 1) * a) / (1 + exp(-a)), from the
    geometric series.
    """
    _require("reach", reach, 0)
    rate = _laplace_rate(numerator, denominator)
    exponent = _float((reach + 1) * rate)
    return _tail_up(2 * math.exp(-exponent) / (1 + math.exp(-_float(rate))), exponent)


def laplace_half_width(numerator: int, denominator: int, miss: float) -> int:
    """Return the least h found with P(|noise| > h) <= miss, for `noise.discrete_laplace`.

    Solved for h in logarithms, the float rounded up and multiplied as a fraction, so any scale
    works. The interval answer - h ... answer + h covers the true value with probability at least
    1 - miss; h is the least possible unless a step of the law comes within 1e-12 of `miss`.

    Raises:
        InvalidInputError: a parameter is below 1, or `miss` is not within 1e-9 to 0.3.
    """
    rate = _laplace_rate(numerator, denominator)
    _check_miss(miss)
    reach = _sum_up(math.log(2), -math.log1p(math.exp(-_float(rate))), -math.log(miss))
    return max(0, math.ceil(Fraction(reach) / rate) - 1)  # the least h with (h + 1) * a >= reach


def gaussian_tail(sigma2: int, reach: int) -> float:
    """Return P(|noise| > reach) of `noise.discrete_gaussian`, never too small.

    The law's normaliser is at least sqrt(2 pi sigma2) (1 + 2 exp(-2 pi^2 sigma2)), the first terms
    of its Poisson sum, all positive. The numerator: terms beyond sigma are convex, where each is at
    most the integral of the bell over its unit cell, so all terms above k >= sigma - 1/2 add to at
    most sqrt(2 pi sigma2) erfc((k + 1/2) / sqrt(2 sigma2)) / 2. Up to sigma2 = 10^6 the terms to 12
    sigma are summed and only the rest, below 1e-30, is bounded so. Larger sigma2 bound the whole
    tail so, too high by less than 1e-4 of itself; a `reach` below sigma, where the terms are not
    convex, then gives 1.
    """
    _require("sigma2", sigma2, 1)
    _require("reach", reach, 0)
    if sigma2 > _EXACT_SUM_SIGMA2:
        if (2 * reach + 1) ** 2 < 4 * sigma2:
            return 1.0
        return _erfc_bound(sigma2, reach)
    last = max(reach, 12 * (math.isqrt(sigma2) + 1))
    terms = math.fsum(math.exp(-x * x / (2 * sigma2)) for x in range(reach + 1, last + 1))
    normaliser = math.sqrt(2 * math.pi * sigma2) * (1 + 2 * math.exp(-2 * math.pi**2 * sigma2))
    first = _float(Fraction((reach + 1) ** 2, 2 * sigma2))
    return min(1.0, _tail_up(2 * terms / normaliser, first) + _erfc_bound(sigma2, last))


def gaussian_half_width(sigma2: int, miss: float) -> int:
    """Return the least h found with P(|noise| > h) <= miss, for `noise.discrete_gaussian`.

    The interval answer - h ... answer + h covers the true value with probability at least 1 - miss.
    h is the least possible up to sigma2 = 10^6; above, at most one more, or 1e-12 of itself.

    Raises:
        InvalidInputError: `sigma2` is below 1, or `miss` is not within 1e-9 to 0.3.
    """
    _require("sigma2", sigma2, 1)
    _check_miss(miss)
    low, high = 0, 8 * (math.isqrt(sigma2) + 1)  # erfc(8 / sqrt 2) is 1.2e-15
    while low < high:
        middle = (low + high) // 2
        fits = _erfc_bound(sigma2, middle) <= miss
        low, high = (low, middle) if fits else (middle + 1, high)
    # erfc <= 0.3 means reach + 1/2 > 1.03 sigma: the bound held wherever it said yes.
    while sigma2 <= _EXACT_SUM_SIGMA2 and low > 0 and gaussian_tail(sigma2, low - 1) <= miss:
        low -= 1
    return low


def gaussian_sum_half_width(sigma2s: Sequence[int], miss: float) -> int:
    """Return an h with P(|sum of independent discrete Gaussians| > h) <= miss, never too small.

    Let X, Y be discrete Gaussians of squared scales a and b. P(X + Y = z) is the bell of a + b at z
    times the sum of the bell of t = a b / (a + b) over the integers shifted by z a / (a + b), over
    a constant. By Poisson's formula that sum is sqrt(2 pi t) (1 + d), |d| <= D = 2 sum over k >= 1
    of exp(-2 pi^2 t k^2). So P(X + Y = z) is P(G = z), G the discrete Gaussian of a + b, times a
    ratio whose largest and smallest values differ by the factor (1 + D) / (1 - D) and whose mean
    under G is 1: at most that factor everywhere. Adding one after the other, the factors multiply,
    and P(|sum| > h) <= factor P(|G| > h) with G of all squared scales together. The factor is the
    largest for scales of 1, where five of them give 1.00022; from 4 on it is 1 in a float.

    Args:
        sigma2s: squared scales, at least one.
        miss: as of `gaussian_half_width`, and above its least by the factor.

    Source: Micciancio, Regev 2007, SIAM J. Comput. 37(1), section 3 (the smoothing parameter).
    """
    if not sigma2s:
        raise InvalidInputError("a sum has at least one term")
    for sigma2 in sigma2s:
        _require("sigma2", sigma2, 1)
    factor, whole = 1.0, sigma2s[0]
    for sigma2 in sigma2s[1:]:
        narrow = _float(Fraction(whole * sigma2, whole + sigma2))
        first = math.exp(-2 * math.pi**2 * narrow)
        off = 2 * first / (1 - first) * (1 + _TAIL_SLACK)  # k^2 >= k: a geometric series
        factor *= (1 + off) / (1 - off)
        whole += sigma2
    _check_miss(miss)
    return gaussian_half_width(whole, miss / (factor * (1 + _TAIL_SLACK)))


def _erfc_bound(sigma2: int, reach: int) -> float:
    # The argument (reach + 1/2) / sqrt(2 sigma2), squared, is a ratio of integers of any size.
    square = _float(Fraction((2 * reach + 1) ** 2, 8 * sigma2))
    return _tail_up(math.erfc(math.sqrt(square)), square)


# --- checks and rounding -------------------------------------------------------------------------


def _require(name: str, value: int, least: int) -> None:
    if type(value) is not int or value < least:
        raise InvalidInputError(f"{name} must be an integer of at least {least}")


def _checked(costs: Iterable[int]) -> Iterable[int]:
    for cost in costs:
        _require("cost", cost, 1)
        yield cost


def _check_miss(miss: float) -> None:
    least, most = _MISS_RANGE
    if type(miss) is not float or not least <= miss <= most:
        raise InvalidInputError(f"the chance to miss must be a float of {least:g} to {most:g}")


def _laplace_rate(numerator: int, denominator: int) -> Fraction:
    _require("numerator", numerator, 1)
    _require("denominator", denominator, 1)
    return Fraction(numerator, denominator)


def _square_cost(parameter: Fraction, divisor: int) -> int:
    if type(parameter) is not Fraction or parameter <= 0:
        raise InvalidInputError("epsilon must be a fraction above 0")
    return math.ceil(UNITS_PER_RHO * parameter**2 / divisor)


def _ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _float(exponent: Fraction) -> float:
    """Return the nearest float, cut at 2,000: exp(-2000) is nothing, 10^400 is no float."""
    return float(min(exponent, Fraction(2000)))


def _tail_up(tail: float, exponent: float) -> float:
    """Raise a probability near exp(-exponent) above its error, which grows with the exponent's."""
    return min(1.0, tail * (1 + _TAIL_SLACK * (1 + exponent)) + _TINY)


def _sum_up(*terms: float) -> float:
    """Add the terms and a slack that covers the rounding of each of them."""
    return math.fsum(terms) + _SLACK * math.fsum(map(abs, terms))
