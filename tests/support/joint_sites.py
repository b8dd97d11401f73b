"""Five hospitals with real state folders, run only by the installed commands, and their images."""

import csv
import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bedside_core.findings import Decision
from bedside_core.uses import Purpose
from bedside_edge.config import Model
from bedside_edge.wiring import analysis_service, load_model
from bedside_models.phantom import chest
from support.hub_sites import Sites, command
from support.learning_house import LearningBox
from support.synthetic import data_set, part10

CXR = Path(__file__).parents[3] / "shared" / "data" / "cxr"
EDGE = Path(sys.executable).with_name("bedside-edge")
PLAIN = {"engine": "onnxruntime", "precision": "f32"}


@dataclass(frozen=True, slots=True)
class Shot:
    """One radiograph: whose, what its label says, and 8-bit pixels made when asked for."""

    patient: str
    positive: bool
    sex: str
    view: str
    source: object  # a file, or how to draw it

    @property
    def pixels(self) -> np.ndarray:
        if isinstance(self.source, Path):
            return np.asarray(Image.open(self.source).convert("L"), np.uint8)
        return np.rint(255 * chest(256, 256, **self.source)).astype(np.uint8)


def cxr_shots() -> tuple[list[list[Shot]], list[Shot]]:
    """The public radiographs: training patients at five sites by equipment; the test split."""
    with (CXR / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    kept = {
        row["file"]: Shot(
            patient=row["patient"],
            positive=row["label"] == "1",
            sex=row["sex"],
            view=row["view"],
            source=CXR / "images" / row["file"],
        )
        for row in rows
    }
    groups: dict[str, list[dict]] = {}
    for row in rows:
        if row["split"] != "test":
            groups.setdefault(row["patient"], []).append(row)

    def equipment(patient: str) -> tuple:
        first = groups[patient][0]
        common = (first["original_width"], first["original_height"]) == ("2500", "2048")
        return (common, first["view"], patient)

    ordered = sorted(groups, key=equipment)
    parts = np.array_split(np.array(ordered), 5)
    sites = [[kept[row["file"]] for patient in part for row in groups[patient]] for part in parts]
    return sites, [kept[row["file"]] for row in rows if row["split"] == "test"]


def drawn_shots(a_site: int = 36, test: int = 60) -> tuple[list[list[Shot]], list[Shot]]:
    """Drawn chests with or without a cloudy patch; nobody was X-rayed for them."""

    def one(number: int) -> Shot:
        positive = number % 2 == 1
        how = {
            "opacity": 0.22 * positive,
            "side": 1.0 if number % 3 else -1.0,
            "rib_phase": 0.37 * number,
            "scale": 0.9 + 0.01 * (number % 20),
        }
        return Shot(
            patient=f"D{number:04d}",
            positive=positive,
            sex="FM"[number % 3 % 2],
            view="AP" if number % 5 else "PA",
            source=how,
        )

    sites = [[one(1000 * site + n) for n in range(a_site)] for site in range(1, 6)]
    return sites, [one(9000 + n) for n in range(test)]


def fill(folder: Path, shots: list[Shot], analysis) -> None:
    """Take the images in as a box does: read by the model, signed by a reader, with consent."""
    box = LearningBox(folder)
    box.analysis = analysis
    said = set()
    for number, shot in enumerate(shots, 1):
        data = data_set(
            shot.pixels,
            bits=8,
            study=number,
            PatientID=shot.patient,
            PatientName=f"Case^{shot.patient}",
            PatientSex=shot.sex,
            ViewPosition=shot.view,
        )
        study_id = box.take(part10(data))
        job = box.state.jobs.lease(box.clock.now())
        held = box.state.studies.instances(study_id)
        outcome = analysis.analyse_study(
            held, lambda one: box.state.objects.read(one.object_name, one.object_key)
        )
        result_id = box.state.jobs.finish(job, outcome, box.clock.now())
        if not outcome.refused:  # what the input check keeps out has no finding to sign
            box.sign(result_id, Decision.PRESENT if shot.positive else Decision.ABSENT)
        if shot.patient not in said:
            box.agree(study_id, Purpose.TRAINING)
            said.add(shot.patient)
    box.close()


class Hospital:
    """One box: a state folder and a settings file; every step is a process of its own."""

    def __init__(self, folder: Path, name: str, repository: Path):
        self.folder, self.name = folder, name
        self.state, self.config = folder / "state", folder / "bedside.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = f"""
[model]
repository = "{repository}"
engine = "onnxruntime"
precision = "f32"

[sync]
purposes = ["train", "validate"]
least_hospitals = 5
round_rho = 99.0
patient_day_rho = 99.0
patient_rho = 200.0
"""
        self.config.write_text(self.settings)

    def start(self, *words) -> subprocess.Popen:
        """Begin a command of the installed box."""
        where = ["--config", str(self.config), "--state", str(self.state), "--json"]
        return subprocess.Popen(
            [str(EDGE), "sync", *map(str, words), *where],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words) -> dict:
        """Run a command to its end; its JSON."""
        process = self.start(*words)
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, (words, out, err)
        return json.loads(out.splitlines()[-1])


class Joint:
    """The consortium of five: administrators, a hub's folder, and five hospitals, joined."""

    def __init__(self, folder: Path, sites: list[list[Shot]]):
        folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.consortium = Sites(folder, count=0, url=f"tls+tcp://127.0.0.1:{self.port}")
        self.hub = self.consortium.hub
        self.repository = folder / "packages"
        self.repository.mkdir()
        analysis = analysis_service(load_model(Model(**PLAIN)))
        self.hospitals = []
        for number, shots in enumerate(sites):
            hospital = Hospital(folder / f"site-{number}", f"box-{number}", self.repository)
            fill(hospital.state, shots, analysis)
            self.hospitals.append(hospital)
        analysis.model.engine.close()
        for number, hospital in enumerate(self.hospitals):
            self._join(hospital, helper=number < 4)

    def _join(self, hospital: Hospital, *, helper: bool) -> None:
        request, entry, welcome = (
            hospital.folder / f"{what}.json" for what in ("request", "entry", "welcome")
        )
        asked = ["join", "--box", hospital.name, "--organisation", f"hospital-{hospital.name}"]
        hospital.run(*asked, "-o", request, *(["--helper"] if helper else []))
        command("roster", "propose", request, "--out", entry, "--folder", self.hub)
        self.consortium.sign(entry)
        command("roster", "approve", entry, "--out", welcome, "--folder", self.hub)
        hospital.run("join", "--welcome", welcome)
        terms = hospital.folder / "terms.txt"
        terms.write_text("as agreed")
        what = ("--purpose", "train", "--purpose", "validate", "--same-region")
        hospital.run("agreement", "add", "lungs", terms, "--title", "Lungs", *what)

    def visit(self, hospitals=None) -> list[dict]:
        """Let boxes visit the hub, two processes at a time."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda one: one.run("now"), hospitals or self.hospitals))

    def plan(self, name: str, task: str, model: str, settings: bytes, z: str, open_for: str):
        """Write ROUND.toml beside its settings; returns its path."""
        (self.folder / f"{name}.settings.json").write_bytes(settings + b"\n")
        given = {
            "round": name,
            "task": task,
            "purpose": task,
            "model": model,
            "settings_file": f"{name}.settings.json",
            "helpers": [one.name for one in self.hospitals[:4]],
            "noise_multiplier": z,
            "least_boxes": 5,
            "most_boxes": 10,
            "patients_a_box": 500,
            "open_for": open_for,
            "expires_after": "1h",
        }
        path = self.folder / f"{name}.toml"
        path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in given.items()))
        return path

    def show(self, name: str) -> dict:
        return command("round", "show", name, "--folder", self.hub)
