"""Every bundled file, sound or broken, over every door: a result or a coded refusal, no harm."""

import warnings
from pathlib import Path

import pydicom.data
import pytest

from support.chest import pydicom_data
from support.running_box import running_box

SETTINGS = "[completion]\nquiet_s = 0.2\nmax_wait_s = 1.0\n[jobs]\nbackoff_s = 0.05\n"
ANSWERS = {200, 202, 400, 409, 413, 415, 422}
GROWTH = 120 << 20  # bytes; allocators keep some, a leak of every file would be far more


def bundled() -> list[Path]:
    folders = [
        Path(pydicom.data.__file__).parent / "test_files",
        pydicom_data("RG1_UNCR.dcm").parent,
    ]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def over_http(box, path: Path) -> str:
    answer = box.analyze(path.read_bytes(), wait_s=20)
    assert answer.status_code in ANSWERS, (path.name, answer.status_code, answer.text[:300])
    if answer.status_code >= 400:
        return answer.json()["type"]
    body = answer.json()["result"]
    assert (body["value"] is None) == (body["reason"] is not None)
    return "result" if body["value"] else body["reason"]["code"]


def over_dimse(box, path: Path) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = box.store(path)[0]
    except Exception as error:  # the sender's own library cannot send it: not our case
        return f"not sent: {type(error).__name__}"
    return f"0x{status:04X}"


@pytest.mark.slow
def test_every_file_gets_an_answer_and_the_box_stays_as_it_was(tmp_path):
    files = bundled()
    assert len(files) > 200
    with running_box(tmp_path, SETTINGS) as box:
        answers = {path: over_http(box, path) for path in files}
        statuses = {path: over_dimse(box, path) for path in files}
        jobs = box.settled(180)
        level = box.resident()
        for path in files:
            assert over_http(box, path) == answers[path] or "conflict" in answers[path]
            over_dimse(box, path)
        box.settled(180)
        assert box.resident() - level < GROWTH
        assert box.http.get("/readyz").status_code == 200
        assert not [job for job in jobs if job["state"] == "dead"], "a broken file is no failure"
        assert "internal" not in {job["reason"] for job in jobs}
        assert sum(answer == "result" for answer in answers.values()) >= 1
        assert sum(status == "0x0000" for status in statuses.values()) > 150
        assert "unforeseen" not in box.log()
        assert box.stop() == 0
