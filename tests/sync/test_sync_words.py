"""What `sync now` tells in words: this visit, not the whole night again."""

from bedside_edge.cli.sync import since

KEY = {"step": "key", "round": "census-1", "outcome": "done", "started": 1, "ended": 2}
LATE = {"step": "help", "round": "census-1", "outcome": "failed", "started": 3, "ended": 4}


def test_a_visit_tells_what_came_since_and_what_lasted_longer():
    before = {"night": 1, "events": [KEY, LATE]}
    longer, record = LATE | {"ended": 9}, KEY | {"step": "record", "started": 8}
    night = {"night": 1, "events": [KEY, longer, record]}
    assert since(before, night) == {"night": 1, "events": [longer, record]}
    assert since(night, night)["events"] == []


def test_a_first_visit_and_one_in_a_new_night_tell_all():
    night = {"night": 2, "events": [KEY]}
    assert since({}, night) == night
    assert since({"night": 1, "events": [KEY]}, night) == night
