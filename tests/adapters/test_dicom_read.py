"""What hostile objects may cost: bounded memory, no crash, always a coded refusal."""

import struct
import threading
import time
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from bedside_core.errors import (
    BedsideError,
    CorruptPixelsError,
    MalformedHeaderError,
    NotDicomError,
    UnsupportedPixelsError,
)
from bedside_edge.dicom import part10
from bedside_edge.dicom.codestream import describe
from bedside_edge.dicom.quiet import muted_warnings
from bedside_edge.dicom.read import PydicomReader
from support.dicom_files import bundled
from support.synthetic import data_set, picture
from support.synthetic import part10 as file_of

READER = PydicomReader()


def peak_of(call):
    """Most bytes of Python and numpy memory held during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(data, error):
    def call():
        with pytest.raises(error):
            READER.frame(data)

    return call


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_claim_of_gigapixels_allocates_nothing(syntax):
    made = data_set(picture(64, 64))
    if syntax:
        made.compress(syntax, generate_instance_uid=False)
    made.Rows = made.Columns = 65535
    assert peak_of(refused(file_of(made), UnsupportedPixelsError)) < 2_000_000


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_claim_within_the_limit_but_beyond_the_data_allocates_nothing(syntax):
    made = data_set(picture(64, 64))
    if syntax:
        made.compress(syntax, generate_instance_uid=False)
    made.Rows = made.Columns = 8000
    assert peak_of(refused(file_of(made), CorruptPixelsError)) < 2_000_000


def test_a_codestream_that_claims_more_than_the_header_is_refused():
    made = data_set(picture(64, 64))
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    data = file_of(made)
    at = data.index(b"\xff\x4f\xff\x51") + 8
    forged = data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :]
    assert peak_of(refused(forged, CorruptPixelsError)) < 2_000_000


def test_a_wild_number_of_frames_is_refused():
    made = data_set(NumberOfFrames=2_000_000_000)
    with pytest.raises(UnsupportedPixelsError):
        READER.pixel_digest(file_of(made))


def test_many_frames_are_found_in_one_walk():
    """Looking each one up from the start would take minutes for an object of a megabyte."""
    made = data_set(np.zeros((6000, 4, 4), np.uint16))
    made.compress(RLELossless, generate_instance_uid=False)
    data = file_of(made)
    began = time.process_time()
    READER.pixel_digest(data)
    assert time.process_time() - began < 20.0


def test_fewer_frames_than_claimed_are_corrupt():
    made = data_set(np.zeros((3, 8, 8), np.uint16))
    made.compress(RLELossless, generate_instance_uid=False)
    made.NumberOfFrames = 4
    with pytest.raises(CorruptPixelsError):
        READER.pixel_digest(file_of(made))


def test_a_deflate_bomb_stops_at_the_limit():
    bomb = zlib.compressobj(1, wbits=-15)
    element = struct.pack("<HH2sHI", 0x0008, 0x0001, b"OB", 0, 1 << 30)
    squeezed = bomb.compress(element) + b"".join(bomb.compress(bytes(1 << 20)) for _ in range(100))
    squeezed += bomb.flush()
    data = part10.head("1.2.3", "1.2.3.4", part10.DEFLATED_LE) + squeezed
    reader = PydicomReader(max_bytes=1 << 24)

    def call():
        with pytest.raises(UnsupportedPixelsError):
            reader.frame(data)

    assert len(data) < 1_000_000
    assert peak_of(call) < 80_000_000


def test_a_broken_deflate_stream_has_no_header_and_no_pixels():
    data = part10.head("1.2.3", "1.2.3.4", part10.DEFLATED_LE) + b"\xff" * 100
    with pytest.raises(NotDicomError):
        READER.header(data)
    for call in (READER.frame, READER.pixel_digest):
        with pytest.raises(CorruptPixelsError):
            call(data)


def test_a_deflate_stream_that_breaks_behind_the_header_is_refused_for_itself():
    """Anything but a refusal would fail the whole study, its good images with it."""
    whole = file_of(data_set(), part10.DEFLATED_LE)
    start = part10.locate(whole).start
    plain, half = part10.inflate(whole[start:], 1 << 20), zlib.compressobj(wbits=-15)
    broken = whole[:start] + half.compress(plain[: len(plain) // 2])
    broken += half.flush(zlib.Z_FULL_FLUSH)
    assert READER.header(broken) == READER.header(whole)
    broken += b"\xff" * 64  # no block of deflate starts like this
    for call in (READER.frame, READER.pixel_digest):
        with pytest.raises(CorruptPixelsError):
            call(broken)


@pytest.mark.parametrize("high_bit", [15, 13, 10])
def test_values_that_do_not_lie_in_the_low_bits_are_refused(high_bit):
    pixels = picture(64, 64, bits=12)
    made = data_set(pixels << 4 if high_bit == 15 else pixels)
    made.HighBit = high_bit
    with pytest.raises(UnsupportedPixelsError):
        READER.frame(file_of(made))


def test_deep_sequences_are_a_refusal_not_a_crash():
    whole = file_of(data_set())
    at = whole.index(struct.pack("<HH", 0x0010, 0x0010))
    level = struct.pack("<HH2sHI", 0x0008, 0x1111, b"SQ", 0, 0xFFFFFFFF)
    level += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises((MalformedHeaderError, NotDicomError)):
        READER.frame(whole[:at] + level * 3_000 + whole[at:])


def test_an_element_longer_than_the_object_costs_no_more_than_the_object():
    pixels = picture(64, 64)
    whole = file_of(data_set(pixels))
    at = whole.index(b"\xe0\x7f\x10\x00OW")
    longer = whole[: at + 8] + struct.pack("<I", 0xFFFFFFF0) + whole[at + 12 :]
    assert peak_of(lambda: READER.frame(longer)) < 2_000_000
    np.testing.assert_array_equal(READER.frame(longer).pixels, pixels)  # all of them are there
    assert peak_of(refused(longer[:-2], CorruptPixelsError)) < 2_000_000


def test_an_object_cut_within_a_fragment_is_corrupt_and_not_without_pixels():
    refused(bundled("emri_small_jpeg_2k_lossless_too_short"), CorruptPixelsError)()


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("RescaleSlope", "DS", b"nonsense"),
        ("RescaleIntercept", "DS", b"1e999 "),
        ("PixelPaddingValue", "DS", b"x "),
        ("NumberOfFrames", "IS", b"1A"),
        ("NumberOfFrames", "IS", b"-3"),
        ("BitsStored", "IS", b"99"),
        ("BitsStored", "IS", b"0 "),
        ("SamplesPerPixel", "IS", b"0 "),
        ("PixelRepresentation", "IS", b"7 "),
    ],
)
def test_a_number_that_is_none_is_a_coded_refusal(keyword, vr, value):
    made = data_set()
    if keyword in made:
        del made[keyword]
    with muted_warnings():
        made.add_new(keyword, vr, "1")
        data = file_of(made)
    element = made[keyword].tag
    head = struct.pack("<HH", element.group, element.element) + vr.encode()
    at = data.index(head)
    length = struct.unpack_from("<H", data, at + 6)[0]
    changed = data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]
    with pytest.raises(BedsideError) as refusal:
        READER.frame(changed)
    assert refusal.value.code in ("malformed-header", "unsupported-pixels", "corrupt-pixels")


def test_a_functional_group_that_is_no_sequence_of_items_is_a_refusal():
    made = data_set()
    made.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    assert READER.frame(file_of(made)).slope == 1.0


CODED = {}
for _name in ("MR_small", "MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"):
    CODED[_name] = bundled(_name)


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(CODED)), data=st.data())
def test_no_damage_escapes_as_anything_but_a_coded_error(name, data):
    damaged = bytearray(CODED[name])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    for call in (READER.header, READER.frame, READER.pixel_digest):
        try:
            call(bytes(damaged))
        except BedsideError:
            continue  # a coded refusal; any other exception fails the test


@given(frame=st.binary(max_size=300))
def test_a_codestream_header_is_described_or_not_but_never_fails(frame):
    for start in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "):
        claim = describe(start + frame)
        assert claim is None or claim.bits >= 0


def test_nothing_read_reaches_stderr_or_the_warnings(capfd, recwarn, caplog):
    for name in ("badVR", "chrSQEncoding", "MR_truncated", "693_J2KI", "explicit_VR-UN"):
        for call in (READER.header, READER.frame):
            try:
                call(bundled(name))
            except BedsideError:
                continue
    assert capfd.readouterr().err == ""
    assert not recwarn.list
    assert not caplog.records


def test_warnings_are_muted_in_every_thread_and_back_afterwards():
    seen = []
    inside, leave = threading.Barrier(3), threading.Barrier(3)

    def worker():
        with muted_warnings():
            inside.wait()
            warnings.warn_explicit("name", UserWarning, "pydicom/x.py", 1, module="pydicom.x")
            leave.wait()

    threads = [threading.Thread(target=worker) for _ in range(2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for thread in threads:
            thread.start()
        inside.wait()
        leave.wait()
        for thread in threads:
            thread.join()
        seen += caught
        warnings.warn_explicit("after", UserWarning, "pydicom/x.py", 1, module="pydicom.x")
        assert len(caught) == len(seen) + 1
    assert not seen


def test_one_reader_serves_several_threads():
    pixels = READER.frame(bundled("MR_small")).pixels
    results = []

    def work():
        for name in ("MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless") * 5:
            results.append(np.array_equal(READER.frame(bundled(name)).pixels, pixels))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 60
    assert all(results)
