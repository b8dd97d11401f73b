"""Audits of privacy: what a mechanism was handed (L0), and what its outputs betray (L1, L2).

L0 compares the recorded calls of a release on two neighbouring data sets. L1 turns outputs into a
lower bound of epsilon, L2 into one of mu of Gaussian privacy. A bound above what was promised is a
fault; a bound far below it means the audit saw little.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import beta, norm

HARD, SOFT = 1e-6, 1e-3  # chance of a false alarm: fail, warn


@dataclass(frozen=True)
class Call:
    """One call of a mechanism: its class, its parameters, and the exact value it was handed."""

    name: str
    parameters: tuple[Any, ...]
    value: Any
    sensitivity: float  # what one shift is measured against; squared for L2
    norm: str = "l1"  # l1, l2 or max (utilities)


def compare(one: Sequence[Call], other: Sequence[Call]) -> list[str]:
    """Return what an adversary learns without looking at any noise."""
    if [(c.name, c.parameters) for c in one] != [(c.name, c.parameters) for c in other]:
        return ["number, order or parameters of the calls differ"]
    faults, l1, l2, slack = [], 0.0, 0.0, 1 + 1e-9
    for a, b in zip(one, other, strict=True):
        if a.norm == "max":
            moved = max(abs(x - y) for x, y in zip(a.value, b.value, strict=True))
            faults += ["a utility moved too far"] if moved > a.sensitivity * slack else []
        elif any(isinstance(x.value, float) and not math.isfinite(x.value) for x in (a, b)):
            faults.append("a value is not finite")
        elif a.norm == "l2":
            l2 += (a.value - b.value) ** 2 / a.sensitivity
        else:
            l1 += abs(a.value - b.value) / a.sensitivity
    faults += ["the vector moved too far in L1"] if l1 > slack else []
    faults += ["the vector moved too far in L2"] if l2 > slack else []
    return faults


def from_noise(calls: Sequence[tuple[str, tuple[Any, ...], Any]]) -> list[Call]:
    """Turn what `NoNoise` recorded into calls to compare."""
    norms = {"gaussian": "l2", "laplace": "l1", "choose": "max", "flip": "max", "respond": "l1"}
    return [Call(name, given, value, given[0], norms[name]) for name, given, value in calls]


def share(hits: int, runs: int, alpha: float) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a probability, each side failing with `alpha`."""
    low = float(beta.ppf(alpha, hits, runs - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - alpha, hits + 1, runs - hits)) if hits < runs else 1.0
    return low, high


def epsilon_bound(
    one: Sequence[float], other: Sequence[float], alpha: float = HARD, delta: float = 0.0
) -> float:
    """Return an epsilon that the mechanism exceeds, wrong with probability at most `alpha`.

    Half of the outputs choose the threshold event (or an extreme atom, or NaN); the other half
    bound its probabilities. Both directions are tried.
    """
    best = 0.0
    for a, b in ((one, other), (other, one)):
        event = _choose_event(a[::2], b[::2], delta)
        hits, misses = sum(map(event, a[1::2])), sum(map(event, b[1::2]))
        low, _ = share(hits, len(a[1::2]), alpha / 4)
        _, high = share(misses, len(b[1::2]), alpha / 4)
        if low > delta:
            best = max(best, math.log((low - delta) / high))
    return best


def _choose_event(
    one: Sequence[float], other: Sequence[float], delta: float
) -> Callable[[float], bool]:
    """Return the event with the best bound on these samples; a weak one costs only power."""
    ends = sorted({x for x in [*one, *other] if not math.isnan(x)})
    step = max(1, len(ends) // 200)
    events: list[Callable[[float], bool]] = [math.isnan, lambda x: x % 1 > 0]
    events += [lambda x, t=t: x > t for t in ends[::step]]
    events += [lambda x, t=t: x < t for t in ends[::step]]
    events += [lambda x, t=t: x == t for t in (ends[:1] + ends[-1:])]

    def gain(event: Callable[[float], bool]) -> float:
        low, _ = share(sum(map(event, one)), len(one), 1e-3)
        _, high = share(sum(map(event, other)), len(other), 1e-3)
        return math.log((low - delta) / high) if low > delta else -math.inf

    return max(events, key=gain)


def mu_bound(one: Sequence[float], other: Sequence[float], alpha: float = HARD) -> float:
    """Return a lower bound of mu of Gaussian differential privacy: `other` lies higher.

    mu = z(1 - FPR) - z(FNR) for a threshold test. Source: Dong, Roth, Su 2019, arXiv:1905.02383.
    """
    chosen = sorted([*one[::2], *other[::2]])
    threshold = chosen[len(chosen) // 2]
    a, b = one[1::2], other[1::2]
    _, false_positive = share(sum(x > threshold for x in a), len(a), alpha / 2)
    _, false_negative = share(sum(x <= threshold for x in b), len(b), alpha / 2)
    return float(norm.ppf(1 - false_positive) - norm.ppf(false_negative))
