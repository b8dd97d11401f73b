"""`python -m bench.curves`: cost of the secure sum over boxes and words, drawn as one SVG.

Each point is one simulated round with a tenth of the boxes missing; a round that is not exact
stops the run. Times are each role's own processor time.
"""

import math
import sys
from pathlib import Path

from bedside_sync.hub.simulate import Outcome, simulate
from support.repository import ROOT

OUT = ROOT / "docs" / "pictures" / "secure-sum-cost.svg"
_BOXES, _WORDS = (10, 30, 100, 300), (10_000, 100_000, 1_000_000)
_ROLES = (
    ("box", "#1b6ca8", lambda one: one.box_s),
    ("slowest helper", "#b4540a", lambda one: one.helper_s),
    ("hub, opening", "#3f7d20", lambda one: one.hub_s),
    ("hub, adding all", "#7a3b8f", lambda one: one.add_s),
)
_WIDTH, _HEIGHT, _LEFT, _TOP = 400, 260, 70, 50


def main() -> int:
    """Measure and draw."""
    wide = [_round(boxes, 100_000) for boxes in _BOXES]
    long = [_round(100, words) for words in _WORDS]
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.write_text(draw(wide, long), encoding="utf-8")
    sys.stdout.write(f"wrote {out.name}\n")
    return 0


def _round(boxes: int, words: int) -> Outcome:
    outcome = simulate(boxes, words=words, drop=0.1, noise=False)
    if not outcome.exact:
        raise SystemExit("a round was not exact")
    return outcome


def draw(wide: list[Outcome], long: list[Outcome]) -> str:
    """Return the picture."""
    width = 2 * (_WIDTH + _LEFT) + 40
    body = _panel(0, "100,000 words", "boxes", [one.boxes for one in wide], wide)
    body += _panel(_WIDTH + _LEFT + 20, "100 boxes", "words", [one.words for one in long], long)
    legend = "".join(
        f'<circle cx="{80 + 170 * n}" cy="356" r="5" fill="{colour}"/>'
        f'<text x="{92 + 170 * n}" y="361">{name}</text>'
        for n, (name, colour, _) in enumerate(_ROLES)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 380" '
        'font-family="sans-serif" font-size="13" role="img" '
        'aria-label="Seconds per role over boxes and over words">'
        f'<rect width="{width}" height="380" fill="#fff"/>'
        '<text x="70" y="22" font-size="15">Secure sum, m = 4, t = 1, a tenth dropped: '
        f"seconds of processor time</text>{body}{legend}</svg>\n"
    )


def _panel(x0: int, title: str, unit: str, places: list[int], found: list[Outcome]) -> str:
    low, high = -4, 1  # powers of ten of a second
    first, last = math.log10(places[0]), math.log10(places[-1])

    def x(value: float) -> float:
        return x0 + _LEFT + (math.log10(value) - first) / (last - first) * (_WIDTH - 40)

    def y(seconds: float) -> float:
        power = math.log10(max(seconds, 10.0**low))
        return _TOP + (high - power) / (high - low) * _HEIGHT

    parts = [f'<text x="{x0 + _LEFT}" y="42">{title}</text>']
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(
            f'<path d="M{x0 + _LEFT} {at:.1f}h{_WIDTH - 40}" stroke="#ddd"/>'
            f'<text x="{x0 + _LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for place in places:
        parts.append(
            f'<text x="{x(place):.1f}" y="{_TOP + _HEIGHT + 20}" text-anchor="middle">{place:,}'
            f"{' ' + unit if place == places[-1] else ''}</text>"
        )
    for _, colour, pick in _ROLES:
        points = [(x(place), y(pick(one))) for place, one in zip(places, found, strict=True)]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"/>' for a, b in points]
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main())
