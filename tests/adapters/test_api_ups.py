"""UPS-RS over HTTP: statuses, warnings, and nothing that a caller was not told."""

import json

import pytest

from support.http_box import HttpBox

JSON = "application/dicom+json"
MINE, OTHER = "1.2.826.1", "1.2.826.2"


@pytest.fixture(scope="module")
def started():
    with HttpBox() as box:
        yield box


@pytest.fixture
def box(started):
    started.workitem_rows.held.clear()
    return started


def body(**changes):
    made = {
        "00741000": ("CS", "SCHEDULED"),
        "00741200": ("CS", "MEDIUM"),
        "00741204": ("LO", "Read chest"),
        "00741202": ("LO", "AI"),
        "00404005": ("DT", "20240101120000"),
        "00404041": ("CS", "READY"),
        "00100020": ("LO", "P1"),
    } | changes
    return {t: {"vr": v[0], "Value": [v[1]]} for t, v in made.items() if v is not None}


def send(box, method, path, found, kind=JSON):
    return box.client.request(
        method,
        "/dicom-web/workitems" + path,
        content=json.dumps([found]),
        headers={"Content-Type": kind},
    )


def state(box, uid, wanted, transaction=MINE):
    found = {"00741000": {"vr": "CS", "Value": [wanted]}}
    if transaction:
        found["00081195"] = {"vr": "UI", "Value": [transaction]}
    return send(box, "PUT", f"/{uid}/state", found)


def get(box, uid):
    (found,) = box.client.get(f"/dicom-web/workitems/{uid}").json()
    return found


def test_a_workitem_is_created_found_and_read(box):
    answer = send(box, "POST", "?1.2.3", body())
    assert answer.status_code == 201
    assert answer.headers["location"] == "http://127.0.0.1:8642/dicom-web/workitems/1.2.3"
    assert "warning" not in answer.headers
    found = get(box, "1.2.3")
    assert found["00080018"]["Value"] == ["1.2.3"]
    assert found["00080016"]["Value"] == ["1.2.840.10008.5.1.4.34.6.1"]
    assert "00081195" not in found


@pytest.mark.parametrize("query", ["", "?AffectedSOPInstanceUID=1.2.3", "?1.2.3"])
def test_its_uid_comes_from_the_query_the_body_or_the_box(box, query):
    place = send(box, "POST", query, body()).headers["location"]
    uid = place.rpartition("/")[2]
    assert uid == "1.2.3" if query else uid.startswith("2.25.")
    assert get(box, uid)


def test_what_was_filled_in_is_said(box):
    answer = send(box, "POST", "?1.2.3", body(**{"00741202": None}))
    assert answer.status_code == 201
    assert "created with modifications" in answer.headers["warning"]


@pytest.mark.parametrize(
    ("found", "kind", "status"),
    [
        (body(**{"00741204": None}), JSON, 400),
        (body(**{"00741000": ("CS", "IN PROGRESS")}), JSON, 400),
        ([], JSON, 400),
        (body(), "text/plain", 415),
        (body(), "application/dicom+xml", 415),
        ({"x": 1}, "application/json", 400),
    ],
)
def test_a_workitem_it_cannot_keep_is_refused(box, found, kind, status):
    assert send(box, "POST", "?1.2.3", found, kind).status_code == status
    assert box.client.get("/dicom-web/workitems/1.2.3").status_code == 404


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"[{},{}]", b'[{"00100010":NaN}]', b"[" * 9000])
def test_a_body_that_is_no_data_set_is_refused(box, raw):
    answer = box.client.post("/dicom-web/workitems", content=raw, headers={"Content-Type": JSON})
    assert answer.status_code == 400


def test_the_same_uid_twice_is_a_conflict(box):
    send(box, "POST", "?1.2.3", body())
    answer = send(box, "POST", "?1.2.3", body())
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:bedside:error:already-exists")


def test_a_performer_claims_updates_and_completes(box):
    send(box, "POST", "?1.2.3", body())
    assert state(box, "1.2.3", "IN PROGRESS").status_code == 200
    assert get(box, "1.2.3")["00741000"]["Value"] == ["IN PROGRESS"]
    early = state(box, "1.2.3", "COMPLETED")
    assert early.status_code == 409
    assert "no performed procedure" in early.headers["warning"]
    performed = {
        "00404050": {"vr": "DT", "Value": ["20240101120000"]},
        "00404051": {"vr": "DT", "Value": ["20240101120100"]},
        "00404033": {"vr": "SQ"},
    }
    change = {"00741216": {"vr": "SQ", "Value": [performed]}}
    assert send(box, "POST", "/1.2.3", change).status_code == 400  # whose transaction?
    wrong = send(box, "POST", f"/1.2.3?{OTHER}", change)
    assert (wrong.status_code, wrong.json()["type"]) == (409, "urn:bedside:error:wrong-transaction")
    assert send(box, "POST", f"/1.2.3?transaction-uid={MINE}", change).status_code == 200
    assert state(box, "1.2.3", "COMPLETED", OTHER).status_code == 409
    assert state(box, "1.2.3", "COMPLETED").status_code == 200
    again = state(box, "1.2.3", "COMPLETED")
    assert again.status_code == 200
    assert "already in the requested state of COMPLETED" in again.headers["warning"]
    assert send(box, "POST", f"/1.2.3?{MINE}", change).status_code == 409


