import pytest

from bedside_edge.ports import Header, Instance, InstanceState
from support.http_box import HttpBox

PATH = "/api/v1/rules:test"
CHEST = {"modality": "DX", "body_part": "CHEST", "view": "PA"}
OTHER = 'format = "bedside-rules/1"\n[[rules]]\nname = "ct"\nmodel = "lungs"\nwhen.source = ["CT1"]'


@pytest.fixture(scope="module")
def box():
    with HttpBox() as box:
        yield box


def test_described_images_are_tried_on_the_rules_in_force(box):
    found = box.client.post(PATH, json={"images": [CHEST, CHEST | {"view": "LL"}]}).json()
    assert (found["model"], found["rule"]) == ("sample", "made-for-sample")
    assert found["images"] == [True, False]
    assert found["models"] == [{"model": "sample", "runs": True, "reason": "rule made-for-sample"}]
    assert found["rules"] == box.routing.rules.digest


def test_why_nothing_would_run_is_told(box):
    found = box.client.post(PATH, json={"images": [{"modality": "CT"}]}).json()
    assert found["model"] == ""
    (verdict,) = found["verdicts"]
    assert verdict == {
        "rule": "made-for-sample",
        "model": "sample",
        "chosen": False,
        "images": 0,
        "reason": "modality CT, the rule wants CR, DX",
    }
    assert not found["models"][0]["runs"]


def test_other_rules_can_be_tried_and_change_nothing(box):
    before = box.routing.rules
    asked = {"images": [CHEST], "source": "CT1", "rules": OTHER}
    found = box.client.post(PATH, json=asked).json()
    assert found["model"] == "lungs"
    assert {m["model"]: m["reason"] for m in found["models"]} == {
        "sample": "no rule names it",
        "lungs": "rule ct names it, and it is not loaded",
    }
    assert box.routing.rules is before


def test_a_held_study_is_tried_by_its_id_without_what_is_in_quarantine(box):
    header = Header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        sop_instance_uid="1.2",
        study_uid="1.3",
        series_uid="1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="CT",
    )
    box.held["s1"] = [
        Instance(
            instance_id=str(state),
            study_id="s1",
            header=header,
            object_name="",
            object_key=b"",
            digest="",
            state=state,
            source="CT1",
        )
        for state in (InstanceState.HELD, InstanceState.CONFLICT)
    ]
    found = box.client.post(PATH, json={"study": "s1", "rules": OTHER}).json()
    assert (found["model"], found["images"]) == ("lungs", [True])
    assert box.client.post(PATH, json={"study": "s2"}).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({}, 422, "invalid-request"),
        ({"study": "s1", "images": [CHEST]}, 422, "invalid-request"),
        ({"images": [CHEST], "rules": "no toml"}, 400, "invalid-rules"),
        ({"images": [{"patient_name": "DOE^JANE"}]}, 422, "invalid-request"),
    ],
)
def test_what_cannot_be_tried_is_a_problem(box, asked, status, code):
    answer = box.client.post(PATH, json=asked)
    assert answer.status_code == status
    assert answer.json()["type"] == f"urn:bedside:error:{code}"
    assert "DOE" not in answer.text
