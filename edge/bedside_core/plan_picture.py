"""The error of a plan against epsilon as an SVG picture: what a budget buys, drawn without data."""

import math
from collections.abc import Mapping, Sequence

from bedside_core.planner import Plan, Schedule, curve
from bedside_core.statistics.query import Query
from bedside_core.statistics.reading import GREY

EPSILONS = tuple(round(0.05 * 1.25**step, 4) for step in range(24))  # 0.05 to 8.5

_TITLE = "Relative standard error of a count against epsilon"
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 400, 70, 40, 20, 55
_ERRORS = (0.001, 0.01, 0.1, 1.0, 10.0)
_TICKS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


def error_picture(
    query: Query,
    size: int,
    schedule: Schedule,
    nights: int,
    chosen: Plan,
    shares: Mapping[int, int] | None = None,
) -> str:
    """Return an SVG: relative error of a count over epsilon, both axes logarithmic.

    Args:
        query: what is planned.
        size: studies of one release, or of one night.
        schedule: how often.
        nights: of the epoch.
        chosen: the plan to mark.
        shares: of the grades, where each has noise of its own.
    """
    points = curve(query, EPSILONS, size, schedule, nights, shares)
    lines = [_path(points, "#1f5fa8", "")]
    labels = [("#1f5fa8", "", f"{schedule}, {size} studies")]
    if schedule is Schedule.NIGHTLY:
        week = [(x, y / math.sqrt(7)) for x, y in points]
        weekly = [(x, y / 7) for x, y in points]
        lines += [_path(week, "#b35900", "6 3"), _path(weekly, "#2e7d32", "2 3")]
        labels += [("#b35900", "6 3", "a week of nights added up")]
        labels += [("#2e7d32", "2 3", "released weekly")]
    x, y = _x(chosen.epsilon), _y(chosen.relative)
    mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#b00020"/>'
    share = f"{100 * chosen.relative:.3g} % at epsilon {chosen.epsilon:.3g}"
    said = f'<text x="{x + 9:.1f}" y="{y - 7:.1f}" fill="#b00020">{share}</text>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            f'role="img" aria-label="{_TITLE}" font-family="sans-serif" font-size="12">',
            f"<title>{_TITLE}</title>",
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
            *_axes(),
            *lines,
            mark,
            said,
            *_legend(labels),
            "</svg>",
            "",
        ]
    )


def _x(epsilon: float) -> float:
    low, high = math.log(EPSILONS[0]), math.log(EPSILONS[-1])
    share = (math.log(min(max(epsilon, EPSILONS[0]), EPSILONS[-1])) - low) / (high - low)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(error: float) -> float:
    low, high = math.log(_ERRORS[0]), math.log(_ERRORS[-1])
    share = (math.log(min(max(error, _ERRORS[0]), _ERRORS[-1])) - low) / (high - low)
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _path(points: Sequence[tuple[float, float]], colour: str, dashes: str) -> str:
    path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
        f'stroke-dasharray="{dashes or "none"}"/>'
    )


def _axes() -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    grey = _y(GREY)
    found = [
        f'<rect x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{grey - _TOP:.1f}" '
        'fill="#eee"/>',
        f'<text x="{right - 6}" y="{grey - 6:.1f}" fill="#666" text-anchor="end">'
        "above 50 %: greyed</text>",
    ]
    for error in _ERRORS:
        y = _y(error)
        found.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ccc"/>')
        found.append(
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * error:g} %</text>'
        )
    for epsilon in _TICKS:
        x = _x(epsilon)
        found.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#eee"/>')
        found.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{epsilon:g}</text>')
    middle = (_LEFT + right) / 2
    found.append(
        f'<text x="{middle:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">'
        "epsilon at delta 1e-6, for the whole schedule</text>"
    )
    found.append(f'<text x="{_LEFT}" y="22">relative standard error of a count of studies</text>')
    return found


def _legend(labels: Sequence[tuple[str, str, str]]) -> list[str]:
    found = []
    for place, (colour, dashes, text) in enumerate(labels):
        y = _TOP + 18 + 18 * place
        x = _WIDTH - _RIGHT - 230
        found.append(
            f'<path d="M{x} {y - 4}h24" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dashes or "none"}"/>'
        )
        found.append(f'<text x="{x + 30}" y="{y}">{text}</text>')
    return found
