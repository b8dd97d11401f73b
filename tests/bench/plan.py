"""How long to measure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Rounds and sizes of a run.

    Attributes:
        quick: fewer cases.
        rounds: alternating rounds per comparison.
        calls: single calls in a round.
        seconds: length of a throughput round.
        images: images a fast receiver gets per round.
        stalled_images: images a receiver gets that stalls 40 ms or more on each.
    """

    quick: bool
    rounds: int
    calls: int
    seconds: float
    images: int
    stalled_images: int


FULL = Plan(quick=False, rounds=3, calls=20, seconds=1.0, images=160, stalled_images=20)
QUICK = Plan(quick=True, rounds=2, calls=12, seconds=0.6, images=60, stalled_images=12)
