"""WADO-RS: objects, metadata, frames and pictures, in the form the client asks for."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from bedside_edge.dicom.web import split_parts
from support.dicom_files import bundled
from support.http_box import HttpBox
from support.synthetic import data_set, part10, picture, uid

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
J2K = "1.2.840.10008.1.2.4.90"
FILES = {
    "plain": part10(data_set(study=1)),
    "second": part10(data_set(study=1, number=2)),
    "j2k": bundled("MR_small_jp2klossless"),
    "big": bundled("ExplVR_BigEnd"),
    "colour": bundled("examples_ybr_color"),
    "palette": bundled("examples_palette"),
    "frames": bundled("rtdose"),
    "undecodable": bundled("JPGExtended"),
    "report": bundled("test-SR"),
    "truncated": part10(data_set(study=3))[:-500],
    "overlay": bundled("examples_overlay"),
}


@pytest.fixture(scope="module")
def box():
    with HttpBox() as box:
        for data in FILES.values():
            box.memory.add(data)
        yield box


def path(name, levels=3):
    header = dcmread(io.BytesIO(FILES[name]), stop_before_pixels=True)
    steps = ["", "studies", header.StudyInstanceUID, "series", header.SeriesInstanceUID]
    steps += ["instances", header.SOPInstanceUID]
    return "/dicom-web" + "/".join(steps[: 1 + 2 * levels])


def get(box, where, accept=None):
    return box.client.get(where, headers={"Accept": accept} if accept else {})


def dicom(syntax):
    return f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'


def parts(answer):
    assert answer.status_code == 200, answer.text
    return split_parts(answer.content, answer.headers["content-type"])


def test_an_instance_comes_back_bit_for_bit(box):
    for name in ("plain", "j2k", "undecodable", "truncated", "report"):
        assert parts(get(box, path(name), dicom("*"))) == [FILES[name]]
    assert get(box, path("plain"), "application/dicom").content == FILES["plain"]


def test_a_series_and_a_study_come_as_parts_with_their_places(box):
    answer = get(box, path("plain", 2))
    assert parts(answer) == [FILES["plain"], FILES["second"]]
    assert parts(get(box, path("plain", 1))) == [FILES["plain"], FILES["second"]]
    assert f"Content-Location: http://127.0.0.1:8642{path('second')}".encode() in answer.content


def test_no_sender_can_know_what_divides_the_parts_of_an_answer(box):
    kinds = {get(box, path("plain", 1)).headers["content-type"] for _ in range(3)}
    assert len(kinds) == 3


def test_without_a_wish_for_a_syntax_it_is_explicit_little_endian(box):
    for name in ("j2k", "big", "colour"):
        (data,) = parts(get(box, path(name)))
        read, stored = dcmread(io.BytesIO(data)), dcmread(io.BytesIO(FILES[name]))
        assert read.file_meta.TransferSyntaxUID == EXPLICIT
        assert np.array_equal(read.pixel_array, stored.pixel_array)
        assert read.PatientName == stored.PatientName


def test_what_cannot_be_decoded_comes_as_stored_or_not_at_all(box):
    assert parts(get(box, path("undecodable"))) == [FILES["undecodable"]]
    refused = get(box, path("undecodable"), dicom(EXPLICIT))
    assert (refused.status_code, refused.json()["type"]) == (
        406,
        "urn:bedside:error:not-acceptable",
    )
    assert get(box, path("truncated"), dicom(EXPLICIT)).status_code == 200  # its syntax already


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (dicom(J2K), 406),
        (dicom(IMPLICIT), 406),
        (f"{dicom(J2K)}, {dicom(EXPLICIT)};q=0.5", 200),
        ("application/dicom+xml", 406),
        ("multipart/related; type=image/jp2", 406),
        ("multipart/related", 200),
        ("*/*", 200),
        ("multipart/related;type=application/dicom;q=0", 406),
        (',,;;"', 406),
    ],
)
def test_accept_decides(box, accept, status):
    assert get(box, path("plain"), accept).status_code == status


def test_the_accept_parameter_stands_in_for_the_header(box):
    assert get(box, path("plain") + "?accept=application/dicom").content == FILES["plain"]
    where = path("plain") + "/rendered?accept=image/png"
    assert get(box, where, "text/html").headers["content-type"] == "image/png"


def test_metadata_is_the_data_set_without_its_bulk(box):
    answer = get(box, path("plain") + "/metadata")
    assert answer.headers["content-type"] == "application/dicom+json"
    (row,) = answer.json()
    assert row["00080018"]["Value"] == [uid(1, 1, 1)]
    assert row["7FE00010"] == {
        "vr": "OW",
        "BulkDataURI": f"http://127.0.0.1:8642{path('plain')}/bulkdata/7FE00010",
    }
    assert len(get(box, path("plain", 1) + "/metadata").json()) == 2
    assert "7FE00010" not in get(box, path("report") + "/metadata").json()[0]


def test_bulk_data_is_found_by_its_link(box):
    (row,) = get(box, path("overlay") + "/metadata").json()
    links = [e["BulkDataURI"] for e in row.values() if "BulkDataURI" in e]
    assert len(links) >= 2
    stored = dcmread(io.BytesIO(FILES["overlay"]))
    for link in links:
        (value,) = parts(get(box, link.removeprefix("http://127.0.0.1:8642")))
        tag = link.rpartition("/")[2]
        wanted = stored.pixel_array.tobytes() if tag == "7FE00010" else stored[tag].value
        assert value == wanted
    for wrong in ("00100010", "nothing", "00081140/0", "00081140/9/00081150", "7FE00010/1"):
        assert get(box, f"{path('overlay')}/bulkdata/{wrong}").status_code == 404


def test_frames_are_stored_values_little_endian(box):
    stored = dcmread(io.BytesIO(FILES["frames"])).pixel_array
    got = parts(get(box, path("frames") + "/frames/1,15,2"))
    assert got == [stored[n].astype("<u4").tobytes() for n in (0, 14, 1)]
    mr = dcmread(io.BytesIO(FILES["j2k"])).pixel_array
    one = get(box, path("j2k") + "/frames/1", "application/octet-stream")
    assert one.content == mr.astype("<i2").tobytes()


@pytest.mark.parametrize(("listed", "status"), [("0", 400), ("x", 400), ("16", 404), ("1,99", 404)])
def test_a_frame_that_is_not_there_is_said(box, listed, status):
    answer = get(box, f"{path('frames')}/frames/{listed}", "application/octet-stream")
    if "," in listed:
        return  # the first part is out already: the connection breaks instead
    assert answer.status_code == status


def test_a_picture_shows_the_window_that_was_asked_for(box):
    base = path("plain") + "/rendered"
    wide = Image.open(io.BytesIO(get(box, base + "?window=2048,4096", "image/png").content))
    pixels = picture(64, 48, seed=1).astype(float)
    wanted = np.clip((pixels - 2047.5) / 4095 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(np.asarray(wide), wanted, atol=0.51)
    exact = get(box, base + "?window=2048,4096,linear-exact", "image/png").content
    sigmoid = get(box, base + "?window=2048,4096,sigmoid", "image/png").content
    assert len({wide.tobytes(), exact, sigmoid}) == 3


def test_a_viewport_bounds_the_picture_and_shows_a_region(box):
    base = path("plain") + "/rendered"
    small = Image.open(io.BytesIO(get(box, base + "?viewport=24,24", "image/png").content))
    assert small.size == (18, 24)
    cut = get(box, base + "?window=2048,4096&viewport=20,10,8,4,20,10", "image/png").content
    whole = np.asarray(
        Image.open(io.BytesIO(get(box, base + "?window=2048,4096", "image/png").content))
    )
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(cut))), whole[4:14, 8:28])


def test_jpeg_is_the_default_and_its_quality_counts(box):
    base = path("plain") + "/rendered"
    fine = get(box, base + "?quality=100")
    assert fine.headers["content-type"] == "image/jpeg"
    assert len(get(box, base + "?quality=5").content) < len(fine.content)


def test_colour_is_shown_as_it_is(box):
    for name, photometric in (("colour", None), ("palette", None)):
        del photometric
        shown = Image.open(io.BytesIO(get(box, path(name) + "/rendered", "image/png").content))
        assert shown.mode == "RGB"
    from pydicom.pixels import pixel_array

    wanted = pixel_array(io.BytesIO(FILES["colour"]), index=2)  # RGB by default
    third = get(box, path("colour") + "/frames/3/rendered", "image/png").content
    np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(third))), wanted, atol=2)


def test_series_and_study_have_a_picture_that_stands_for_all_or_one_of_each(box):
    one = get(box, path("plain", 1) + "/rendered", "image/png")
    assert one.content == get(box, path("second") + "/rendered", "image/png").content
    several = parts(get(box, path("plain", 2) + "/rendered", "multipart/related; type=image/png"))
    assert several[1] == one.content
    assert len(several) == 2


@pytest.mark.parametrize(
    ("name", "query", "status", "code"),
    [
        ("report", "", 422, "no-pixels"),
        ("undecodable", "", 415, "undecodable-transfer-syntax"),
        ("truncated", "", 422, "corrupt-pixels"),
        ("plain", "?window=a,b", 400, "invalid-input"),
        ("plain", "?window=1,0", 400, "invalid-input"),
        ("plain", "?window=nan,10", 400, "invalid-input"),
        ("plain", "?window=1,2,cubic", 400, "invalid-input"),
        ("plain", "?viewport=0,10", 400, "invalid-input"),
        ("plain", "?viewport=1,2,3", 400, "invalid-input"),
        ("plain", "?viewport=99999,10", 400, "invalid-input"),
        ("plain", "?viewport=10,10,4000,0,10,10", 404, "not-found"),
        ("plain", "?quality=0", 422, "invalid-request"),
    ],
)
def test_a_picture_that_cannot_be_made_is_refused_with_its_code(box, name, query, status, code):
    answer = get(box, path(name) + "/rendered" + query)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:bedside:error:{code}")


def test_what_is_not_held_is_not_found(box):
    for where in ("/studies/1.2.3", "/studies/1.2.3/metadata", "/studies/1.2.3/rendered"):
        assert get(box, "/dicom-web" + where).status_code == 404
    other = path("plain").replace(uid(1, 1, 1), uid(9, 9, 9))
    assert get(box, other).status_code == 404
    assert get(box, path("plain").replace(f"series/{uid(1, 1)}", "series/1.2")).status_code == 404
    assert get(box, "/dicom-web/studies/../metadata").status_code in (404, 422)


def test_a_study_is_read_one_instance_at_a_time(box):
    with HttpBox() as other:
        for number in range(1, 30):
            other.memory.add(part10(data_set(study=1, number=number)))
        answer = get(other, "/dicom-web/studies/" + uid(1))
        assert len(parts(answer)) == 29
        assert other.memory.reads == 29
    assert json.dumps(answer.headers["content-type"])
