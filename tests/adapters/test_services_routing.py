"""The way of a study to its model, over loaded models in memory."""

import json
from dataclasses import replace

import pytest

from bedside_core.errors import InvalidRulesError, NotFoundError, NotReadyError, WrongStateError
from bedside_core.manifest import Manifest
from bedside_core.routing import parse_rules
from bedside_edge.ports import Header, Instance, InstanceState, Outcome
from bedside_edge.services.models import ModelId, ModelService
from bedside_edge.services.rollout import RolloutService
from bedside_edge.services.routing import RoutingService
from support.http_box import FakeAnalysis, FixedClock, tiny_manifest
from support.memory_deployments import MemoryDeployments

RULES = """
format = "bedside-rules/1"
[[rules]]
name = "ct"
model = "lungs"
when.modality = ["CT"]
[[rules]]
name = "chest"
model = "sample"
when.view = ["PA"]
"""
HEADER = Header(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
    sop_instance_uid="1.2",
    study_uid="1.3",
    series_uid="1.4",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    modality="DX",
    view="PA",
)


class Reader(FakeAnalysis):
    """Keeps what it was asked to read."""

    def __init__(self, model):
        super().__init__()
        fields = tiny_manifest().model_dump() | {"name": model.name, "version": model.version}
        self.model.manifest = Manifest.model_validate(fields)
        self.asked = []
        self.failure = None

    def analyse_study(self, instances, read, *, left_out, routing=None, deployment=None):
        self.asked.append((left_out, routing))
        self.deployment = deployment
        if self.failure:
            raise self.failure
        return Outcome(refused=False, reason="", body=b"{}")


def instance(name, state=InstanceState.HELD, **header):
    return Instance(
        instance_id=name,
        study_id="s",
        header=replace(HEADER, **header),
        object_name=name,
        object_key=b"",
        digest="",
        state=state,
        same_as="a" if state is InstanceState.SAME else "",
    )


class House:
    def __init__(self, *known, text=RULES):
        self.readers = {}
        first = self.reader(ModelId("sample", "1.0.0"))
        self.models = ModelService(
            first,
            open_model=self.reader,
            known=lambda: [ModelId(name, "1.0.0") for name in known],
            most=3,
        )
        self.routing = RoutingService(
            parse_rules(text.encode()),
            self.models,
            lambda: RolloutService(self.models, MemoryDeployments(), FixedClock()),
        )

    def reader(self, model):
        self.readers[model.name] = Reader(model)
        return self.readers[model.name]

    def analyse(self, *instances):
        return self.routing.analyse_study(instances, lambda one: b"")


def test_what_rules_name_is_loaded_and_stays_loaded():
    house = House("lungs")
    assert [m.manifest.name for m in house.models.loaded()] == ["sample", "lungs"]
    with pytest.raises(WrongStateError):
        house.models.unload("lungs")


def test_rules_that_name_a_model_the_box_has_not_are_refused():
    with pytest.raises(InvalidRulesError, match="lungs"):
        House()


def test_a_study_goes_to_the_model_of_the_first_rule_with_what_that_rule_takes():
    house = House("lungs")
    house.analyse(instance("a"), instance("b", view="LL"))
    house.analyse(instance("c", modality="CT"))
    ((left_out, note),) = house.readers["sample"].asked
    assert left_out == {"b": "rule chest does not take it"}
    assert note == {"rule": "chest", "rules": house.routing.rules.digest, "reason": "rule chest"}
    ((left_out, note),) = house.readers["lungs"].asked
    assert (left_out, note["rule"]) == ({}, "ct")


def test_no_match_runs_nothing_and_the_result_says_why():
    house = House("lungs")
    outcome = house.analyse(
        instance("a", modality="MR", view="LL"), instance("b", InstanceState.SAME)
    )
    assert (outcome.refused, outcome.reason) == (True, "no-route")
    body = json.loads(outcome.body)
    assert body["value"] is body["model"] is body["engine"] is None
    assert body["reason"]["code"] == "no-route"
    assert "ct: modality MR, the rule wants CT" in body["reason"]["detail"]
    assert [image["status"] for image in body["images"]] == ["not_processed", "same_pixels"]
    assert body["routing"]["rule"] is None
    assert not house.readers["sample"].asked


def test_a_model_that_went_away_is_a_failure_to_be_tried_again():
    house = House("lungs")
    house.models.close()
    with pytest.raises(NotReadyError):
        house.analyse(instance("a"))


def test_an_object_that_is_gone_stays_its_own_error():
    house = House("lungs")
    house.readers["sample"].failure = NotFoundError("no such object")
    with pytest.raises(NotFoundError):
        house.analyse(instance("a"))
