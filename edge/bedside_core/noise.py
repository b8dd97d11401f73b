"""Exact integer noise and exact choices, from random bytes handed in.

Every decision is a comparison of Python integers of any size, so a draw follows its law exactly:
no float is made, nothing is rounded, cut off or tabulated, and no parameter is too big. The module
holds no generator and knows no data; a caller adds the draw to its own integer. A draw takes longer
the larger it is, so an answer leaves on a fixed slot and never when the draw happens to end.

Source: Canonne, Kamath, Steinke 2020, arXiv:2004.00010 (CKS), Algorithms 1 to 3; McKenna, Sheldon
2020, arXiv:2010.12603 (MS). Exact here means: given independent uniform bytes, the law is the one
stated, with probability one.
"""

import math
from collections.abc import Callable, Sequence

from bedside_core.errors import InvalidInputError, UnavailableError

RandomBytes = Callable[[int], bytes]  # n -> n independent uniform bytes, on the box the system's


def uniform_below(bound: int, random: RandomBytes) -> int:
    """Return an integer of 0 ... bound - 1, each with probability 1 / bound.

    Takes as many bits as bound - 1 has and draws again until they lie below `bound`. Each of the
    2^bits candidates is equally likely and the draws are independent, so what is kept is uniform;
    more than half of the candidates are kept. A remainder (`% bound`) would favour small values.

    Raises:
        InvalidInputError: `bound` is not an integer of at least 1.
        UnavailableError: the source gave another number of bytes than it was asked for.
    """
    _require_positive("bound", bound)
    bits = (bound - 1).bit_length()
    size = (bits + 7) // 8
    while True:
        drawn = random(size) if size else b""
        if len(drawn) != size:
            raise UnavailableError(f"the random source gave {len(drawn)} bytes, not {size}")
        candidate = int.from_bytes(drawn, "big") >> (8 * size - bits)
        if candidate < bound:
            return candidate


