"""Laws of integer noise in closed form, and ways to compare a sampler with them.

`outcomes` walks every path a sampler can take and adds up probabilities: no sampling error.
`misfit` is a chi-square test for draws.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any


class _ForkError(Exception):
    def __init__(self, weights: Sequence[Any]) -> None:
        super().__init__()
        self.weights = weights


class RestartError(Exception):
    """The sampler rejected its proposal and begins again."""


Choose = Callable[[Sequence[Any]], int]


def outcomes(run: Callable[[Choose], Any], least: float) -> Iterator[tuple[Any, Any]]:
    """Yield (outcome, probability) of every path of `run` that has at least probability `least`.

    `run` asks `choose(weights)` for each random index; its weights add up to 1.
    """
    stack: list[tuple[tuple[int, ...], Any]] = [((), 1)]
    while stack:
        path, mass = stack.pop()
        left = list(reversed(path))

        def choose(weights: Sequence[Any], left: list[int] = left) -> int:
            if not left:
                raise _ForkError(weights)
            return left.pop()

        try:
            yield run(choose), mass
        except RestartError:
            continue
        except _ForkError as fork:
            for index, weight in enumerate(fork.weights):
                if mass * weight >= least:
                    stack.append(((*path, index), mass * weight))


def laplace_law(numerator: int, denominator: int, reach: int) -> dict[int, float]:
    """P(x) of the discrete Laplace for |x| <= reach."""
    base = math.exp(-numerator / denominator)
    return {
        x: (1 - base) / (1 + base) * math.exp(-abs(x) * numerator / denominator)
        for x in range(-reach, reach + 1)
    }


def gaussian_law(sigma2: int, reach: int) -> dict[int, float]:
    """P(x) of the discrete Gaussian for |x| <= reach, which must be many sigmas."""
    weights = {x: math.exp(-x * x / (2 * sigma2)) for x in range(-reach, reach + 1)}
    total = math.fsum(weights.values())
    return {x: weight / total for x, weight in weights.items()}


def misfit(draws: list[int], law: dict[int, float], least_expected: float = 25) -> float:
    """How many standard deviations the chi-square statistic of `draws` lies above its mean.

    Wilson and Hilferty's cube root makes it nearly normal: 4.75 is p = 1e-6. Cells expecting fewer
    than `least_expected` draws are joined into one, with everything outside `law`.
    """
    seen = Counter(draws)
    big = [x for x, p in law.items() if p * len(draws) >= least_expected]
    expected = [law[x] * len(draws) for x in big]
    observed: list[float] = [seen[x] for x in big]
    rest = len(draws) - math.fsum(expected)
    if rest >= least_expected:
        expected.append(rest)
        observed.append(len(draws) - sum(observed))
    square = math.fsum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
    degrees = len(expected) - 1
    width = 2 / (9 * degrees)
    return float(((square / degrees) ** (1 / 3) - (1 - width)) / math.sqrt(width))
