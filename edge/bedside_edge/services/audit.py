"""Entries of the evidence log as FHIR R4B AuditEvents, for a hospital's audit repository.

Codes are DICOM's audit event ids (PS3.15 A.5, PS3.16 CID 400 to 403), which FHIR R4 names as its
value set. A look (a decision about viewing, or a look at a list) follows the Basic Audit Log
Patterns of IHE (`Read`, `PatientRead` where the patient is known); the others claim no profile.
The patient stands in them by the box's own id: who that is, only the box can tell.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bedside_core.evidence.entry import Entry, Kind
from bedside_core.evidence.merkle import leaf_hash
from bedside_edge.ports.evidence import Kept

Json = dict[str, Any]

_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_TERMS: Final = "http://terminology.hl7.org/CodeSystem/"
_REST: Final = (f"{_TERMS}audit-event-type", "rest", "RESTful Operation")
_READ: Final = ("http://hl7.org/fhir/restful-interaction", "read", "read")
_BALP: Final = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
_ACTIVITY: Final = (_DCM, "110100", "Application Activity")
_ALERT: Final = (_DCM, "110113", "Security Alert")
_RECORD: Final = (_DCM, "110110", "Patient Record")
_ACCESSED: Final = (_DCM, "110103", "DICOM Instances Accessed")
_SOURCE: Final = (_DCM, "110153", "Source Role ID")
_DESTINATION: Final = (_DCM, "110152", "Destination Role ID")
_PERSON: Final = ("person:", "token:", "session:")

Coding = tuple[str, str, str]

# kind -> event, action (C create, R read, U update, D delete, E execute)
_KINDS: Final[dict[Kind, tuple[Coding, str]]] = {
    Kind.RAW_DIGEST: (_ACCESSED, "C"),
    Kind.INFERENCE: (_ACTIVITY, "E"),
    Kind.CONSENT: (_RECORD, "C"),
    Kind.WITHDRAWAL: (_RECORD, "U"),
    Kind.ERASURE: (_RECORD, "D"),
    Kind.ACCESS: (_ACCESSED, "R"),
    Kind.ALARM: (_ALERT, "E"),
    Kind.INCIDENT: (_ALERT, "E"),
    Kind.SEAL: (_ALERT, "E"),
    Kind.UNSEAL: (_ALERT, "E"),
    Kind.RELEASE: ((_DCM, "110106", "Export"), "R"),
}
# what an entry says in `refs` -> a closer event
_WHATS: Final[dict[str, tuple[Coding, str]]] = {
    "received": ((_DCM, "110107", "Import"), "C"),
    "delivered": ((_DCM, "110106", "Export"), "R"),
}
_SUBTYPES: Final[dict[str, Coding]] = {
    "started": (_DCM, "110120", "Application Start"),
    "stopped": (_DCM, "110121", "Application Stop"),
}


def audit_bundle(origin: str, entries: Sequence[Kept], *, url: str, following: str = "") -> Json:
    """Return a FHIR Bundle of the entries, in their order.

    Args:
        origin: name of the log.
        entries: what to tell; pads are left out, since they say that nothing happened.
        url: of this page.
        following: of the next page; empty on the last one.
    """
    links = [{"relation": "self", "url": url}]
    if following:
        links.append({"relation": "next", "url": following})
    told = [audit_event(origin, one) for one in entries if one.entry.kind is not Kind.PAD]
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": links,
        "entry": [{"resource": event, "search": {"mode": "match"}} for event in told],
    }


def audit_event(origin: str, kept: Kept) -> Json:
    """Return one entry as an AuditEvent."""
    entry = kept.entry
    what = str(entry.refs.get("what", ""))
    use = str(entry.refs.get("use", ""))
    looked = what == "looked" or use == "view"
    event, action = _KINDS.get(entry.kind, (_ACTIVITY, "E"))
    event, action = _WHATS.get(what, (event, action))
    subtypes = [(f"urn:bedside:evidence:{part}", word, word) for part, word in _words(entry)]
    if what in _SUBTYPES:
        subtypes.insert(0, _SUBTYPES[what])
    if looked:
        event, action, subtypes = _REST, "R", [_READ, *subtypes]
    bad = entry.kind is Kind.ALARM or entry.refs.get("outcome") == "denied"
    document: Json = {
        "resourceType": "AuditEvent",
        "id": f"entry-{kept.index}",
        "type": _coding(event),
        "subtype": [_coding(subtype) for subtype in subtypes],
        "action": action,
        "recorded": datetime.fromtimestamp(entry.ts, UTC).isoformat(),
        "outcome": "4" if bad else "0",
        "agent": _agents(origin, entry),
        "source": {"observer": _device(origin), "site": origin},
        "entity": _entities(origin, kept),
    }
    if looked:
        profile = "PatientRead" if kept.subject_id else "Read"
        document["meta"] = {"profile": [_BALP + profile]}
    return document


def _words(entry: Entry) -> list[tuple[str, str]]:
    told = [(part, str(entry.refs.get(part, ""))) for part in ("what", "use")]
    return [("kind", entry.kind.value), *((part, word) for part, word in told if word)]


def _agents(origin: str, entry: Entry) -> list[Json]:
    """Who did it, and the box it was done on."""
    person = entry.actor.startswith(_PERSON)
    who = {"identifier": {"system": f"urn:bedside:actor:{origin}", "value": entry.actor}}
    return [
        {"type": _concept(_SOURCE), "who": who, "requestor": person},
        {"type": _concept(_DESTINATION), "who": _device(origin), "requestor": not person},
    ]


def _entities(origin: str, kept: Kept) -> list[Json]:
    """The entry with its leaf hash, so that it can be asked for a proof; then study and patient."""
    details = [
        {"type": name, "valueString": str(value)} for name, value in sorted(kept.entry.refs.items())
    ]
    details.append({"type": "leaf_hash", "valueString": leaf_hash(kept.data).hex()})
    entry: Json = {
        "what": _identifier(f"urn:bedside:evidence:{origin}", str(kept.index)),
        "type": {"system": f"{_TERMS}audit-entity-type", "code": "2", "display": "System Object"},
        "role": {"system": f"{_TERMS}object-role", "code": "4", "display": "Domain Resource"},
        "detail": details,
    }
    found = [entry]
    if kept.study_id:
        entry["description"] = f"study {kept.study_id}"
    if kept.subject_id:
        found.append(
            {
                "what": _identifier(f"urn:bedside:subject:{origin}", kept.subject_id),
                "type": {"system": f"{_TERMS}audit-entity-type", "code": "1", "display": "Person"},
                "role": {"system": f"{_TERMS}object-role", "code": "1", "display": "Patient"},
            }
        )
    return found


def _device(origin: str) -> Json:
    return _identifier("urn:bedside:device", origin) | {"type": "Device"}


def _identifier(system: str, value: str) -> Json:
    return {"identifier": {"system": system, "value": value}}


def _coding(coding: Coding) -> Json:
    return dict(zip(("system", "code", "display"), coding, strict=True))


def _concept(coding: Coding) -> Json:
    return {"coding": [_coding(coding)]}
