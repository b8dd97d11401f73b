"""A release as an SVG picture: every value with its 95 % interval, those that say little greyed.

Drawn from the document alone. Attributes only, no style and no script, so that it may stand in a
page under the strictest policy, in a report, or be opened by itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INK, GREYED, MARK, RULE, PAPER = "#1b2733", "#8a939c", "#1f5fa8", "#d5dbe1", "#ffffff"

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 720, 250, 120, 24, 44
MOST_ROWS = 80  # a picture of more cells helps nobody; the table has them all


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One value of the picture; `None` where nothing is reported."""

    name: str
    shown: float | None
    low: float | None
    high: float | None
    grey: bool


def rows_of(parts: Mapping[str, Mapping[str, Any]]) -> tuple[Row, ...]:
    """Return rows from estimates of a document by name."""
    return tuple(
        Row(
            name=name,
            shown=one["shown"],
            low=one.get("low"),
            high=one.get("high"),
            grey=bool(one.get("grey", False)),
        )
        for name, one in parts.items()
    )


def release_picture(rows: Sequence[Row], title: str, not_reported: str = "not reported") -> str:
    """Return an SVG of values and their intervals on one linear axis.

    Args:
        rows: at most `MOST_ROWS` are drawn.
        title: said to screen readers and written above.
        not_reported: written where there is no number.
    """
    drawn = rows[:MOST_ROWS]
    axis = _axis(drawn)
    height = _TOP + _ROW * len(drawn) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escaped(title)}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="{PAPER}"/>',
        f'<text x="12" y="22" font-size="14" fill="{INK}">{escaped(title)}</text>',
    ]
    bottom = _TOP + _ROW * len(drawn)
    for tick in axis.ticks:
        x = axis.x(tick)
        parts.append(f'<path d="M{x:.1f} {_TOP - 8}V{bottom}" stroke="{RULE}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="{INK}">{tick:g}</text>'
        )
    for place, row in enumerate(drawn):
        parts += _row(row, _TOP + _ROW * place + _ROW / 2 - 4, axis, not_reported)
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    ticks: tuple[float, ...]

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _axis(rows: Sequence[Row]) -> _Axis:
    """Return an axis from 0, or below where values are, to the largest end, on round numbers."""
    ends = [end for row in rows for end in (row.low, row.high, row.shown) if end is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    if high <= low:
        low, high = 0.0, 1.0
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = tuple(float(f"{place * step:.6g}") for place in range(first, last + 1))
    return _Axis(ticks[0], ticks[-1], ticks)


def _row(row: Row, y: float, axis: _Axis, not_reported: str) -> list[str]:
    ink, mark = (GREYED, GREYED) if row.grey else (INK, MARK)
    name = row.name if len(row.name) <= 38 else row.name[:37] + "\N{HORIZONTAL ELLIPSIS}"
    label = (
        f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end" fill="{ink}">'
        f"{escaped(name)}</text>"
    )
    right = _WIDTH - _RIGHT + 10
    if row.shown is None:
        words = escaped(not_reported)
        return [label, f'<text x="{right}" y="{y + 4:.1f}" fill="{GREYED}">{words}</text>']
    found = [label]
    if row.low is not None and row.high is not None:
        a, b = axis.x(row.low), axis.x(row.high)
        found.append(
            f'<path d="M{a:.1f} {y:.1f}H{b:.1f}M{a:.1f} {y - 4:.1f}v8M{b:.1f} {y - 4:.1f}v8" '
            f'stroke="{mark}" stroke-width="2" fill="none"/>'
        )
    filled = PAPER if row.grey else mark
    found.append(
        f'<circle cx="{axis.x(row.shown):.1f}" cy="{y:.1f}" r="4" fill="{filled}" '
        f'stroke="{mark}" stroke-width="2"/>'
    )
    found.append(
        f'<text x="{right}" y="{y + 4:.1f}" fill="{ink}">{escaped(said(row.shown))}</text>'
    )
    return found


def said(value: float) -> str:
    """Return a number as people read it: whole numbers whole, others to four digits."""
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def escaped(text: str) -> str:
    """Return text that can stand in HTML or SVG, in quotes too."""
    for letter, word in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(letter, word)
    return text
