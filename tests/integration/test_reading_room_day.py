"""A day in the reading room: archive, box, a reader at a real browser, and the archive again."""

import time
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.chromium import chromium, needs_chromium
from support.orthanc import orthanc
from support.reading_room import READER, hire, log_in
from support.repository import ROOT
from support.running_box import part10, running_box

pytestmark = [pytest.mark.peer, needs_chromium]

SHOTS = ROOT / "demo-output" / "screenshots"
REASON = "Overlapping breast tissue, no consolidation."


def settings(archive):
    return f"""
[completion]
quiet_s = 0.5
[delivery]
first_wait_s = 0.5
longest_wait_s = 2.0
[destinations.pacs]
host = "127.0.0.1"
port = {archive.dicom_port}
ae_title = "ORTHANC"
"""


def test_a_result_goes_to_the_archive_is_rejected_on_the_page_and_retracted_there(tmp_path):
    sample = get_testdata_file("RG1_UNCR.dcm", download=False)
    if not sample:
        pytest.skip("pydicom-data is not installed")
    image = dcmread(sample)
    study_uid = str(image.StudyInstanceUID)
    with orthanc(tmp_path / "orthanc") as archive:
        hire(tmp_path / "box", settings(archive))
        with running_box(tmp_path / "box", settings(archive)) as box:
            archive.know("box", box.dicom["ae_title"], box.dicom["port"])
            archive.send("box", archive.upload(part10(image))["ParentStudy"])
            before = archive.wait_for(study_uid, SR=1, OT=1)
            first = dcmread(BytesIO(before["SR"][0]))
            assert (first.PreliminaryFlag, first.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")

            with chromium(tmp_path / "profile") as browser:
                page = browser.page(1440, 900)
                log_in(page, box.url)
                page.click("#work .patient", leads_away=True)
                page.wait("document.querySelector('[data-viewer]').dataset.ready !== undefined")
                page.press("r")
                page.wait("document.activeElement.id === 'form-title'")
                assert "Wang, Xiaodong" in page.text("#verdict")
                page.type("#reason", REASON)
                page.click("#verdict button")
                seen = page.wait(
                    "document.querySelector('#retraction')?.dataset.state === 'arrived'"
                    " && document.querySelector('#retraction').innerText"
                )
                told = time.monotonic()
                assert seen == "Retracted in PACS"
                page.screenshot(SHOTS / "day-retracted.png")
                assert page.problems() == []

            # the page says it only after the archive has it: nothing is waited for here
            held = archive.instances(study_uid)
            assert time.monotonic() - told < 10
            (note,) = [dcmread(BytesIO(data)) for data in held["KO"]]
            assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
            assert any(REASON in str(item.get("TextValue", "")) for item in note.ContentSequence)
            reports = [dcmread(BytesIO(data)) for data in held["SR"]]
            (signed,) = [one for one in reports if one.SOPInstanceUID != first.SOPInstanceUID]
            assert signed.VerificationFlag == "VERIFIED"
            assert signed.VerifyingObserverSequence[0].VerifyingObserverName == READER[1]
            predecessor = signed.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
            named = predecessor.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            assert named == first.SOPInstanceUID
            assert box.stop() == 0
