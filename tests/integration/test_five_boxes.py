"""Five hospitals, one hub, all real processes: they train together, validate, promote, and serve.

Boxes are one-shot processes of the installed `bedside-edge sync` over real state folders, the hub
is `bedside-hub serve`, between them is mutual TLS on loopback.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bedside_core.imaging import prepare
from bedside_models.package import read_package
from bedside_models.phantom import _phantom
from bedside_models.runtimes import open_runner
from bedside_sync.hub.folder import read_hub
from bedside_sync.hub.process import open_service
from bedside_sync.hub.service import REPORT
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.hub.sums import open_sum
from bedside_sync.secagg import tally
from bedside_sync.secagg.bodies import canonical, decode
from bedside_sync.tasks.head import head_vector, solve_head
from bedside_sync.tasks.train import TrainSettings, folded, project
from support import joint_sites
from support.finished_rounds import words
from support.hub_child import HubProcess
from support.hub_sites import command
from support.joint_sites import Joint, cxr_shots, drawn_shots
from support.running_box import RunningBox

pytest.importorskip("onnx", reason="needs the train extra: `make train-env`")
pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[2] / "models" / "packages" / "cxr-opacity" / "1.0.0"
MODELS = Path(sys.executable).with_name("bedside-models")


def area(scores, labels) -> float:
    above = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def answers(package: Path, shots):
    """What a package's float export says of images: (logit, features) and labels."""
    spec = read_package(package).pipeline.spec()
    tensors = [
        prepare(_phantom("x", s.pixels, "|u1").frame.frame(s.pixels.tobytes()), spec) for s in shots
    ]
    found = open_runner("onnxruntime", package / "model.onnx").run(
        np.concatenate([one.tensor for one in tensors])
    )
    return found, np.array([s.positive for s in shots], np.int64)


def alone(settings: TrainSettings, shots, test_features, test_labels) -> float:
    """Test area of a head that one site solves from all its patients, without any noise."""
    found, labels = answers(PACKAGE, shots)
    by_patient: dict[str, list[int]] = {}
    for place, shot in enumerate(shots):
        by_patient.setdefault(shot.patient, []).append(place)
    x = np.array([found.features[at].mean(axis=0) for at in by_patient.values()], np.float64)
    y = np.array([[labels[at].max()] for at in by_patient.values()])
    total, _ = head_vector(settings.task, project(settings, x), y, words)
    weights, offset = folded(settings, solve_head(settings.task, [total], 1.0))
    return area((test_features.astype(float) @ weights + offset)[:, 0], test_labels)


class Night:
    """Rounds of the five over one hub process; `break_it` kills and restarts on the way."""

    def __init__(self, joint: Joint, *, break_it: bool):
        self.joint, self.break_it = joint, break_it
        self.hub = HubProcess(joint.hub, port=joint.port)

    def broken(self) -> None:
        """Between any two steps: the hub dies by SIGKILL and comes back."""
        if self.break_it:
            self.hub.kill()
            self.hub.again()

    def killed(self, hospital) -> None:
        """A box dies by SIGKILL in the middle of a visit, three times at other moments."""
        for seconds in (0.9, 1.7, 2.6):
            process = hospital.start("now")
            try:
                process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def run(self, name, task, model, settings, *, z, open_for="30s") -> dict:
        """From plan to published sum; returns what the hub shows."""
        joint = self.joint
        plan = joint.plan(name, task, model, settings, z, open_for)
        manifest = joint.folder / f"{name}.manifest.json"
        propose = ("round", "propose", plan, "--out", manifest, "--folder", joint.hub)
        assert len(command(*propose)["awaited"]) == 4
        joint.visit(joint.hospitals[:4])
        self.broken()
        assert command(*propose)["awaited"] == []
        joint.consortium.sign(manifest)
        command("round", "open", manifest, "--folder", joint.hub)
        self.broken()
        if self.break_it:
            self.killed(joint.hospitals[0])  # a helper as well
            self.killed(joint.hospitals[4])
        joint.visit()
        self.broken()
        shown = joint.show(name)
        assert not shown["silent"], (shown, joint.hospitals[0].run("nights"))
        deadline = time.monotonic() + 120
        broken = False
        while joint.show(name)["state"] != "published":
            assert time.monotonic() < deadline, joint.show(name)
            if time.time() < shown["closes"]:
                time.sleep(0.2)
                continue
            if self.break_it and not broken:
                self.killed(joint.hospitals[1])
                broken = True
            joint.visit(joint.hospitals[:4])
            self.broken()
        self.check(name)
        return joint.show(name)

    def check(self, name) -> None:
        """One report a box, and the sum is that of what the boxes sent, bit for bit."""
        store = HubStore(self.joint.hub)
        try:
            service = open_service(read_hub(self.joint.hub), store)
            found = open_sum(service, name)
            manifest = found.manifest
            boxes = [report.body.box for report in found.record.body.reports]
            assert sorted(boxes) == [one.name for one in self.joint.hospitals]
            sent = [store.vector(name, box, REPORT, manifest.ring) for box in boxes]
            masked = np.sum(sent, axis=0, dtype=sent[0].dtype)
            assert tally.masked_digest(manifest, masked) == found.record.body.masked_total
            assert tally.sum_digest(manifest, found.total) == found.record.body.total
        finally:
            store.close()


