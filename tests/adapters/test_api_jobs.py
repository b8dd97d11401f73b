from dataclasses import replace

import pytest

from bedside_edge.ports import Alarm, JobState, Priority
from support.http_box import NOW, HttpBox


@pytest.fixture
def box():
    with HttpBox() as box:
        yield box


def ids(answer):
    return [job["id"] for job in answer.json()["jobs"]]


def test_a_job_shows_its_state_age_and_why_it_was_not_processed(box):
    box.queue.add("j1", state=JobState.REFUSED, reason="wrong-modality", result_id="r1")
    job = box.client.get("/api/v1/jobs/j1").json()
    assert job["state"] == "refused"
    assert job["reason"] == "wrong-modality"
    assert job["age_s"] == 1.5
    assert job["result"] == "/api/v1/results/r1"


def test_a_job_without_a_result_says_so(box):
    box.queue.add("j1")
    assert box.client.get("/api/v1/jobs/j1").json()["result"] is None


def test_jobs_are_listed_newest_first_and_can_be_narrowed(box):
    box.queue.add("j1", state=JobState.DONE)
    box.queue.add("j2", state=JobState.DEAD, priority=Priority.STAT)
    box.queue.add("j3", study_id="study-2")
    assert ids(box.client.get("/api/v1/jobs")) == ["j3", "j2", "j1"]
    assert ids(box.client.get("/api/v1/jobs?state=dead&state=done")) == ["j2", "j1"]
    assert ids(box.client.get("/api/v1/jobs?priority=stat")) == ["j2"]
    assert ids(box.client.get("/api/v1/jobs?study=study-2")) == ["j3"]
    assert ids(box.client.get("/api/v1/jobs?limit=1")) == ["j3"]
    assert ids(box.client.get("/api/v1/jobs?priority=stat&limit=1")) == ["j2"]


@pytest.mark.parametrize("query", ["state=lost", "priority=high", "limit=0", "limit=1001"])
def test_a_wrong_filter_is_named(box, query):
    answer = box.client.get(f"/api/v1/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"query.{query.split('=')[0]}")


def test_a_dead_job_can_be_replayed_and_no_other(box):
    box.queue.add("j1", state=JobState.DEAD)
    box.queue.add("j2", state=JobState.DONE)
    assert box.client.post("/api/v1/jobs/j1:retry").json()["state"] == "ready"
    answer = box.client.post("/api/v1/jobs/j2:retry")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:bedside:error:wrong-state"


def test_a_job_can_be_cancelled_until_it_has_ended(box):
    box.queue.add("j1")
    assert box.client.post("/api/v1/jobs/j1:cancel").json()["state"] == "cancelled"
    assert box.client.post("/api/v1/jobs/j1:cancel").status_code == 409


def test_a_study_can_be_called_complete_by_hand(box):
    box.queue.add("j1")
    assert box.client.post("/api/v1/jobs/j1:complete").json()["state"] == "ready"
    assert box.ingest.completed == ["study-1"]


def test_the_priority_can_be_changed(box):
    box.queue.add("j1")
    answer = box.client.post("/api/v1/jobs/j1:priority", json={"priority": "stat"})
    assert answer.json()["priority"] == "stat"
    assert box.queue.job("j1").priority is Priority.STAT


@pytest.mark.parametrize(
    "body", [{}, {"priority": "high"}, {"priority": 0}, {"priority": "stat", "x": 1}, [], None]
)
def test_a_wrong_priority_is_refused_without_repeating_it(box, body):
    box.queue.add("j1")
    answer = box.client.post("/api/v1/jobs/j1:priority", json=body)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:bedside:error:invalid-request"
    assert box.queue.job("j1").priority is Priority.ROUTINE


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/jobs/none"),
        ("POST", "/api/v1/jobs/none:retry"),
        ("POST", "/api/v1/jobs/none:cancel"),
        ("POST", "/api/v1/jobs/none:complete"),
        ("GET", "/api/v1/results/none"),
        ("GET", "/api/v1/results/none/heatmap.png"),
    ],
)
def test_what_is_not_held_is_not_found(box, method, path):
    answer = box.client.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:bedside:error:not-found"


def test_a_result_says_when_a_newer_one_replaced_it(box):
    box.queue.add("j1")
    first = box.queue.end("j1", JobState.DONE, body={"value": {"probability": 0.25}})
    answer = box.client.get(f"/api/v1/results/{first}").json()
    assert answer["superseded_by"] is None
    assert answer["result"] == {"value": {"probability": 0.25}}
    box.queue.results[first] = replace(box.queue.results[first], superseded_by="r2")
    answer = box.client.get(f"/api/v1/results/{first}").json()
    assert answer["superseded_by"] == "/api/v1/results/r2"


def test_a_heat_map_is_a_png(box):
    box.pictures["r1"] = b"\x89PNG..."
    answer = box.client.get("/api/v1/results/r1/heatmap.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == b"\x89PNG..."


def test_alarms_are_shown(box):
    box.alarms.append(Alarm(code="conflicting-instance", study_id="study-1", at=NOW))
    answer = box.client.get("/api/v1/alarms").json()
    assert answer == {"alarms": [{"code": "conflicting-instance", "study": "study-1", "at": NOW}]}


def test_the_served_model_shows_what_really_runs(box):
    (model,) = box.client.get("/api/v1/models").json()["models"]
    assert model["engine"]["precision"] == "f32"
    assert model["package"] == "sha256:" + "1" * 64
    assert model["not_a_medical_device"] is True
