"""A study's whole way through a real process: in over three doors, one result out."""

import json
import time
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from support.chest import chest, pydicom_data
from support.running_box import part10, running_box

FAST = "[completion]\nquiet_s = 1.0\nmax_wait_s = 3.0\n[jobs]\nbackoff_s = 0.05\n"


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    with running_box(tmp_path_factory.mktemp("box"), FAST) as box:
        yield box
        assert box.stop() == 0


def test_four_encodings_of_one_image_are_one_patient_and_one_result(box):
    names = ("RG1_UNCR.dcm", "RG1_J2KR.dcm", "RG1_UNCI.dcm", "RG1_J2KI.dcm")
    assert box.store(*(pydicom_data(name) for name in names)) == [0, 0, 0, 0]
    jobs = box.settled()
    current = box.result(jobs[0])
    assert {job["study"] for job in jobs} == {jobs[0]["study"]}
    images = current["result"]["images"]
    assert [image["status"] for image in images] == ["analysed"] * 3 + ["same_pixels"]
    lossless = [image["probability"] for image in images[:2]]
    assert lossless[0] == lossless[1]
    assert images[3]["same_as"] == images[2]["instance"]
    assert images[2]["probability"] == pytest.approx(lossless[0], abs=0.01)  # lossy, not equal
    assert current["superseded_by"] is None
    assert 'bedside_instances_received_total{outcome="stored",way="dimse"} 3.0' in (
        box.http.get("/metrics").text
    )
    again = box.stow(*(pydicom_data(name).read_bytes() for name in names[:3]))
    assert again.status_code == 200
    assert len(box.settled()) == len(jobs)  # the same instances again: nothing new to do


def test_the_result_names_everything_that_made_it(box):
    answer = box.analyze(part10(chest(10))).json()["result"]
    assert answer["value"]["decision"] in ("present", "absent", "undetermined")
    assert answer["engine"]["precision"] == "f32"
    assert answer["notice"].startswith("AI decision support only")
    for digest in (answer["package"], answer["pipeline"]["digest"], answer["profile"]["digest"]):
        assert digest.startswith("sha256:")
    assert answer["images"][0]["operations"][-1].startswith("normalise")
    assert all(check["passed"] for check in answer["images"][0]["checks"])


@pytest.mark.parametrize(
    ("name", "modality"), [("CT_small.dcm", "modality CT"), ("MR_small.dcm", "modality MR")]
)
def test_another_modality_is_refused_with_its_reason(box, name, modality):
    path = Path(get_testdata_file(name, download=False, read=False))
    answer = box.analyze(path.read_bytes())
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:bedside:error:wrong-modality"
    assert modality in answer.json()["detail"]


def test_an_extremity_is_refused_and_the_refusal_is_a_kept_result(box):
    assert box.store(pydicom_data("RG3_UNCR.dcm")) == [0]
    refused = [job for job in box.settled() if job["state"] == "refused"]
    body = next(
        body
        for body in (box.result(job)["result"] for job in refused)
        if "body part EXTREMITY" in body["reason"]["detail"]
    )
    assert body["reason"]["code"] == "wrong-body-part"
    assert body["value"] is None


def test_a_late_image_makes_a_result_that_supersedes(box):
    first = box.analyze(part10(chest(20, 1))).json()
    second = box.analyze(part10(chest(20, 2, shift=9))).json()
    assert second["study"] == first["study"]
    assert second["id"] != first["id"]
    assert len(second["result"]["images"]) == 2
    old = box.http.get(f"/api/v1/results/{first['id']}").json()
    assert old["superseded_by"].endswith(second["id"])


def test_the_same_uid_with_other_pixels_keeps_both_and_alarms(box):
    before = len(box.http.get("/api/v1/alarms").json()["alarms"])
    assert box.stow(part10(chest(30))).status_code == 200
    conflict = box.stow(part10(chest(30, shift=50)))
    assert conflict.status_code == 409
    assert len(box.http.get("/api/v1/alarms").json()["alarms"]) == before + 1
    body = box.analyze(part10(chest(30))).json()["result"]
    assert [image["status"] for image in body["images"]] == ["analysed", "quarantined"]


def test_a_job_that_fails_too_often_is_dead_until_a_person_replays_it(box):
    objects = box.state / "objects"
    before = set(objects.glob("??/*"))
    assert box.stow(part10(chest(40))).status_code == 200
    (stored,) = set(objects.glob("??/*")) - before
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # within the quiet time: not read yet
    dead = box.settled()[0]
    assert (dead["state"], dead["reason"]) == ("dead", "damaged-object")
    assert dead["attempts"] == 5
    stored.write_bytes(whole)
    assert box.http.post(f"/api/v1/jobs/{dead['id']}:retry").status_code == 200
    replayed = box.settled()[0]
    assert (replayed["id"], replayed["state"]) == (dead["id"], "done")
    assert box.http.post(f"/api/v1/jobs/{dead['id']}:retry").status_code == 409


def test_the_overlay_is_a_picture_of_the_result(box):
    job = next(job for job in box.settled() if job["state"] == "done")
    picture = box.http.get(f"{job['result']}/heatmap.png")
    assert picture.status_code == 200
    assert picture.content.startswith(b"\x89PNG")


def test_no_log_line_and_no_metric_names_a_patient(box):
    time.sleep(0.1)
    text = box.log() + box.http.get("/metrics").text + json.dumps(box.jobs())
    for secret in ("SECRET", "Hidden", "9RG1", "1.2.826.0.1.3680043", "1.3.6.1.4.1.5962"):
        assert secret not in text
