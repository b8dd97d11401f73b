"""Objects, deliveries, destinations and pulls over HTTP."""

from io import BytesIO

import pytest
from pydicom import dcmread

from support.http_box import HttpBox
from support.outputs import MemoryArchive, publishing_box
from support.ram import ram_folder
from support.synthetic import uid


@pytest.fixture
def folder():
    with ram_folder() as folder:  # these laws open no new question to the disk
        yield folder


@pytest.fixture
def archive():
    return MemoryArchive()


@pytest.fixture
def box(folder, archive):
    with publishing_box(folder / "state", archive) as box:
        yield box


@pytest.fixture
def client(box):
    with HttpBox(outgoing=box) as http:
        yield http.client


def test_an_object_is_downloaded_and_is_the_one_that_is_sent(box, client, archive):
    result = box.analysed()
    answer = client.get(f"/api/v1/results/{result}.dcm?type=sc")
    assert answer.headers["content-type"] == "application/dicom"
    read = dcmread(BytesIO(answer.content))
    box.settle()
    assert read.SOPInstanceUID == archive.arrived[1]
    assert client.get(f"/api/v1/results/{result}.dcm").content == archive.data[archive.arrived[0]]


@pytest.mark.parametrize(
    ("path", "status"),
    [("{0}.dcm?type=seg", 404), ("nothing.dcm", 404), ("{0}.dcm?type=pdf", 422)],
)
def test_what_there_is_not_is_said(box, client, path, status):
    result = box.analysed()
    assert client.get("/api/v1/results/" + path.format(result)).status_code == status


def test_a_refused_study_has_no_object(box, client):
    answer = client.get(f"/api/v1/results/{box.refused(study=3)}.dcm")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:bedside:error:wrong-state")


def test_the_objects_of_a_result_show_their_ways(box, client):
    result = box.analysed()
    box.settle()
    shown = client.get(f"/api/v1/results/{result}/objects").json()["objects"]
    assert [(o["kind"], o["occasion"]) for o in shown] == [("sr", "result"), ("sc", "result")]
    assert [w["state"] for o in shown for w in o["deliveries"]] == ["delivered"] * 2


def test_a_dead_letter_is_listed_and_sent_again(box, client, archive):
    result = box.analysed()
    box.publisher.step()
    sr = box.outputs(result)[0].sop_instance_uid
    archive.refuses.add(sr)
    box.run_for(2 * 3_600_000)
    (dead,) = client.get("/api/v1/deliveries?state=dead&destination=pacs").json()["deliveries"]
    assert (dead["reason"], dead["result"]) == ("delivery-refused", result)
    archive.refuses.clear()
    again = client.post(f"/api/v1/deliveries/{dead['id']}:retry")
    assert again.json()["state"] == "waiting"
    box.settle()
    assert client.get(f"/api/v1/deliveries/{dead['id']}").json()["state"] == "delivered"
    assert client.post(f"/api/v1/deliveries/{dead['id']}:retry").status_code == 409
    assert client.post("/api/v1/deliveries/none:retry").status_code == 404


def test_deliveries_can_be_narrowed(box, client):
    first, _ = box.analysed(study=1), box.analysed(study=2)
    box.settle()
    listed = client.get("/api/v1/deliveries").json()["deliveries"]
    assert len(listed) == 4
    assert len(client.get(f"/api/v1/deliveries?result={first}").json()["deliveries"]) == 2
    study = listed[0]["study"]
    assert len(client.get(f"/api/v1/deliveries?study={study}").json()["deliveries"]) == 2
    assert len(client.get("/api/v1/deliveries?limit=1").json()["deliveries"]) == 1
    assert client.get("/api/v1/deliveries?state=lost").status_code == 422


def test_a_destination_shows_how_it_is_doing_and_can_be_asked(box, client, archive):
    box.analysed()
    archive.up = False
    box.settle()
    (shown,) = client.get("/api/v1/destinations").json()["destinations"]
    assert (shown["name"], shown["waiting"], shown["failures"]) == ("pacs", 2, 1)
    assert shown["reason"] == "destination-unavailable"
    assert client.post("/api/v1/destinations/pacs:test").json() == {"ok": False, "seen": "gone"}
    archive.up = True
    assert client.post("/api/v1/destinations/pacs:test").json() == {"ok": True, "seen": "here"}
    box.settle()  # it answered, so nobody waits for the pause
    assert len(archive.arrived) == 2
    assert client.post("/api/v1/destinations/other:test").status_code == 404


def test_a_study_is_fetched_into_the_box(box, client):
    pulled = client.post("/api/v1/pulls", json={"source": "memory", "study_uid": uid(5)})
    assert pulled.status_code == 200
    assert pulled.json()["instances"] == 1
    (study,) = pulled.json()["studies"]
    assert box.state.jobs.jobs(study_id=study)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"source": "elsewhere", "study_uid": uid(5)}, 404),
        ({"source": "memory", "study_uid": uid(6)}, 404),
        ({"source": "memory", "study_uid": "../../x"}, 400),
        ({"source": "memory"}, 422),
    ],
)
def test_a_pull_that_cannot_be_is_refused(client, body, status):
    assert client.post("/api/v1/pulls", json=body).status_code == status
