"""What every DeploymentStore promises, held against SQLite and the simulator."""

from dataclasses import replace

import pytest

from bedside_core.errors import StaleRevisionError
from bedside_core.findings import Rule
from bedside_core.rollout import Deployment
from bedside_edge.ports.evidence import no_record
from bedside_edge.services.rollout import Change, Comparison
from bedside_edge.store.database import Database
from bedside_edge.store.deployments import SqliteDeployments
from support.memory_deployments import MemoryDeployments

FIRST = Deployment(name="cxr", active="1.0.0")


@pytest.fixture(params=["sqlite", "memory"])
def reopen(request, tmp_path):
    """Return a function that gives the store, each time as after a restart."""
    if request.param == "memory":
        store = MemoryDeployments()
        yield lambda: store
        return
    opened = []

    def again():
        for database in opened:
            database.close()
        opened.append(Database(tmp_path / "box.db"))
        return SqliteDeployments(opened[-1], no_record)

    yield again
    opened[-1].close()


def change(revision, what="activate"):
    return Change(revision=revision, what=what, actor="local", at=1000 + revision)


def test_a_box_that_was_never_changed_has_no_deployment(reopen):
    store = reopen()
    assert (store.all(), store.changes("cxr"), store.tallies("cxr")) == ([], [], [])


def test_a_deployment_and_its_history_survive_a_restart(reopen):
    store = reopen()
    rule = Rule(threshold=0.5, low=0.4, high=0.6)
    second = FIRST.activate("1.1.0")
    third = replace(second.with_threshold(rule), canary="1.2.0", percent=7, shadow="1.0.0")
    store.save(second, change(1))
    store.save(third, change(2, "more"))
    again = reopen()
    assert again.all() == [third]
    assert [(c.revision, c.what) for c in again.changes("cxr")] == [(2, "more"), (1, "activate")]
    assert [c.revision for c in again.changes("cxr", 1)] == [2]


def test_only_the_next_revision_is_stored(reopen):
    store = reopen()
    second = FIRST.activate("1.1.0")
    store.save(second, change(1))
    for stale in (second, second.roll_back().with_shadow("2.0.0")):
        with pytest.raises(StaleRevisionError):
            store.save(stale, change(stale.revision))
    assert reopen().all() == [second]
    assert len(reopen().changes("cxr")) == 1


def test_models_do_not_meet(reopen):
    store = reopen()
    store.save(FIRST.activate("1.1.0"), change(1))
    store.save(Deployment(name="lungs", active="1.0.0").activate("2.0.0"), change(1))
    assert {held.name: held.active for held in store.all()} == {"cxr": "1.1.0", "lungs": "2.0.0"}
    assert len(store.changes("lungs")) == 1


def test_comparisons_are_counted_by_pair_of_decisions(reopen):
    store = reopen()
    for other, difference in (("present", 0.1), ("present", 0.3), ("failed", 0.0)):
        store.compared(
            Comparison(
                name="cxr",
                version="1.0.0",
                shadow="1.1.0",
                decision="present",
                shadow_decision=other,
                difference=difference,
            )
        )
    found = reopen().tallies("cxr")
    assert [(t.shadow_decision, t.studies) for t in found] == [("failed", 1), ("present", 2)]
    assert found[1].difference == pytest.approx(0.4)
    assert reopen().tallies("lungs") == []
