"""Killed at any moment: nothing acknowledged is lost, nothing is processed into two results."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from support import sender
from support.chest import pydicom_data
from support.running_box import RunningBox, running_box

SETTINGS = "[completion]\nquiet_s = 0.2\nmax_wait_s = 1.0\n[jobs]\nbackoff_s = 0.05\n"
IMAGES_A_STUDY = 3
TESTS = Path(__file__).resolve().parents[1]


def send_until_killed(box: RunningBox, first_study: int, pause: float) -> list[tuple[int, int]]:
    """Send in another process, kill the box `pause` s after the first answer."""
    arguments = [box.dicom["host"], str(box.dicom["port"]), box.dicom["ae_title"]]
    process = subprocess.Popen(
        [sys.executable, sender.__file__, *arguments, str(first_study), str(IMAGES_A_STUDY)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"PYTHONPATH": str(TESTS)},
    )
    lines = [process.stdout.readline()]
    time.sleep(pause)
    box.kill()
    rest, _ = process.communicate(timeout=60)
    lines += rest.splitlines()
    return [(int(study), int(number)) for study, number in (line.split() for line in lines)]


@pytest.mark.slow
def test_no_kill_loses_or_doubles_anything(tmp_path):
    pydicom_data("RG1_UNCR.dcm")
    acknowledged: list[tuple[int, int]] = []
    kills = (0.05, 0.6, 1.1, 0.4, 1.7, 0.9)
    for round_, pause in enumerate(kills):
        with running_box(tmp_path, SETTINGS) as box:
            acknowledged += send_until_killed(box, 1000 * (round_ + 1), pause)
    assert len(acknowledged) > 20
    with running_box(tmp_path, SETTINGS) as box:
        jobs = box.settled(120)
        results = [box.result(job) for job in jobs if job["result"]]
        current = [result for result in results if result["superseded_by"] is None]
        assert max(Counter(result["job"] for result in results).values()) == 1
        assert max(Counter(result["study"] for result in current).values()) == 1
        assert {job["study"] for job in jobs} == {result["study"] for result in current}
        images = sum(len(result["result"]["images"]) for result in current)
        assert len(acknowledged) <= images <= len(acknowledged) + len(kills)
        again = [sender.image(study, number) for study, number in acknowledged]
        assert set(box.store_datasets(again)) == {0}
        assert len(box.settled()) == len(jobs)  # every one of them was held already
        assert box.http.get("/api/v1/alarms").json()["alarms"] == []
        assert box.stop() == 0
