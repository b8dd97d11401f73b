"""Checkpoints and cosignatures: strict text, both keys of the log, times where they belong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import (
    BedsideError,
    InvalidKeyError,
    InvalidNoteError,
    UntrustedSignatureError,
    WrongOriginError,
)
from bedside_core.evidence.checkpoint import (
    MAX_SIZE,
    MAX_TIME,
    Checkpoint,
    cosignature_message,
    open_checkpoint,
    parse_checkpoint_text,
    sign_checkpoint,
    signed_note,
    subtree_message,
)
from bedside_core.evidence.note import NoteSignature, is_key_name
from support.evidence_log import HUB_ED, HUB_ML, LOG_ED, LOG_ML, ORIGIN, STRANGER, WITNESS

ROOT = bytes(range(32))
POINT = Checkpoint(origin=ORIGIN, size=42, root=ROOT)
TIME = 1_767_225_600
LOG = [LOG_ED.key, LOG_ML.key]
HUB = [HUB_ED.key, HUB_ML.key]
LOG_LINES = [LOG_ED.signs(POINT), LOG_ML.signs(POINT, TIME)]
HUB_LINES = [HUB_ED.signs(POINT, TIME + 1), HUB_ML.signs(POINT, TIME + 2)]
CHECKPOINTS = st.builds(
    Checkpoint,
    origin=st.text(min_size=1, max_size=30).filter(is_key_name),
    size=st.integers(0, MAX_SIZE),
    root=st.binary(min_size=32, max_size=32),
)


def timed(line: NoteSignature, time: int) -> NoteSignature:
    signature = time.to_bytes(8, "big") + line.signature[8:]
    return NoteSignature(name=line.name, key_id=line.key_id, signature=signature)


@given(checkpoint=CHECKPOINTS)
def test_a_checkpoint_is_read_as_it_was_written(checkpoint):
    assert parse_checkpoint_text(checkpoint.text) == checkpoint


def test_log_and_witnesses_are_returned_with_their_times():
    data = signed_note(POINT, [*HUB_LINES, *LOG_LINES])
    opened = open_checkpoint(data, ORIGIN, LOG, [*HUB, STRANGER.key])
    assert opened.checkpoint == POINT
    assert [(signer.key, signer.time) for signer in opened.signers] == [
        (LOG_ED.key, 0),
        (LOG_ML.key, TIME),
        (HUB_ED.key, TIME + 1),
        (HUB_ML.key, TIME + 2),
    ]


def test_a_log_key_named_twice_is_one_signer():
    opened = open_checkpoint(signed_note(POINT, LOG_LINES), ORIGIN, [LOG_ED.key, LOG_ED.key])
    assert [signer.key for signer in opened.signers] == [LOG_ED.key]


@pytest.mark.parametrize("line", LOG_LINES)
def test_one_of_the_logs_two_signatures_is_not_enough(line):
    with pytest.raises(UntrustedSignatureError):
        open_checkpoint(signed_note(POINT, [line]), ORIGIN, LOG)


def test_witnesses_do_not_stand_in_for_the_log():
    with pytest.raises(UntrustedSignatureError):
        open_checkpoint(signed_note(POINT, HUB_LINES), ORIGIN, LOG, HUB)


def test_a_checkpoint_of_another_log_is_refused():
    other = Checkpoint(origin=ORIGIN + "#2", size=42, root=ROOT)
    with pytest.raises(WrongOriginError):
        open_checkpoint(signed_note(other, [LOG_ED.signs(other)]), ORIGIN, [LOG_ED.key])


@pytest.mark.parametrize("keys", [[], [HUB_ED.key], [LOG_ED.key, HUB_ED.key]])
def test_a_log_is_asked_for_its_own_keys(keys):
    with pytest.raises(InvalidKeyError):
        open_checkpoint(signed_note(POINT, LOG_LINES), ORIGIN, keys)


@pytest.mark.parametrize("line", HUB_LINES)
@pytest.mark.parametrize("time", [0, TIME, MAX_TIME + 1])
def test_a_cosignature_with_another_time_fails(line, time):
    with pytest.raises(UntrustedSignatureError):
        open_checkpoint(signed_note(POINT, [*LOG_LINES, timed(line, time)]), ORIGIN, LOG, HUB)


def test_a_cosignature_without_room_for_a_time_fails():
    line = NoteSignature(name=WITNESS, key_id=HUB_ED.key.key_id, signature=bytes(7))
    with pytest.raises(UntrustedSignatureError):
        open_checkpoint(signed_note(POINT, [*LOG_LINES, line]), ORIGIN, LOG, HUB)


def test_a_time_of_zero_fails_even_when_it_was_signed():
    signature = bytes(8) + HUB_ED.sign(cosignature_message(POINT, 0))
    line = NoteSignature(name=WITNESS, key_id=HUB_ED.key.key_id, signature=signature)
    with pytest.raises(UntrustedSignatureError):
        open_checkpoint(signed_note(POINT, [*LOG_LINES, line]), ORIGIN, LOG, HUB)


@pytest.mark.parametrize(
    "other", [POINT.text.replace("42", "43"), POINT.text.replace("AAEC", "AAED")]
)
@pytest.mark.parametrize("lines", [LOG_LINES[:1], LOG_LINES[1:]])
def test_a_signature_does_not_move_to_another_checkpoint(other, lines):
    note = signed_note(parse_checkpoint_text(other), lines)
    keys = [key for key in LOG if key.key_id == lines[0].key_id]
    with pytest.raises(UntrustedSignatureError):
        open_checkpoint(note, ORIGIN, keys)


NOTE = signed_note(POINT, [LOG_ED.signs(POINT)])


def test_any_changed_byte_of_a_signed_checkpoint_is_seen():
    for place in range(len(NOTE)):
        for value in {NOTE[place] ^ 1, NOTE[place] ^ 0x80, 0x0A, 0x30} - {NOTE[place]}:
            changed = NOTE[:place] + bytes([value]) + NOTE[place + 1 :]
            with pytest.raises(BedsideError):
                open_checkpoint(changed, ORIGIN, [LOG_ED.key])


COSIGNED = signed_note(POINT, [*LOG_LINES, HUB_LINES[0]])


@given(place=st.integers(0, len(COSIGNED) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_leaves_a_cosignature_standing(place, bit):
    changed = bytearray(COSIGNED)
    changed[place] ^= 1 << bit
    try:
        opened = open_checkpoint(bytes(changed), ORIGIN, LOG, HUB)
    except BedsideError:
        return
    assert opened.checkpoint == POINT  # only the witness's name or id changed: it is unknown now
    assert [signer.key for signer in opened.signers] == LOG


@pytest.mark.parametrize(("pair", "length"), [(HUB_ED, 110), (HUB_ML, 3250)])
def test_a_cosignature_line_has_the_length_of_its_text(pair, length):
    # newline included; the em dash has three bytes
    assert len(pair.signs(POINT, TIME).line.encode()) == length + len(WITNESS)


def test_the_messages_are_those_of_the_cosignature_text():
    assert cosignature_message(POINT, TIME) == (
        b"cosignature/v1\ntime 1767225600\n" + POINT.text.encode()
    )
    assert subtree_message("name", 7, "log", 1, 2, ROOT) == (
        b"subtree/v1\n\0\x04name" + (7).to_bytes(8, "big") + b"\x03log"
        b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02" + ROOT
    )


@pytest.mark.parametrize(
    ("pair", "time"),
    [(LOG_ED, TIME), (HUB_ED, 0), (HUB_ML, 0), (HUB_ED, -1), (HUB_ED, MAX_TIME + 1)],
)
def test_a_time_that_does_not_fit_the_type_is_not_signed(pair, time):
    with pytest.raises(InvalidKeyError):
        pair.signs(POINT, time)


@pytest.mark.parametrize("pair", [LOG_ED, HUB_ED])
def test_a_signer_of_another_key_publishes_nothing(pair):
    time = 0 if pair is LOG_ED else TIME
    with pytest.raises(InvalidKeyError):
        sign_checkpoint(POINT, pair.key, STRANGER.sign, time)


@pytest.mark.parametrize(
    "text",
    [
        POINT.text + "extension\n",
        POINT.text[:-1],
        POINT.text + "\n",
        POINT.text.replace("\n42\n", "\n042\n"),
        POINT.text.replace("\n42\n", "\n-1\n"),
        POINT.text.replace("\n42\n", "\n+42\n"),
        POINT.text.replace("\n42\n", "\n\N{ARABIC-INDIC DIGIT FOUR}\n"),
        POINT.text.replace("\n42\n", "\n\n"),
        POINT.text.replace("\n42\n", f"\n{2**63}\n"),
        POINT.text.replace("\n42\n", "\n" + "9" * 5000 + "\n"),
        POINT.text.replace("8=", "9="),
        POINT.text.replace("AAEC", ""),
        POINT.text.replace(ORIGIN, ""),
        POINT.text.replace(ORIGIN, "a b"),
    ],
)
def test_a_second_spelling_of_a_checkpoint_is_refused(text):
    assert text != POINT.text
    with pytest.raises(InvalidNoteError):
        parse_checkpoint_text(text)


@pytest.mark.parametrize("fields", [{"size": -1}, {"root": bytes(31)}, {"origin": "a b"}])
def test_what_is_no_checkpoint_cannot_exist(fields):
    with pytest.raises(InvalidNoteError):
        Checkpoint(**{"origin": ORIGIN, "size": 1, "root": ROOT} | fields)
