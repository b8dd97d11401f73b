"""A result and what readers said of it as a FHIR R4B bundle; plain values, the same for the same.

Status of the DiagnosticReport (R4B value set diagnostic-report-status):
- nobody signed: `preliminary`, the box alone speaks;
- accepted: `final`;
- edited: `amended`, "modified after it was issued": the preliminary report had been issued;
- rejected: `entered-in-error`, "withdrawn", because decisions may rest on what was issued.
  `cancelled` would say that no examination took place; that is the status of a study the box did
  not process.
The box's own Observation is `final` when accepted, `entered-in-error` when rejected, and stays
`preliminary` beside an edit: nobody confirmed it. What the reader says last is an Observation of
its own; earlier verdicts remain as Provenance and AuditEvent.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bedside_core.findings import Decision
from bedside_core.result import NOTICE, Json, caption
from bedside_core.review import ReviewKind
from bedside_edge.ports import Instance, StoredResult
from bedside_edge.ports.review import ReviewRecord

DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_SYSTEMS: Final = {"SCT": "http://snomed.info/sct", "LN": "http://loinc.org", "DCM": DCM}
_TERMS: Final = "http://terminology.hl7.org/CodeSystem/"
_SPACE: Final = uuid.UUID("6f1a5a5e-2e0c-5a52-9a5e-0b6f3f7f6a11")  # ours, for ids of resources
# as in the SR: bedside_edge.dicom.write_sr
_PRESENCE: Final = {
    Decision.PRESENT: (DCM, "121053", "Present"),
    Decision.ABSENT: (DCM, "121054", "Absent"),
    Decision.UNDETERMINED: (DCM, "121059", "Presence Undetermined"),
}
_INTERPRETATION: Final = {
    Decision.PRESENT: ("POS", "Positive"),
    Decision.ABSENT: ("NEG", "Negative"),
    Decision.UNDETERMINED: ("IND", "Indeterminate"),
}
_CHEST: Final = (_SYSTEMS["LN"], "30745-4", "XR Chest Views")
_ANY_STUDY: Final = (_SYSTEMS["LN"], "18748-4", "Diagnostic imaging study")
_REPORTS: Final = {
    None: "preliminary",
    ReviewKind.ACCEPT: "final",
    ReviewKind.EDIT: "amended",
    ReviewKind.REJECT: "entered-in-error",
}
_MEASURED: Final = {
    None: "preliminary",
    ReviewKind.ACCEPT: "final",
    ReviewKind.EDIT: "preliminary",
    ReviewKind.REJECT: "entered-in-error",
}

Coding = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What every resource is made from."""

    stored: StoredResult
    body: Json
    instances: Sequence[Instance]
    reviews: Sequence[ReviewRecord]

    @property
    def last(self) -> ReviewRecord | None:
        return self.reviews[-1] if self.reviews else None

    @property
    def kind(self) -> ReviewKind | None:
        return self.last.review.kind if self.last else None

    def id(self, what: str) -> str:
        return str(uuid.uuid5(_SPACE, f"{self.stored.result_id}/{what}"))

    def ref(self, kind: str, what: str) -> Json:
        return {"reference": f"urn:uuid:{self.id(what)}", "type": kind}

    def resource(self, kind: str, what: str, **content: Any) -> Json:  # noqa: ANN401  FHIR's own
        return {"resourceType": kind, "id": self.id(what)} | {
            name: value for name, value in content.items() if value not in (None, "", [])
        }


