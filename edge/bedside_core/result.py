"""The result document: what the box says about a study, with everything needed to judge it.

Canonical JSON (sorted keys, no spaces), so equal inputs give equal bytes. No time and no
identifier of a patient stands in it; instances go by the box's own ids.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bedside_core.errors import BedsideError
from bedside_core.evidence.entry import as_ref
from bedside_core.findings import Check, Decision, Rule
from bedside_core.imaging import Prepared
from bedside_core.manifest import Manifest

FORMAT = "bedside-result/1"
NOTICE = (
    "AI decision support only - not a diagnosis. Research reference model, not a medical device."
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the network said about one image that passed the input check."""

    instance: str
    logit: float
    probability: float
    decision: Decision
    cam: tuple[tuple[float, ...], ...]
    prepared: Prepared
    checks: tuple[Check, ...]


def image_entry(reading: Reading) -> Json:
    """Return the entry of an analysed image."""
    place = reading.prepared.placement
    return {
        "instance": reading.instance,
        "status": "analysed",
        "logit": round(reading.logit, 6),
        "probability": round(reading.probability, 6),
        "decision": str(reading.decision),
        "checks": [_check(check) for check in reading.checks],
        "operations": list(reading.prepared.operations),
        "cam": [[round(value, 4) for value in row] for row in reading.cam],
        "placement": [place.top, place.left, place.height, place.width],
    }


def refusal_entry(instance: str, error: BedsideError, checks: Sequence[Check] = ()) -> Json:
    """Return the entry of an image the model did not read, with the reason."""
    return {
        "instance": instance,
        "status": "not_processed",
        "reason": {"code": error.code, "detail": str(error)},
        "checks": [_check(check) for check in checks],
    }


def same_entry(instance: str, same_as: str) -> Json:
    """Return the entry of an instance whose pixels are those of another one."""
    return {"instance": instance, "status": "same_pixels", "same_as": same_as}


def quarantine_entry(instance: str, same_as: str) -> Json:
    """Return the entry of an instance that came under a taken UID with other pixels."""
    detail = "the same SOP Instance UID came with other content; both are kept, a person decides"
    reason = {"code": "conflicting-instance", "detail": detail}
    return {"instance": instance, "status": "quarantined", "same_as": same_as, "reason": reason}


def study_result(
    manifest: Manifest, images: Sequence[Json], provenance: Json, rule: Rule | None = None
) -> Json:
    """Assemble the document; the study's value is that of the image with the highest probability.

    Args:
        manifest: the package that read the images.
        images: entries made by the functions above, in order of arrival.
        provenance: engine, profile and package digests.
        rule: the rule the images were decided by; the package's own when None.
    """
    read = [entry for entry in images if entry["status"] == "analysed"]
    rule = rule or manifest.decision.value()
    pipeline = manifest.pipeline
    body: Json = {
        "format": FORMAT,
        "notice": NOTICE,
        "status": "analysed" if read else "not_processed",
        "finding": manifest.finding.model_dump(),
        "value": None,
        "reason": None,
        "images": list(images),
        "model": {"name": manifest.name, "version": manifest.version, "release": manifest.release},
        "pipeline": {
            "name": pipeline.name,
            "revision": pipeline.revision,
            "digest": pipeline.digest,
        },
        **provenance,
    }
    if read:
        body["value"] = _value(max(read, key=lambda entry: entry["probability"]), rule)
    else:
        reasons = [entry["reason"] for entry in images if "reason" in entry]
        body["reason"] = reasons[0] if reasons else {"code": "no-pixels", "detail": "no images"}
    return body


def unrouted_result(images: Sequence[Json], refusal: BedsideError, routing: Json) -> Json:
    """Assemble the document of a study that no model was asked to read.

    Args:
        images: entries of the study's instances.
        refusal: why nothing ran.
        routing: the rules in force and what they said.
    """
    nothing = ("finding", "value", "model", "pipeline", "engine", "profile", "package")
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "status": "not_processed",
        "reason": {"code": refusal.code, "detail": str(refusal)},
        "images": list(images),
        "routing": routing,
        **dict.fromkeys(nothing),
    }


def canonical(body: Json) -> bytes:
    """Return the document as canonical JSON bytes."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def evidence_refs(body: Json) -> dict[str, int | str]:
    """Return what the evidence log says of a result in plain: which model, never which patient.

    All of it is public: name and version, digests of package, profile, pipeline and rules.
    """
    refs: dict[str, int | str] = {}
    if model := body["model"]:
        refs["model"] = as_ref(f"{model['name']}@{model['version']}")
        refs["package"] = as_ref(body["package"])
        refs["profile"] = as_ref(body["profile"]["digest"])
        refs["pipeline"] = as_ref(body["pipeline"]["digest"])
        refs["decided_by"] = as_ref(body["decided_by"])
    if routing := body.get("routing"):
        refs["rules"] = as_ref(routing["rules"])
    return refs


def _value(entry: Json, rule: Rule) -> Json:
    return {
        "probability": entry["probability"],
        "decision": entry["decision"],
        "threshold": rule.threshold,
        "undetermined": [rule.low, rule.high],
        "image": entry["instance"],
    }


def _check(check: Check) -> Json:
    return {"name": check.name, "passed": check.passed, "reason": check.reason}


def caption(body: Json) -> list[str]:
    """Return the lines that stand under every overlay."""
    value, finding = body["value"], body["finding"]
    model, engine = body["model"], body["engine"]
    low, high = value["undetermined"]
    return [
        "AI decision support only - not a diagnosis",
        f"{finding['meaning']}: {value['decision']}, probability {value['probability']:.3f} "
        f"(threshold {value['threshold']:.2f}, undetermined {low:.2f} to {high:.2f})",
        f"{model['name']} {model['version']}, {engine['engine']} {engine['precision']}; "
        "colour: where evidence for the finding was seen",
    ]
