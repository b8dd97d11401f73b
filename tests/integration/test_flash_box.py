"""A real candidate, tried in a process of its own on this machine, over a real state folder."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bedside_core.slots import SlotState
from bedside_edge.config import Config
from bedside_edge.flashing import chunk_store, flashing_service
from bedside_edge.services.flashing import BAD, GOOD, RESTART, WAITING
from bedside_edge.state_folder import open_folder
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom
from bedside_edge.wiring import policy_service
from bedside_sync.distribution.chunks import package_files
from bedside_sync.distribution.manifest import TargetManifest
from support.ram import ram_folder
from support.repository import ROOT
from support.tiny_package import known_answers, write_tiny_package

PROFILE = ROOT / "hw_profiles" / "generic" / "x86-64-v3.toml"


class Bench:
    """A stopped box whose slots are used as `bedside-edge update` does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, Config()
        self.state = open_folder(self.config, folder / "state", SystemClock(), OsRandom())
        self.flashing = flashing_service(
            self.config,
            self.state,
            SystemClock(),
            None,
            lambda: policy_service(
                self.config.policy, self.state.path, self.state.policies, SystemClock()
            ),
        )
        self.flashing.recover()

    def manifest(self, files: Path, **facts) -> TargetManifest:
        held = package_files(files, chunk_store(self.config, self.state.path))
        fields = {"kind": "model", "name": "sample", "version": "1.0.0", "release_counter": 1}
        return TargetManifest(files=held, **(fields | facts))

    def close(self) -> None:
        self.state.close()


@pytest.fixture
def bench():
    with ram_folder() as folder:
        made = Bench(folder)
        yield made
        made.close()


def flipped(folder: Path) -> Path:
    """A package that says another decision is known than its network makes."""
    cases = known_answers()
    for case in cases["cases"]:
        for answer in case["answers"]:
            answer["decision"] = "absent" if answer["decision"] == "present" else "present"
    return write_tiny_package(folder, golden=cases)


def test_a_model_is_compiled_tried_and_good_and_one_that_flips_a_decision_is_bad(bench):
    version = json.loads((write_tiny_package(bench.folder / "good") / "manifest.json").read_text())
    named = {"name": version["name"], "version": version["version"]}
    outcome = bench.flashing.install(bench.manifest(bench.folder / "good", **named))
    assert outcome.state == GOOD, outcome
    record = outcome.record
    assert record["golden_cases"] == 2
    assert record["box"] == ["database", "ledger", "evidence"]
    assert record["peak_mib"] > 50
    assert not (bench.state.path / "slots" / "trial").exists()
    assert bench.state.jobs.jobs() == []  # the made-up study left nothing on the box
    bad = bench.manifest(flipped(bench.folder / "bad"), **named, release_counter=2)
    outcome = bench.flashing.install(bad)
    assert (outcome.state, outcome.code) == (BAD, "golden-mismatch")
    pair = bench.state.flashing.pair(f"model/{named['name']}")
    assert (pair.active, pair.b.state) == ("a", SlotState.BAD)


@pytest.mark.slow
def test_a_trial_killed_from_outside_says_nothing_and_is_made_again(bench):
    wanted = json.loads((write_tiny_package(bench.folder / "good") / "manifest.json").read_text())
    named = {"name": wanted["name"], "version": wanted["version"]}
    manifest = bench.manifest(bench.folder / "good", **named)
    with ThreadPoolExecutor(1) as pool:
        installing = pool.submit(bench.flashing.install_ready, [manifest])
        deadline, trials = time.monotonic() + 60, []
        while not trials:  # as the kernel does when memory runs out
            assert time.monotonic() < deadline
            trials = trials_in(bench.state.path)
            time.sleep(0.01)
        os.kill(trials[0], signal.SIGKILL)
        (outcome,) = installing.result(60)
    assert (outcome.state, outcome.code) == (WAITING, "trial-failed"), outcome
    assert "ended with -9" in outcome.detail
    assert bench.state.flashing.pair(f"model/{named['name']}").a.state is SlotState.TRIAL
    assert bench.flashing.try_out(f"model/{named['name']}").state == GOOD


