"""Changes of version under running studies, after restarts, and with shadows that break."""

import json
import threading

import pytest

from bedside_core.errors import EngineFailedError, GoldenMismatchError, StaleRevisionError
from bedside_core.findings import Rule
from bedside_core.manifest import Manifest
from bedside_edge.ports import Outcome
from bedside_edge.services.models import ModelId, ModelService
from bedside_edge.services.rollout import Change, RolloutService
from support.http_box import FakeAnalysis, FixedClock, tiny_manifest
from support.memory_deployments import MemoryDeployments

KNOWN = [ModelId("sample", version) for version in ("1.0.0", "1.1.0", "1.2.0")]


def outcome(version, decision="present", probability=0.75):
    value = {"decision": decision, "probability": probability} if decision else None
    body = {"value": value, "model": {"version": version}}
    return Outcome(refused=not decision, reason="", body=json.dumps(body).encode())


class House:
    def __init__(self, store=None):
        self.store = store or MemoryDeployments()
        self.failing = set()
        self.opened = {}
        first = self.open(KNOWN[0])
        self.models = ModelService(first, open_model=self.open, known=lambda: KNOWN, most=3)
        self.rollout = RolloutService(self.models, self.store, FixedClock())

    def open(self, model):
        if model.version in self.failing:
            raise GoldenMismatchError("one logit is off")
        analysis = FakeAnalysis()
        fields = tiny_manifest().model_dump() | {"name": model.name, "version": model.version}
        analysis.model.manifest = Manifest.model_validate(fields)
        self.opened[model.version] = analysis
        return analysis

    def reads(self, study="s1"):
        with self.rollout.lend("sample", study) as (analysis, note):
            return analysis.model.manifest.version, note


def test_a_study_under_way_keeps_its_version_and_the_next_gets_the_new_one():
    house = House()
    house.rollout.activate("sample", "1.1.0", 0, "a")
    house.rollout.activate("sample", "1.2.0", 1, "a")  # 1.1.0 stays for the roll-back
    inside, go_on, seen = threading.Event(), threading.Event(), []

    def study():
        with house.rollout.lend("sample", "s1") as (analysis, note):
            inside.set()
            go_on.wait(10)
            seen.append((analysis.model.manifest.version, analysis.model.engine.closed, note))

    thread = threading.Thread(target=study)
    thread.start()
    assert inside.wait(10)
    house.rollout.roll_back("sample", 2, "a")
    assert house.reads() == ("1.1.0", {"role": "active", "revision": 3})
    go_on.set()
    thread.join(10)
    assert seen == [("1.2.0", False, {"role": "active", "revision": 2})]
    assert house.opened["1.2.0"].model.engine.closed


def test_what_was_chosen_is_in_force_after_a_restart():
    house = House()
    house.rollout.activate("sample", "1.1.0", 0, "a")
    house.rollout.set_threshold("sample", Rule(threshold=0.5, low=0.4, high=0.6), 1, "a")
    again = House(house.store)
    assert again.reads() == ("1.1.0", {"role": "active", "revision": 2})
    assert again.opened["1.1.0"].rule.threshold == 0.5
    assert again.opened["1.0.0"].rule is None


def test_a_box_does_not_start_with_another_version_than_the_chosen_one():
    house = House()
    house.rollout.activate("sample", "1.1.0", 0, "a")
    models = ModelService(
        house.opened["1.0.0"],
        open_model=lambda _: (_ for _ in ()).throw(GoldenMismatchError("off")),
        known=lambda: KNOWN,
        most=3,
    )
    with pytest.raises(GoldenMismatchError):
        RolloutService(models, house.store, FixedClock())


def test_a_canary_that_is_gone_leaves_its_studies_to_the_active_version():
    house = House()
    house.rollout.set_canary("sample", "1.1.0", 99, 0, "a")
    roles = {house.reads(f"s{number}")[1]["role"] for number in range(50)}
    assert "canary" in roles
    store = house.store

    class Broken(House):
        def open(self, model):
            if model.version == "1.1.0":
                raise GoldenMismatchError("one logit is off")
            return super().open(model)

    broken = Broken(store)
    assert {broken.reads(f"s{number}")[0] for number in range(50)} == {"1.0.0"}


def test_a_shadow_reads_along_and_is_counted_not_shown():
    house = House()
    house.rollout.set_shadow("sample", "1.1.0", 0, "a")
    assert house.reads()[0] == "1.0.0"
    asked = []

    def read(analysis):
        asked.append(analysis.model.manifest.version)
        return outcome("1.1.0", "absent", 0.25)

    house.rollout.compare("sample", outcome("1.0.0"), read)
    house.rollout.compare("sample", outcome("1.0.0"), read)
    house.rollout.compare("sample", outcome("1.0.0", ""), lambda _: outcome("1.1.0", ""))
    assert asked == ["1.1.0", "1.1.0"]
    tallies = {(t.decision, t.shadow_decision): t for t in house.store.tallies("sample")}
    assert tallies["present", "absent"].studies == 2
    assert tallies["present", "absent"].difference == pytest.approx(1.0)
    assert tallies["refused", "refused"].studies == 1


def test_a_shadow_that_breaks_is_counted_as_failed():
    house = House()
    house.rollout.set_shadow("sample", "1.1.0", 0, "a")

    def broken(analysis):
        raise EngineFailedError("out of memory")

    house.rollout.compare("sample", outcome("1.0.0"), broken)
    (tally,) = house.store.tallies("sample")
    assert (tally.shadow_decision, tally.studies, tally.difference) == ("failed", 1, 0.0)


def test_without_a_shadow_nothing_reads_along():
    house = House()

    def never(analysis):
        raise AssertionError

    house.rollout.compare("sample", outcome("1.0.0"), never)
    assert house.store.tallies("sample") == []


def test_a_change_that_cannot_be_stored_is_not_in_force():
    house = House()
    now = house.rollout.deployment("sample")
    house.store.save(now.with_shadow("1.2.0"), Change(revision=1, what="", actor="b", at=1))
    with pytest.raises(StaleRevisionError):
        house.rollout.activate("sample", "1.1.0", 0, "a")
    assert house.reads()[0] == "1.0.0"
