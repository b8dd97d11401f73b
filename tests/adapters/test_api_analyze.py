import json
import threading
import time

import pytest

from bedside_core.errors import DiskFullError
from bedside_edge.api.analyze import read_wait
from bedside_edge.ports import JobState, Priority, Way
from support.asgi_client import in_pieces
from support.http_box import HttpBox, multipart, related
from support.synthetic import data_set, noise, part10

PATH = "/api/v1/studies:analyze"
DICOM = {"Content-Type": "application/dicom"}
WAIT = DICOM | {"Prefer": "wait=10"}
RESULT = {"format": "bedside-result/1", "value": {"probability": 0.9}, "reason": None}


def made(number=1, study=1, seed=None):
    return part10(data_set(noise(16, 16, seed=seed or number), number=number, study=study))


@pytest.fixture
def box():
    with HttpBox(max_body_bytes=1 << 20) as box:
        yield box


def ends(box, state, reason="", body=RESULT):
    """Let the worker end every job that somebody waits for."""
    box.jobs.on_wait = lambda job: box.queue.end(job.job_id, state, reason, body)


def test_a_study_becomes_a_job_that_is_due_at_once(box):
    answer = box.client.post(PATH, content=made(), headers=DICOM)
    assert answer.status_code == 202
    assert answer.headers["location"] == "/api/v1/jobs/job-1"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["state"] == "ready"
    assert box.ingest.stored == [made()]
    assert box.ingest.arrivals[0].way is Way.HTTP
    assert box.client.get(answer.headers["location"]).json() == answer.json()


def test_whoever_waits_gets_the_result(box):
    ends(box, JobState.DONE)
    answer = box.client.post(PATH, content=made(), headers=WAIT)
    assert answer.status_code == 200
    assert answer.json()["result"] == RESULT
    assert answer.headers["preference-applied"] == "wait=10"
    assert answer.headers["location"] == "/api/v1/jobs/job-1"
    assert box.client.get(answer.headers["content-location"]).json() == answer.json()


