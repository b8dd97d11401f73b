"""The evidence log over HTTP, and the trail as FHIR."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from fhir.resources.R4B.bundle import Bundle

from bedside_core.access import Action, Actor
from bedside_core.errors import DiskFullError
from bedside_core.evidence.checkpoint import open_checkpoint
from bedside_core.evidence.entry import Kind
from bedside_core.evidence.merkle import leaf_hash
from bedside_core.evidence.note import parse_verifier_key
from bedside_core.evidence.proof import verify_proof
from bedside_core.evidence.tiles import node_reader, parse_bundle
from bedside_edge.ports.evidence import Event
from bedside_edge.services.audit import audit_event
from bedside_edge.services.evidence import LOOK_S, EvidenceService
from support.fake_clock import FakeClock
from support.http_box import NOW, HttpBox
from support.memory_evidence import MemoryEvidence

URL = "/api/v1/evidence"
HERE = datetime.fromtimestamp(NOW // 1000, UTC)


@pytest.fixture
def box():
    with HttpBox() as box:
        for number in range(5):
            box.log.append(
                Event(
                    kind=Kind.ALARM if number == 2 else Kind.ADMIN,
                    actor="person:1",
                    study_id=f"study-{number % 2}",
                    payload=b"secret",
                    refs={"what": "job-replayed", "n": number},
                )
            )
        yield box


def test_a_checkpoint_and_the_keys_that_signed_it(box):
    answer = box.client.get(f"{URL}/checkpoint")
    assert (answer.status_code, answer.headers["content-type"]) == (
        200,
        "text/plain; charset=utf-8",
    )
    told = box.client.get(f"{URL}/keys").json()
    keys = [parse_verifier_key(text) for text in told["keys"]]
    opened = open_checkpoint(answer.content, told["origin"], keys)
    assert opened.checkpoint.size == 5
    assert box.client.get(f"{URL}/checkpoint").content == answer.content


def test_entries_are_listed_newest_first_and_can_be_narrowed(box):
    def listed(query=""):
        found = box.client.get(f"{URL}/entries{query}").json()
        return [one["index"] for one in found["entries"]]

    assert listed() == [4, 3, 2, 1, 0]
    assert listed("?limit=2&before=4") == [3, 2]
    assert listed("?kind=alarm") == [2]
    assert listed("?study=study-1") == [3, 1]
    assert listed("?study=study-0&kind=admin&before=4") == [0]
    assert listed("?study=unknown") == []


def test_an_entry_shows_its_bytes_and_never_its_payload(box):
    one = box.client.get(f"{URL}/entries/3").json()
    data = base64.b64decode(one["data"])
    assert (one["index"], one["study"], data) == (3, "study-1", box.log.entry(3).data)
    assert one["entry"]["refs"] == {"what": "job-replayed", "n": 3}
    assert "secret" not in json.dumps(one)
    assert box.client.get(f"{URL}/entries/5").status_code == 404


def test_a_proof_downloaded_verifies_with_the_public_keys(box):
    answer = box.client.get(f"{URL}/proofs/4")
    assert answer.headers["content-disposition"].endswith('"entry-4.tlog-proof"')
    assert verify_proof(answer.content, box.log.origin, box.log.keys).index == 4
    assert box.client.get(f"{URL}/proofs/5").status_code == 404


def test_tiles_have_the_paths_a_mirror_expects(box):
    def fetch(tile):
        answer = box.client.get(f"{URL}/{tile.path}")
        assert answer.status_code == 200
        return answer.content

    assert len(parse_bundle(box.client.get(f"{URL}/tile/entries/000.p/5").content)) == 5
    assert node_reader(5, fetch)(0, 4) == leaf_hash(box.log.entry(4).data)
    for wrong in ("tile/0/000", "tile/0/000.p/6", "tile/0/0", "tile/x", "tile/entries/000.p/256"):
        assert box.client.get(f"{URL}/{wrong}").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["checkpoint", "keys", "entries", "entries/0", "proofs/0", "tile/entries/000.p/5"],
)
def test_who_may_not_read_the_trail_gets_none_of_it(box, path):
    box.peer = Actor(actor_id="token:1", name="x", actions=frozenset(Action) - {Action.READ_AUDIT})
    assert box.client.get(f"{URL}/{path}").status_code == 403
    assert box.client.get("/api/v1/audit").status_code == 403
    box.peer = None
    assert box.client.get(f"{URL}/{path}").status_code == 401


# --- FHIR ------------------------------------------------------------------------------------


def audit(box, query=""):
    answer = box.client.get(f"/api/v1/audit{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/fhir+json"
    Bundle.model_validate_json(answer.text)
    return answer.json()


def test_the_trail_of_the_last_day_is_a_valid_bundle_that_pages(box):
    bundle = audit(box, "?limit=3")
    events = [one["resource"] for one in bundle["entry"]]
    assert [event["id"] for event in events] == ["entry-0", "entry-1", "entry-2"]
    following = {link["relation"]: link["url"] for link in bundle["link"]}["next"]
    rest = audit(box, following.removeprefix("/api/v1/audit"))
    assert [one["resource"]["id"] for one in rest["entry"]] == ["entry-3", "entry-4"]
    assert [link["relation"] for link in rest["link"]] == ["self"]
    assert events[2]["outcome"] == "4"
    assert events[0]["agent"][0]["who"]["identifier"]["value"] == "person:1"
    assert events[0]["agent"][0]["requestor"] is True


def test_a_time_range_is_a_time_range(box):
    later = HERE + timedelta(hours=1)
    assert (
        audit(box, f"?since={later:%Y-%m-%dT%H:%M:%SZ}&until=2100-01-01T00:00:00Z")["entry"] == []
    )
    assert audit(box, "?until=0001-01-01T00:00:00Z")["entry"] == []
    assert len(audit(box, "?since=2000-01-01T00:00:00Z&kind=alarm")["entry"]) == 1
    assert box.client.get("/api/v1/audit?since=2000-01-01T00:00:00").status_code == 422


EVENTS = [
    (kind, what)
    for kind in Kind
    for what in (
        "",
        "received",
        "made",
        "delivered",
        "delivery-dead",
        "looked",
        "started",
        "stopped",
    )
]


@pytest.mark.parametrize(("kind", "what"), EVENTS)
def test_every_kind_of_entry_is_a_valid_audit_event(kind, what):
    log = MemoryEvidence(subjects={"s": "p"})
    index = log.append(
        Event(kind=kind, actor="service:box", study_id="s", refs={"what": what} if what else {})
    )
    event = AuditEvent.model_validate(audit_event(log.origin, log.entry(index)))
    assert event.entity[0].what.identifier.value == str(index)
    assert event.entity[1].what.identifier.value == "p"


def test_a_look_is_the_read_of_the_basic_audit_log_patterns():
    """IHE BALP: type rest, subtype read, action R, a client and a server, the data, the patient."""
    log = MemoryEvidence(subjects={"s": "p"})
    refs = {"what": "looked", "at": "worklist"}
    seen = [
        audit_event(log.origin, log.entry(log.append(event)))
        for event in (
            Event(kind=Kind.DECISION, actor="person:1", study_id="s", refs={"use": "view"}),
            Event(kind=Kind.ACCESS, actor="person:1", refs=refs),
        )
    ]
    names = [one["meta"]["profile"][0].rsplit(".", 1)[1] for one in seen]
    assert names == ["PatientRead", "Read"]
    one = seen[0]
    assert (one["type"]["code"], one["subtype"][0]["code"], one["action"]) == ("rest", "read", "R")
    roles = [agent["type"]["coding"][0]["code"] for agent in one["agent"]]
    assert roles == ["110153", "110152"]
    assert [(e["type"]["code"], e["role"]["code"]) for e in one["entity"]] == [
        ("2", "4"),
        ("1", "1"),
    ]


def test_a_refused_use_is_a_failure_in_the_trail():
    log = MemoryEvidence()
    refs = {"use": "view", "outcome": "denied"}
    log.append(Event(kind=Kind.DECISION, actor="person:1", refs=refs))
    assert audit_event(log.origin, log.entry(0))["outcome"] == "4"


def test_opening_the_worklist_is_an_entry_whichever_way_it_is_opened(box):
    before = box.log.size()
    for path in ("/api/v1/worklist", "/api/v1/worklist?q=x", "/dicom-web/studies"):
        assert box.client.get(path).status_code in (200, 204)
    told = [dict(one.entry.refs) for one in box.log.entries(before, 99)]
    looks = [refs for refs in told if refs.get("what") == "looked"]
    assert looks == [{"what": "looked", "at": "worklist"}, {"what": "looked", "at": "search"}]


# --- who looked ------------------------------------------------------------------------------


def test_a_look_is_durable_before_the_answer_and_repeated_looks_are_one_entry():
    clock = FakeClock()
    log = MemoryEvidence(clock)
    service = EvidenceService(log, clock, checkpoint_s=3600)
    for _ in range(3):
        service.looked("person:1", "result", "study-1", result="r1")
    assert log.size() == 1
    kept = log.entry(0)
    assert dict(kept.entry.refs) == {"what": "looked", "at": "result"}
    assert json.loads(kept.payload) == {"result": "r1", "study": "study-1"}
    service.looked("person:2", "result", "study-1")
    service.looked("person:1", "image", "study-1")
    service.looked("person:1", "result", "study-2")
    assert log.size() == 4
    clock.advance(int(LOOK_S * 1000))
    service.looked("person:1", "result", "study-1")
    assert log.size() == 5


def test_a_look_that_cannot_be_recorded_is_refused_and_asked_again():
    clock = FakeClock()
    log = MemoryEvidence(clock)
    service = EvidenceService(log, clock, checkpoint_s=3600)
    real = log.append

    def full(event):
        raise DiskFullError("full")

    log.append = full
    with pytest.raises(DiskFullError):
        service.looked("person:1", "result", "study-1")
    log.append = real
    service.looked("person:1", "result", "study-1")
    assert log.size() == 1


def test_the_box_signs_when_something_was_added_and_the_time_has_come():
    clock = FakeClock()
    log = MemoryEvidence(clock)
    service = EvidenceService(log, clock, checkpoint_s=600)

    def signed():
        service.step()
        note = log.latest_checkpoint()
        return open_checkpoint(note, log.origin, log.keys).checkpoint.size if note else None

    log.append(Event(kind=Kind.ADMIN, actor="service:box"))
    assert signed() == 1
    log.append(Event(kind=Kind.ADMIN, actor="service:box"))
    assert signed() == 1
    clock.advance(600_000)
    assert signed() == 2
    clock.advance(600_000)
    assert signed() == 2


def test_starts_and_stops_are_entries_and_the_last_word_is_signed():
    log = MemoryEvidence()
    service = EvidenceService(log, FakeClock(), checkpoint_s=600)
    service.start({"model": "cxr@1.0.0"})
    service.stop()
    told = [dict(one.entry.refs) for one in log.entries(0, 9)]
    assert told == [{"what": "started", "model": "cxr@1.0.0"}, {"what": "stopped"}]
    head = open_checkpoint(log.latest_checkpoint(), log.origin, log.keys).checkpoint
    assert head.size == 2
