"""A study leaves the hospital de-identified, with consent and by two people, or not at all."""

import io
import json
import subprocess
import sys

import pytest
from pydicom import dcmread

from bedside_core.consent import NOTICE_PARTS
from support.dicom_files import bundled_path
from support.running_box import RunningBox

FILE = bundled_path("RG1_UNCR")
SOURCE = dcmread(FILE, stop_before_pixels=True)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A stopped box with two studies; the patient of one agreed to export."""
    running = RunningBox(tmp_path_factory.mktemp("outside"), "[completion]\nquiet_s = 0.2\n")
    officer, reader = running.person("privacy-officer"), running.person("radiologist")
    other = dcmread(FILE)
    other.PatientID, other.StudyInstanceUID = "NO-CONSENT", "1.2.3.4"
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.1"
    assert running.store(FILE) == [0]
    assert running.store_datasets([other]) == [0]

    def study(patient_id, issuer=""):
        body = {"patient_id": patient_id, "issuer": issuer}
        found = officer.post("/api/v1/subjects:find", json=body).raise_for_status().json()
        return found["id"], found["studies"][0]

    subject, running.agreed = study(SOURCE.PatientID, SOURCE.get("IssuerOfPatientID", ""))
    _, running.silent = study("NO-CONSENT", SOURCE.get("IssuerOfPatientID", ""))
    parts = {"parts": dict.fromkeys(NOTICE_PARTS, "words")}
    notice = officer.post("/api/v1/notices", json=parts).raise_for_status().json()["digest"]
    given = {"purpose": "export", "notice": notice}
    officer.post(f"/api/v1/subjects/{subject}/consents", json=given).raise_for_status()
    running.settled()
    assert reader.get("/api/v1/me").status_code == 200
    running.stop()
    return running


def run(box, folder, source, *people):
    arguments = ["deidentify", str(source), "-o", str(folder), "--state", str(box.state), "--json"]
    for option, login in zip(("--login", "--with"), people, strict=False):
        arguments += [option, login]
    return subprocess.run(
        [sys.executable, "-m", "bedside_edge", *arguments],
        input="violet otter climbs stairs\n" * len(people),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_two_people_and_consent_let_a_study_leave_without_a_name(box, tmp_path):
    done = run(box, tmp_path, box.agreed, "privacy-officer-0", "radiologist-1")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["objects"]
    data = (tmp_path / row["file"]).read_bytes()
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID"):
        assert str(SOURCE[keyword].value).encode() not in data
    assert dcmread(io.BytesIO(data)).PatientIdentityRemoved == "YES"
    listed = subprocess.run(
        [sys.executable, "-m", "bedside_edge", "evidence", "list", "--state", str(box.state)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "deidentified" in listed.stdout


@pytest.mark.parametrize(
    ("study", "people", "words"),
    [
        ("silent", ("privacy-officer-0", "radiologist-1"), "No rule of the policy"),
        ("agreed", ("privacy-officer-0",), "grade3-outside"),
        ("agreed", ("privacy-officer-0", "privacy-officer-0"), "may not view-image"),
        ("agreed", ("radiologist-1", "privacy-officer-0"), "may not release"),
    ],
)
def test_nothing_leaves_without_consent_or_with_one_person(box, tmp_path, study, people, words):
    done = run(box, tmp_path / "out", getattr(box, study), *people)
    assert done.returncode == 3
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_is_cleaned_with_the_keys_of_the_box(box, tmp_path):
    done = run(box, tmp_path, FILE)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.dcm")
    assert str(SOURCE.PatientName).encode() not in path.read_bytes()
