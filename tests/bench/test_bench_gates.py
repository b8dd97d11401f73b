"""The benchmark runs, and what it finds has not fallen off a cliff.

The gates are ratios within one run and far wider than the targets, which `make bench` prints: a
machine under load must pass them, a lost TCP_QUICKACK or an engine on the event loop must not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "rows.json"
    tests = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "bench.run", "--quick", "--json", str(path)]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(tests)},
        cwd=tests.parent,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text())


def ratios(report, bench, words, against):
    """Ours to the other, of every row that fits."""
    return [
        row["ours"] / row["reference"]
        for row in report["rows"]
        if row["bench"] == bench and words in row["case"] and row["against"] == against
    ]


def needs_orthanc(report):
    missing = [note for note in report["notes"] if "rthanc" in note or "storescu" in note]
    if missing:
        pytest.skip("; ".join(missing))


def test_figures_come_with_the_machine_they_were_measured_on(report):
    facts = report["machine"]
    assert facts["cores"] >= 1
    assert len(facts["load_average"]) == 3
    assert {"onnxruntime", "openvino", "pydicom"} <= facts["versions"].keys()


def test_a_tensor_through_the_service_costs_less_than_three_bare_calls(report):
    found = ratios(report, "engine", "f32, binary tensor, 1 client", "raw")
    assert len(found) == 2
    assert min(found) < 3.0


def test_four_clients_get_more_than_half_of_the_bare_throughput(report):
    found = ratios(report, "engine", "f32, binary tensor, 4 clients", "raw loop")
    assert len(found) == 2
    assert max(found) > 0.5


def test_int8_is_faster_than_f32(report):
    found = ratios(report, "engine", "int8, raw loop", "f32")
    assert len(found) == 2
    assert min(found) > 1.2


def test_a_dicom_body_costs_less_than_three_times_decoding_and_inferring(report):
    found = ratios(report, "dicom-body", "DICOM body", "decode + engine")
    assert len(found) == 2
    assert max(found) < 3.0


def test_an_untouched_sender_does_not_stall_us_as_it_stalls_orthanc(report):
    needs_orthanc(report)
    (found,) = ratios(report, "cstore", "default, 1 assoc", "Orthanc")
    assert found > 4.0


def test_stow_is_not_far_behind_orthanc(report):
    needs_orthanc(report)
    found = ratios(report, "stow", "10 a request", "Orthanc")
    assert len(found) == 2
    assert min(found) > 0.4