def trials_in(state: Path) -> list[int]:
    """Numbers of the trials of one box."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            words = place.read_bytes().split(b"\0")
            if b"bedside_edge.trial" in words and str(state).encode() in words[-2]:
                found.append(int(place.parent.name))
    return found


@pytest.mark.slow
def test_a_profile_that_reads_back_otherwise_is_bad_and_a_sound_one_good(bench):
    def profile(number: int, change) -> TargetManifest:
        place = bench.folder / f"profile-{number}"
        place.mkdir()
        text = PROFILE.read_text().replace('vendor = "generic"', 'vendor = "acme"')
        (place / "board.toml").write_text(change(text))
        facts = {"kind": "profile", "name": "generic-x86-64-v3", "vendor": "acme"}
        return bench.manifest(place, **facts, version=f"{number}.0", release_counter=number)

    outcome = bench.flashing.install(profile(1, lambda text: text))
    assert outcome.state == GOOD, outcome
    assert outcome.record["profile"].startswith("generic-x86-64-v3#")

    def elsewhere(text: str) -> str:  # pins what this machine will not read back
        text = text.replace("CPUExecutionProvider", "CUDAExecutionProvider")
        return text.replace('INFERENCE_PRECISION_HINT = "f32"', 'INFERENCE_PRECISION_HINT = "bf16"')

    outcome = bench.flashing.install(profile(2, elsewhere))
    assert (outcome.state, outcome.code) == (BAD, "profile-mismatch"), outcome
    other = profile(3, lambda text: text.replace('vendor = "acme"', 'vendor = "other"'))
    assert bench.flashing.install(other).code == "invalid-profile"
    pair = bench.state.flashing.pair("profile")
    assert (pair.active, pair.floor) == ("a", 1)


@pytest.mark.slow
def test_software_tries_itself_on_a_copy_of_the_database_before_it_confirms(bench):
    place = bench.folder / "app"
    place.mkdir()
    (place / "note.txt").write_text("the software of this test is the one that runs it")
    manifest = bench.manifest(place, kind="app", name="bedside")
    assert bench.flashing.install(manifest).state == RESTART
    bench.state.close()
    words = ["update", "confirm", "app", "--started", "--json", "--state", str(bench.state.path)]
    done = subprocess.run(
        [sys.executable, "-m", "bedside_edge", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["state"] == "good"
    assert outcome["record"]["golden_cases"] == 6
    assert outcome["record"]["entries"] >= 2
    bench.state = open_folder(bench.config, bench.state.path, SystemClock(), OsRandom())
    assert bench.state.flashing.pair("app").active == "a"
    assert not (bench.state.path / "slots" / "trial").exists()


@pytest.mark.slow
def test_the_launcher_lets_new_software_prove_itself_and_becomes_it(bench):
    place = bench.folder / "app"
    for source in ("edge/bedside_core", "edge/bedside_edge", "sync/bedside_sync"):
        shutil.copytree(
            ROOT / source,
            place / "site" / Path(source).name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copytree(ROOT / "models" / "packages", place / "models" / "packages")
    shutil.copytree(ROOT / "hw_profiles", place / "hw_profiles")
    manifest = bench.manifest(place, kind="app", name="bedside")
    assert bench.flashing.install(manifest).state == RESTART
    state, ready = bench.state.path, bench.folder / "ready.json"
    bench.state.close()
    words = ["--state", str(state), "--http-port", "0", "--dicom-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bedside_flash.launcher", *words, "--ready-file", str(ready)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert ready.exists(), said
    assert "starting slot a" in said
    bench.state = open_folder(bench.config, state, SystemClock(), OsRandom())
    steps = [step.what for step in bench.state.flashing.steps(kind="app")]
    assert steps == ["good", "trial", "verified", "staged", "staging"]
