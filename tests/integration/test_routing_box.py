"""Rules in a running box: two models, each with its studies, and studies for nobody."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from support.chest import chest
from support.running_box import part10, running_box
from support.synthetic import data_set, noise
from support.synthetic import part10 as synthetic_part10
from support.tiny_package import write_tiny_package

RULES = """
format = "bedside-rules/1"

[[rules]]
name = "no-research"
model = ""
when.body_part = ["KNEE"]

[[rules]]
name = "tiny-lateral"
model = "tiny"
when.view = ["LL"]

[[rules]]
name = "chest"
model = "cxr-opacity"
when.modality = ["CR", "DX"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routing")
    write_tiny_package(folder / "packages" / "tiny" / "1.0.0", fields={"name": "tiny"})
    (folder / "rules.toml").write_text(RULES)
    return folder


def settings(folder):
    return (
        f'[model]\nrepository = "{folder / "packages"}"\n'
        f'[routing]\nrules = "{folder / "rules.toml"}"\n'
    )


@pytest.fixture(scope="module")
def box(folder):
    with running_box(folder, settings(folder)) as box:
        yield box
        assert box.stop() == 0


def dicom(**changes):
    made = chest(21)
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    made.StudyInstanceUID += f".{1 + sum(map(ord, ''.join(changes.values())))}"
    made.SOPInstanceUID = made.StudyInstanceUID + ".1"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return part10(made)


def test_a_chest_goes_to_the_chest_model_and_the_result_names_the_rule(box):
    result = box.analyze(dicom()).json()["result"]
    assert result["model"]["name"] == "cxr-opacity"
    assert result["routing"]["rule"] == "chest"
    assert result["routing"]["rules"].startswith("sha256:")


def test_a_lateral_goes_to_the_other_model(box):
    answer = box.analyze(dicom(ViewPosition="LL"))
    assert answer.status_code == 422  # the tiny model does not read laterals: its own check says so
    jobs = [job for job in box.jobs() if job["reason"] == "wrong-view"]
    result = box.result(jobs[0])["result"]
    assert (result["model"]["name"], result["routing"]["rule"]) == ("tiny", "tiny-lateral")


@pytest.mark.parametrize("changes", [{"Modality": "CT"}, {"BodyPartExamined": "KNEE"}])
def test_what_no_rule_takes_runs_nowhere_and_ends_refused(box, changes):
    answer = box.analyze(dicom(**changes))
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:bedside:error:no-route"
    job = box.jobs()[0]
    assert (job["state"], job["reason"]) == ("refused", "no-route")
    result = box.result(job)["result"]
    assert result["model"] is None
    found = box.http.post("/api/v1/rules:test", json={"study": job["study"]}).json()
    assert found["model"] == ""
    assert found["reason"] == result["reason"]["detail"]
    assert box.http.get(job["result"] + "/heatmap.png").status_code == 409


def test_the_caller_decides_where_rules_say_so(box):
    asked = {"images": [{"modality": "DX", "view": "PA"}], "source": "XR1"}
    assert box.http.post("/api/v1/rules:test", json=asked).json()["model"] == "cxr-opacity"


def command(*arguments, folder):
    config = folder / "bedside.toml"
    config.write_text(settings(folder))
    return subprocess.run(
        [sys.executable, "-m", "bedside_edge", "rules", *arguments, "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_tries_files(folder, tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(synthetic_part10(data_set(noise(64, 64))))
    ct = Path(get_testdata_file("CT_small.dcm", download=False, read=False))
    checked = command("check", folder=folder)
    assert checked.returncode == 0
    assert "no-research: nothing runs" in checked.stdout
    ran = command("test", str(ct), "--json", folder=folder)
    assert ran.returncode == 3
    assert json.loads(ran.stdout)["plan"]["model"] == ""
    told = command("test", str(path), "--source", "XR1", folder=folder)
    assert told.returncode in (0, 3)
    assert "rule tiny-lateral" in told.stdout
    broken = tmp_path / "rules.toml"
    broken.write_text(RULES.replace('"tiny"', '"nobody"'))
    refused = command("check", str(broken), folder=folder)
    assert refused.returncode == 4
    assert "not on this box: nobody" in refused.stderr
    assert command("test", str(broken), folder=folder).returncode == 4