@pytest.mark.parametrize(
    ("wanted", "transaction", "status", "words"),
    [
        ("IN PROGRESS", "", 400, "Transaction UID is missing"),
        ("SCHEDULED", MINE, 400, "not one a Workitem can be changed to"),
        ("COMPLETED", MINE, 409, "not yet in the state IN PROGRESS"),
        ("CANCELED", MINE, 409, "not yet in the state IN PROGRESS"),
    ],
)
def test_a_refused_change_says_why_in_a_warning(box, wanted, transaction, status, words):
    send(box, "POST", "?1.2.3", body())
    answer = state(box, "1.2.3", wanted, transaction)
    assert answer.status_code == status
    assert words in answer.headers["warning"]
    assert words in answer.json()["detail"]


def test_one_claims_and_the_other_is_told(box):
    send(box, "POST", "?1.2.3", body())
    assert state(box, "1.2.3", "IN PROGRESS", MINE).status_code == 200
    late = state(box, "1.2.3", "IN PROGRESS", OTHER)
    assert late.status_code == 409
    assert "already IN PROGRESS" in late.headers["warning"]


def test_a_cancel_request_cancels_what_nobody_claimed(box):
    send(box, "POST", "?1.2.3", body())
    why = {"00741238": {"vr": "LT", "Value": ["patient left"]}}
    assert send(box, "POST", "/1.2.3/cancelrequest", why).status_code == 202
    found = get(box, "1.2.3")
    assert found["00741000"]["Value"] == ["CANCELED"]
    (progress,) = found["00741002"]["Value"]
    assert progress["00741238"]["Value"] == ["patient left"]
    assert progress["0074100E"]["Value"][0]["00080100"]["Value"] == ["110513"]
    again = box.client.post("/dicom-web/workitems/1.2.3/cancelrequest")
    assert again.status_code == 202
    assert "already in the requested state of CANCELED" in again.headers["warning"]


def test_a_cancel_request_to_a_performer_elsewhere_cannot_be_passed_on(box):
    send(box, "POST", "?1.2.3", body())
    state(box, "1.2.3", "IN PROGRESS")
    answer = box.client.post("/dicom-web/workitems/1.2.3/cancelrequest")
    assert answer.status_code == 409
    assert "could not be contacted" in answer.headers["warning"]


def test_workitems_are_searched_by_their_keys(box):
    code = {
        "vr": "SQ",
        "Value": [{"00080100": {"vr": "SH", "Value": ["110004"]}}],
    }
    study = {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": ["1.9"]}}]}
    send(box, "POST", "?1.1", body() | {"00404018": code, "00404021": study})
    name = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Chan^Tai"}]}}
    send(box, "POST", "?1.2", body(**{"00404005": ("DT", "20250101")}) | name)
    state(box, "1.2", "IN PROGRESS")

    def found(query):
        answer = box.client.get("/dicom-web/workitems?" + query)
        if answer.status_code == 204:
            return []
        return [row["00080018"]["Value"][0] for row in answer.json()]

    assert found("") == ["1.2", "1.1"]
    assert found("ProcedureStepState=SCHEDULED") == ["1.1"]
    assert found("00741000=IN%20PROGRESS") == ["1.2"]
    assert found("ScheduledWorkitemCodeSequence.CodeValue=110004") == ["1.1"]
    assert found("00404018.00080100=110004") == ["1.1"]
    assert found("StudyInstanceUID=1.9") == ["1.1"]
    assert found("PatientName=chan*") == ["1.2"]
    assert found("PatientID=P1&ScheduledProcedureStepStartDateTime=2024-20241231") == ["1.1"]
    assert found("ScheduledProcedureStepStartDateTime=2025-") == ["1.2"]
    assert found("PatientID=nobody") == []
    first = box.client.get("/dicom-web/workitems?limit=1")
    assert len(first.json()) == 1
    assert "Additional results" in first.headers["warning"]


@pytest.mark.parametrize(
    "query",
    [
        "PatientWeight=1",
        "ProcedureStepState=WAITING",
        "limit=x",
        "ScheduledProcedureStepStartDateTime=soon",
        "00404018.00080104=x",
    ],
)
def test_a_search_it_cannot_answer_truly_is_refused(box, query):
    assert box.client.get("/dicom-web/workitems?" + query).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/workitems/1.2.3/subscribers/ME"),
        ("DELETE", "/workitems/1.2.3/subscribers/ME"),
        ("GET", "/subscribers/ME"),
    ],
)
def test_subscriptions_are_refused_as_the_standard_has_it(box, method, path):
    answer = box.client.request(method, "/dicom-web" + path)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:bedside:error:not-offered")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PUT", "/state"), ("POST", ""), ("POST", "/cancelrequest")],
)
def test_a_workitem_that_is_not_there_is_not_found(box, method, path):
    found = {"00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}} | {
        "00081195": {"vr": "UI", "Value": [MINE]}
    }
    assert send(box, method, "/1.2.99" + path, found).status_code == 404
