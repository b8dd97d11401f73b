"""The bill of a model package: everything it lists, nothing guessed, the same bytes each time."""

import json
import re

import pytest

from bedside_core.manifest import FileEntry
from bedside_core.model_bom import BOM_NAME, model_bom, serial_number
from support.sample_manifest import sample_manifest

FIGURES = {"images": 9, "patients": 5, "positive": 2, "auc": [0.8, None, None]}
EVALUATION = {
    "data": "sha256:" + "a" * 64,
    "checkpoint": "sha256:" + "b" * 64,
    "splits": {"val": {"all": FIGURES | {"brier": [0.1, 0.05, 0.2]}, "sex F": {"auc": [1, 0, 1]}}},
}


@pytest.fixture
def manifest():
    return sample_manifest()


def component(data):
    (found,) = json.loads(data)["components"]
    return found


def test_every_file_is_listed_with_its_digest_but_the_bill_itself(manifest):
    entry = FileEntry(sha256="sha256:" + "c" * 64, size=1)
    more = manifest.model_copy(
        update={"files": manifest.files | {BOM_NAME: entry, "card.md": entry}}
    )
    found = component(model_bom(more, EVALUATION, {}))
    listed = {part["name"]: part["hashes"][0]["content"] for part in found["components"]}
    assert listed == {
        path: one.sha256.removeprefix("sha256:")
        for path, one in more.files.items()
        if path != BOM_NAME
    }
    (card,) = found["externalReferences"]
    assert (card["type"], card["hashes"][0]["content"]) == ("model-card", "c" * 64)


def test_figures_keep_their_interval_or_say_none(manifest):
    card = component(model_bom(manifest, EVALUATION, {}))["modelCard"]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics == [
        {"type": "auc", "value": "0.8", "slice": "val: all"},
        {
            "type": "brier",
            "value": "0.1",
            "slice": "val: all",
            "confidenceInterval": {"lowerBound": "0.05", "upperBound": "0.2"},
        },
        {
            "type": "auc",
            "value": "1",
            "slice": "val: sex F",
            "confidenceInterval": {"lowerBound": "0", "upperBound": "1"},
        },
    ]
    (dataset,) = card["modelParameters"]["datasets"]
    assert dataset["description"] == "9 images of 5 patients, 2 positive"
    assert dataset["contents"]["properties"][0]["value"] == "a" * 64


def test_training_parameters_stand_as_they_were_given(manifest):
    found = component(model_bom(manifest, EVALUATION, {"seed": 7, "torch": "2.13", "shape": [1]}))
    told = {one["name"]: one["value"] for one in found["properties"]}
    assert told["bedside:training:seed"] == "7"
    assert told["bedside:training:torch"] == "2.13"
    assert told["bedside:training:shape"] == "[1]"
    assert told["bedside:checkpoint"] == EVALUATION["checkpoint"]


def test_what_the_package_does_not_know_is_left_out(manifest):
    bare = {"splits": {"val": {"all": FIGURES}}}
    found = component(model_bom(manifest, bare, {}))
    assert "externalReferences" not in found or "card.md" in manifest.files
    assert "bedside:checkpoint" not in {one["name"] for one in found["properties"]}
    (dataset,) = found["modelCard"]["modelParameters"]["datasets"]
    assert dataset["contents"]["properties"] == []
    empty = component(model_bom(manifest, {}, {}))
    assert empty["modelCard"]["modelParameters"]["datasets"] == []


def test_the_same_package_gives_the_same_bytes_and_another_one_others(manifest):
    one = model_bom(manifest, EVALUATION, {"seed": 7})
    assert one == model_bom(manifest, EVALUATION, {"seed": 7})
    other = model_bom(manifest, EVALUATION, {"seed": 8})
    assert json.loads(one)["serialNumber"] != json.loads(other)["serialNumber"]


def test_a_serial_number_is_a_version_8_uuid():
    shape = r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(shape, serial_number(bytes([n]))) for n in range(64))
