"""Consent and the request desk on a real box: what a withdrawal stops, what is handed over."""

import base64
import io
import json
import zipfile

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydicom import dcmread
from pydicom.uid import generate_uid

from bedside_core.consent import NOTICE_PARTS
from support.dicom_files import bundled_path
from support.running_box import RunningBox, running_box

FILE = bundled_path("RG1_UNCR")
PARTS = dict.fromkeys(NOTICE_PARTS, "words of the hospital")


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    running = RunningBox(tmp_path_factory.mktemp("rights"), "[completion]\nquiet_s = 0.2\n")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def officer(box):
    return box.person("privacy-officer")


@pytest.fixture(scope="module")
def subject(box, officer):
    assert box.store(FILE) == [0]
    data = dcmread(FILE, stop_before_pixels=True)
    body = {"patient_id": data.PatientID, "issuer": data.get("IssuerOfPatientID", "")}
    return officer.post("/api/v1/subjects:find", json=body).raise_for_status().json()["id"]


def ask(officer, subject, kind, how="passport"):
    made = officer.post(f"/api/v1/subjects/{subject}/requests", json={"kind": kind})
    request = made.raise_for_status().json()
    assert request["text"] == "unverified - have it checked"
    path = f"/api/v1/requests/{request['id']}"
    assert officer.post(f"{path}:answer", json={}).status_code == 409, "nobody was recognised"
    officer.post(f"{path}:identify", json={"how": how}).raise_for_status()
    return path


def answer(officer, path):
    found = officer.post(f"{path}:answer", json={}).raise_for_status().json()
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(found["file"])))


def test_notice_consent_and_fhir_there_and_back(officer, subject):
    short = {"parts": {"processor": "us"}}
    assert officer.post("/api/v1/notices", json=short).status_code == 422
    digest = (
        officer.post("/api/v1/notices", json={"parts": PARTS}).raise_for_status().json()["digest"]
    )
    path = f"/api/v1/subjects/{subject}/consents"
    unknown = {"purpose": "training", "notice": "0" * 64}
    assert officer.post(path, json=unknown).status_code == 404
    body = {"purpose": "training", "notice": digest, "separate": True}
    given = officer.post(path, json=body)
    assert given.status_code == 201, given.text
    bundle = officer.get(f"{path}/fhir").json()
    Bundle.model_validate(bundle)
    again = officer.post(f"{path}/fhir", json=bundle["entry"][0]["resource"])
    assert again.status_code == 201, again.text
    same = ("purpose", "notice", "given_by", "separate", "classes")
    assert [again.json()[key] for key in same] == [given.json()[key] for key in same]
    wrong = bundle["entry"][0]["resource"] | {"status": "inactive"}
    assert officer.post(f"{path}/fhir", json=wrong).status_code == 422


def test_a_copy_holds_the_results_and_proofs_that_verify(box, officer, subject):
    assert box.settled()[0]["state"] == "done"
    path = ask(officer, subject, "copy")
    with answer(officer, path) as archive:
        bundle = json.loads(archive.read("bundle.json"))
        Bundle.model_validate(bundle)
        kinds = {entry["resource"]["resourceType"] for entry in bundle["entry"]}
        assert {"DiagnosticReport", "Observation", "Consent"} <= kinds
        proofs = [name for name in archive.namelist() if name.endswith(".tlog-proof")]
        assert proofs
        assert archive.read(proofs[0]).startswith(b"c2sp.org/tlog-proof@v1")
    assert officer.post(f"{path}:answer", json={}).status_code == 409, "answered once"
    found = officer.get(path).json()
    assert (found["state"], len(found["response"])) == ("answered", 64)


def test_to_know_says_what_is_held_from_other_sources_too(officer, subject):
    data = dcmread(FILE, stop_before_pixels=True)
    row = {"patient_id": data.PatientID, "issuer": data.get("IssuerOfPatientID", "")}
    rows = {"rows": [row | {"value": "high"}]}
    assert officer.put("/api/v1/sources/lab", json=rows).raise_for_status().json()["known"] == 1
    with answer(officer, ask(officer, subject, "copy")) as archive:
        assert json.loads(archive.read("other-sources.json")) == {"lab": "high"}
    with answer(officer, ask(officer, subject, "know")) as archive:
        held = json.loads(archive.read("held.json"))
    assert held["other_sources"] == ["lab"]
    assert (held["studies"], held["images"]) == (1, 1)
    assert held["purposes"] == ["training"]


def test_a_token_or_reader_hands_nothing_over(box, officer, subject):
    path = ask(officer, subject, "copy")
    assert box.http.post(f"{path}:answer", json={}).status_code == 403
    assert box.person("radiologist").post(f"{path}:answer", json={}).status_code == 403


def test_after_a_withdrawal_no_model_reads_and_the_study_is_kept(box, officer, subject):
    with answer(officer, ask(officer, subject, "object")) as archive:
        assert json.loads(archive.read("answer.json"))["kind"] == "object"
    data = dcmread(FILE)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    assert box.store_datasets([data]) == [0], "the study is taken in"
    job = box.settled()[0]
    assert (job["state"], job["reason"]) == ("refused", "not-permitted")
    text = json.dumps(box.http.get("/api/v1/evidence/entries?limit=100").json())
    assert '"withdrawal"' in text


def test_deletion_erases_the_patient(officer, subject):
    with answer(officer, ask(officer, subject, "delete")) as archive:
        made = json.loads(archive.read("answer.json"))["erasure"]
    assert officer.get(f"/api/v1/erasures/{made}").json()["state"] == "done"
    assert officer.get(f"/api/v1/subjects/{subject}/consents").status_code == 404


def test_where_diagnosis_stands_on_consent_nothing_is_read_without_one(tmp_path):
    settings = '[completion]\nquiet_s = 0.2\n[site]\ndiagnosis_basis = "consent"\n'
    with running_box(tmp_path, settings) as box:
        assert box.store(FILE) == [0]
        job = box.settled()[0]
        assert (job["state"], job["reason"]) == ("refused", "not-permitted")
        assert "AI not run: no basis" in json.dumps(box.result(job))
        box.stop()
