"""Finding the data set in the first bytes of an object."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import NotDicomError
from bedside_core.part10 import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    MAX_META,
    data_set_start,
    finish_start,
)


def element(number: int, vr: bytes, value: bytes) -> bytes:
    length = len(value).to_bytes(4 if vr == b"OB" else 2, "little")
    reserved = b"\0\0" if vr == b"OB" else b""
    return b"\x02\0" + number.to_bytes(2, "little") + vr + reserved + length + value


SYNTAX = element(0x0010, b"UI", b"1.2.840.10008.1.2.4.70")
BODY = b"\x08\0\x05\0CS\x0a\0ISO_IR 192" + bytes(64)
PREFIX = bytes(128) + b"DICM"


def test_the_data_set_starts_after_group_two_with_or_without_its_length():
    meta = element(0x0001, b"OB", b"\0\1") + SYNTAX
    with_length = element(0, b"UL", len(meta).to_bytes(4, "little")) + meta
    for group in (meta, with_length):
        start, syntax = data_set_start(PREFIX + group + BODY)
        assert (PREFIX + group + BODY)[start:] == BODY
        assert syntax == "1.2.840.10008.1.2.4.70"


def test_more_bytes_are_asked_for_until_the_answer_is_certain():
    whole = PREFIX + SYNTAX + BODY
    needed = len(PREFIX + SYNTAX) + 12
    for size in range(needed):
        assert data_set_start(whole[:size]) is None
    assert data_set_start(whole[:needed]) == (len(PREFIX + SYNTAX), "1.2.840.10008.1.2.4.70")


@pytest.mark.parametrize(
    ("head", "syntax"),
    [
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 192", EXPLICIT_LE),
        (b"\0\x08\0\x05CS\0\x0aISO_IR 192", EXPLICIT_BE),
        (b"\x08\0\x05\0\x0a\0\0\0ISO_IR 192", IMPLICIT_LE),
        (SYNTAX, EXPLICIT_LE),
    ],
)
def test_a_bare_data_set_is_recognised_by_its_first_element(head, syntax):
    assert data_set_start(head + bytes(200)) == (0, syntax)


@pytest.mark.parametrize(
    "bad",
    [
        b"%PDF-1.7 and so on" + bytes(200),
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        PREFIX + element(0x0001, b"OB", b"\0\1") + BODY,
        PREFIX + b"\x02\0\x10\0zz\x04\0" + bytes(100),
        PREFIX + b"\x02\0\x02\x01OB\0\0" + (MAX_META + 1).to_bytes(4, "little") + bytes(100),
        b"\x18\0\x50\0DS\x04\0" + bytes(200),
    ],
)
def test_other_bytes_are_not_dicom(bad):
    with pytest.raises(NotDicomError):
        data_set_start(bad)


def test_group_two_may_not_go_on_for_ever():
    many = element(0x0102, b"OB", bytes(60_000)) * (MAX_META // 60_000 + 2)
    with pytest.raises(NotDicomError, match="does not end"):
        data_set_start(PREFIX + many)


def test_a_short_object_is_judged_at_its_end():
    whole = PREFIX + SYNTAX + BODY[:20]
    assert finish_start(whole) == (len(PREFIX + SYNTAX), "1.2.840.10008.1.2.4.70")
    with pytest.raises(NotDicomError):
        finish_start(PREFIX)
    with pytest.raises(NotDicomError):
        finish_start(b"")


@given(st.binary(max_size=600))
def test_no_bytes_make_it_fail_in_another_way(noise):
    for head in (noise, PREFIX + noise, PREFIX + SYNTAX[:6] + noise):
        try:
            start, syntax = finish_start(head)
        except NotDicomError:
            continue
        assert 0 <= start <= len(head)
        assert syntax
