"""The picture of a plan is well-formed, drawn without data, and marks the plan."""

from xml.etree import ElementTree

import pytest

from bedside_core.plan_picture import EPSILONS, error_picture
from bedside_core.planner import Schedule, plan
from bedside_core.statistics.catalogue import spec_of
from bedside_core.statistics.query import compile_query
from support.statistics import PUBLIC

QUERY = compile_query([spec_of("prevalence", PUBLIC)])


@pytest.mark.parametrize(
    ("schedule", "nights", "lines"),
    [(Schedule.ONE_OFF, 1, 1), (Schedule.NIGHTLY, 365, 3), (Schedule.RUNNING, 30, 1)],
)
def test_each_schedule_has_its_lines_and_the_plan_its_mark(schedule, nights, lines):
    chosen = plan(QUERY, 24_355_000_000, 100, schedule, nights)
    picture = error_picture(QUERY, 100, schedule, nights, chosen)
    root = ElementTree.fromstring(picture)  # noqa: S314  # our own text
    drawn = [one for one in root.iter() if one.tag.endswith("polyline")]
    assert len(drawn) == lines
    for one in drawn:
        points = [tuple(map(float, pair.split(","))) for pair in one.get("points").split()]
        assert len(points) == len(EPSILONS)
        assert [y for _, y in points] == sorted(y for _, y in points)  # more budget, less error
        assert all(0 <= x <= 640 and 0 <= y <= 400 for x, y in points)
    assert f"{100 * chosen.relative:.3g} % at epsilon" in picture
    assert "greyed" in picture
