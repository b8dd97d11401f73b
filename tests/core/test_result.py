"""The result document."""

import json

import numpy as np
import pytest

from bedside_core.errors import NoPixelsError, NoRouteError, WrongModalityError
from bedside_core.findings import Check, Decision
from bedside_core.imaging import Frame, PipelineSpec, prepare
from bedside_core.result import (
    NOTICE,
    Reading,
    canonical,
    caption,
    evidence_refs,
    image_entry,
    quarantine_entry,
    refusal_entry,
    same_entry,
    study_result,
    unrouted_result,
)

PROVENANCE = {"package": "sha256:" + "0" * 64}


def reading(instance: str, probability: float) -> Reading:
    pixels = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    return Reading(
        instance=instance,
        logit=0.25,
        probability=probability,
        decision=Decision.PRESENT,
        cam=((0.0, 1.5), (-0.25, 0.0)),
        prepared=prepare(Frame(pixels=pixels), PipelineSpec(size=32)),
        checks=(Check(name="modality", passed=True, reason="CR"),),
    )


def test_the_study_takes_the_image_with_the_highest_probability(manifest):
    entries = [image_entry(reading(name, p)) for name, p in (("a", 0.2), ("b", 0.8), ("c", 0.5))]
    body = study_result(manifest, entries, PROVENANCE)
    assert body["value"]["image"] == "b"
    assert body["value"]["probability"] == pytest.approx(0.8)
    assert body["status"] == "analysed"
    assert body["reason"] is None
    assert [entry["instance"] for entry in body["images"]] == ["a", "b", "c"]


def test_a_refused_image_beside_a_good_one_does_not_hide_the_result(manifest):
    entries = [refusal_entry("a", NoPixelsError("no image")), image_entry(reading("b", 0.3))]
    body = study_result(manifest, entries, PROVENANCE)
    assert body["status"] == "analysed"
    assert body["images"][0]["reason"] == {"code": "no-pixels", "detail": "no image"}


def test_with_nothing_to_read_there_is_a_reason_and_no_value(manifest):
    body = study_result(manifest, [refusal_entry("a", WrongModalityError("CT"))], PROVENANCE)
    assert body["status"] == "not_processed"
    assert body["value"] is None
    assert body["reason"]["code"] == "wrong-modality"


def test_copies_and_quarantined_instances_are_named_with_their_first(manifest):
    entries = [same_entry("b", "a"), quarantine_entry("c", "a")]
    body = study_result(manifest, entries, PROVENANCE)
    assert body["reason"]["code"] == "conflicting-instance"
    assert [entry["same_as"] for entry in body["images"]] == ["a", "a"]


def test_equal_results_are_equal_bytes_and_say_what_they_are_not(manifest):
    bodies = [
        canonical(study_result(manifest, [image_entry(reading("a", 0.1))], PROVENANCE))
        for _ in range(2)
    ]
    assert bodies[0] == bodies[1]
    assert b" :" not in bodies[0]
    assert json.loads(bodies[0])["notice"] == NOTICE


def test_the_words_under_an_overlay_say_what_it_is_not_and_what_computed_it(manifest):
    provenance = PROVENANCE | {"engine": {"engine": "openvino", "precision": "f32"}}
    lines = caption(study_result(manifest, [image_entry(reading("a", 0.81))], provenance))
    assert "not a diagnosis" in lines[0]
    assert "present, probability 0.810" in lines[1]
    assert f"{manifest.name} {manifest.version}, openvino f32" in lines[2]


def test_a_number_that_is_none_never_reaches_the_document():
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"probability": float("nan")})


def test_a_study_that_went_nowhere_has_a_reason_and_no_number():
    refusal = NoRouteError("no rule takes it")
    entry = refusal_entry("i-1", refusal)
    body = unrouted_result([entry], refusal, {"rule": None})
    assert body["status"] == "not_processed"
    assert body["reason"] == {"code": "no-route", "detail": "no rule takes it"}
    assert body["images"] == [entry]
    assert body["routing"] == {"rule": None}
    nothing = ("value", "finding", "model", "engine", "pipeline", "profile", "package")
    assert all(body[name] is None for name in nothing)


def test_evidence_names_the_model_in_plain_and_nothing_of_the_study(manifest):
    digest = "sha256:" + "0" * 64
    provenance = {
        "package": digest,
        "profile": {"name": "generic", "digest": digest},
        "decided_by": "package",
        "routing": {"rule": None, "rules": "a" * 64, "reason": "every image"},
    }
    refs = evidence_refs(study_result(manifest, [image_entry(reading("a", 0.9))], provenance))
    assert refs == {
        "model": f"{manifest.name}@{manifest.version}",
        "package": digest,
        "profile": digest,
        "pipeline": manifest.pipeline.digest,
        "decided_by": "package",
        "rules": "a" * 64,
    }


def test_evidence_of_an_unrouted_study_names_the_rules_alone():
    body = unrouted_result([], NoRouteError("no rule"), {"rules": "b" * 64})
    assert evidence_refs(body) == {"rules": "b" * 64}
    assert evidence_refs(unrouted_result([], NoRouteError("no rule"), {})) == {}
