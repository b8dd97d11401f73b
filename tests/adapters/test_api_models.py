import pytest

from bedside_core.errors import GoldenMismatchError
from bedside_edge.services.models import ModelId
from support.http_box import NOW, PEER, HttpBox

PATH = "/api/v1/models/sample"


@pytest.fixture
def box():
    with HttpBox() as box:
        box.known.append(ModelId("sample", "1.1.0"))
        yield box


def change(box, part, body, tag='"0"', method="PUT"):
    headers = {"If-Match": tag} if tag else {}
    separator = "" if part.startswith(":") else "/"
    return box.client.request(method, f"{PATH}{separator}{part}", json=body, headers=headers)


def code(answer):
    return answer.json()["type"].removeprefix("urn:bedside:error:")


def test_before_any_change_the_loaded_version_reads(box):
    answer = box.client.get(PATH)
    found = answer.json()
    assert answer.headers["etag"] == '"0"'
    assert (found["active"], found["previous"], found["shadow"]) == ("1.0.0", None, None)
    assert found["versions"] == ["1.0.0", "1.1.0"]
    assert found["changes"] == found["agreement"] == []


def test_activate_and_roll_back_in_one_step(box):
    first = change(box, "active", {"version": "1.1.0"})
    assert (first.status_code, first.headers["etag"]) == (200, '"1"')
    assert (first.json()["active"], first.json()["previous"]) == ("1.1.0", "1.0.0")
    assert box.client.get("/v2/models/sample").json()["versions"] == ["1.1.0"]
    back = change(box, ":rollback", None, '"1"', "POST")
    assert (back.json()["active"], back.json()["previous"]) == ("1.0.0", None)
    assert box.client.get("/v2/models/sample").json()["versions"] == ["1.0.0"]
    told = [(c["revision"], c["what"], c["actor"], c["at"]) for c in back.json()["changes"]]
    assert told == [(2, "roll back", PEER.actor_id, NOW), (1, "activate 1.1.0", PEER.actor_id, NOW)]
    assert code(change(box, ":rollback", None, '"2"', "POST")) == "wrong-state"


def test_a_version_in_use_is_not_unloaded_and_one_out_of_use_is(box):
    change(box, "shadow", {"version": "1.1.0"})
    unload = {"parameters": {"version": "1.1.0"}}
    path = "/v2/repository/models/sample/unload"
    assert box.client.post(path, json=unload).status_code == 409
    (opened,) = box.opened
    change(box, "shadow", {"version": None}, '"1"')
    assert opened.model.engine.closed


def test_canary_and_threshold_are_shown_and_ended(box):
    found = change(box, "canary", {"version": "1.1.0", "percent": 10}).json()
    assert (found["canary"], found["percent"]) == ("1.1.0", 10)
    rule = {"threshold": 0.7, "low": 0.6, "high": 0.8}
    found = change(box, "threshold", {"rule": rule}, '"1"').json()
    assert (found["threshold"], found["threshold_version"]) == (rule, "1.0.0")
    assert box.analysis.rule.threshold == 0.7
    assert change(box, "threshold", {"rule": None}, '"2"').json()["threshold"] is None
    assert box.analysis.rule is None
    found = change(box, "canary", {"version": None, "percent": 0}, '"3"').json()
    assert (found["canary"], found["percent"], found["revision"]) == (None, 0, 4)


def test_a_change_decided_on_an_older_revision_is_refused(box):
    change(box, "active", {"version": "1.1.0"})
    stale = change(box, "shadow", {"version": "1.0.0"})
    assert (stale.status_code, code(stale)) == (412, "stale-revision")
    assert change(box, "shadow", {"version": "1.0.0"}, "*").json()["revision"] == 2


@pytest.mark.parametrize(
    ("part", "body", "tag", "wanted"),
    [
        ("active", {"version": "1.1.0"}, "", "precondition-required"),
        ("active", {"version": "1.1.0"}, "W/weak", "invalid-request"),
        ("active", {"version": "9.9.9"}, '"0"', "not-found"),
        ("active", {"version": "1.0.0"}, '"0"', "wrong-state"),
        ("active", {"version": "../1"}, '"0"', "invalid-request"),
        ("shadow", {"version": "1.0.0"}, '"0"', "wrong-state"),
        ("canary", {"version": "1.1.0", "percent": 0}, '"0"', "invalid-input"),
        ("canary", {"version": "1.1.0", "percent": 100}, '"0"', "invalid-request"),
        (
            "threshold",
            {"rule": {"threshold": 0.2, "low": 0.5, "high": 0.6}},
            '"0"',
            "invalid-input",
        ),
        ("threshold", {"rule": {"threshold": 2, "low": 0, "high": 1}}, '"0"', "invalid-request"),
    ],
)
def test_what_cannot_be_changed_says_so_and_stays(box, part, body, tag, wanted):
    assert code(change(box, part, body, tag)) == wanted
    assert box.client.get(PATH).json()["revision"] == 0


def test_a_version_that_fails_its_self_test_changes_nothing(box):
    box.fail_open = GoldenMismatchError("one logit is off")
    assert code(change(box, "active", {"version": "1.1.0"})) == "golden-mismatch"
    assert box.client.get(PATH).json()["active"] == "1.0.0"
    assert box.deployments.all() == []


def test_unknown_models_are_not_found(box):
    assert box.client.get("/api/v1/models/nothing").status_code == 404
