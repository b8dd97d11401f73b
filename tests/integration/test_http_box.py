"""HTTP against a real box: what must hold on its disk, and what clients of others expect."""

import json
import socket
import struct
import threading
import time

import httpx
import numpy as np
import pytest

from bedside_edge.ports import JobState
from support.running_box import running_box
from support.synthetic import data_set, noise, part10, uid

# nothing completes by itself: what a test stores stays as it is
SETTINGS = "[completion]\nquiet_s = 600\nmax_wait_s = 900\n[http]\nshutdown_s = 2.0\n"
MODEL = "cxr-opacity"


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    with running_box(tmp_path_factory.mktemp("http"), SETTINGS) as box:
        yield box
        assert box.stop() == 0


def made(number, study=1, size=64, seed=None):
    return part10(data_set(noise(size, size, seed=seed or number), number=number, study=study))


def objects_on_disk(box):
    return sorted(path for path in (box.state / "objects").rglob("*") if path.is_file())


def eventually(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_what_stow_acknowledged_is_on_disk_once_and_not_in_plain(box):
    before = objects_on_disk(box)
    objects = [made(number, study=11) for number in range(1, 6)]
    assert box.stow(*objects).status_code == 200
    assert box.stow(*objects).status_code == 200  # again: the same instances
    added = set(objects_on_disk(box)) - set(before)
    assert len(added) == 5
    pixels = noise(64, 64, seed=1).tobytes()[:64]
    for path in added:
        stored = path.read_bytes()
        assert b"DICM" not in stored
        assert pixels not in stored
        assert uid(11).encode() not in stored


def bearer(box):
    return f"Authorization: Bearer {box.token}\r\n".encode()


def test_an_upload_that_breaks_off_leaves_nothing_on_disk(box):
    before = objects_on_disk(box)
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + made(1, study=12, size=2048)
    host, port = httpx.URL(box.url).host, httpx.URL(box.url).port
    for _ in range(20):
        connection = socket.create_connection((host, port))
        connection.sendall(
            b"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\n"
            + bearer(box)
            + b'Content-Type: multipart/related; type="application/dicom"; boundary=x\r\n'
            b"Content-Length: 99999999\r\n\r\n" + body
        )
        reset = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        connection.close()
    assert eventually(lambda: objects_on_disk(box) == before)
    assert box.http.get("/readyz").status_code == 200


def test_other_pixels_under_a_held_uid_fail_alone_and_raise_an_alarm(box):
    assert box.stow(made(1, study=13)).status_code == 200
    answer = box.stow(made(1, study=13, seed=99), made(2, study=13))
    assert answer.status_code == 202
    (failed,) = answer.json()["00081198"]["Value"]
    assert failed["00081155"]["Value"] == [uid(13, 1, 1)]
    assert failed["00081197"]["Value"] == [0x0111]
    codes = [alarm["code"] for alarm in box.http.get("/api/v1/alarms").json()["alarms"]]
    assert "conflicting-instance" in codes


def test_a_waiting_study_can_be_called_complete_cancelled_and_raised(box):
    box.stow(made(1, study=14))
    job = box.jobs()[0]
    assert job["state"] == JobState.COLLECTING
    raised = box.http.post(f"/api/v1/jobs/{job['id']}:priority", json={"priority": "stat"})
    assert raised.json()["priority"] == "stat"
    completed = box.http.post(f"/api/v1/jobs/{job['id']}:complete")
    assert completed.json()["state"] != JobState.COLLECTING
    path = f"/api/v1/jobs/{job['id']}"
    assert eventually(lambda: box.http.get(path).json()["state"] in ("done", "refused"))
    assert box.http.post(f"{path}:cancel").status_code == 409


def test_a_tensor_goes_to_the_bare_network_and_comes_back_the_same_every_time(box):
    document = box.http.get(f"/v2/models/{MODEL}").json()
    (tensor,) = document["inputs"]
    values = noise(*tensor["shape"][-2:], seed=5).astype("<f4") / 4096.0
    entry = tensor | {"parameters": {"binary_data_size": values.nbytes}}
    text = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    path = f"/v2/models/{MODEL}/infer"
    answers = {
        box.http.post(path, content=text + values.tobytes(), headers=headers).content
        for _ in range(3)
    }
    (answer,) = answers
    sizes = [int(np.prod(output["shape"])) * 4 for output in document["outputs"]]
    assert np.isfinite(np.frombuffer(answer[-sum(sizes) :], "<f4")).all()
    flat = [tensor | {"data": values.ravel().tolist()}]
    short = box.http.post(path, json={"inputs": flat}).json()["outputs"][0]["data"]
    assert short == np.frombuffer(answer[-sum(sizes) :], "<f4")[:1].tolist()


def test_a_disk_without_room_refuses_with_507_and_is_not_ready(tmp_path):
    with running_box(tmp_path, f"[disk]\nmin_free_bytes = {1 << 62}\n") as full:
        assert full.http.get("/readyz").status_code == 503
        assert full.http.get("/livez").status_code == 200
        for answer in (full.stow(made(1)), full.analyze(made(1))):
            assert answer.status_code == 507
            assert answer.json()["type"] == "urn:bedside:error:disk-full"
            assert "retry-after" in answer.headers


@pytest.mark.slow
def test_a_stop_answers_whoever_waits_and_ends_in_time(tmp_path):
    with running_box(tmp_path, SETTINGS) as box:
        box.stow(made(1))
        held = box.jobs()[0]["id"]
        answers = []
        host, port = httpx.URL(box.url).host, httpx.URL(box.url).port
        stalled = socket.create_connection((host, port))
        stalled.sendall(
            b"POST /api/v1/studies:analyze HTTP/1.1\r\nHost: localhost\r\n"
            + bearer(box)
            + b"Content-Type: application/dicom\r\nContent-Length: 5000\r\n\r\n"
            + made(2)[:4000]
        )
        client = threading.Thread(target=lambda: answers.append(box.analyze(made(3, study=3))))
        client.start()
        started = time.monotonic()
        assert box.stop() == 0
        assert time.monotonic() - started < 12  # 3 s on an idle machine
        client.join()
        stalled.close()
        assert answers[0].status_code in (202, 415, 422, 503)
        tmp = [path for path in objects_on_disk(box) if path.parent.name == "tmp"]
        assert tmp == []
    with running_box(tmp_path, SETTINGS) as again:
        assert held in [job["id"] for job in again.jobs()]
        assert again.stop() == 0
