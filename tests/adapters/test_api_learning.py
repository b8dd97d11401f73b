"""What rounds mean for a hospital's cases, asked over HTTP and at the box."""

import json

import pytest
from click.testing import CliRunner

from bedside_core.findings import Decision
from bedside_core.uses import Purpose
from bedside_edge.cli import cli
from support.http_box import HttpBox
from support.learning_house import FINDING, LearningBox
from support.synthetic import uid

CLEANING = {
    "version": 1,
    "numbers": {
        "image.kvp": {
            "unit": "kV",
            "fill": 120_000_000,
            "lower": 80_000_000,
            "upper": 150_000_000,
            "missing_permille": 10,
        }
    },
    "formats": {"image.exposure_unit": {"usual": "mAs", "counts": {"mAs": 9, "other": 1}}},
    "deviation": 0.3,
}
CONSENSUS = {
    "finding": FINDING,
    "classes": ["absent", "present"],
    "consensus": {uid(1, 1, 1): "absent", uid(2, 1, 1): "present", "9.9": None},
    "kappa": {"value": 0.9},
}
SOURCE = {"rows": [{"patient_id": "T1", "value": "high"}, {"patient_id": "T9", "value": "low"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("learning")


@pytest.fixture(scope="module")
def house(folder):
    box = LearningBox(folder)
    box.first = box.study(1, say=Decision.PRESENT, KVP="900")
    box.second = box.study(2, say=Decision.PRESENT)
    yield box
    box.close()


@pytest.fixture(scope="module")
def web(house):
    with HttpBox(learning=house.learning) as box:
        house.facts = box.governance.facts
        yield box.client


def test_a_cleaning_is_taken_over_and_reported_on(web, house):
    made = web.post("/api/v1/cleanings", json={"document": CLEANING})
    assert made.status_code == 201
    digest = made.json()["digest"]
    listed = web.get("/api/v1/cleanings").json()["cleanings"]
    assert [one["digest"] for one in listed] == [digest]
    assert listed[0]["actor"] == "system:peer"
    found = web.get(f"/api/v1/cleanings:report?version={digest}").json()
    assert found["filled"] == {"image.kvp": 1}
    assert found["fenced"] == {"image.kvp": 1}
    assert found["odd"] == {"image.exposure_unit": 2}
    assert {one["study"] for one in found["touched"]} == {house.first, house.second}
    assert web.get(f"/api/v1/cleanings:report?version={'0' * 64}").status_code == 404
    assert web.post("/api/v1/cleanings", json={"document": {"numbers": 3}}).status_code == 400


def test_the_relabel_queue_has_what_was_signed_otherwise(web, house):
    assert web.get("/api/v1/relabel").json() == {"studies": []}
    made = web.post("/api/v1/consensus", json={"document": CONSENSUS})
    assert made.status_code == 201
    (one,) = web.get("/api/v1/relabel").json()["studies"]
    house.facts.missing.add(house.first)
    assert web.get("/api/v1/relabel").json() == {"studies": []}  # what may not be seen is left out
    assert (one["study"], one["here"], one["consensus"]) == (house.first, "present", "absent")


def test_a_source_is_kept_for_patients_the_box_knows(web):
    assert web.request("PUT", "/api/v1/sources/lab", json=SOURCE).json() == {
        "name": "lab",
        "known": 1,
        "unknown": 1,
    }
    assert web.request("PUT", "/api/v1/sources/Lab", json=SOURCE).status_code == 422
    assert web.get("/api/v1/own-head").json()["enough"] is False


def test_a_box_without_rounds_says_so():
    with HttpBox() as box:
        assert box.client.get("/api/v1/relabel").status_code == 503


def test_the_commands_say_the_same_over_a_folder(tmp_path):
    state = tmp_path / "state"
    box = LearningBox(state)
    box.study(1, say=Decision.PRESENT, KVP="900")
    box.agree(box.study(2, say=Decision.PRESENT), Purpose.TRAINING)
    box.close()
    for name, content in (("clean", CLEANING), ("pool", {"reading": CONSENSUS})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "lab.csv").write_text("patient_id,value\nT1,high\nT9,low\n")

    def run(*words):
        done = CliRunner().invoke(cli, ["data", *words, "--state", str(state)])
        assert done.exit_code == 0, done.output
        return done.output

    found = json.loads(run("clean", str(tmp_path / "clean.json"), "--json"))
    assert found["studies"] == 2
    assert "moved to a fence" in run("clean")
    assert "1 to look at again" in run("consensus", str(tmp_path / "pool.json"))
    assert "here present, others absent" in run("relabel")
    assert "1 patients; 1 rows" in run("source", "lab", str(tmp_path / "lab.csv"))
    (tmp_path / "odd.csv").write_text("name,value\nX,high\n")
    done = CliRunner().invoke(
        cli, ["data", "source", "lab", str(tmp_path / "odd.csv"), "--state", str(state)]
    )
    assert "columns" in str(done.exception)
