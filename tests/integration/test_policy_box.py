"""Policy and grades on a real box: a child, a special disease, a new policy over HTTP."""

import json

import pytest
from pynetdicom import AE

from bedside_core.policy import PAYLOAD_TYPE, parse_source
from bedside_core.signatures import seal_envelope
from bedside_edge.dicom.scu import keep_answers
from bedside_edge.system.policy_cedar import shipped_source
from bedside_edge.system.policy_keys import load_signer, make_key
from support.chest import chest
from support.running_box import part10, running_box

FAST = "[completion]\nquiet_s = 0.5\nmax_wait_s = 3.0\n[jobs]\nbackoff_s = 0.05\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    keys = folder / "trusted"
    keys.mkdir()
    make_key("officer", keys / "officer.pem", None)
    (keys / "officer.pem").rename(folder / "officer.pem")
    (folder / "officer.pub").write_bytes((keys / "officer.pub").read_bytes())
    return folder


@pytest.fixture(scope="module")
def box(place):
    with running_box(place / "box", FAST + f'[policy]\ntrusted = "{place / "trusted"}"\n') as box:
        yield box
        assert box.stop() == 0


def study(number, **attributes):
    dataset = chest(number)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return part10(dataset)


def send_as(box, title, dataset):
    entity = AE(ae_title=title)
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    where = box.dicom
    association = entity.associate(where["host"], where["port"], ae_title=where["ae_title"])
    keep_answers(association)
    try:
        return association.send_c_store(dataset).Status
    finally:
        association.release()


def test_a_fresh_box_has_the_shipped_policy_and_says_why(box):
    found = box.http.get("/api/v1/policy")
    view = found.json()
    assert (view["shipped"], view["revision"], found.headers["ETag"]) == (True, 1, '"1"')
    assert all(rule["en"] and rule["zh"] for rule in view["rules"])
    assert view["golden"] > 40
    ask = {"use": "view", "actor": {"roles": ["radiologist"]}, "data": {"withdrawn": True}}
    told = box.http.post("/api/v1/policy:explain", json=ask).json()
    assert told["permitted"] is True  # images of who withdrew are still shown for treatment
    ask["data"]["thing"] = "result"
    told = box.http.post("/api/v1/policy:explain", json=ask).json()
    assert told["rules"] == ["withdrawal-results"]
    assert {"rule": "view-by-reader", "effect": "permit", "applies": True} in told["fired"]
    assert box.http.post("/api/v1/policy:explain", json={"use": "look"}).status_code == 422


def test_a_childs_study_is_kept_and_not_read_and_the_result_says_which_rule(box):
    answer = box.analyze(study(301, PatientBirthDate="20200101", StudyDate="20260101"))
    problem = answer.json()
    assert answer.status_code == 403
    assert problem["type"].endswith("not-permitted")
    assert "guardian" in problem["detail"]
    stored = box.http.get(problem["result"]).json()
    assert stored["result"]["status"] == "not_processed"
    assert stored["result"]["permission"]["rules"][0]["rule"] == "guardian"
    assert stored["result"]["permission"]["rules"][0]["zh"]
    job = box.http.get(problem["job"]).json()
    assert (job["state"], job["reason"]) == ("refused", "not-permitted")
    found = box.http.get("/dicom-web/studies", params={"limit": 100}).json()
    assert len(found) >= 1  # the study itself is there


def test_a_special_disease_is_for_the_treating_physician_only(box):
    answer = box.analyze(study(302, StudyDescription="Chest, HIV follow-up"))
    assert answer.status_code == 403  # a token's screen is not the physician's
    assert "grade5-attending" in answer.json()["detail"]
    reader = box.person("radiologist")
    rows = reader.get("/api/v1/worklist").json()["studies"]
    (row,) = [row for row in rows if row["grade"] == 5]
    found = reader.get(row["result"])
    assert found.status_code == 200
    assert found.json()["grade"] == 5
    keeper = box.person("administrator")
    assert keeper.get(row["result"]).status_code == 403
    rows = keeper.get("/api/v1/worklist").json()["studies"]
    assert rows
    assert all(row["grade"] < 5 for row in rows)


def test_a_signed_policy_comes_into_force_and_rules_out_a_sender(box, place):
    source = {name: data.decode() for name, data in shipped_source().items()}
    toml = source["policy.toml"].replace("\nversion = 1\n", "\nversion = 2\n")
    toml = toml.replace("[reasons]", '[reasons]\nno-stow = { en = "Not so.", zh = "不可。" }', 1)
    cedar = source["policy.cedar"] + (
        '\n@id("no-stow") forbid(principal, action == Action::"receive", resource)'
        ' when { principal.kind == "token" || resource.source == "CT9" };'
    )
    made = parse_source(toml.encode(), cedar.encode())
    key_id, sign = load_signer(place / "officer.pem", "", None)
    envelope = json.loads(seal_envelope(PAYLOAD_TYPE, made.payload, {key_id: sign}))
    officer = box.person("privacy-officer")
    assert officer.put("/api/v1/policy", json=envelope).status_code == 428
    stale = officer.put("/api/v1/policy", json=envelope, headers={"If-Match": '"9"'})
    assert stale.status_code == 412
    forged = envelope | {"signatures": [{"keyid": key_id, "sig": "AAAA"}]}
    wrong = officer.put("/api/v1/policy", json=forged, headers={"If-Match": '"1"'})
    assert wrong.status_code == 403
    checked = officer.post("/api/v1/policy:check", json=envelope).json()
    assert (checked["needed"], checked["looser"]) == (1, [])
    done = officer.put("/api/v1/policy", json=envelope, headers={"If-Match": '"1"'})
    assert done.status_code == 200, done.text
    assert (done.json()["revision"], done.json()["shipped"]) == (2, False)
    assert done.json()["history"][0]["signers"] == [key_id]
    answer = box.stow(study(303))
    assert answer.status_code == 409
    (failed,) = answer.json()["0008119A"]["Value"]  # what it was is not even looked at
    assert failed["00081197"]["Value"] == [0x0124]
    assert send_as(box, "CT9", chest(305)) == 0x0124
    assert box.store_datasets([chest(304)]) == [0]  # the modality still may