def test_a_result_that_is_not_there_in_time_leaves_the_job(box):
    answer = box.client.post(PATH, content=made(), headers=DICOM | {"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.headers["location"] == "/api/v1/jobs/job-1"


@pytest.mark.parametrize(
    ("code", "status"), [("undecodable-transfer-syntax", 415), ("wrong-modality", 422)]
)
def test_a_refusal_is_a_problem_with_its_code_and_a_link_to_the_result(box, code, status):
    body = {"value": None, "reason": {"code": code, "detail": "in so many words"}}
    ends(box, JobState.REFUSED, code, body)
    answer = box.client.post(PATH, content=made(), headers=WAIT)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:bedside:error:{code}"
    assert answer.json()["detail"] == "in so many words"
    assert answer.json()["status"] == status
    assert box.client.get(answer.json()["result"]).json()["result"] == body


def test_a_dead_job_is_a_problem_with_the_last_failure(box):
    box.jobs.on_wait = lambda job: box.queue.change(
        job.job_id, state=JobState.DEAD, reason="engine-failed"
    )
    answer = box.client.post(PATH, content=made(), headers=WAIT)
    assert answer.status_code == 503
    assert answer.json()["job"] == "/api/v1/jobs/job-1"
    assert "retry-after" in answer.headers


def test_a_job_that_died_of_something_unforeseen_is_500(box):
    box.jobs.on_wait = lambda job: box.queue.change(
        job.job_id, state=JobState.DEAD, reason="internal"
    )
    assert box.client.post(PATH, content=made(), headers=WAIT).status_code == 500


def test_a_cancelled_job_says_so(box):
    box.jobs.on_wait = lambda job: box.queue.change(job.job_id, state=JobState.CANCELLED)
    answer = box.client.post(PATH, content=made(), headers=WAIT)
    assert (answer.status_code, answer.json()["detail"]) == (409, "the job was cancelled")


def test_the_same_bytes_again_are_the_same_job_and_the_same_result(box):
    ends(box, JobState.DONE)
    first = box.client.post(PATH, content=made(), headers=WAIT)
    again = box.client.post(PATH, content=made(), headers=WAIT | {"Idempotency-Key": "k"})
    assert again.content == first.content
    assert list(box.queue.by_id) == ["job-1"]


def test_the_priority_can_be_asked_for(box):
    box.client.post(PATH + "?priority=stat", content=made(), headers=DICOM)
    assert box.queue.job("job-1").priority is Priority.STAT


@pytest.mark.parametrize("query", ["?priority=high", "?priority=", "?prio=stat", "?priority=STAT"])
def test_an_unknown_parameter_is_refused_before_anything_is_stored(box, query):
    answer = box.client.post(PATH + query, content=made(), headers=DICOM)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:bedside:error:invalid-request"
    assert box.ingest.begun == 0


def test_several_instances_of_one_study_are_one_job(box):
    answer = box.client.post(PATH, content=multipart([made(1), made(2)]), headers=related())
    assert answer.status_code == 202
    assert list(box.queue.by_id) == ["job-1"]
    assert len(box.ingest.arrivals) == 2


def test_a_web_form_can_send_files(box):
    files = [("file", ("a.dcm", made(1))), ("file", ("b.dcm", made(2), "application/dicom"))]
    answer = box.client.post(PATH, files=files)
    assert answer.status_code == 202
    assert box.ingest.stored == [made(1), made(2)]


def test_a_form_field_that_is_no_file_is_refused(box):
    answer = box.client.post(PATH, data={"note": "x"}, files={"file": ("a.dcm", made(1))})
    assert answer.status_code == 415
    assert box.ingest.arrivals == []


def test_instances_of_two_studies_are_refused_and_nothing_is_kept(box):
    body = multipart([made(1, study=1), made(2, study=2)])
    answer = box.client.post(PATH, content=body, headers=related())
    assert answer.status_code == 400
    assert box.ingest.arrivals == []
    assert box.ingest.aborted == 2


def test_one_bad_part_refuses_the_study_and_nothing_is_kept(box):
    answer = box.client.post(PATH, content=multipart([made(1), b"GIF89a"]), headers=related())
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:bedside:error:not-dicom"
    assert box.ingest.arrivals == []
    assert box.ingest.aborted == 2


def test_other_pixels_under_a_held_uid_are_a_conflict_and_are_kept(box):
    box.client.post(PATH, content=made(1), headers=DICOM)
    box.ingest.conflict = True
    answer = box.client.post(PATH, content=made(1, seed=99), headers=WAIT)
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:bedside:error:conflicting-instance"
    assert len(box.ingest.arrivals) == 2


def test_a_full_disk_is_507(box):
    box.ingest.fail_begin = DiskFullError("above the high watermark")
    assert box.client.post(PATH, content=made(), headers=DICOM).status_code == 507


@pytest.mark.parametrize("kind", ["", "image/png", "application/octet-stream", "text/plain"])
def test_a_body_of_another_kind_is_refused(box, kind):
    answer = box.client.post(PATH, content=made(), headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert box.ingest.begun == 0


@pytest.mark.parametrize("body", [b"", b"GIF89a", b"\x00" * 200])
def test_what_is_no_dicom_is_refused(box, body):
    answer = box.client.post(PATH, content=body, headers=DICOM)
    assert answer.status_code == 400
    assert box.ingest.arrivals == []


def test_a_body_over_the_limit_is_refused(box):
    large = part10(data_set(noise(1024, 1024)))
    assert box.client.post(PATH, content=large, headers=DICOM).status_code == 413
    pieces = in_pieces(large[at : at + 65536] for at in range(0, len(large), 65536))
    assert box.client.post(PATH, content=pieces, headers=DICOM).status_code == 413
    assert box.ingest.arrivals == []
    assert box.ingest.aborted == box.ingest.begun


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=10", 10),
        ("respond-async, wait=5", 5),
        ("wait=5; foo", 5),
        ('WAIT = "7"', 7),
        ("", 0),
        ("respond-async", 0),
        ("nowait=3", 0),
        ("wait=-3", 0),
        ("wait=soon", 0),
    ],
)
def test_the_wait_is_read_as_rfc_7240_writes_it(prefer, seconds):
    assert read_wait({b"prefer": prefer.encode()}) == seconds


def test_the_wait_has_a_limit_of_the_boxs_own():
    with HttpBox(max_wait_s=0.2) as box:
        answer = box.client.post(PATH, content=made(), headers=DICOM | {"Prefer": "wait=99999"})
        assert answer.status_code == 202


def test_a_stop_ends_the_wait(box):
    box.jobs.on_wait = lambda job: box.app.state.stop()
    answer = box.client.post(PATH, content=made(), headers=WAIT)
    assert answer.status_code == 202
    assert box.client.get("/livez").status_code == 503


def test_the_result_is_passed_on_byte_for_byte(box):
    ends(box, JobState.DONE)
    answer = box.client.post(PATH, content=made(), headers=WAIT)
    assert json.dumps(RESULT).encode() in answer.content


def test_more_requests_can_wait_than_there_are_threads_to_wait_in(box):
    answers = []

    def ask(number):
        answers.append(box.client.post(PATH, content=made(number, number), headers=WAIT))

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(1, 41)]
    for client in clients:
        client.start()
    while len(box.queue.by_id) < len(clients):
        time.sleep(0.01)
    for job_id in list(box.queue.by_id):
        box.queue.end(job_id, JobState.DONE, body=RESULT)
    ended = time.monotonic()
    for client in clients:
        client.join(10)
    assert [answer.status_code for answer in answers] == [200] * 40
    assert time.monotonic() - ended < 5
