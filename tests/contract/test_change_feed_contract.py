"""The feed of changes over a real store: every change of state, in order, kept over a restart."""

import pytest

from bedside_core.access import Action, Actor
from bedside_core.review import ReviewKind
from bedside_edge.ports import Priority
from support.outputs import MemoryArchive, publishing_box
from support.synthetic import data_set, noise, part10

ADA = Actor(actor_id="person:ada", name="Lovelace^Ada", actions=frozenset({Action.REVIEW}))


@pytest.fixture
def box(tmp_path):
    with publishing_box(tmp_path / "state", MemoryArchive()) as opened:
        yield opened


def said(changes):
    return [(change.kind, change.state) for change in changes]


def test_a_study_tells_its_whole_life(box):
    feed = box.state.changes
    assert feed.newest() is None
    result = box.analysed()
    box.settle()
    box.reviews.sign(result, reader=ADA, kind=ReviewKind.ACCEPT, expected=0)
    assert said(feed.after(0)) == [
        ("job", "collecting"),
        ("job", "running"),
        ("job", "done"),
        ("result", "stored"),
        ("delivery", "delivered"),
        ("delivery", "delivered"),
        ("review", "accept"),
    ]
    job = feed.after(0)[0].job_id
    assert {change.job_id for change in feed.after(0)} == {job}
    assert {c.id for c in feed.after(0) if c.kind != "job"} == {result}
    assert feed.after(0, job_id="other") == []


def test_more_images_of_a_study_are_no_change_and_a_new_priority_is(box):
    feed = box.state.changes
    for number in (1, 2, 3):
        box.take(part10(data_set(noise(16, 12, seed=number), study=1, number=number)))
    assert said(feed.after(0)) == [("job", "collecting")]
    (job,) = box.state.jobs.jobs()
    box.state.jobs.prioritise(job.job_id, Priority.STAT, box.clock.now())
    assert said(feed.after(1)) == [("job", "collecting")]


def test_places_survive_a_restart_and_are_never_given_twice(tmp_path):
    folder = tmp_path / "state"
    with publishing_box(folder) as box:
        box.analysed()
        newest = box.state.changes.newest()
    with publishing_box(folder) as box:
        feed = box.state.changes
        assert feed.newest() == newest
        assert feed.known(newest.seq, newest.at)
        assert not feed.known(newest.seq, newest.at + 1)
        box.state.database.write(lambda c: c.execute("DELETE FROM events") and None)
        box.analysed(2)
        assert feed.after(0)[0].seq == newest.seq + 1
        assert not feed.known(newest.seq, newest.at)


def test_only_the_newest_are_kept(box):
    def flood(c):
        for number in range(10_600):
            c.execute(
                "INSERT INTO events (kind, id, study_id, state, at) VALUES ('job', ?, 's', 'x', 1)",
                (str(number),),
            )

    box.state.database.write(flood)
    kept = box.state.database.read(lambda c: c.execute("SELECT count(*) FROM events").fetchone())
    assert 10_000 <= kept[0] <= 10_256
    assert len(box.state.changes.after(0, limit=7)) == 7
