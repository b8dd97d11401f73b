"""Sign-off over HTTP: whose name counts, which revision, and once only."""

import json

import pytest

from bedside_core.access import Action, Actor, Role
from bedside_core.errors import StaleRevisionError
from support.http_box import HttpBox
from support.outputs import MemoryArchive, publishing_box

ADA = Actor(
    actor_id="person:ada",
    name="Lovelace^Ada",
    roles=frozenset({Role.RADIOLOGIST}),
    actions=frozenset(Action),
)


@pytest.fixture
def box(tmp_path):
    with publishing_box(tmp_path / "state", MemoryArchive()) as opened:
        yield opened


@pytest.fixture
def http(box):
    with HttpBox(outgoing=box) as opened:
        opened.peer = ADA
        yield opened.client


def sign(http, result, revision=0, key="", **body):
    headers = {"If-Match": f'"{revision}"', "Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    return http.post(
        f"/api/v1/results/{result}/review",
        content=json.dumps({"kind": "accept"} | body),
        headers=headers,
    )


def test_a_result_is_signed_in_the_name_of_whoever_is_logged_in(box, http):
    result = box.analysed()
    before = http.get(f"/api/v1/results/{result}/reviews")
    assert (before.json()["state"], before.headers["ETag"]) == ("unsigned", '"0"')
    answer = sign(http, result)
    assert answer.status_code == 201, answer.text
    assert answer.headers["ETag"] == '"1"'
    assert answer.headers["Location"] == f"/api/v1/results/{result}/reviews"
    view = http.get(answer.headers["Location"]).json()
    assert (view["state"], view["revision"]) == ("accepted", 1)
    assert view["reviews"][0]["reader_name"] == "Lovelace^Ada"
    assert sign(http, result, 1, reader="someone else").status_code == 422


def test_a_system_signs_nothing(box, http):
    with HttpBox(outgoing=box) as other:
        assert sign(other.client, box.analysed()).status_code == 403


def test_whoever_signs_says_which_revision_was_on_the_screen(box, http):
    result = box.analysed()
    path = f"/api/v1/results/{result}/review"
    body = {"content": b'{"kind": "accept"}'}
    json_type = {"Content-Type": "application/json"}
    assert http.post(path, **body, headers=json_type).status_code == 428
    assert http.post(path, **body, headers=json_type | {"If-Match": "*"}).status_code == 422
    assert sign(http, result, 0).status_code == 201
    late = sign(http, result, 0)
    assert late.status_code == 412
    assert late.json()["type"].endswith(StaleRevisionError.code)


def test_a_repeated_request_with_a_key_signs_once_and_gets_its_answer(box, http):
    result = box.analysed()
    first = sign(http, result, 0, key="k1")
    again = sign(http, result, 0, key="k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert len(again.json()["reviews"]) == 1
    other = sign(http, result, 0, key="k1", kind="reject", reason="no")
    assert (other.status_code, other.json()["type"]) == (422, "urn:bedside:error:key-reused")
    assert sign(http, result, 0, key="k 2").status_code == 422


def test_a_request_that_failed_may_come_again_under_its_key(box, http):
    result = box.analysed()
    assert sign(http, result, 7, key="k1").status_code == 412
    assert sign(http, result, 7, key="k1").status_code == 412
    assert sign(http, "nothing", 0, key="k1").status_code == 404


def test_a_rejection_shows_its_way(box, http):
    result = box.analysed()
    box.settle()
    assert sign(http, result, kind="reject", reason="rib").json()["retracted"] == "pending"
    box.settle()
    view = http.get(f"/api/v1/results/{result}/reviews").json()
    assert (view["retracted"], view["retraction"]) == ("arrived", {"pacs": "arrived"})
    assert http.post(f"/api/v1/results/{result}/reviews:retry").status_code in (409,)


def test_agreement_and_labels(box, http):
    results = [box.analysed(n) for n in (1, 2)]
    sign(http, results[0])
    sign(http, results[1], kind="edit", reason="clear", decision="absent", certainty="probable")
    labels = http.get("/api/v1/labels").json()["labels"]
    assert [(x["decision"], x["certainty"]) for x in labels] == [
        ("present", "certain"),
        ("absent", "probable"),
    ]
    assert http.get("/api/v1/labels", params={"after": labels[0]["seq"]}).json()["labels"] == [
        labels[1]
    ]
