"""The box in a reading room with a real archive: results return, rejections follow, pulls work."""

import time
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread

from bedside_core.errors import DestinationUnavailableError, NotFoundError
from bedside_core.review import Review, ReviewKind
from bedside_edge.dicom.pull import GetScu, MoveScu
from bedside_edge.dicom.scu import Peer
from bedside_edge.dicom.send import StoreScu
from bedside_edge.dicom.web import StowClient, WebArchive, WebPeer
from bedside_edge.dicom.write import DicomWriter, random_uid
from bedside_edge.services.outputs import Draft, Kind
from support.chest import chest
from support.fake_clock import SeededBytes
from support.orthanc import free_port, orthanc
from support.running_box import part10, running_box
from support.sample_result import entry, result_body
from support.source_variants import variants

pytestmark = pytest.mark.peer

AT = 1_700_000_000_000
EVERY = frozenset(Kind)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with orthanc(tmp_path_factory.mktemp("orthanc")) as archive:
        yield archive


def settings(archive):
    return f"""
[completion]
quiet_s = 1.0
[delivery]
first_wait_s = 0.5
longest_wait_s = 2.0
[destinations.pacs]
host = "127.0.0.1"
port = {archive.dicom_port}
ae_title = "ORTHANC"
fetch = "c-get"
[destinations.dead]
host = "127.0.0.1"
port = {free_port()}
[destinations.mover]
host = "127.0.0.1"
port = {archive.dicom_port}
ae_title = "ORTHANC"
send = false
fetch = "c-move"
[destinations.web]
kind = "dicomweb"
url = "{archive.web_url}"
send = false
fetch = "wado"
"""


@pytest.fixture(scope="module")
def box(archive, tmp_path_factory):
    with running_box(tmp_path_factory.mktemp("box"), settings(archive)) as box:
        archive.know("box", box.dicom["ae_title"], box.dicom["port"])
        yield box
        assert box.stop() == 0


def peer(archive):
    return Peer(
        host="127.0.0.1", port=archive.dicom_port, called_ae="ORTHANC", calling_ae="BEDSIDE"
    )


def test_orthanc_sends_a_study_and_report_and_capture_return(archive, box):
    image = chest(501)
    study = archive.upload(part10(image))["ParentStudy"]
    archive.send("box", study)
    held = archive.wait_for(str(image.StudyInstanceUID), SR=1, OT=1)
    report, capture = dcmread(BytesIO(held["SR"][0])), dcmread(BytesIO(held["OT"][0]))
    assert report.PatientID == capture.PatientID == image.PatientID
    assert report.PreliminaryFlag == "PRELIMINARY"
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert capture.Rows > 500
    done = box.http.get("/api/v1/deliveries?destination=pacs&state=delivered").json()
    assert len(done["deliveries"]) == 2


def test_a_dead_destination_holds_up_nobody_and_shows_as_waiting(archive, box):
    image = chest(502)
    archive.send("box", archive.upload(part10(image))["ParentStudy"])
    archive.wait_for(str(image.StudyInstanceUID), SR=1, OT=1)
    listed = box.http.get("/api/v1/destinations").json()["destinations"]
    dead = next(one for one in listed if one["name"] == "dead")
    assert dead["waiting"] >= 2
    assert dead["reason"] == "destination-unavailable"
    assert dead["delivered"] == 0
    assert box.http.post("/api/v1/destinations/dead:test").json()["ok"] is False
    assert box.http.post("/api/v1/destinations/pacs:test").json()["ok"] is True


def test_what_orthanc_routes_back_starts_nothing_new(archive, box):
    image = chest(503)
    study = archive.upload(part10(image))["ParentStudy"]
    archive.send("box", study)
    archive.wait_for(str(image.StudyInstanceUID), SR=1, OT=1)
    box.settled()
    before = len(box.jobs())
    archive.send("box", study)  # image, report and capture
    time.sleep(0.5)
    assert len(box.settled()) == before


