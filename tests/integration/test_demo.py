"""`make demo` as a stranger sees it: real processes, a real association, real files."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One run of the demonstration: (process, output folder, summary)."""
    folder = tmp_path_factory.mktemp("demo")
    out = folder / "out"
    command = [sys.executable, "-m", "bedside_edge.demo", "--json", "--out", str(out)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return done, out, json.loads(done.stdout)


def study(ran, key):
    return next(row for row in ran[2]["studies"] if row["key"] == key)


def test_the_chest_radiograph_is_read_in_all_its_encodings(ran):
    chest = study(ran, "chest")
    assert chest["status"] == "analysed"
    assert [image["answer"] for image in chest["images"]] == ["0x0000 Success"] * 4
    assert 0.0 <= chest["value"]["probability"] <= 1.0
    assert chest["value"]["probability"] == max(i["probability"] or 0.0 for i in chest["images"])


def test_lossless_encodings_give_the_same_digits(ran):
    images = {image["name"]: image for image in study(ran, "chest")["images"]}
    raw, packed = images["RG1_UNCR.dcm"], images["RG1_J2KR.dcm"]
    assert raw["logit"] is not None
    assert (raw["logit"], raw["probability"]) == (packed["logit"], packed["probability"])


def test_one_uid_in_two_encodings_is_one_image(ran):
    images = {image["name"]: image for image in study(ran, "chest")["images"]}
    assert images["RG1_J2KI.dcm"]["same_as"] == "RG1_UNCI.dcm"


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("extremity", "wrong-body-part"),
        ("ct", "wrong-modality"),
        ("mr", "wrong-modality"),
        ("cut-off", "corrupt-pixels"),
        ("no-dicom", "not-dicom"),
    ],
)
def test_what_the_model_must_not_read_is_refused_with_its_code(ran, key, code):
    row = study(ran, key)
    assert row["reason"]["code"] == code
    assert row["reason"]["detail"]
    assert row["value"] is None


def test_a_second_delivery_makes_nothing_new(ran):
    again = ran[2]["repeated"]
    assert again["outcomes"] == {"duplicate": 4}
    assert again["jobs_unchanged"]
    assert again["result_unchanged"]


def test_every_claim_held_and_the_state_folder_is_gone(ran):
    assert [claim for claim in ran[2]["claims"] if not claim["held"]] == []
    assert len(ran[2]["claims"]) == 6
    assert ran[2]["removed"]


def test_the_report_and_the_pictures_are_written(ran):
    out = ran[1]
    names = ["chest-overlay.png", "chest.png", "report.html", "summary.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "not a diagnosis" in page
    assert (out / "chest-overlay.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "summary.json").read_text()) == ran[2]


def test_progress_goes_to_the_other_stream_and_names_no_patient(ran):
    progress = ran[0].stderr
    assert "ready: DICOM BEDSIDE" in progress
    assert "CompressedSamples" not in progress + ran[0].stdout
