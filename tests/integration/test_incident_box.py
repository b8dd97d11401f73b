"""A real box is sealed while it works: what is refused, how fast, over a kill, and who opens it."""

import subprocess
import sys
import time

import pytest

from support.dicom_files import bundled_path
from support.running_box import RunningBox

FILE = bundled_path("RG1_UNCR")
OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def box(tmp_path):
    running = RunningBox(tmp_path)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
        else:
            running._ended()


def state(box):
    return box.http.get("/api/v1/incidents/state").raise_for_status().json()["states"][0]


def seal(box):
    body = {"cause": "leak", "reason": "a list left the house"}
    return box.http.post("/api/v1/incidents:seal", json=body)


def stow(box):
    data = FILE.read_bytes()
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--x--\r\n"
    kind = 'multipart/related; type="application/dicom"; boundary=x'
    return box.http.post("/dicom-web/studies", content=body, headers={"Content-Type": kind})


def test_sealed_within_five_seconds_everywhere_and_over_a_kill(box):
    assert box.store(FILE) == [0]
    pressed = time.monotonic()
    assert seal(box).json()["state"] == "sealed"
    assert box.store(FILE) == [OUT_OF_RESOURCES]
    assert time.monotonic() - pressed < 5.0
    answer = stow(box)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:bedside:error:sealed")
    read = box.http.post(
        "/v2/models/cxr-opacity/infer",
        content=FILE.read_bytes(),
        headers={"Content-Type": "application/dicom"},
    )
    assert read.status_code == 403
    assert "sealed" in read.text
    assert box.http.get("/dicom-web/studies").status_code == 200, "it may still be looked at"
    box.kill()
    again = RunningBox(box.folder)
    try:
        assert state(again)["state"] == "sealed"
        assert again.store(FILE) == [OUT_OF_RESOURCES]
        assert '"seal"' in again.http.get("/api/v1/evidence/entries?limit=50").text
    finally:
        again.stop()


def test_two_people_open_it_and_nothing_less(box):
    ada, bert = box.person("administrator"), box.person("privacy-officer")
    reader = box.person("radiologist")
    assert seal(box).status_code == 200
    wish = {"reason": "the list was found"}
    by_token = box.http.post("/api/v1/incidents:unseal", json=wish)
    assert by_token.status_code == 409, "a token is no person"
    asked = ada.post("/api/v1/incidents:unseal", json=wish)
    assert asked.status_code == 202
    confirm = f"/api/v1/incidents/asks/{asked.json()['id']}:confirm"
    assert ada.post(confirm).status_code == 403, "one person is not two"
    assert box.http.post(confirm).status_code == 403
    assert reader.post(confirm).status_code == 403
    assert state(box)["state"] == "sealed"
    assert bert.post(confirm).json()["state"] == "normal"
    assert bert.post(confirm).status_code == 409, "confirmed once"
    assert state(box)["actor"] != state(box)["second"]
    assert box.store(FILE) == [0]


def test_a_notice_is_drafted_from_facts_and_signed_by_a_person(box):
    ada = box.person("privacy-officer")
    seal(box)
    (found,) = box.http.get("/api/v1/incidents").json()["incidents"]
    duties = {clock["duty"]: clock for clock in found["clocks"]}
    assert duties["cn-incident-report-other"]["mark"] == "verified text"
    path = f"/api/v1/incidents/{found['id']}/notices/cn-pipl-57"
    assert "a list left the house" in box.http.get(path).json()["text"]
    assert ada.post(f"{path}:sign").status_code == 422, "parts are missing"
    facts = dict.fromkeys(("types", "harm", "remedy", "self_help", "contact"), "words")
    ada.patch(f"/api/v1/incidents/{found['id']}", json={"facts": facts}).raise_for_status()
    assert box.http.post(f"{path}:sign").status_code == 409, "a token signs nothing"
    digest = ada.post(f"{path}:sign").raise_for_status().json()["digest"]
    assert digest in box.http.get("/api/v1/evidence/entries?limit=50").text


def test_a_box_shut_down_by_two_ends_and_does_not_start_before_two_open_it(box):
    ada, bert = box.person("administrator"), box.person("privacy-officer")
    wish = {"state": "shutdown", "reason": "evacuation"}
    asked = ada.post("/api/v1/incidents:unseal", json=wish).raise_for_status().json()
    bert.post(f"/api/v1/incidents/asks/{asked['id']}:confirm").raise_for_status()
    assert box.process.wait(20) == 0
    refused = run(box, "serve", "--http-port", "0", "--dicom-port", "0")
    assert refused.returncode == 5
    assert "shut down" in refused.stderr
    done = run(box, "unseal", "--login", "administrator-0", "--with", "privacy-officer-1",
               "--reason", "back in the house", typed=2)  # fmt: skip
    assert "sealed" in done.stdout, done.stderr
    done = run(box, "unseal", "--login", "administrator-0", "--with", "administrator-0",
               "--reason", "alone", typed=2)  # fmt: skip
    assert done.returncode == 3
    done = run(box, "unseal", "--login", "administrator-0", "--with", "privacy-officer-1",
               "--reason", "all looked at", typed=2)  # fmt: skip
    assert "normal" in done.stdout, done.stderr


def run(box, *arguments, typed=0):
    return subprocess.run(
        [sys.executable, "-m", "bedside_edge", *arguments, "--state", str(box.state)],
        input="violet otter climbs stairs\n" * typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_commands_on_a_stopped_box(box):
    box.stop()
    assert run(box, "seal", "--cause", "tampering", "--reason", "a seal was broken").returncode == 0
    assert run(box, "seal").returncode == 4, "it is sealed already"
    assert "sealed" in run(box, "incident", "state").stdout
    shown = run(box, "incident", "list")
    assert "tampering" in shown.stdout
    text = run(box, "incident", "notice", shown.stdout.split()[0], "cn-incident-report-other")
    assert "a seal was broken" in text.stdout
