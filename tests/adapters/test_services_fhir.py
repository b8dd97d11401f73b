"""FHIR: every bundle is valid R4B, says what the result says, and its status tells what stands."""

import json
from dataclasses import replace

import pytest
from fhir.resources.R4B.bundle import Bundle

from bedside_core.access import Action, Actor
from bedside_core.findings import Decision
from bedside_core.review import ReviewKind
from bedside_edge.services.fhir import result_bundle
from support.http_box import HttpBox
from support.outputs import MemoryArchive, publishing_box

ADA = Actor(actor_id="person:ada", name="Lovelace^Ada^^Dr", actions=frozenset(Action))


@pytest.fixture
def box(tmp_path):
    with publishing_box(tmp_path / "state", MemoryArchive()) as opened:
        yield opened


def sign(box, result, kind, decision=None, expected=0):
    return box.reviews.sign(
        result, reader=ADA, kind=kind, reason="seen", decision=decision, expected=expected
    )


def bundle_of(box, result):
    stored = box.state.jobs.result(result)
    held = box.state.studies.instances(stored.study_id)
    made = result_bundle(stored, json.loads(stored.body), held, box.reviews.reviews(result))
    text = json.dumps(made)
    Bundle.model_validate_json(text)  # the profile-free part of R4B, by another's schema
    return made


def of(bundle, kind):
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def test_an_unsigned_result_is_preliminary_and_says_probability_and_threshold(box):
    bundle = bundle_of(box, box.analysed())
    (report,), (observation,) = of(bundle, "DiagnosticReport"), of(bundle, "Observation")
    assert (report["status"], observation["status"]) == ("preliminary", "preliminary")
    assert observation["code"]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "128477000",
        "display": "Abnormal opacity",
    }
    assert observation["valueQuantity"]["value"] == 0.9
    assert observation["component"][0]["valueQuantity"]["value"] == 0.5
    codes = [c["code"] for c in observation["interpretation"][0]["coding"]]
    assert codes == ["POS", "121053"]
    assert "not a diagnosis" in report["conclusion"]


@pytest.mark.parametrize(
    ("kind", "decision", "report", "measured", "said"),
    [
        (ReviewKind.ACCEPT, None, "final", "final", "121053"),
        (ReviewKind.EDIT, Decision.ABSENT, "amended", "preliminary", "121054"),
        (ReviewKind.REJECT, None, "entered-in-error", "entered-in-error", None),
        (ReviewKind.REJECT, Decision.ABSENT, "entered-in-error", "entered-in-error", "121054"),
    ],
)
def test_the_status_tells_what_the_reader_did(box, kind, decision, report, measured, said):
    result = box.analysed()
    sign(box, result, kind, decision)
    bundle = bundle_of(box, result)
    (one,) = of(bundle, "DiagnosticReport")
    assert one["status"] == report
    observations = {o["id"]: o for o in of(bundle, "Observation")}
    by_box = [o for o in observations.values() if "valueQuantity" in o]
    by_reader = [o for o in observations.values() if "valueCodeableConcept" in o]
    assert [o["status"] for o in by_box] == [measured]
    found = [o["valueCodeableConcept"]["coding"][0]["code"] for o in by_reader]
    assert found == ([] if said is None else [said])
    (reader,) = of(bundle, "Practitioner")
    assert reader["name"] == [{"text": "Dr Ada Lovelace", "family": "Lovelace", "given": ["Ada"]}]
    assert len(of(bundle, "Provenance")) == 2
    (audit,) = of(bundle, "AuditEvent")
    assert audit["agent"][0]["who"]["reference"] == f"urn:uuid:{reader['id']}"


def test_every_reference_leads_to_a_resource_of_the_bundle(box):
    result = box.analysed()
    sign(box, result, ReviewKind.ACCEPT)
    sign(box, result, ReviewKind.EDIT, Decision.ABSENT, expected=1)
    bundle = bundle_of(box, result)
    urls = {entry["fullUrl"] for entry in bundle["entry"]}
    text = json.dumps(bundle)
    found = {part.split('"')[0] for part in text.split('"reference": "')[1:]}
    assert found <= urls
    assert len(urls) == len(bundle["entry"])


def test_a_second_verdict_amends_and_the_first_is_still_told(box):
    result = box.analysed()
    sign(box, result, ReviewKind.ACCEPT)
    sign(box, result, ReviewKind.EDIT, Decision.ABSENT, expected=1)
    bundle = bundle_of(box, result)
    said = [o["status"] for o in of(bundle, "Observation") if "valueCodeableConcept" in o]
    assert said == ["amended"]
    assert len(of(bundle, "AuditEvent")) == 2


def test_a_study_that_was_not_processed_is_cancelled_without_a_value(box):
    bundle = bundle_of(box, box.refused(4))
    (report,) = of(bundle, "DiagnosticReport")
    assert report["status"] == "cancelled"
    assert of(bundle, "Observation") == []


def test_a_superseded_result_names_its_successor(box):
    first = box.analysed(1)
    second = box.analysed(1, number=2)
    links = {link["relation"]: link["url"] for link in bundle_of(box, first)["link"]}
    assert links["successor-version"] == f"/api/v1/results/{second}/fhir"


def test_a_patient_without_an_identifier_gets_none_made_up(box):
    result = box.analysed()
    stored = box.state.jobs.result(result)
    held = [
        replace(i, header=replace(i.header, patient_id="", study_date="unknown"))
        for i in box.state.studies.instances(stored.study_id)
    ]
    made = result_bundle(stored, json.loads(stored.body), held, [])
    assert "identifier" not in of(made, "Patient")[0]
    assert "started" not in of(made, "ImagingStudy")[0]


def test_over_http_it_has_a_tag_that_changes_with_a_verdict(box):
    result = box.analysed()
    path = f"/api/v1/results/{result}/fhir"
    with HttpBox(outgoing=box) as http:
        stored = box.state.jobs.result(result)
        http.queue.results[result] = stored
        http.held[stored.study_id] = box.state.studies.instances(stored.study_id)
        first = http.client.get(path)
        assert first.headers["Content-Type"] == "application/fhir+json"
        tag = {"If-None-Match": first.headers["ETag"]}
        assert http.client.get(path, headers=tag).status_code == 304
        sign(box, result, ReviewKind.ACCEPT)
        assert http.client.get(path, headers=tag).status_code == 200
