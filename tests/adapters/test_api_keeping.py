"""Erasing, holding and keeping over HTTP: planned, done, proven, and refused."""

from types import SimpleNamespace

import pytest

from bedside_core.access import Action, Actor, Role
from bedside_core.erasure import check_entry, parse_certificate
from bedside_core.evidence.proof import parse_proof
from bedside_core.retention import DAY_MS, RetentionRules
from bedside_edge.services.keeping import Keeping, sweep_permitted
from bedside_edge.services.retention import RetentionService
from support.erasing import fill, open_at
from support.fake_clock import FakeClock
from support.http_box import HttpBox
from support.ram import ram_folder
from support.state_houses import T0

OFFICER = Actor(
    actor_id="person:officer",
    name="Meier^Eva",
    roles=frozenset({Role.PRIVACY_OFFICER}),
    actions=frozenset(Action),
)


class FullDisk:
    def space(self):
        return 900, 1000


@pytest.fixture
def box():
    with ram_folder() as ram:
        state = open_at(ram / "state")
        rules = RetentionRules(received_days=1, results_days=1, reviews_days=1, keep_unsigned=False)
        clock = FakeClock(T0 + 10 * DAY_MS)
        keeping = Keeping(
            erasure=state.erasure,
            holds=state.holds,
            retention=RetentionService(state.retention, state.erasure, FullDisk(), clock, rules),
            subjects=state.subjects,
        )
        with HttpBox(keeping=keeping) as http:
            http.peer = OFFICER
            yield SimpleNamespace(http=http, client=http.client, state=state)
        state.close()


def test_a_plan_deletes_nothing_and_a_delete_answers_with_the_way_to_its_certificate(box):
    study = fill(box.state)
    plan = box.client.get(f"/api/v1/studies/{study}/erasure").json()
    assert (plan["objects"], plan["results"], plan["open_deliveries"]) == (3, 1, 1)
    assert len(box.state.studies.instances(study)) == 2
    answer = box.client.request("DELETE", f"/api/v1/studies/{study}?reason=withdrawal")
    assert answer.status_code == 202, answer.json()
    done = answer.json()
    assert (done["state"], done["reason"], done["objects"]) == ("done", "withdrawal", 3)
    assert answer.headers["location"] == f"/api/v1/erasures/{done['id']}"
    assert box.client.get(answer.headers["location"]).json() == done
    data = box.client.get(done["certificate"]).content
    certificate = parse_certificate(data)
    entry = check_entry(certificate, parse_proof(certificate.proof.encode()).extra)
    assert entry.actor == "person:officer"
    assert box.client.get(f"/api/v1/studies/{study}/erasure").status_code == 404
    assert box.client.request("DELETE", f"/api/v1/studies/{study}").status_code == 404
    assert [e["id"] for e in box.client.get("/api/v1/erasures").json()["erasures"]] == [done["id"]]


def test_a_patient_is_found_by_patient_id_and_erased_with_all_studies(box):
    one, two = fill(box.state), fill(box.state, study="1.2.840.77777")
    found = box.client.post("/api/v1/subjects:find", json={"patient_id": "PATIENT-4711"}).json()
    assert found["identified"]
    assert set(found["studies"]) == {one, two}
    plan = box.client.get(f"/api/v1/subjects/{found['id']}/erasure").json()
    assert plan["objects"] == 6
    done = box.client.request("DELETE", f"/api/v1/subjects/{found['id']}").json()
    assert (done["state"], done["studies"]) == ("done", 2)
    again = box.client.post("/api/v1/subjects:find", json={"patient_id": "PATIENT-4711"})
    assert again.status_code == 404


def test_a_held_study_is_not_erased_until_it_is_released(box):
    study = fill(box.state)
    body = {"reason": "litigation", "review_at": T0}
    made = box.client.post(f"/api/v1/studies/{study}/hold", json=body)
    assert made.status_code == 201
    assert made.json()["overdue"]
    refused = box.client.request("DELETE", f"/api/v1/studies/{study}")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:bedside:error:legal-hold")
    held = box.client.get(f"/api/v1/holds?study={study}").json()["holds"]
    assert [one["actor"] for one in held] == ["person:officer"]
    name = held[0]["id"]
    assert box.client.post(f"/api/v1/holds/{name}:release").json()["released_by"]
    assert box.client.post(f"/api/v1/holds/{name}:release").status_code == 409
    assert box.client.request("DELETE", f"/api/v1/studies/{study}").status_code == 202


@pytest.mark.parametrize("body", [{"reason": "Free text", "review_at": 1}, {"reason": "a"}, {}])
def test_a_hold_needs_a_word_and_a_day(box, body):
    study = fill(box.state)
    answer = box.client.post(f"/api/v1/studies/{study}/hold", json=body)
    assert answer.status_code == 422


def test_a_sweep_is_planned_and_run(box):
    study = fill(box.state)
    plan = box.client.get("/api/v1/retention/plan").json()
    assert (plan["needed"], plan["goes"], plan["stays"]) == (100, 0, {"undelivered": 1})
    (delivery,) = box.state.outputs.due("pacs", T0, 10)
    box.state.outputs.delivered(delivery.delivery_id, T0)
    plan = box.client.get("/api/v1/retention/plan?limit=0").json()
    assert (plan["goes"], plan["studies"]) == (1, [])
    assert box.client.post("/api/v1/retention:run").json() == {"erased": 1}
    assert box.client.get(f"/api/v1/studies/{study}/erasure").status_code == 404


def test_the_shipped_policy_lets_the_box_sweep_an_officer_erase_and_no_token(box):
    study = fill(box.state)
    assert sweep_permitted(box.http.governance.gate, study)
    box.http.peer = Actor(actor_id="token:1", name="token", actions=frozenset(Action))
    assert box.client.get(f"/api/v1/studies/{study}/erasure").status_code == 200
    refused = box.client.request("DELETE", f"/api/v1/studies/{study}")
    assert refused.json()["type"] == "urn:bedside:error:not-permitted"
    assert len(box.state.studies.instances(study)) == 2
    assert box.state.erasure.erasures() == []


def test_nobody_else_may_erase_hold_or_sweep(box):
    study = fill(box.state)
    box.http.peer = Actor(
        actor_id="person:reader",
        name="Wang^Min",
        actions=frozenset(Action) - {Action.MANAGE_CONSENT, Action.MANAGE_POLICY},
    )
    for method, path in (
        ("GET", f"/studies/{study}/erasure"),
        ("DELETE", f"/studies/{study}"),
        ("GET", "/subjects/x/erasure"),
        ("DELETE", "/subjects/x"),
        ("GET", "/erasures"),
        ("GET", "/erasures/x"),
        ("GET", "/erasures/x/certificate"),
        ("GET", "/holds"),
        ("POST", "/holds/x:release"),
        ("GET", "/retention/plan"),
        ("POST", "/retention:run"),
    ):
        assert box.client.request(method, f"/api/v1{path}").status_code == 403, path
    assert len(box.state.studies.instances(study)) == 2
