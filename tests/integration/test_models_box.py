"""Versions of a model in a running box: activate, shadow, canary, roll back, threshold, restart."""

import json
import subprocess
import sys
import time

import pytest

from support.chest import chest
from support.running_box import part10, running_box
from support.tiny_onnx import CHANNELS
from support.tiny_package import write_tiny_package

NAME = "tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    outlier = {
        "mean": "ood/mean.f32",
        "precision_chol": "ood/chol.f32",
        "features": CHANNELS,
        "cutoff": 1e6,
        "intensity": {"mean": [0.0, 1.0]},
    }
    for version in ("1.0.0", "1.1.0"):
        fields = {"name": NAME, "version": version, "outlier": outlier}
        write_tiny_package(folder / "packages" / NAME / version, fields=fields)
    return folder


def settings(folder):
    packages = folder / "packages"
    return f'[model]\npackage = "{packages / NAME / "1.0.0"}"\nrepository = "{packages}"\n'


def command(box, *arguments):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "bedside_edge",
            "models",
            *arguments,
            "--url",
            box.url,
            "--token-file",
            str(box.folder / "token"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def changed(box, part, body, method="PUT"):
    tag = box.http.get(f"/api/v1/models/{NAME}").headers["etag"]
    answer = box.http.request(
        method, f"/api/v1/models/{NAME}{part}", json=body, headers={"If-Match": tag}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def analysed(box, study):
    answer = box.analyze(part10(chest(study)))
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


@pytest.mark.slow
def test_a_day_of_changes_and_a_restart(folder):
    with running_box(folder, settings(folder)) as box:
        first = analysed(box, 100)
        assert first["model"]["version"] == "1.0.0"
        assert first["deployment"] == {"role": "active", "revision": 0}
        assert first["decided_by"] == "package"

        changed(box, "/shadow", {"version": "1.1.0"})
        shown = analysed(box, 101)
        assert shown["model"]["version"] == "1.0.0"
        deadline = time.monotonic() + 20
        while not (tallies := box.http.get(f"/api/v1/models/{NAME}").json()["agreement"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (tally,) = tallies
        assert (tally["version"], tally["shadow"]) == ("1.0.0", "1.1.0")
        assert tally["decision"] == tally["shadow_decision"] == shown["value"]["decision"]
        assert (tally["studies"], tally["mean_difference"]) == (1, 0.0)

        changed(box, "/canary", {"version": "1.1.0", "percent": 50})
        roles = {}
        for study in range(110, 122):
            result = analysed(box, study)
            roles[result["deployment"]["role"]] = result["model"]["version"]
        assert roles == {"active": "1.0.0", "canary": "1.1.0"}

        probability = first["value"]["probability"]
        rule = {"threshold": probability, "low": probability / 2, "high": (1 + probability) / 2}
        changed(box, "/canary", {"version": None, "percent": 0})
        changed(box, "/threshold", {"rule": rule})
        decided = analysed(box, 130)
        assert decided["decided_by"] == "site"
        assert decided["value"]["threshold"] == probability
        assert decided["value"]["decision"] == "undetermined"

        changed(box, "/active", {"version": "1.1.0"})
        assert analysed(box, 131)["model"]["version"] == "1.1.0"
        box.kill()

    with running_box(folder, settings(folder)) as box:
        after = analysed(box, 132)
        assert after["model"]["version"] == "1.1.0"
        assert after["decided_by"] == "package"  # the threshold was signed for the other version
        assert box.http.get(f"/api/v1/models/{NAME}").headers["etag"] == '"5"'
        overlay = box.http.get("/api/v1/jobs").json()["jobs"][-1]["result"] + "/heatmap.png"
        assert box.http.get(overlay).status_code == 200  # read by the version before

        back = command(box, "rollback", NAME)
        assert back.returncode == 0, back.stderr
        assert f"{NAME} 1.0.0 reads (revision 6)" in back.stdout
        assert analysed(box, 133)["decided_by"] == "site"
        again = command(box, "rollback", NAME)
        assert (again.returncode, again.stdout) == (3, "")
        assert "wrong-state" in again.stderr
        listed = json.loads(command(box, "list", "--json").stdout)["models"]
        assert [(one["name"], one["active"]) for one in listed] == [(NAME, "1.0.0")]
        assert command(box, "activate", NAME, "9.9.9").returncode == 4
        assert command(box, "threshold", NAME, "0.5").returncode == 4
        assert box.stop() == 0


def test_a_command_without_a_box_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bedside_edge", "models", "list", "--url", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert "no box answers" in done.stderr
