"""A night as a drawing: one lane for each round, one bar for each step, to scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bedside_edge.ports.sync import NightEvent

_HEIGHT: Final = 22
_TOP: Final = 20
_LEFT: Final = 170
_WIDTH: Final = 720
_LEAST: Final = 4  # a step of a second in a night of hours is still seen
_TICKS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One step; places in the drawing's own units."""

    x: float
    width: float
    y: int
    event: NightEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Everything a template draws."""

    night: int
    width: int
    height: int
    lanes: tuple[tuple[str, int], ...]  # round (empty: none), y
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, int], ...]  # x, ms since 1970


def draw(night: int, events: Sequence[NightEvent]) -> Drawing:
    """Return a night's drawing; lanes in the order in which rounds first appear."""
    starts = min((one.started for one in events), default=night)
    ends = max((one.ended for one in events), default=night)
    span = max(ends - starts, 60_000)
    lanes = {
        name: _TOP + n * _HEIGHT for n, name in enumerate(dict.fromkeys(e.round for e in events))
    }

    def place(moment: int) -> float:
        return round(_LEFT + (moment - starts) / span * (_WIDTH - _LEFT - _LEAST), 1)

    bars = tuple(
        Bar(
            x=place(one.started),
            width=max(_LEAST, round(place(one.ended) - place(one.started), 1)),
            y=lanes[one.round],
            event=one,
        )
        for one in events
    )
    moments = [starts + span * n // _TICKS for n in range(_TICKS)]
    return Drawing(
        night=night,
        width=_WIDTH,
        height=_TOP + len(lanes) * _HEIGHT + 4,
        lanes=tuple(lanes.items()),
        bars=bars,
        ticks=tuple((place(one), one) for one in moments),
    )
