"""What every PixelReader promises; the services rely on nothing else."""

import hashlib

import numpy as np
import pytest

from bedside_core.errors import InvalidUidError, NoPixelsError, NotDicomError, RefusedError
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.ports import PixelReader
from support.dicom_files import bundled
from support.synthetic import data_set, part10, picture


@pytest.fixture(params=[PydicomReader])
def reader(request) -> PixelReader:
    return request.param()


def test_the_header_names_what_is_filed_under(reader):
    made = data_set(number=3, study=5, AccessionNumber="A1")
    header = reader.header(part10(made))
    assert header.sop_class_uid == made.SOPClassUID
    assert header.sop_instance_uid == made.SOPInstanceUID
    assert header.study_uid == made.StudyInstanceUID
    assert header.series_uid == made.SeriesInstanceUID
    assert header.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert (header.patient_id, header.patient_name) == ("T5", "Test^Case")
    assert header.accession_number == "A1"
    assert (header.rows, header.columns) == (64, 48)
    assert header.image_type == ("ORIGINAL", "PRIMARY")


def test_an_absent_attribute_is_empty(reader):
    header = reader.header(part10(data_set(BodyPartExamined=None, ViewPosition=None)))
    assert (header.body_part, header.view, header.issuer) == ("", "", "")
    assert header.expected_instances == 0


def test_bytes_that_are_no_dicom_are_not_dicom(reader):
    for call in (reader.header, reader.frame, reader.pixel_digest):
        with pytest.raises(NotDicomError):
            call(b"GIF89a" + bytes(500))


def test_a_hostile_uid_is_named_as_such(reader):
    made = data_set()
    data = part10(made).replace(made.StudyInstanceUID.encode(), b"../" * 9 + b"..", 3)
    with pytest.raises((InvalidUidError, NotDicomError)):
        reader.header(data)


def test_a_frame_has_native_pixels_as_stored(reader):
    pixels = picture(50, 70)
    frame = reader.frame(part10(data_set(pixels)))
    np.testing.assert_array_equal(frame.pixels, pixels)
    assert frame.pixels.dtype.isnative


def test_an_object_without_pixels_is_refused(reader):
    made = data_set(PixelData=None)
    for call in (reader.frame, reader.pixel_digest):
        with pytest.raises(NoPixelsError):
            call(part10(made))


@pytest.mark.parametrize("name", ["MR_truncated", "JPGExtended", "badVR"])
def test_what_cannot_be_read_is_a_coded_refusal(reader, name):
    for call in (reader.frame, reader.pixel_digest):
        with pytest.raises(RefusedError) as refusal:
            call(bundled(name))
        assert refusal.value.code != RefusedError.code


def test_the_pixel_digest_follows_the_pixels_and_what_they_mean_not_whose_they_are(reader):
    pixels = picture(20, 30)
    one = reader.pixel_digest(part10(data_set(pixels, PatientName="A^B")))
    other = reader.pixel_digest(
        part10(data_set(pixels, PatientName="C^D", StudyDescription="other"))
    )
    changed = pixels.copy()
    changed[3, 4] ^= 1
    turned = np.ascontiguousarray(pixels.reshape(30, 20))
    assert one == other
    assert len(bytes.fromhex(one)) == hashlib.sha256().digest_size
    assert one != reader.pixel_digest(part10(data_set(changed)))
    assert one != reader.pixel_digest(part10(data_set(turned)))
    for meaning in (
        {"WindowCenter": 5, "WindowWidth": 9},
        {"RescaleSlope": 2, "RescaleIntercept": 0},
        {"PixelPaddingValue": 3},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ):
        assert one != reader.pixel_digest(part10(data_set(pixels, **meaning))), meaning


def test_the_digest_covers_every_frame_and_colour(reader):
    frames = np.stack([picture(8, 8, seed=s) for s in range(3)])
    last = frames.copy()
    last[2, 7, 7] ^= 1
    digests = {reader.pixel_digest(part10(data_set(f))) for f in (frames, last, frames[:2])}
    assert len(digests) == 3
    assert reader.pixel_digest(bundled("SC_rgb")) != reader.pixel_digest(
        bundled("SC_rgb_rle_2frame")
    )
