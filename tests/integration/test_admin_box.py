"""Pages of the privacy officer on a real box: requests, consent, hold, erasure, retention."""

import re
import zipfile
from io import BytesIO

import pytest

from bedside_core.consent import NOTICE_PARTS
from support.chest import chest
from support.running_box import RunningBox, part10

HERE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    box = RunningBox(tmp_path_factory.mktemp("box"), "[completion]\nquiet_s = 0.3\n")
    try:
        for number in (901, 902):
            box.analyze(part10(chest(number)))
        yield box
        assert box.stop() == 0
    finally:
        if box.process.poll() is None:
            box.kill()


@pytest.fixture(scope="module")
def officer(box):
    person = box.person("privacy-officer", login="novak")
    person.headers.update(HERE)
    return person


def post(person, path, **fields):
    """Post a form as a page does; return the answer after its redirect."""
    fields["csrf"] = person.headers["X-CSRF-Token"]
    return person.post(path, data=fields, follow_redirects=True)


def find(officer, number):
    sent = {"number": str(chest(number).PatientID), "issuer": ""}
    found = post(officer, "/patients/find", **sent)
    assert found.status_code == 200
    return found.url.path


def test_a_patient_is_found_by_the_exact_number_only_and_shown_without_a_name(box, officer):
    path = find(officer, 901)
    page = officer.get(path).text
    assert str(chest(901).PatientName) not in page
    assert str(chest(901).PatientID) not in path
    missed = post(officer, "/patients/find", number="nobody", issuer="")
    assert (missed.status_code, "no patient with this ID" in missed.text) == (404, True)


def test_a_request_is_taken_in_recognised_and_answered_with_a_file(box, officer):
    path = find(officer, 901)
    page = post(officer, f"{path}/requests", kind="copy").text
    assert "its time runs" in page
    address = re.search(r'href="(/requests/\w+)"', page)[1]
    early = post(officer, f"{address}/answer")
    assert (early.status_code, "recognised" in early.text) == (409, True)
    post(officer, f"{address}/identify", how="in-person")
    answer = post(officer, f"{address}/answer")
    assert answer.headers["content-type"] == "application/zip"
    assert zipfile.ZipFile(BytesIO(answer.content)).namelist()
    assert "answered" in officer.get(address).text
    again = post(officer, f"{address}/answer")
    assert again.status_code == 409


def test_a_request_is_refused_with_a_reason(officer):
    page = post(officer, f"{find(officer, 901)}/requests", kind="correct").text
    address = re.search(r'href="(/requests/\w+)"[^>]*>for a correction', page)[1]
    assert post(officer, f"{address}/refuse", why="a whim").status_code == 422
    assert "The request has ended" in post(officer, f"{address}/refuse", why="repeated").text


def test_consent_is_put_on_record_and_withdrawn(box, officer):
    path = find(officer, 901)
    assert "names the notice" in officer.get(path).text  # there is none yet
    parts = dict.fromkeys(NOTICE_PARTS, "as told")
    box.http.post("/api/v1/notices", json={"parts": parts}).raise_for_status()
    notice = re.search(r'<option value="([0-9a-f]{64})"', officer.get(path).text)[1]
    sent = {"purpose": "training", "notice": notice, "giver": "patient", "separate": "on"}
    given = post(officer, f"{path}/consents", **sent)
    assert "The consent is on record" in given.text
    assert 'chip good">stands' in given.text
    done = post(officer, f"{path}/withdraw", purpose="training")
    assert "The consent is withdrawn" in done.text
    assert 'chip bad">does not stand' in done.text
    wrong = post(officer, f"{path}/withdraw", purpose="fun")
    assert wrong.status_code >= 400
    assert "This was not done" in wrong.text


def test_a_hold_forbids_erasure_until_it_is_released(box, officer):
    path = find(officer, 902)
    assert "The studies are held" in post(officer, f"{path}/hold", reason="litigation").text
    assert 'name="word"' not in officer.get(path).text
    held = post(officer, f"{path}/erase", word="ERASE")
    assert (held.status_code, "does not permit this" in held.text) == (403, True)
    release = re.search(r'action="(/patients/holds/\w+/release)"', officer.get("/patients").text)[1]
    assert "The hold has ended" in post(officer, release).text
    untyped = post(officer, f"{path}/erase", word="yes")
    assert (untyped.status_code, "This was not done" in untyped.text) == (422, True)
    erased = post(officer, f"{path}/erase", word="erase")
    assert "its certificate stands below" in erased.text
    certificate = re.search(r'href="(/api/v1/erasures/\w+/certificate)"', erased.text)
    assert certificate
    assert officer.get(certificate[1]).status_code == 200
    assert officer.get(path).status_code == 404
    missed = post(officer, "/patients/find", number=str(chest(902).PatientID), issuer="")
    assert missed.status_code == 404


def test_retention_says_what_stays_and_why_before_anything_goes(officer):
    page = officer.get("/retention").text
    assert "not signed" in page
    assert "Sweep now" not in page  # nothing has to go
    assert "0 studies were erased" in post(officer, "/retention/run").text


def test_an_incident_is_documented_signed_and_closed(box, officer):
    page = post(officer, "/incidents", cause="loss", drill="on")
    path = page.url.path
    assert "DRILL - not to be sent" in page.text
    assert "/sign" not in page.text  # nothing is known yet: no notice can be signed
    duty = re.search(r'class="unseen"> ([a-z0-9-]+)</span></summary>', page.text)[1]
    early = post(officer, f"{path}/notices/{duty}/sign")
    assert (early.status_code, "the notice lacks" in early.text) == (422, True)
    told = dict.fromkeys(("types", "number", "causes", "harm", "remedy", "self_help"), "known")
    page = post(officer, f"{path}/facts", contact="desk", **told)
    signed = 0
    while action := re.search(rf'action="({path}/notices/[^"]+/sign)"', page.text):
        page = post(officer, action[1])
        assert page.status_code == 200
        signed += 1
    assert signed == len(re.findall(r'chip good">signed', page.text)) > 0
    closed = post(officer, f"{path}/close")
    assert "closed" in closed.text
    assert f'action="{path}/facts"' not in closed.text


def test_an_administrator_sees_no_patients_and_an_auditor_seals_nothing(box):
    admin, auditor = box.person("administrator"), box.person("auditor")
    for person in (admin, auditor):
        person.headers.update(HERE)
        for path in ("/patients", "/retention"):
            assert person.get(path).status_code == 403
    assert auditor.get("/incidents").status_code == 200
    assert 'action="/incidents/seal"' not in auditor.get("/incidents").text
    assert post(auditor, "/incidents/seal", cause="leak", word="SEAL").status_code == 403