def promoted(tmp_path, sites, test, *, break_it, reduced, train_z, validate_z, least, capsys):
    """The whole way; returns test areas of the joint model and of the best single site."""
    joint = Joint(tmp_path / "joint", sites)
    night = Night(joint, break_it=break_it)
    try:
        file = joint.folder / "train.json"
        told = command("head", "plan", PACKAGE, "--reduced", reduced, "--out", file)
        settings = file.read_bytes().strip()
        shown = night.run("train-1", "train", told["model"], settings, z=train_z)
        head = joint.folder / "head.json"
        solved = command("head", "solve", "train-1", "-o", head, "--folder", joint.hub)
        target = joint.repository / "cxr-opacity" / "1.1.0"
        target.parent.mkdir()
        made = subprocess.run(
            [str(MODELS), "head", str(PACKAGE), str(head), "-o", str(target), "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        package = json.loads(made.stdout)["digest"]
        threshold = read_package(target).decision.threshold
        validate = {
            "version": 1,
            "scale": 64,
            "most": 1,
            "bins": 10,
            "finding": "233604007",
            "group": "patient.sex",
            "keys": ["F", "M"],
            "parts": ["validation", "test"],
            "threshold_permille": round(1000 * threshold),
            "veto_drop_permille": 300,
            "veto_least_cases": 60,  # a handful of cases is no ground for a veto
        }
        night.run("validate-1", "validate", package, canonical(validate), z=validate_z)
        promotion = joint.folder / "promotion.json"
        loose = ("--least", least, "--gap", "0.4")
        command("promote", target, "validate-1", *loose, "--out", promotion, "--folder", joint.hub)
        joint.consortium.sign(promotion)
        test_answers, labels = answers(PACKAGE, test)
        # alone with the round's own projection; another could only be chosen by the test images
        way = decode(TrainSettings, settings)
        single = [alone(way, one, test_answers.features, labels) for one in sites]
        new, _ = answers(target, test)
        joint_area = area(new.logit, labels)
        with capsys.disabled():
            sys.stdout.write(
                f"\njoint test AUC {joint_area:.3f} (epsilon {shown['epsilon']:.2f}), single sites "
                f"without noise {', '.join(f'{one:.3f}' for one in single)}; {solved['patients']}; "
                f"the package before {area(test_answers.logit, labels):.3f}\n"
            )
        serves(joint, promotion, package)
    finally:
        night.hub.close()
    return joint_area, max(single)


def serves(joint: Joint, promotion: Path, package: str) -> None:
    """A box of the consortium serves the promoted package; an unsigned one is refused."""
    hospital = joint.hospitals[4]
    box = RunningBox(hospital.folder, hospital.settings)
    try:
        way = "/api/v1/models/cxr-opacity/active"
        text = promotion.read_text()
        signed = json.loads(text)
        one = canonical(signed | {"signatures": signed["signatures"][:1]}).decode()
        asked = {"version": "1.1.0", "promotion": one}
        refused = box.http.put(way, json=asked, headers={"If-Match": "*"})
        assert refused.status_code in (403, 409, 422), refused.text
        assert "untrusted-signature" in refused.text
        asked["promotion"] = text
        accepted = box.http.put(way, json=asked, headers={"If-Match": "*"})
        assert accepted.status_code == 200, accepted.text
        assert accepted.json()["active"] == "1.1.0"
        assert "promoted by validate-1" in accepted.json()["changes"][0]["what"]
        shot = drawn_shots(1, 1)[1][0]
        made = joint_sites.part10(
            joint_sites.data_set(
                shot.pixels, bits=8, study=77_777, PatientID="NEW", ViewPosition="AP"
            )
        )
        read = box.analyze(made)
        assert read.status_code == 200, read.text
        assert package in json.dumps(read.json())
    finally:
        box.stop()


def test_five_hospitals_train_validate_promote_and_serve_while_everything_is_killed(
    tmp_path, capsys
):
    sites, test = drawn_shots()
    # Some 130 drawn patients bear hardly any noise: what is shown is the way under kills. The area
    # is printed (0.65 and 0.70 in two runs, 0.45 before) and decides nothing here.
    promoted(
        tmp_path,
        sites,
        test,
        break_it=True,
        reduced=32,
        train_z="1/13",
        validate_z="1/10",
        least="0.5",
        capsys=capsys,
    )


@pytest.mark.skipif(not joint_sites.CXR.is_dir(), reason="no ../shared/data/cxr here")
def test_joint_training_on_public_radiographs_lifts_the_area_over_the_best_single_site(
    tmp_path, capsys
):
    sites, test = cxr_shots()
    joint, single = promoted(
        tmp_path,
        sites,
        test,
        break_it=False,
        reduced=64,
        train_z="2",
        validate_z="1/4",
        least="0.6",
        capsys=capsys,
    )
    assert joint > single
