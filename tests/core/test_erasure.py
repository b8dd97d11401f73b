"""Deletion certificates: bound to one entry of the log, and nothing else passes for one."""

import hashlib
import json

import pytest

from bedside_core.erasure import (
    Certificate,
    Destroyed,
    check_entry,
    list_digest,
    parse_certificate,
    refs_of,
)
from bedside_core.errors import InvalidCertificateError, InvalidInputError
from bedside_core.evidence.entry import Entry, Kind, TimeSource

ONE = Destroyed(name="a" * 64, sha256="1" * 64, size=10)
TWO = Destroyed(name="b" * 64, sha256="2" * 64, size=0)
MADE = Certificate(
    erasure="abc", at=5, reason="request", studies=1, objects=(ONE, TWO), index=7, proof="p\n"
)


def entry(kind=Kind.ERASURE, **changes):
    refs = dict(refs_of((ONE, TWO), studies=1, reason="request")) | changes
    return Entry(kind=kind, ts=1, ts_src=TimeSource.LOCAL, actor="t:1", refs=refs).encode()


def test_a_certificate_comes_back_as_it_was():
    assert parse_certificate(MADE.encode()) == MADE
    assert check_entry(MADE, entry()).refs["objects"] == 2


def test_the_digest_of_a_list_does_not_depend_on_its_order_and_on_nothing_less_than_all_of_it():
    digest = list_digest([ONE, TWO])
    assert digest == list_digest([TWO, ONE])
    assert len({digest, list_digest([ONE]), list_digest([])}) == 3
    text = f'[["{"a" * 64}","{"1" * 64}",10],["{"b" * 64}","{"2" * 64}",0]]'
    assert digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Kind.ADMIN, {}),
        (Kind.ERASURE, {"objects": 3}),
        (Kind.ERASURE, {"studies": 2}),
        (Kind.ERASURE, {"code": "retention"}),
        (Kind.ERASURE, {"destroyed": "0" * 64}),
    ],
)
def test_an_entry_that_says_something_else_is_refused(kind, changes):
    with pytest.raises(InvalidCertificateError):
        check_entry(MADE, entry(kind, **changes))


def test_bytes_that_are_no_entry_are_refused():
    with pytest.raises(InvalidCertificateError):
        check_entry(MADE, b"{}")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"more": 1},
        {"objects": [["a", "1" * 64, 1]]},
        {"objects": [["a" * 64, 5, 1]]},
        {"objects": [["a" * 64, "1" * 64, -1]]},
        {"objects": [["a" * 64, "1" * 64, True]]},
        {"objects": [["a" * 64, "1" * 64, "1"]]},
        {"objects": [["a" * 64]]},
        {"objects": 5},
        {"at": "5"},
        {"index": True},
        {"proof": 5},
        {"reason": None},
    ],
)
def test_a_document_that_is_no_certificate_is_refused(changes):
    document = json.loads(MADE.encode()) | changes
    with pytest.raises(InvalidCertificateError):
        parse_certificate(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"5", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_document_are_refused(data):
    with pytest.raises(InvalidCertificateError):
        parse_certificate(data)


def test_a_reason_nobody_knows_is_refused():
    with pytest.raises(InvalidInputError):
        refs_of((), studies=0, reason="because")
