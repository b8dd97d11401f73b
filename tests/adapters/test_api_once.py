"""Idempotency-Key, Retry-After and the model card over HTTP."""

import json
import threading

import pytest

from bedside_core.access import Action, Actor
from bedside_edge.api.errors import BY_CODE, error_reply
from bedside_edge.ports import JobState
from support.http_box import HttpBox
from support.outputs import MemoryArchive, publishing_box
from support.synthetic import data_set, noise, part10, uid

ANALYZE = "/api/v1/studies:analyze"
DICOM = {"Content-Type": "application/dicom"}
ERRORS = [kind for kind in BY_CODE.values() if kind.status in (429, 503, 507)]


def made(number=1, study=1):
    return part10(data_set(noise(16, 16, seed=number), number=number, study=study))


@pytest.fixture
def box():
    with HttpBox() as opened:
        yield opened


def code(answer):
    return answer.json()["type"].removeprefix("urn:bedside:error:")


def test_a_study_sent_twice_under_a_key_is_filed_once(box):
    headers = DICOM | {"Idempotency-Key": "k1"}
    first = box.client.post(ANALYZE, content=made(), headers=headers)
    again = box.client.post(ANALYZE, content=made(), headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["location"] == again.headers["location"]
    assert len(box.ingest.arrivals) == 1
    other = box.client.post(ANALYZE, content=made(2), headers=headers)
    assert (other.status_code, code(other)) == (422, "key-reused")
    assert len(box.ingest.arrivals) == 1


def test_a_study_that_was_refused_may_be_sent_again_under_its_key(box):
    headers = DICOM | {"Idempotency-Key": "k1"}
    assert box.client.post(ANALYZE, content=b"no dicom", headers=headers).status_code == 400
    assert box.client.post(ANALYZE, content=made(), headers=headers).status_code == 202


def test_keys_of_two_actors_are_two_keys(box):
    headers = DICOM | {"Idempotency-Key": "k1"}
    assert box.client.post(ANALYZE, content=made(), headers=headers).status_code == 202
    box.peer = Actor(actor_id="token:other", name="", actions=frozenset(Action))
    assert box.client.post(ANALYZE, content=made(2), headers=headers).status_code == 202


def test_a_job_is_changed_once_under_a_key(box):
    box.queue.add("j1", state=JobState.DEAD)
    path, headers = "/api/v1/jobs/j1:cancel", {"Idempotency-Key": "k1"}
    assert box.client.post(path, headers=headers).status_code == 200
    changed = box.queue.by_id["j1"]
    again = box.client.post(path, headers=headers)
    assert (again.status_code, box.queue.by_id["j1"]) == (200, changed)
    priority = {"content": json.dumps({"priority": "stat"}), "headers": headers | {"Content-Type":
                "application/json"}}  # fmt: skip
    assert box.client.post("/api/v1/jobs/j1:priority", **priority).status_code != 422


def test_a_second_request_does_not_start_while_the_first_runs(box):
    entered, go, answers = threading.Event(), threading.Event(), []
    box.queue.add("j1", state=JobState.DEAD)
    work = box.jobs.replay

    def slow(*arguments):
        entered.set()
        assert go.wait(10)
        return work(*arguments)

    box.jobs.replay = slow
    path, headers = "/api/v1/jobs/j1:retry", {"Idempotency-Key": "k1"}
    first = threading.Thread(
        target=lambda: answers.append(box.client.post(path, headers=headers).status_code)
    )
    first.start()
    assert entered.wait(10)
    second = box.client.post(path, headers=headers)
    assert (second.status_code, code(second)) == (409, "request-running")
    go.set()
    first.join(10)
    assert answers == [200]
    assert box.client.post(path, headers=headers).status_code == 200


def test_a_study_is_fetched_once_under_a_key(tmp_path):
    with (
        publishing_box(tmp_path / "state", MemoryArchive()) as real,
        HttpBox(outgoing=real) as http,
    ):
        body = {"source": "memory", "study_uid": uid(5)}
        headers = {"Idempotency-Key": "k1"}
        first = http.client.post("/api/v1/pulls", json=body, headers=headers)
        real.pulls.pull = None  # whoever calls it now fails
        again = http.client.post("/api/v1/pulls", json=body, headers=headers)
        assert (first.status_code, again.json()) == (200, first.json())


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
def test_who_may_try_again_is_told_when(kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "not now")
    if kind.code == "too-many-attempts":
        error.retry_after_s = 7
    for path in ("/api/v1/jobs", "/v2/models/m/infer"):
        headers = dict(error_reply(error, path, "r").headers)
        assert int(headers[b"retry-after"]) > 0


def test_the_card_is_the_packages_own_text_and_is_not_sent_twice(box):
    path = "/api/v1/models/sample/card"
    card = box.client.get(path)
    assert card.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert card.content == b"# Sample\n\nFor tests.\n"
    tag = card.headers["ETag"]
    assert box.client.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert box.client.get(path, headers={"If-None-Match": f'"x", W/{tag}'}).status_code == 304
    facts = box.client.get(path, headers={"Accept": "application/json", "If-None-Match": tag})
    assert facts.json()["card"] == card.text
    assert facts.json()["not_a_medical_device"] is True
    assert facts.headers["ETag"] != tag
    assert box.client.get("/api/v1/models/none/card").status_code == 404
    assert box.client.get(path, params={"version": "9.9.9"}).status_code == 404


def test_a_package_without_a_card_has_none(box):
    box.analysis.model.card = b""
    assert box.client.get("/api/v1/models/sample/card").status_code == 404
