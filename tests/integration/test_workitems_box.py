"""A workitem given to a real box is performed and completed, or cancelled with a reason."""

import time

import pytest

from support.chest import chest
from support.running_box import part10, running_box

JSON = "application/dicom+json"


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workitems")
    with running_box(folder, "[completion]\nquiet_s = 20.0\n") as box:
        yield box
        assert box.stop() == 0


def order(box, uid, study, priority="HIGH", code="110004"):
    def one(vr, value):
        return {"vr": vr, "Value": [value]}

    coded = {"00080100": one("SH", code), "00080102": one("SH", "DCM")}
    body = {
        "00741000": one("CS", "SCHEDULED"),
        "00741200": one("CS", priority),
        "00741204": one("LO", "Read the chest"),
        "00741202": one("LO", "AI"),
        "00404005": one("DT", "20240101120000"),
        "00404041": one("CS", "READY"),
        "00404018": one("SQ", coded),
        "00404021": one("SQ", {"0020000D": one("UI", study)}),
    }
    answer = box.http.post(
        f"/dicom-web/workitems?{uid}", json=[body], headers={"Content-Type": JSON}
    )
    assert answer.status_code == 201, answer.text


def ended(box, uid, seconds=60):
    until = time.monotonic() + seconds
    while True:
        (found,) = box.http.get(f"/dicom-web/workitems/{uid}").json()
        if found["00741000"]["Value"][0] in ("COMPLETED", "CANCELED"):
            return found
        assert time.monotonic() < until, found["00741000"]
        time.sleep(0.05)


def value(found, *tags):
    for tag in tags:
        found = found[tag]["Value"][0]
    return found


def test_an_order_for_a_held_study_is_performed_and_names_its_objects(box):
    sent = chest(1)
    assert box.stow(part10(sent)).status_code == 200
    order(box, "1.2.3.1", sent.StudyInstanceUID)
    found = ended(box, "1.2.3.1")
    assert found["00741000"]["Value"] == ["COMPLETED"]
    performed = value(found, "00741216")
    assert performed["00404050"]["Value"][0] <= performed["00404051"]["Value"][0]
    outputs = performed["00404033"]["Value"]
    assert len(outputs) >= 2  # report and capture
    for output in outputs:
        url = value(output, "0040E025", "00081190")
        assert url.startswith(box.url)
        got = box.http.get(url.removeprefix(box.url), headers={"Accept": "application/dicom"})
        assert got.status_code == 200
        assert value(output, "00081199", "00081155").encode() in got.content
    assert "00081195" not in found


def test_an_order_that_comes_before_its_study_waits_for_it(box):
    sent = chest(2)
    order(box, "1.2.3.2", sent.StudyInstanceUID, "MEDIUM")
    (found,) = box.http.get("/dicom-web/workitems/1.2.3.2").json()
    assert found["00741000"]["Value"] == ["SCHEDULED"]
    box.stow(part10(sent))
    assert ended(box, "1.2.3.2")["00741000"]["Value"] == ["COMPLETED"]


def test_what_the_model_refuses_is_cancelled_with_a_coded_reason(box):
    sent = chest(3)
    sent.ViewPosition = "LL"
    box.stow(part10(sent))
    order(box, "1.2.3.3", sent.StudyInstanceUID)
    found = ended(box, "1.2.3.3")
    assert found["00741000"]["Value"] == ["CANCELED"]
    progress = value(found, "00741002")
    assert value(progress, "0074100E", "00080100") == "110522"
    assert value(progress, "00741238") == "wrong-view"


def test_an_order_for_something_else_is_left_to_others(box):
    sent = chest(1)
    order(box, "1.2.3.4", sent.StudyInstanceUID, code="110001")
    order(box, "1.2.3.5", sent.StudyInstanceUID)
    ended(box, "1.2.3.5")
    (found,) = box.http.get("/dicom-web/workitems/1.2.3.4").json()
    assert found["00741000"]["Value"] == ["SCHEDULED"]