def result_bundle(
    stored: StoredResult,
    body: Json,
    instances: Sequence[Instance],
    reviews: Sequence[ReviewRecord],
) -> Json:
    """Return the collection of resources about one result.

    Args:
        stored: the result.
        body: its document.
        instances: the instances of its study.
        reviews: the verdicts, first to last.
    """
    case = _Case(stored=stored, body=body, instances=instances, reviews=reviews)
    found = [_patient(case), _study(case), _device(case), _report(case)]
    if body["value"] is not None:
        found.append(_measured(case))
    found.append(_made(case))
    for record in reviews:
        found += _signed(case, record)
    path = f"/api/v1/results/{stored.result_id}/fhir"
    links = [{"relation": "self", "url": path}]
    if stored.superseded_by:
        newer = f"/api/v1/results/{stored.superseded_by}/fhir"
        links.append({"relation": "successor-version", "url": newer})
    return {
        "resourceType": "Bundle",
        "id": case.id("bundle"),
        "type": "collection",
        "timestamp": _time(case.last.review.at if case.last else stored.created),
        "link": links,
        "entry": [{"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in found],
    }


def _patient(case: _Case) -> Json:
    """The identifier only: whoever takes the bundle in knows the patient by it."""
    header = case.instances[0].header
    identifier: Json = {"value": header.patient_id}
    if header.issuer:
        identifier["assigner"] = {"display": header.issuer}
    return case.resource(
        "Patient", "patient", identifier=[identifier] if header.patient_id else None
    )


def _study(case: _Case) -> Json:
    header = case.instances[0].header
    identifiers: list[Json] = [
        {"system": "urn:dicom:uid", "value": f"urn:oid:{header.study_uid}"},
    ]
    if header.accession_number:
        accession = _concept((f"{_TERMS}v2-0203", "ACSN", "Accession ID"))
        identifiers.append({"type": accession, "value": header.accession_number})
    modalities = sorted({i.header.modality for i in case.instances if i.header.modality})
    return case.resource(
        "ImagingStudy",
        "study",
        identifier=identifiers,
        status="available",
        modality=[{"system": DCM, "code": modality} for modality in modalities],
        subject=case.ref("Patient", "patient"),
        started=_date(header.study_date),
        series=_series(case),
    )


def _series(case: _Case) -> list[Json]:
    """The images the box looked at."""
    looked = {entry["instance"] for entry in case.body["images"]}
    series: dict[str, Json] = {}
    for instance in case.instances:
        header = instance.header
        if instance.instance_id not in looked or not header.modality:
            continue
        one = series.setdefault(
            header.series_uid,
            {
                "uid": header.series_uid,
                "modality": {"system": DCM, "code": header.modality},
                "instance": [],
            },
        )
        sop_class = {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{header.sop_class_uid}"}
        one["instance"].append({"uid": header.sop_instance_uid, "sopClass": sop_class})
    return list(series.values())


def _device(case: _Case) -> Json:
    body = case.body
    model = body["model"] or {"name": "none", "version": "none"}
    return case.resource(
        "Device",
        "device",
        identifier=[{"system": "urn:bedside:package", "value": body["package"]}]
        if body["package"]
        else None,
        status="active",
        deviceName=[{"name": f"Bedside {model['name']}", "type": "model-name"}],
        modelNumber=model["name"],
        version=[{"value": model["version"]}],
        note=[{"text": NOTICE}],
    )


def _report(case: _Case) -> Json:
    body, last = case.body, case.last
    processed = body["value"] is not None
    standing = _standing(case)
    results = [case.ref("Observation", "measured")] if processed else []
    if last is not None and last.label is not None:
        results.insert(0, case.ref("Observation", "said"))
    reader = [case.ref("Practitioner", f"reader-{last.revision}")] if last else None
    return case.resource(
        "DiagnosticReport",
        "report",
        status=_REPORTS[case.kind] if processed else "cancelled",
        category=[_concept((f"{_TERMS}v2-0074", "RAD", "Radiology"))],
        code=_concept(_procedure(case)),
        subject=case.ref("Patient", "patient"),
        issued=_time(last.review.at if last else case.stored.created),
        performer=reader,
        resultsInterpreter=reader,
        result=results,
        imagingStudy=[case.ref("ImagingStudy", "study")],
        conclusion=_conclusion(case),
        conclusionCode=[_concept(_finding(body))] if standing is Decision.PRESENT else None,
    )


def _standing(case: _Case) -> Decision | None:
    """What is said of the finding now; None when nobody says anything any more."""
    if case.body["value"] is None:
        return None
    if case.last is None:
        return Decision(case.body["value"]["decision"])
    return case.last.label


def _conclusion(case: _Case) -> str:
    body, last = case.body, case.last
    if body["value"] is None:
        return f"Not processed: {body['reason']['detail']}. {NOTICE}"
    if last is None:
        return " ".join((*caption(body), NOTICE))
    said = "nothing" if last.label is None else f"{last.label} ({last.review.certainty})"
    text = f"The result of the box was {last.review.kind}ed by a reader, who says: {said}."
    return f"{text} {last.review.reason}".strip()


def _measured(case: _Case) -> Json:
    """What the box says: a probability on its threshold."""
    value, body = case.body["value"], case.body
    low, high = value["undetermined"]
    return case.resource(
        "Observation",
        "measured",
        status=_MEASURED[case.kind],
        category=[_concept((f"{_TERMS}observation-category", "imaging", "Imaging"))],
        code=_concept(_finding(body)),
        subject=case.ref("Patient", "patient"),
        issued=_time(case.stored.created),
        valueQuantity=_share(value["probability"]),
        interpretation=[_interpretation(Decision(value["decision"]))],
        method={"text": f"{body['model']['name']} {body['model']['version']}"},
        device=case.ref("Device", "device"),
        derivedFrom=[case.ref("ImagingStudy", "study")],
        note=[{"text": NOTICE}],
        component=[
            {
                "code": _concept((DCM, "122411", "Threshold Value")),
                "valueQuantity": _share(value["threshold"]),
            },
            {
                "code": _concept((DCM, "121059", "Presence Undetermined")),
                "valueRange": {"low": _share(low), "high": _share(high)},
            },
        ],
    )


def _made(case: _Case) -> Json:
    """Who made the result, of what."""
    return case.resource(
        "Provenance",
        "made",
        target=[case.ref("DiagnosticReport", "report")],
        recorded=_time(case.stored.created),
        activity=_concept((f"{_TERMS}v3-DataOperation", "CREATE", "create")),
        agent=[
            {
                "type": _concept((f"{_TERMS}provenance-participant-type", "author", "Author")),
                "who": case.ref("Device", "device"),
            }
        ],
        entity=[{"role": "source", "what": case.ref("ImagingStudy", "study")}],
    )


def _signed(case: _Case, record: ReviewRecord) -> list[Json]:
    """One verdict: the reader, what was said, and the trace of it."""
    review, number = record.review, record.revision
    reader = case.ref("Practitioner", f"reader-{number}")
    found = [
        case.resource(
            "Practitioner",
            f"reader-{number}",
            identifier=[{"system": "urn:bedside:account", "value": review.reader_id}],
            name=[_name(review.reader_name)],
        )
    ]
    if record is case.last and record.label is not None:
        found.append(_said(case, record, record.label, reader))
    found.append(
        case.resource(
            "Provenance",
            f"signed-{number}",
            target=[case.ref("DiagnosticReport", "report")],
            recorded=_time(review.at),
            reason=[{"text": review.reason}] if review.reason else None,
            activity={"text": str(review.kind)},
            agent=[
                {
                    "type": _concept(
                        (f"{_TERMS}provenance-participant-type", "verifier", "Verifier")
                    ),
                    "who": reader,
                }
            ],
        )
    )
    found.append(
        case.resource(
            "AuditEvent",
            f"audit-{number}",
            type={"system": f"{_TERMS}audit-event-type", "code": "rest"},
            subtype=[{"system": "http://hl7.org/fhir/restful-interaction", "code": "create"}],
            action="C",
            recorded=_time(review.at),
            outcome="0",
            agent=[{"who": reader, "requestor": True}],
            source={"observer": case.ref("Device", "device")},
            entity=[
                {
                    "what": case.ref("DiagnosticReport", "report"),
                    "detail": [{"type": "review", "valueString": str(review.kind)}],
                }
            ],
        )
    )
    return found


def _said(case: _Case, record: ReviewRecord, label: Decision, reader: Json) -> Json:
    review = record.review
    notes = [f"The reader is {review.certainty}.", review.reason]
    return case.resource(
        "Observation",
        "said",
        status="final" if record.revision == 1 else "amended",
        category=[_concept((f"{_TERMS}observation-category", "imaging", "Imaging"))],
        code=_concept(_finding(case.body)),
        subject=case.ref("Patient", "patient"),
        issued=_time(review.at),
        performer=[reader],
        valueCodeableConcept=_concept(_PRESENCE[label]),
        interpretation=[_interpretation(label)],
        derivedFrom=[case.ref("ImagingStudy", "study"), case.ref("Observation", "measured")],
        note=[{"text": text} for text in notes if text],
    )


# --- data types ------------------------------------------------------------------------------


def _concept(coding: Coding) -> Json:
    system, code, display = coding
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def _finding(body: Json) -> Coding:
    finding = body["finding"]
    return (_SYSTEMS[finding["scheme"]], finding["code"], finding["meaning"])


def _procedure(case: _Case) -> Coding:
    chest = {i.header.modality for i in case.instances} & {"CR", "DX"}
    return _CHEST if chest else _ANY_STUDY


def _interpretation(decision: Decision) -> Json:
    code, display = _INTERPRETATION[decision]
    concept = _concept((f"{_TERMS}v3-ObservationInterpretation", code, display))
    system, presence, words = _PRESENCE[decision]
    concept["coding"].append({"system": system, "code": presence, "display": words})
    return concept


def _share(value: float) -> Json:
    return {"value": value, "unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}


def _name(person: str) -> Json:
    """Return a DICOM person name (PS3.5 6.2.1: family^given^middle^prefix^suffix)."""
    alphabetic = person.partition("=")[0]
    family, given, middle, prefix, suffix = (*alphabetic.split("^"), "", "", "", "")[:5]
    name: Json = {"text": " ".join(p for p in (prefix, given, middle, family, suffix) if p)}
    if family:
        name["family"] = family
    if given or middle:
        name["given"] = [part for part in (given, middle) if part]
    return name


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")


def _date(value: str) -> str:
    """Return a DA value as a FHIR date; empty when it is none."""
    try:
        return datetime.strptime(value, "%Y%m%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        return ""
