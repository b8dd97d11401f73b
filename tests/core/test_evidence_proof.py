"""Proof files: the entry, its place and the signed tree in one file; any change is seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import (
    BedsideError,
    InvalidProofError,
    ProofMismatchError,
    UntrustedSignatureError,
    WrongOriginError,
)
from bedside_core.evidence.checkpoint import MAX_SIZE, signed_note
from bedside_core.evidence.entry import Entry, parse_entry
from bedside_core.evidence.merkle import inclusion_proof
from bedside_core.evidence.proof import ProofFile, parse_proof, verify_proof
from support.evidence_log import (
    HUB_ED,
    HUB_ML,
    LOG_ED,
    LOG_ML,
    ORIGIN,
    example_entries,
    head,
    tree,
)

ENTRIES = [entry.encode() for entry in example_entries()] + [b"%d" % n for n in range(20)]
POINT = head(ENTRIES)
TIME = 1_767_225_600
LOG = [LOG_ED.key, LOG_ML.key]
HUB = [HUB_ED.key, HUB_ML.key]
NOTE = signed_note(
    POINT, [LOG_ED.signs(POINT), LOG_ML.signs(POINT, TIME), HUB_ED.signs(POINT, TIME)]
)
PROOFS = st.builds(
    ProofFile,
    index=st.integers(0, MAX_SIZE),
    path=st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple),
    checkpoint=st.binary(max_size=50),
    extra=st.none() | st.binary(max_size=50),
)


def proof_of(number: int, checkpoint: bytes = NOTE, **fields) -> bytes:
    path = tuple(inclusion_proof(number, len(ENTRIES), tree(ENTRIES)))
    parts = {"index": number, "path": path, "checkpoint": checkpoint, "extra": ENTRIES[number]}
    return ProofFile(**parts | fields).encode()


@given(proof=PROOFS)
def test_a_proof_file_is_read_as_it_was_written(proof):
    assert parse_proof(proof.encode()) == proof


@given(data=st.binary(max_size=200))
def test_any_lines_are_a_proof_or_refused(data):
    whole = b"c2sp.org/tlog-proof@v1\n" + data
    try:
        proof = parse_proof(whole)
    except InvalidProofError:
        return  # the only error that hostile bytes may end in
    assert proof.encode() == whole


@pytest.mark.parametrize("index", range(len(ENTRIES)))
def test_every_entry_is_proven_from_one_file_and_the_keys(index):
    proven = verify_proof(proof_of(index), ORIGIN, LOG, HUB)
    assert (proven.entry, proven.index) == (ENTRIES[index], index)
    assert proven.opened.checkpoint == POINT
    assert [signer.key for signer in proven.opened.signers] == [*LOG, HUB_ED.key]


def test_the_proven_bytes_are_an_entry():
    assert isinstance(parse_entry(verify_proof(proof_of(1), ORIGIN, LOG).entry), Entry)


SHORT = proof_of(1, signed_note(POINT, [LOG_ED.signs(POINT)]))


def test_any_changed_byte_of_a_proof_file_is_seen():
    verify_proof(SHORT, ORIGIN, [LOG_ED.key])
    for place in range(len(SHORT)):
        for value in {SHORT[place] ^ 1, SHORT[place] ^ 0x80, 0x0A} - {SHORT[place]}:
            changed = SHORT[:place] + bytes([value]) + SHORT[place + 1 :]
            with pytest.raises(BedsideError):
                verify_proof(changed, ORIGIN, [LOG_ED.key])


@given(start=st.integers(0, len(SHORT)), length=st.integers(1, 40), data=st.data())
def test_bytes_cut_out_or_put_in_are_seen(start, length, data):
    added = data.draw(st.binary(min_size=1, max_size=40))
    for changed in (SHORT[:start] + SHORT[start + length :], SHORT[:start] + added + SHORT[start:]):
        if changed != SHORT:
            with pytest.raises(BedsideError):
                verify_proof(changed, ORIGIN, [LOG_ED.key])


def test_another_entry_or_place_does_not_follow():
    for fields in ({"extra": ENTRIES[2]}, {"index": 2}, {"path": ()}):
        with pytest.raises(ProofMismatchError):
            verify_proof(proof_of(1, **fields), ORIGIN, LOG)


def test_a_file_without_the_entry_proves_nothing():
    with pytest.raises(InvalidProofError):
        verify_proof(proof_of(1, extra=None), ORIGIN, LOG)


def test_a_file_of_another_log_or_signed_by_others_is_refused():
    other = head(ENTRIES, ORIGIN + "#2")
    with pytest.raises(WrongOriginError):
        verify_proof(proof_of(1, signed_note(other, [LOG_ED.signs(other)])), ORIGIN, LOG)
    with pytest.raises(UntrustedSignatureError):
        verify_proof(proof_of(1, signed_note(POINT, [HUB_ED.signs(POINT, TIME)])), ORIGIN, LOG, HUB)


@pytest.mark.parametrize(
    "head_lines",
    [
        b"c2sp.org/tlog-proof@v2\nindex 0",
        b"c2sp.org/tlog-proof@v1",
        b"c2sp.org/tlog-proof@v1\nextra AA==",
        b"c2sp.org/tlog-proof@v1\nindex 00",
        b"c2sp.org/tlog-proof@v1\n0",
        b"c2sp.org/tlog-proof@v1\nindex 9223372036854775808",
        b"c2sp.org/tlog-proof@v1\nindex 0\nextra AA==",
        b"c2sp.org/tlog-proof@v1\nextra AB==\nindex 0",
        b"c2sp.org/tlog-proof@v1\r\nindex 0",
        b"c2sp.org/tlog-proof@v1\nindex \xff",
        b"c2sp.org/tlog-proof@v1\nindex 0" + b"\n" + b"\n".join([b"A" * 43 + b"="] * 64),
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"a" * 1_200_000,
    ],
)
def test_a_second_spelling_of_a_proof_file_is_refused(head_lines):
    with pytest.raises(InvalidProofError):
        parse_proof(head_lines + b"\n\ncheckpoint\n")


def test_a_file_without_a_checkpoint_is_refused():
    with pytest.raises(InvalidProofError):
        parse_proof(b"c2sp.org/tlog-proof@v1\nindex 0\n")


@pytest.mark.parametrize(
    "fields", [{"index": -1}, {"path": (bytes(31),)}, {"path": (bytes(32),) * 64}]
)
def test_what_is_no_proof_cannot_exist(fields):
    with pytest.raises(InvalidProofError):
        ProofFile(**{"index": 0, "path": (), "checkpoint": b""} | fields)
