"""Entries: one spelling each, commitments only, nothing that names a person."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidEntryError
from bedside_core.evidence.entry import (
    MAX_ENTRY,
    MAX_INTEGER,
    MAX_REFS,
    Entry,
    Kind,
    TimeSource,
    as_actor,
    as_ref,
    commit_payload,
    commit_subject,
    commits_to,
    is_about,
    parse_entry,
    require_order,
)
from support.evidence_log import LOCAL_ID, NONCES, PAYLOAD, SALT, SUBJECT_KEY, example_entries

HEX_32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
COUNTS = st.integers(0, MAX_INTEGER)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
TEXTS = st.from_regex(r"[a-z][a-z0-9._:@/+-]{0,127}", fullmatch=True)
ENTRIES = st.builds(
    Entry,
    kind=st.sampled_from(Kind),
    ts=COUNTS,
    ts_src=st.sampled_from(TimeSource),
    actor=st.from_regex(r"[a-z][a-z0-9._:-]{0,63}", fullmatch=True),
    subject=st.none() | HEX_32,
    nonce=st.binary(min_size=16, max_size=16).map(bytes.hex),
    payload=st.none() | HEX_32,
    refs=st.dictionaries(NAMES, COUNTS | HEX_32 | TEXTS, max_size=5),
)
BASE = {"kind": Kind.ADMIN, "ts": 1, "ts_src": TimeSource.LOCAL, "actor": "service:log"}


@given(entry=ENTRIES)
def test_an_entry_is_read_as_it_was_written(entry):
    assert parse_entry(entry.encode()) == entry
    assert len(entry.encode()) <= MAX_ENTRY


@given(entry=ENTRIES, place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_another_entry(entry, place, value):
    data = bytearray(entry.encode())
    data[place % len(data)] = value
    try:
        assert parse_entry(bytes(data)).encode() == bytes(data)
    except InvalidEntryError:
        assert bytes(data) != entry.encode()


def test_the_largest_entry_fits_the_tiles_length_prefix():
    refs = {f"r{number:031d}": "x" * 128 for number in range(MAX_REFS)}
    entry = Entry(**BASE | {"actor": "a" * 64}, subject="0" * 64, nonce="0" * 32, refs=refs)
    assert len(entry.encode()) < MAX_ENTRY


GOOD = example_entries()[1].encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b'"text"',
        b"\xff",
        b"[" * 60_000,
        b" " * (MAX_ENTRY + 1),
        GOOD + b"\n",
        GOOD.replace(b'"v":1', b'"v":2'),
        GOOD.replace(b'"v":1', b'"v":true'),
        GOOD.replace(b'"v":1', b'"v":1.0'),
        GOOD.replace(b',"v":1', b""),
        GOOD.replace(b'"actor"', b'"person"'),
        GOOD.replace(b'"actor":', b'"actor": '),
        GOOD.replace(b'"kind":"inference"', b'"kind":"guess"'),
        GOOD.replace(b'"kind":"inference"', b'"kind":[]'),
        GOOD.replace(b'"ts_src":"local"', b'"ts_src":"clock"'),
        GOOD.replace(b'"ts":', b'"ts":0,"ts":'),
        GOOD.replace(b'"ts":', b'"ts":1e'),
        GOOD.replace(b"worker", b"\\u0077orker"),
        GOOD.replace(b'"refs":{', b'"refs":{"a":null,'),
        GOOD.replace(b'"refs":{', b'"refs":{"z":1,'),
        json.dumps(json.loads(GOOD)).encode(),
        json.dumps(json.loads(GOOD) | {"refs": {}}, separators=(",", ":"), sort_keys=True).encode(),
        json.dumps(json.loads(GOOD) | {"refs": 7}, separators=(",", ":"), sort_keys=True).encode(),
    ],
)
def test_a_second_spelling_is_refused(data):
    assert data != GOOD
    with pytest.raises(InvalidEntryError):
        parse_entry(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "admin"},
        {"ts_src": "local"},
        {"ts": -1},
        {"ts": MAX_INTEGER + 1},
        {"ts": True},
        {"ts": 1.0},
        {"actor": "Müller"},
        {"actor": "a" * 65},
        {"actor": "a\n"},
        {"subject": "0" * 64},
        {"subject": "0" * 63, "nonce": "0" * 32},
        {"nonce": "A" * 32},
        {"payload": b"0" * 64},
        {"refs": {"Model": 1}},
        {"refs": {"model": True}},
        {"refs": {"model": None}},
        {"refs": {"model": 1.5}},
        {"refs": {"study": "1.2.840.10008.1"}},
        {"refs": {"patient": "0004711"}},
        {"refs": {f"r{number}": 0 for number in range(MAX_REFS + 1)}},
    ],
)
def test_what_may_not_be_an_entry_cannot_exist(fields):
    with pytest.raises(InvalidEntryError):
        Entry(**BASE | fields)


def test_a_refused_value_is_not_repeated_in_the_message():
    with pytest.raises(InvalidEntryError) as caught:
        Entry(**BASE | {"actor": "Jane Doe"})
    assert "Doe" not in str(caught.value)


def test_time_stands_or_goes_forward():
    first, second = Entry(**BASE), Entry(**BASE | {"ts": 2})
    require_order(first, first)
    require_order(first, second)
    with pytest.raises(InvalidEntryError):
        require_order(second, first)


def test_the_commitments_are_the_formats_own():
    nonce = NONCES[0]
    subject = hmac.new(SUBJECT_KEY, nonce + LOCAL_ID, "sha256").hexdigest()
    assert commit_subject(SUBJECT_KEY, nonce, LOCAL_ID) == subject
    assert commit_payload(SALT, PAYLOAD) == hashlib.sha256(SALT + PAYLOAD).hexdigest()


def test_key_and_salt_show_what_an_entry_is_about():
    consent, inference, pad = example_entries()
    assert is_about(consent, SUBJECT_KEY, LOCAL_ID)
    assert is_about(inference, SUBJECT_KEY, LOCAL_ID)
    assert not is_about(inference, SUBJECT_KEY, b"patient 4712")
    assert not is_about(inference, bytes(32), LOCAL_ID)
    assert not is_about(pad, SUBJECT_KEY, LOCAL_ID)
    assert commits_to(inference, SALT, PAYLOAD)
    assert not commits_to(inference, SALT, PAYLOAD + b" ")
    assert not commits_to(inference, bytes(32), PAYLOAD)
    assert not commits_to(pad, SALT, PAYLOAD)


def test_two_entries_about_one_subject_share_no_field():
    consent, inference, _ = example_entries()
    assert consent.subject != inference.subject
    assert consent.nonce != inference.nonce


def test_short_keys_nonces_and_salts_are_refused():
    for key, nonce in [(bytes(31), bytes(16)), (bytes(32), bytes(15))]:
        with pytest.raises(InvalidEntryError):
            commit_subject(key, nonce, b"")
    with pytest.raises(InvalidEntryError):
        commit_payload(bytes(31), b"")


def test_a_name_that_cannot_stand_in_refs_is_named_by_its_digest():
    assert as_ref("cxr-opacity@1.0.0") == "cxr-opacity@1.0.0"
    assert as_ref("f" * 64) == "f" * 64
    for text in ("1.2.840.113619", "PACS Nord", "", "x" * 200, "\ud800"):
        expected = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        assert as_ref(text) == expected


def test_an_actor_of_another_spelling_is_named_by_its_digest():
    assert as_actor("person:3f2a") == "person:3f2a"
    other = as_actor("Dr. Ada Muster")
    assert other == "other:" + hashlib.sha256(b"Dr. Ada Muster").hexdigest()[:40]
    assert as_actor("\ud800") != other
    Entry(kind=Kind.ADMIN, ts=0, ts_src=TimeSource.LOCAL, actor=other)


@given(entry=ENTRIES)
def test_the_bytes_are_those_a_json_encoder_writes_canonically(entry):
    data = entry.encode()
    canonical = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"))
    assert data == canonical.encode("ascii")
