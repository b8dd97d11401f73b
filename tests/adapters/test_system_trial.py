"""What a trial leaves behind when its time is over: nothing."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bedside_core.errors import (
    CandidateRefusedError,
    GoldenMismatchError,
    TrialFailedError,
    UnavailableError,
)
from bedside_edge.system.trial_process import ProcessGate, _end

PARENT = (
    "import subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(child.pid, flush=True); time.sleep(60)"
)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        return status.rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_a_trial_started_ends_with_it():
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        child = int(process.stdout.readline())
        assert alive(child)
        _end(process)
        process.wait(10)
        deadline = time.monotonic() + 10
        while alive(child):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.stdout.close()
        _end(process)
    assert process.returncode == -9


@pytest.mark.parametrize(
    ("code", "exit_code", "raised"),
    [
        ("disk-full", UnavailableError.exit_code, TrialFailedError),
        ("store-unavailable", UnavailableError.exit_code, TrialFailedError),
        ("golden-mismatch", 3, GoldenMismatchError),
        ("forged", 3, CandidateRefusedError),
    ],
)
def test_a_fault_of_the_box_is_no_verdict(tmp_path, monkeypatch, code, exit_code, raised):
    gate = ProcessGate(tmp_path / "trial", lambda candidate: {})

    def ended(folder: Path, seconds: float) -> int:
        report = {"code": code, "detail": "no room", "exit_code": exit_code}
        (folder / "report.json").write_text(json.dumps(report))
        return 0

    monkeypatch.setattr(gate, "_run", ended)
    with pytest.raises(raised):
        gate.run({}, 1.0)


def test_a_trial_that_outlived_its_box_cannot_answer_for_the_next(tmp_path, monkeypatch):
    gate = ProcessGate(tmp_path / "trial", lambda candidate: {})
    folders = []

    def ended(folder: Path, seconds: float) -> int:
        folders.append(folder)
        if len(folders) == 2:  # the first one's process ends only now
            with pytest.raises(FileNotFoundError):
                (folders[0] / "report.json").write_text(json.dumps({"model": "first"}))
        (folder / "report.json").write_text(json.dumps({"model": "own"}))
        return 0

    monkeypatch.setattr(gate, "_run", ended)
    assert [gate.run({}, 1.0)["model"] for _ in range(2)] == ["own", "own"]
    assert folders[0] != folders[1]
    assert not (tmp_path / "trial").exists()


def test_a_folder_that_another_trial_still_writes_to_stops_none(tmp_path, monkeypatch):
    (tmp_path / "trial" / "old").mkdir(parents=True)
    gate = ProcessGate(tmp_path / "trial", lambda candidate: {})

    def ended(folder: Path, seconds: float) -> int:
        (folder / "report.json").write_text("{}")
        return 0

    monkeypatch.setattr(gate, "_run", ended)
    monkeypatch.setattr("shutil.rmtree", lambda path, ignore_errors: None)  # it is not empty yet
    assert gate.run({}, 1.0) == {}
