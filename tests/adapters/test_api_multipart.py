import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError, UnsupportedMediaTypeError
from bedside_edge.api.multipart import (
    MAX_HEADER,
    Data,
    MultipartParser,
    PartEnd,
    PartStart,
    boundary_of,
    parameters,
)

BOUNDARY = b"cut"


def parts_of(body, cuts=()):
    """Parse a body cut at the given places; returns [(headers, content)]."""
    parser = MultipartParser(BOUNDARY)
    found, ended = [], 0
    edges = [0, *sorted(cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        for event in parser.feed(body[start:end]):
            if isinstance(event, PartStart):
                found.append((event.headers, b""))
            elif isinstance(event, Data):
                headers, content = found[-1]
                found[-1] = (headers, content + bytes(event.view))
            elif isinstance(event, PartEnd):
                ended += 1
    parser.close()
    assert ended == len(found)
    return found


def body_of(*contents, head=b"Content-Type: application/dicom\r\n"):
    parts = [b"--cut\r\n" + head + b"\r\n" + part + b"\r\n" for part in contents]
    return b"".join(parts) + b"--cut--"


PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"cut", b"--cut", b"\r\n--cu", b"\x00", b"pixel"])
).map(b"".join)
CONTENT = PIECES.filter(lambda content: b"\r\n--cut" not in b"\r\n" + content)


@settings(max_examples=200, deadline=None)
@given(contents=st.lists(CONTENT, max_size=4), data=st.data())
def test_every_way_of_cutting_a_body_gives_the_same_parts(contents, data):
    body = body_of(*contents)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=12))
    assert [content for _, content in parts_of(body, cuts)] == contents
    assert parts_of(body, range(len(body))) == parts_of(body)


def test_pixels_that_contain_the_boundary_text_are_not_cut():
    pixels = b"before--cut--after--cut\r\nand\n--cut\nmore\r--cut"
    assert parts_of(body_of(pixels))[0][1] == pixels


def test_a_line_that_only_begins_like_the_boundary_is_content():
    pixels = b"\r\n--cutting edge\r\n--cut x"
    assert parts_of(body_of(pixels)) == [({"content-type": "application/dicom"}, pixels)]


def test_preamble_and_epilogue_are_ignored():
    body = b"for old mail readers\r\n" + body_of(b"abc") + b"\r\nwhatever --cut\r\n--cut\r\n"
    assert [content for _, content in parts_of(body)] == [b"abc"]


def test_spaces_after_a_boundary_are_padding():
    body = b"--cut  \t\r\n\r\nabc\r\n--cut--  \r\n"
    assert parts_of(body) == [({}, b"abc")]


def test_header_names_are_lower_case_and_values_are_trimmed():
    head = b"CONTENT-Type:  application/dicom \r\nContent-Location: /x\r\n"
    headers = parts_of(body_of(b"abc", head=head))[0][0]
    assert headers == {"content-type": "application/dicom", "content-location": "/x"}


@pytest.mark.parametrize("body", [b"", b"--cut", b"--cut\r\n\r\nabc", b"--cut\r\n\r\nabc\r\n--cut"])
def test_a_body_that_ends_early_is_an_error(body):
    with pytest.raises(InvalidInputError, match="ends before"):
        parts_of(body)


@pytest.mark.parametrize("head", [b"no colon\r\n", b": no name\r\n", b"Sp ace: x\r\n"])
def test_a_malformed_part_header_is_an_error(head):
    with pytest.raises(InvalidInputError, match="malformed"):
        parts_of(body_of(b"abc", head=head))


def test_a_header_block_cannot_grow_without_end():
    parser = MultipartParser(BOUNDARY)
    list(parser.feed(b"--cut\r\nX-Padding: " + b"x" * (MAX_HEADER - 100)))
    with pytest.raises(InvalidInputError, match="too long"):
        list(parser.feed(b"x" * 200))


def test_content_is_handed_on_without_waiting_for_its_end():
    parser = MultipartParser(BOUNDARY)
    events = list(parser.feed(b"--cut\r\n\r\n" + b"x" * 100_000))
    assert sum(len(event.view) for event in events if isinstance(event, Data)) == 100_000


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/related; boundary=abc", b"abc"),
        ('multipart/related; type="application/dicom"; boundary="a b/c"', b"a b/c"),
        ('multipart/related;BOUNDARY=abc;type="application/dicom"', b"abc"),
        ('multipart/related; boundary="a\\"b"', None),
        ("multipart/related; boundary=----=_Part.1(2)", b"----=_Part.1(2)"),
        ("multipart/related", None),
        ("multipart/related; boundary=", None),
        ('multipart/related; boundary="ends with space "', None),
        (f"multipart/related; boundary={'x' * 71}", None),
        ("multipart/related; boundary=\u00fc", None),
    ],
)
def test_the_boundary_may_be_bare_or_quoted_but_must_be_one(content_type, boundary):
    if boundary is None:
        with pytest.raises(UnsupportedMediaTypeError):
            boundary_of(content_type)
    else:
        assert boundary_of(content_type) == boundary


def test_the_first_of_two_parameters_of_one_name_counts():
    assert parameters("a/b; x=1; X=2") == {"x": "1"}


@pytest.mark.parametrize("cuts", [(), range(60)])
def test_the_line_break_of_the_headers_may_begin_the_boundary_of_an_empty_part(cuts):
    body = b"--cut\r\nA: b\r\n\r\n--cut\r\n\r\nabc\r\n--cut--"
    assert parts_of(body, [cut for cut in cuts if cut < len(body)]) == [
        ({"a": "b"}, b""),
        ({}, b"abc"),
    ]
