"""Agreement over time: week by week, how often readers left standing what the box had said."""

from collections.abc import Iterable
from typing import Any, Final

from bedside_core.agreement import wilson
from bedside_edge.ports.review import Label
from bedside_edge.services.review import ReviewService

_WEEK_MS: Final = 7 * 86_400_000
_MONDAY_MS: Final = 4 * 86_400_000  # 1970-01-05 was the first Monday
_PAGE: Final = 1000
_MOST_WEEKS: Final = 104


def labels_of(reviews: ReviewService) -> Iterable[Label]:
    """Return the standing verdicts in the order of signing."""
    after = 0
    while found := reviews.labels(after=after, limit=_PAGE):
        yield from found
        after = found[-1].seq


def by_week(labels: Iterable[Label]) -> dict[str, Any] | None:
    """Return share and 95 % interval per week for the chart; None without two weeks to compare.

    Weeks begin on Monday, UTC. A verdict without a word on the finding counts nowhere.
    """
    weeks: dict[int, list[bool]] = {}
    for one in labels:
        if one.standing and one.decision is not None:
            week = (one.at - _MONDAY_MS) // _WEEK_MS
            weeks.setdefault(week, []).append(one.decision == one.box_decision)
    if len(weeks) < 2:
        return None
    shown = sorted(weeks)[-_MOST_WEEKS:]
    intervals = [wilson(sum(weeks[week]), len(weeks[week])) for week in shown]
    return {
        "kind": "line",
        "x": [(week * _WEEK_MS + _MONDAY_MS) // 1000 for week in shown],
        "share": [sum(weeks[week]) / len(weeks[week]) for week in shown],
        "low": [low for low, _ in intervals],
        "high": [high for _, high in intervals],
        "pairs": [len(weeks[week]) for week in shown],
    }
