"""Signed notes: parsed strictly, trusted only under known keys, condemned by one failing line."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import (
    BedsideError,
    InvalidKeyError,
    InvalidNoteError,
    UntrustedSignatureError,
)
from bedside_core.evidence.note import (
    MAX_NOTE,
    MAX_SIGNATURES,
    Note,
    NoteSignature,
    SignatureType,
    VerifierKey,
    is_key_name,
    parse_note,
    parse_verifier_key,
    verified_signatures,
)
from bedside_core.signatures import Algorithm, PublicKey, to_base64
from support.evidence_log import HUB_ED, LOG_ED, LOG_ML, ORIGIN

TEXT = "a text\n\nwith an empty line\n"
NAMES = st.text(max_size=20).filter(is_key_name)
LINES = st.builds(
    NoteSignature,
    name=NAMES,
    key_id=st.binary(min_size=4, max_size=4),
    signature=st.binary(min_size=1, max_size=80),
)
LETTERS = st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n\x7f")
NOTES = st.builds(
    Note,
    text=st.text(LETTERS).map(lambda text: text + "\n"),
    signatures=st.lists(LINES, min_size=1, max_size=5).map(tuple),
)


def signed(text: str = TEXT) -> NoteSignature:
    return NoteSignature(
        name=ORIGIN, key_id=LOG_ED.key.key_id, signature=LOG_ED.sign(text.encode())
    )


@given(note=NOTES)
def test_a_note_is_read_as_it_was_written(note):
    assert parse_note(note.encode()) == note


@given(data=st.binary(max_size=200) | st.text("\N{EM DASH} a=+\nA").map(str.encode))
def test_any_bytes_are_a_note_or_refused(data):
    try:
        note = parse_note(data)
    except InvalidNoteError:
        return  # the only error that hostile bytes may end in
    assert note.encode() == data


def test_an_unknown_line_is_ignored_and_a_known_key_counts_once():
    stranger = NoteSignature(name=ORIGIN, key_id=b"????", signature=b"x")
    note = Note(text=TEXT, signatures=(stranger, signed(), signed()))
    assert verified_signatures(note, [LOG_ED.key, HUB_ED.key]) == ((LOG_ED.key, signed()),)


def test_one_failing_line_of_a_known_key_condemns_the_note():
    note = Note(text=TEXT, signatures=(signed(), signed("another text\n")))
    with pytest.raises(UntrustedSignatureError):
        verified_signatures(note, [LOG_ED.key])


def test_a_note_nobody_known_signed_is_nothing():
    note = Note(text=TEXT, signatures=(signed(),))
    with pytest.raises(UntrustedSignatureError):
        verified_signatures(note, [HUB_ED.key])
    with pytest.raises(UntrustedSignatureError):
        verified_signatures(note, [])


def test_a_cosignature_key_signs_no_plain_note():
    line = NoteSignature(
        name=HUB_ED.key.name, key_id=HUB_ED.key.key_id, signature=HUB_ED.sign(TEXT.encode())
    )
    with pytest.raises(UntrustedSignatureError):
        verified_signatures(Note(text=TEXT, signatures=(line,)), [HUB_ED.key])


NOTE = Note(text=TEXT, signatures=(signed(),)).encode()


def test_any_changed_byte_of_a_note_is_seen():
    for place in range(len(NOTE)):
        for value in {NOTE[place] ^ 1, NOTE[place] ^ 0x80, 0x0A, 0x20} - {NOTE[place]}:
            changed = NOTE[:place] + bytes([value]) + NOTE[place + 1 :]
            with pytest.raises(BedsideError):
                verified_signatures(parse_note(changed), [LOG_ED.key])


def test_sixteen_signatures_are_taken_and_too_many_are_not():
    line = signed()
    assert len(Note(text=TEXT, signatures=(line,) * 16).signatures) == 16
    many = TEXT + "\n" + line.line * (MAX_SIGNATURES + 1)
    with pytest.raises(InvalidNoteError):
        parse_note(many.encode())
    with pytest.raises(InvalidNoteError):
        Note(text=TEXT, signatures=(line,) * (MAX_SIGNATURES + 1))


DASH = "\N{EM DASH}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        f"text\n\n{DASH} name AAAAAAA=".encode(),
        f"text\n{DASH} name AAAAAAA=\n".encode(),
        b"text\n\n- name AAAAAAA=\n",
        f"text\n\n{DASH} name AAAAAA==\n".encode(),
        f"text\n\n{DASH} name AAAAAAB=\n".encode(),
        f"text\n\n{DASH} name\n".encode(),
        f"text\n\n{DASH}  AAAAAAA=\n".encode(),
        f"text\n\n{DASH} na+me AAAAAAA=\n".encode(),
        f"text\n\n{DASH} na me AAAAAAA=\n".encode(),
        f"te\txt\n\n{DASH} name AAAAAAA=\n".encode(),
        f"text\r\n\n{DASH} name AAAAAAA=\n".encode(),
        b"\xff\n\n" + f"{DASH} name AAAAAAA=\n".encode(),
        b"a" * (MAX_NOTE + 1),
    ],
)
def test_a_malformed_note_is_refused(data):
    with pytest.raises(InvalidNoteError):
        parse_note(data)


def test_the_same_line_well_formed_is_read():
    assert parse_note(f"text\n\n{DASH} name AAAAAAA=\n".encode()).signatures[0].signature == b"\0"


@pytest.mark.parametrize(
    "name", ["", "a b", "a\u2003b", "a+b", "a\nb", "a\x01", "\ud800", "é" * 128]
)
def test_what_is_no_key_name_names_no_key(name):
    assert not is_key_name(name)
    with pytest.raises(InvalidKeyError):
        VerifierKey(name=name, kind=SignatureType.ED25519, public=LOG_ED.key.public)
    with pytest.raises(InvalidNoteError):
        NoteSignature(name=name, key_id=bytes(4), signature=b"x")


@pytest.mark.parametrize("pair", [LOG_ED, LOG_ML, HUB_ED])
def test_a_key_is_read_as_it_was_written(pair):
    assert parse_verifier_key(pair.key.text) == pair.key


def test_a_key_is_of_its_types_algorithm():
    with pytest.raises(InvalidKeyError):
        VerifierKey(name=ORIGIN, kind=SignatureType.ML_DSA_44_COSIGNATURE, public=LOG_ED.key.public)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000+",
        "name+00000000+!",
        LOG_ED.key.text.replace("50263a16", "50263A16"),
        LOG_ED.key.text.replace("50263a16", "50263a17"),
        LOG_ED.key.text.replace("site-a", "site-b"),
        LOG_ED.key.text[:-4],
        LOG_ED.key.text + "\n",
    ],
)
def test_a_malformed_key_is_refused(text):
    with pytest.raises(InvalidKeyError):
        parse_verifier_key(text)


def test_a_key_of_a_type_nobody_accepts_is_refused():
    typed = b"\x02" + bytes(32)
    key_id = hashlib.sha256(b"name\n" + typed).hexdigest()[:8]
    with pytest.raises(InvalidKeyError):
        parse_verifier_key(f"name+{key_id}+{to_base64(typed)}")


def test_two_keys_with_one_name_and_id_are_refused():
    first, second = colliding_keys()
    assert (first.key_id, first.name) == (second.key_id, second.name)
    note = Note(text=TEXT, signatures=(signed(),))
    with pytest.raises(InvalidKeyError):
        verified_signatures(note, [LOG_ED.key, first, second])
    assert len(verified_signatures(note, [LOG_ED.key, LOG_ED.key])) == 1


def colliding_keys() -> tuple[VerifierKey, VerifierKey]:
    """Two keys whose 32-bit ids agree: a birthday search over about 2^16 hashes."""
    seen: dict[bytes, int] = {}
    for number in range(1_000_000):
        raw = number.to_bytes(32, "big")
        key_id = hashlib.sha256(b"name\n\x01" + raw).digest()[:4]
        if key_id in seen:
            return make(seen[key_id]), make(number)
        seen[key_id] = number
    raise AssertionError("no two ids of a million agree")


def make(number: int) -> VerifierKey:
    public = PublicKey(algorithm=Algorithm.ED25519, raw=number.to_bytes(32, "big"))
    return VerifierKey(name="name", kind=SignatureType.ED25519, public=public)