@pytest.mark.parametrize(("source", "number"), [("pacs", 511), ("mover", 512), ("web", 513)])
def test_a_study_is_fetched_each_way_and_its_results_return(archive, box, source, number):
    images = [chest(number, n, shift=n) for n in (1, 2)]
    for image in images:
        archive.upload(part10(image))
    body = {"source": source, "study_uid": str(images[0].StudyInstanceUID)}
    pulled = box.http.post("/api/v1/pulls", json=body)
    assert pulled.status_code == 200, pulled.text
    assert pulled.json()["instances"] == 2
    held = archive.wait_for(body["study_uid"], SR=1)
    report = dcmread(BytesIO(held["SR"][-1]))
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert len(evidence.ReferencedSOPSequence) == 2


@pytest.mark.parametrize("source", ["pacs", "mover", "web"])
def test_a_study_the_archive_does_not_have_is_not_found(box, source):
    body = {"source": source, "study_uid": "1.2.3.4.5"}
    assert box.http.post("/api/v1/pulls", json=body).status_code == 404


@pytest.mark.slow
def test_an_archive_that_was_away_gets_everything_once_after(tmp_path):
    with orthanc(tmp_path / "orthanc") as away:
        away.stop()
        with running_box(tmp_path / "box", settings(away)) as box:
            image = chest(520)
            assert box.analyze(part10(image)).status_code in (200, 202)
            box.settled()
            time.sleep(2)
            away.start()
            held = away.wait_for(str(image.StudyInstanceUID), SR=1, OT=1)
            assert {kind: len(files) for kind, files in held.items()} == {"SR": 1, "OT": 1}
            assert box.stop() == 0


# --- every kind of object, over both ways, without a model -----------------------------------


def every_object():
    random = SeededBytes("orthanc")
    writer = DicomWriter(random_uid(random), "box-1", "0.1.0", random)
    data = dict(variants())["made CT with a place"]
    body = result_body([entry("i1", (64, 48))])
    picture = np.zeros((90, 70, 3), np.uint8)
    made = writer.result_objects(Draft(body=body, sources={"i1": data}, picture=picture, at=AT))
    review = Review(
        kind=ReviewKind.REJECT, reader_name="王^小東", reader_id="r", reason="not there", at=AT
    )
    draft = Draft(body=body, sources={"i1": data}, at=AT, earlier=made[0].data)
    return made + writer.review_objects(draft, review, [one.data for one in made])


@pytest.mark.parametrize("way", ["dimse", "web"])
def test_orthanc_takes_every_kind_of_object_and_lists_it(archive, way):
    if way == "dimse":
        destination = StoreScu("pacs", peer(archive), EVERY)
    else:
        destination = StowClient("web", WebPeer(url=archive.web_url), EVERY)
    made = every_object()
    assert destination.probe()
    with destination.open([one.sop_class_uid for one in made]) as session:
        for one in made:
            session.send(one.data)
            session.send(one.data)  # again, as after a lost answer
    for one in made:
        listed = archive.http.get(
            "/dicom-web/instances", params={"SOPInstanceUID": one.sop_instance_uid}
        ).json()
        assert len(listed) == 1


# pynetdicom drops a socket that never connected and leaves closing it to the collector
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"
)
def test_nobody_there_is_said(archive):
    nobody = Peer(host="127.0.0.1", port=free_port(), called_ae="X", calling_ae="BEDSIDE")
    gone = WebPeer(url=f"http://127.0.0.1:{free_port()}/dicom-web")
    for way in (StoreScu("a", nobody, EVERY), StowClient("b", gone, EVERY)):
        with pytest.raises(DestinationUnavailableError):
            way.probe()
    for source in (GetScu("a", nobody), MoveScu("b", nobody, "BEDSIDE"), WebArchive("c", gone, 1)):
        with pytest.raises(DestinationUnavailableError):
            source.fetch("1.2.3", lambda *_: None)
    with pytest.raises(NotFoundError):
        GetScu("a", peer(archive)).fetch("1.2.3", lambda *_: None)
