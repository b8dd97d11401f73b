"""The public DICOMweb client, dcmtk and Orthanc against a real box."""

import shutil
import subprocess
import threading
from io import BytesIO

import numpy as np
import pytest
from dicomweb_client import DICOMwebClient
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from support.chest import chest
from support.orthanc import orthanc
from support.running_box import part10, running_box

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dicomweb")
    with running_box(folder, "[completion]\nquiet_s = 0.3\n") as box:
        yield box
        assert box.stop() == 0


@pytest.fixture(scope="module")
def client(box):
    return DICOMwebClient(url=f"{box.url}/dicom-web", headers=dict(box.bearer))


def values(rows, tag):
    return sorted(row[tag]["Value"][0] for row in rows)


def test_a_study_that_was_stored_is_found_and_comes_back(box, client):
    sent = [chest(1, number, shift=number) for number in (1, 2)]
    client.store_instances(sent)
    study = sent[0].StudyInstanceUID
    (row,) = client.search_for_studies(search_filters={"PatientID": sent[0].PatientID})
    assert row[STUDY]["Value"] == [study]
    assert values(client.search_for_series(study), SERIES) == [sent[0].SeriesInstanceUID]
    found = client.search_for_instances(study)
    assert values(found, INSTANCE) == [one.SOPInstanceUID for one in sent]
    back = client.retrieve_study(study)
    assert sorted(one.SOPInstanceUID for one in back) == [one.SOPInstanceUID for one in sent]
    assert np.array_equal(
        client.retrieve_instance(
            study, sent[0].SeriesInstanceUID, sent[0].SOPInstanceUID
        ).pixel_array,
        sent[0].pixel_array,
    )


def test_metadata_frames_pictures_and_bulk_data_come_too(box, client):
    sent = chest(2)
    client.store_instances([sent])
    path = (sent.StudyInstanceUID, sent.SeriesInstanceUID, sent.SOPInstanceUID)
    found = client.retrieve_instance_metadata(*path)
    described = Dataset.from_json(found, bulk_data_uri_handler=lambda *_: None)
    assert described.PatientName == sent.PatientName
    (frame,) = client.retrieve_instance_frames(*path, frame_numbers=[1])
    assert frame == sent.pixel_array.astype("<u2").tobytes()
    (bulk,) = client.retrieve_bulkdata(
        client.retrieve_instance_metadata(*path)["7FE00010"]["BulkDataURI"]
    )
    assert bulk == frame
    shown = client.retrieve_instance_rendered(*path, media_types=("image/png",))
    assert Image.open(BytesIO(shown)).size == (sent.Columns, sent.Rows)


def test_the_boxs_own_objects_are_found_and_retrieved(box, client):
    sent = chest(3)
    result = box.analyze(part10(sent)).json()["id"]
    answer = box.http.get(f"/api/v1/results/{result}.dcm?type=sc")  # made when asked for
    study = sent.StudyInstanceUID
    rows = {row["00080060"]["Value"][0]: row for row in client.search_for_series(study)}
    assert {"SR", sent.Modality} <= set(rows)
    report = client.retrieve_series(study, rows["SR"][SERIES]["Value"][0])[0]
    assert report.CompletionFlag in ("PARTIAL", "COMPLETE")
    capture = dcmread(BytesIO(answer.content))
    shown = client.retrieve_instance_rendered(
        study, capture.SeriesInstanceUID, capture.SOPInstanceUID, media_types=("image/png",)
    )
    assert np.array_equal(np.asarray(Image.open(BytesIO(shown))), capture.pixel_array)
    (row,) = client.search_for_studies(search_filters={"StudyInstanceUID": study})
    assert row["00201208"]["Value"] == [len(client.search_for_instances(study))]
    modalities = {
        r["00080060"]["Value"][0]
        for r in client.search_for_instances(study, fields=["Modality"])
        if "00080060" in r
    }
    assert modalities <= set(row["00080061"]["Value"])


def test_two_senders_pushing_the_same_instances_at_once_store_each_once(box, client, tmp_path):
    storescu = shutil.which("storescu")
    if storescu is None:
        pytest.skip("needs dcmtk's storescu")
    count = 24
    files = []
    for number in range(1, count + 1):
        path = tmp_path / f"{number:03d}.dcm"
        path.write_bytes(part10(chest(4, number, shift=number)))
        files.append(path)
    sent = [dcmread(path) for path in files]
    call = [storescu, "-aec", box.dicom["ae_title"], box.dicom["host"], str(box.dicom["port"])]
    start, failures = threading.Barrier(4), []

    def dimse():
        start.wait()
        done = subprocess.run(
            [*call, *map(str, files)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            failures.append(done.stderr[-500:])

    def stow():
        start.wait()
        for one in range(0, count, 6):
            answer = client.store_instances(sent[one : one + 6])
            if "FailedSOPSequence" in answer:
                failures.append(str(answer))

    threads = [threading.Thread(target=work) for work in (dimse, stow, dimse, stow)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    study = sent[0].StudyInstanceUID
    found = [
        r
        for r in client.search_for_instances(study)
        if r["00080016"]["Value"] == [sent[0].SOPClassUID]
    ]
    assert values(found, INSTANCE) == sorted(one.SOPInstanceUID for one in sent)
    assert box.http.get("/api/v1/alarms").json()["alarms"] == []
    # storescu writes the data set anew, so there may be two encodings of one image, never more:
    # the pixels were compared, and the second does not count
    (job, *_) = box.settled()
    assert job["instances"] in (count, 2 * count)
    images = box.result(job)["result"]["images"]
    assert sum(image["status"] == "same_pixels" for image in images) == job["instances"] - count
    assert len({image["instance"] for image in images}) == len(images)


@pytest.mark.peer
def test_orthanc_retrieves_a_study_from_the_box(box, client, tmp_path):
    sent = chest(5)
    client.store_instances([sent])
    with orthanc(tmp_path / "orthanc") as archive:
        server = {"Url": f"{box.url}/dicom-web/", "HttpHeaders": dict(box.bearer)}
        archive.http.put("/dicom-web/servers/box", json=server).raise_for_status()
        answer = archive.http.post(
            "/dicom-web/servers/box/retrieve",
            json={"Resources": [{"Study": sent.StudyInstanceUID}], "Synchronous": True},
        )
        assert answer.status_code == 200, answer.text
        held = archive.wait_for(sent.StudyInstanceUID, **{sent.Modality: 1})
        assert dcmread(BytesIO(held[sent.Modality][0])).PixelData == sent.PixelData