def bernoulli_exp(numerator: int, denominator: int, random: RandomBytes) -> bool:
    """Return True with probability exp(-numerator / denominator).

    For g = n / d in [0, 1]: let K be the first k >= 1 whose coin of probability g / k fails. Then
    P(K > k) = g^k / k!, and P(K odd) = sum over even k of P(K > k) - P(K > k + 1) = 1 - g + g^2/2!
    - g^3/3! + ... = exp(-g). Larger g: exp(-g) = exp(-1)^whole * exp(-rest), one coin for each
    factor, stopped at the first failure, so a huge g costs no more than 1.6 coins on average.

    Raises:
        InvalidInputError: `numerator` is negative, `denominator` below 1, or one is no integer.
        UnavailableError: the source gave another number of bytes than it was asked for.

    Source: CKS, Algorithm 1.
    """
    if type(numerator) is not int or numerator < 0:
        raise InvalidInputError("numerator must be an integer of at least 0")
    _require_positive("denominator", denominator)
    for _ in range(numerator // denominator):
        if not _bernoulli_exp_unit(1, 1, random):
            return False
    return _bernoulli_exp_unit(numerator % denominator, denominator, random)


def _bernoulli_exp_unit(numerator: int, denominator: int, random: RandomBytes) -> bool:
    k = 1
    while uniform_below(denominator * k, random) < numerator:  # probability g / k
        k += 1
    return k % 2 == 1


def discrete_laplace(numerator: int, denominator: int, random: RandomBytes) -> int:
    """Return x with probability proportional to exp(-|x| * numerator / denominator).

    A sum whose L1 sensitivity is s is eps-differentially private when eps / s = numerator /
    denominator. With t = denominator: u + t * v, where u < t is kept with probability exp(-u / t)
    and v counts coins of exp(-1), has P proportional to exp(-(u + t * v) / t), a geometric law.
    Dividing by the numerator and rounding down merges runs of `numerator` values, so the magnitude
    m has P proportional to exp(-m * numerator / t). A fair sign follows; "minus 0" is drawn again,
    or 0 would come twice as often as its share.

    Raises:
        InvalidInputError: a parameter is not an integer of at least 1 (a bool is none).
        UnavailableError: the source gave another number of bytes than it was asked for.

    Source: CKS, Algorithm 2 (their s = numerator, t = denominator).
    """
    _require_positive("numerator", numerator)
    _require_positive("denominator", denominator)
    while True:
        low = uniform_below(denominator, random)
        if not bernoulli_exp(low, denominator, random):
            continue
        high = 0
        while bernoulli_exp(1, 1, random):
            high += 1
        magnitude = (low + denominator * high) // numerator
        negative = uniform_below(2, random) == 1
        if magnitude or not negative:
            return -magnitude if negative else magnitude


def discrete_gaussian(sigma2: int, random: RandomBytes) -> int:
    """Return x with probability proportional to exp(-x^2 / (2 * sigma2)).

    `sigma2` is the square of the scale, in squared units of the integer the noise is added to; the
    variance is at most `sigma2`, and equals it to nine digits from sigma2 = 2 on. Adding a vector
    of such draws to integers of squared L2 sensitivity D is D / (2 * sigma2)-zCDP (CKS, section
    2), which is what `accounting.gaussian_cost` charges.

    Rejection from the discrete Laplace of scale t = floor(sigma) + 1: keeping y with probability
    exp(-(|y| - sigma2 / t)^2 / (2 * sigma2)) multiplies exp(-|y| / t) into exp(-y^2 / (2 * sigma2))
    times a constant that does not depend on y. Over the common denominator the exponent is (|y| * t
    - sigma2)^2 / (2 * sigma2 * t^2), a ratio of integers. More than half of the proposals are kept
    at any size: 54 % at sigma2 = 1, 76 % in the limit.

    Raises:
        InvalidInputError: `sigma2` is not an integer of at least 1 (a bool is none).
        UnavailableError: the source gave another number of bytes than it was asked for.

    Source: CKS, Algorithm 3.
    """
    _require_positive("sigma2", sigma2)
    t = math.isqrt(sigma2) + 1
    while True:
        proposal = discrete_laplace(1, t, random)
        distance = abs(proposal) * t - sigma2
        if bernoulli_exp(distance * distance, 2 * sigma2 * t * t, random):
            return proposal


def exponential_choice(
    utilities: Sequence[int], numerator: int, denominator: int, random: RandomBytes
) -> int:
    """Return an index with probability proportional to exp(utility * numerator / denominator).

    The exponential mechanism: with denominator / numerator = 2 * sensitivity / epsilon it has
    bounded range epsilon. Write index i's distance to the best, (best - utility) * numerator /
    denominator, as k + r, k whole and r < 1. Indices of k below `edge` are near, the others far;
    `widest` is the most near indices that share a k. A round draws one of widest + 1 places.
    - A near place: K with P(K) = (1 - 1/e) exp(-K); the near index at that place of level K, if
      there is one, is kept with probability exp(-r).
    - The last place: one of the f far indices, drawn evenly, is kept with probability (1 - 1/e) f
      exp(-k - r); f exp(-edge) is below 1, because f < 2^edge.
    So each index ends a round with (1 - 1/e) exp(-k - r) / (widest + 1). No weight underflows:
    every index keeps its true chance, however small.

    Raises:
        InvalidInputError: no utility, one that is no integer, or a parameter below 1.
        UnavailableError: the source gave another number of bytes than it was asked for.
    """
    gaps = _gaps(utilities, numerator, denominator)
    edge = len(gaps).bit_length()
    far = [index for index, gap in enumerate(gaps) if gap >= edge * denominator]
    near: list[list[int]] = [[] for _ in range(edge)]
    for index, gap in enumerate(gaps):
        if gap < edge * denominator:
            near[gap // denominator].append(index)
    widest = max(map(len, near))
    while True:
        place = uniform_below(widest + 1, random)
        if place < widest:
            index = _near_index(near, place, random)
            if index >= 0 and bernoulli_exp(gaps[index] % denominator, denominator, random):
                return index
        elif far and _far_coin(len(far), edge, random):
            index = far[uniform_below(len(far), random)]
            if bernoulli_exp(gaps[index] - edge * denominator, denominator, random):
                return index


def _near_index(near: list[list[int]], place: int, random: RandomBytes) -> int:
    """Return what stands at a place of level K ~ exp(-K), -1 for nothing."""
    whole = 0
    while whole < len(near) and bernoulli_exp(1, 1, random):
        whole += 1
    level = near[whole] if whole < len(near) else []
    return level[place] if place < len(level) else -1


def _far_coin(count: int, edge: int, random: RandomBytes) -> bool:
    """Return True with probability (1 - 1/e) * count * exp(-edge), for count <= 2^edge."""
    if bernoulli_exp(1, 1, random) or uniform_below(1 << edge, random) >= count:
        return False
    return all(_two_over_e(random) for _ in range(edge))


def _two_over_e(random: RandomBytes) -> bool:
    """Return True with probability 2/e = 1 - 1/3 + 1/12 - 1/60 + ... = sum of (-1)^k 2 / (k + 2)!.

    Let K be the first k >= 1 whose coin of probability 1 / (k + 2) fails: P(K > k) = 2 / (k + 2)!,
    and P(K odd) is the alternating sum, as in `bernoulli_exp`.
    """
    k = 1
    while uniform_below(k + 2, random) == 0:
        k += 1
    return k % 2 == 1


def permute_and_flip(
    utilities: Sequence[int], numerator: int, denominator: int, random: RandomBytes
) -> int:
    """Return an index by permute-and-flip: better expected utility at the same pure epsilon.

    Indices are visited in an even random order without return; each is taken with probability
    exp(-(best - utility) * numerator / denominator). The best one is taken when it is reached, so
    one is always returned. Not of bounded range: it pays the full pure epsilon.

    Raises:
        InvalidInputError: no utility, one that is no integer, or a parameter below 1.
        UnavailableError: the source gave another number of bytes than it was asked for.

    Source: MS, Algorithm 1.
    """
    left = list(enumerate(_gaps(utilities, numerator, denominator)))
    while True:  # ends at the best at the latest: its gap is 0 and its coin always lands
        place = uniform_below(len(left), random)
        index, gap = left[place]
        left[place] = left[-1]
        left.pop()
        if bernoulli_exp(gap, denominator, random):
            return index


def randomised_response(
    truth: int, choices: int, numerator: int, denominator: int, random: RandomBytes
) -> int:
    """Return `truth` or another of 0 ... choices - 1, truth exp(numerator / denominator) as likely.

    Pure epsilon = numerator / denominator: the others are equally likely.

    Raises:
        InvalidInputError: fewer than two choices, `truth` is none of them, or a parameter below 1.
        UnavailableError: the source gave another number of bytes than it was asked for.
    """
    if type(choices) is not int or choices < 2:
        raise InvalidInputError("a response needs at least two choices")
    if type(truth) is not int or not 0 <= truth < choices:
        raise InvalidInputError("the truth must be one of the choices")
    agrees = [int(choice == truth) for choice in range(choices)]
    return exponential_choice(agrees, numerator, denominator, random)


def _gaps(utilities: Sequence[int], numerator: int, denominator: int) -> list[int]:
    _require_positive("numerator", numerator)
    _require_positive("denominator", denominator)
    if not utilities or any(type(utility) is not int for utility in utilities):
        raise InvalidInputError("utilities must be integers, and at least one")
    best = max(utilities)
    return [(best - utility) * numerator for utility in utilities]


def _require_positive(name: str, value: int) -> None:
    # numpy integers wrap and True counts as 1: both are refused rather than converted.
    if type(value) is not int or value < 1:
        raise InvalidInputError(f"{name} must be an integer of at least 1")
