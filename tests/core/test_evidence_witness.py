"""A witness cosigns one history of a log: every row of the protocol's table, on both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidNoteError, InvalidRequestError, UntrustedSignatureError
from bedside_core.evidence.checkpoint import Checkpoint, open_checkpoint, signed_note
from bedside_core.evidence.merkle import EMPTY_ROOT, consistency_proof, root_at
from bedside_core.evidence.witness import (
    NOTE_TYPE,
    SIZE_TYPE,
    Outcome,
    Request,
    Seen,
    Verdict,
    Why,
    contradiction,
    cosign,
    cosignatures,
    judge,
    parse_request,
    read_answer,
)
from support.evidence_log import HUB_ED, HUB_ML, LOG_ED, LOG_ML, ORIGIN, STRANGER, head, tree

KEYS = (LOG_ED.key, LOG_ML.key)
ENTRIES = [f"entry {number}".encode() for number in range(20)]
OTHERS = [*ENTRIES[:5], *(f"other {number}".encode() for number in range(15))]


def signed(checkpoint: Checkpoint, *pairs) -> bytes:
    pairs = pairs or (LOG_ED, LOG_ML)
    lines = [p.signs(checkpoint, 7 if p is not LOG_ED else 0) for p in pairs]
    return signed_note(checkpoint, lines)


def asked(old: int, size: int, entries=ENTRIES, *, proof=None, note=b"") -> bytes:
    entries = entries[:size]
    if proof is None:
        proof = consistency_proof(old, size, tree(entries)) if old <= size else []
    note = note or signed(head(entries))
    return Request(old=old, proof=tuple(proof), checkpoint=note).encode()


def seen(size: int, entries=ENTRIES) -> Seen:
    return Seen(size=size, root=root_at(size, tree(entries[:size])) if size else EMPTY_ROOT)


def judged(data: bytes, last: Seen | None = None, keys=KEYS) -> Verdict:
    return judge(data, lambda origin: keys if origin == ORIGIN else (), lambda _: last)


# --- the request ---------------------------------------------------------------------------------


def test_a_request_is_read_as_it_was_written():
    request = Request(old=3, proof=(bytes(32), b"\1" * 32), checkpoint=signed(head(ENTRIES)))
    assert parse_request(request.encode()) == request


@pytest.mark.parametrize(
    "start",
    [
        b"old 010\n\n",
        b"old -1\n\n",
        b"old x\n\n",
        b"old \n\n",
        b"old 1",
        b"new 1\n\n",
        b"old 1 \n\n",
        b"old 9223372036854775808\n\n",
        b"old 1\nAAAA\n\n",
        b"old 1\nnot base64\n\n",
        b"old 1\n\xff\n\n",
        b"old 1\n" + b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" * 64 + b"\n",
    ],
)
def test_a_malformed_request_is_400(start):
    data = start + signed(head(ENTRIES))
    with pytest.raises(InvalidRequestError):
        parse_request(data)
    assert judged(data).why is Why.MALFORMED
    assert judged(data).why.status == 400


def test_a_request_has_a_size_and_hashes():
    with pytest.raises(InvalidRequestError):
        Request(old=-1, proof=(), checkpoint=b"")
    with pytest.raises(InvalidRequestError):
        Request(old=0, proof=(bytes(32),) * 64, checkpoint=b"")
    with pytest.raises(InvalidRequestError):
        Request(old=0, proof=(bytes(31),), checkpoint=b"")
    with pytest.raises(InvalidRequestError):
        parse_request(b"old 0\n\n" + bytes(2_000_000))


@pytest.mark.parametrize(
    "checkpoint", [b"", b"no note", b"a\nb\nc\n\n" + "— x AAAAAAA=\n".encode()]
)
def test_a_request_without_a_checkpoint_is_400(checkpoint):
    assert judged(b"old 0\n\n" + checkpoint).why is Why.MALFORMED


@given(st.binary(max_size=400))
def test_no_bytes_make_a_witness_stumble(data):
    assert judged(data).why is Why.MALFORMED
    assert judged(b"old 1\n\n" + data).why is Why.MALFORMED


# --- the checks in their order -------------------------------------------------------------------


def test_an_unknown_origin_is_404():
    verdict = judge(asked(0, 5), lambda _: (), lambda _: None)
    assert (verdict.why, verdict.why.status, verdict.checkpoint) == (Why.UNKNOWN_ORIGIN, 404, None)


def test_a_checkpoint_no_trusted_key_signed_is_403():
    renamed = signed(head(ENTRIES[:5]), STRANGER)
    verdict = judged(asked(0, 5, note=renamed))
    assert (verdict.why, verdict.why.status, verdict.suspicious) == (Why.UNTRUSTED, 403, False)


def test_one_of_two_keys_is_not_enough():
    assert judged(asked(0, 5, note=signed(head(ENTRIES[:5]), LOG_ED))).why is Why.UNTRUSTED


def test_a_failing_line_of_a_trusted_key_is_403():
    note = signed(head(ENTRIES[:5])).replace(b"\n5\n", b"\n6\n", 1)
    assert judged(asked(0, 5, note=note)).why is Why.UNTRUSTED


def test_an_old_size_above_the_checkpoint_is_400():
    verdict = judged(asked(9, 5), seen(9))
    assert (verdict.why, verdict.why.status) == (Why.OLD_ABOVE_SIZE, 400)


@pytest.mark.parametrize(("old", "last"), [(0, 5), (3, 5), (7, 5), (3, None)])
def test_another_old_size_is_409_and_names_the_last(old, last):
    verdict = judged(asked(old, 9), seen(last) if last else None)
    assert (verdict.why, verdict.why.status) == (Why.OTHER_SIZE, 409)
    assert verdict.body == f"{last or 0}\n".encode()
    assert verdict.content_type == SIZE_TYPE
    assert not verdict.suspicious


def test_an_empty_log_has_the_empty_root():
    empty = Checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT)
    assert judged(asked(0, 0, note=signed(empty))).why is Why.COSIGNED
    wrong = Checkpoint(origin=ORIGIN, size=0, root=bytes(32))
    assert judged(asked(0, 0, note=signed(wrong))).why is Why.OTHER_ROOT


def test_from_nothing_there_is_nothing_to_prove():
    verdict = judged(asked(0, 5, proof=[bytes(32)]))
    assert (verdict.why, verdict.why.status, verdict.suspicious) == (Why.NEEDLESS_PROOF, 422, False)


def test_another_root_at_the_same_size_is_422():
    verdict = judged(asked(9, 9, OTHERS), seen(9))
    assert (verdict.why, verdict.why.status, verdict.suspicious) == (Why.OTHER_ROOT, 422, True)


def test_a_proof_that_fails_is_422():
    verdict = judged(asked(9, 15, OTHERS), seen(9))
    assert (verdict.why, verdict.why.status, verdict.suspicious) == (Why.INCONSISTENT, 422, True)
    assert (verdict.body, verdict.content_type) == (b"inconsistent\n", NOTE_TYPE)
    assert judged(asked(9, 9, proof=[bytes(32)]), seen(9)).why is Why.INCONSISTENT


@given(st.integers(0, 20), st.integers(0, 20))
def test_every_growth_is_cosigned_and_nothing_else(old, size):
    verdict = judged(asked(old, size), seen(old) if old else None)
    assert (verdict.why is Why.COSIGNED) is (old <= size)


@given(st.integers(6, 20), st.integers(6, 20))
def test_no_fork_is_ever_cosigned(old, size):
    verdict = judged(asked(old, size, OTHERS), seen(old))
    assert verdict.why is not Why.COSIGNED
    assert verdict.suspicious


# --- restored, cloned, rolled back: the table ----------------------------------------------------


@pytest.mark.parametrize(
    ("old", "size", "entries", "why"),
    [
        (6, 8, ENTRIES, Why.OTHER_SIZE),  # restored, smaller, believes its own old size
        (12, 8, ENTRIES, Why.OLD_ABOVE_SIZE),  # old size corrected, tree smaller
        (6, 15, OTHERS, Why.OTHER_SIZE),  # restored and grown past it with other entries,
        (12, 15, OTHERS, Why.INCONSISTENT),  # ... then the proof fails
        (12, 12, OTHERS, Why.OTHER_ROOT),
    ],
)
def test_restored_and_cloned_logs_are_refused(old, size, entries, why):
    verdict = judged(asked(old, size, entries), seen(12))
    assert verdict.why is why
    assert verdict.last == 12
    # the one that has grown and only asks from the wrong size may still be honest
    assert verdict.suspicious is ((old, size) != (6, 15))


def test_the_same_small_head_with_other_signers_stays_proof():
    verdict = judged(asked(0, 12, OTHERS), seen(12))
    assert verdict.why is Why.OTHER_SIZE
    assert verdict.suspicious
    assert verdict.note == parse_request(asked(0, 12, OTHERS, note=verdict.note)).checkpoint


def test_asking_without_knowledge_is_no_offence():
    assert not judged(asked(0, 12), seen(12)).suspicious


# --- the answer ----------------------------------------------------------------------------------


def test_cosignatures_are_read_back_and_count():
    note = signed(head(ENTRIES))
    body = cosign(head(ENTRIES), [(HUB_ED.key, HUB_ED.sign), (HUB_ML.key, HUB_ML.sign)], 99)
    lines = cosignatures(note, body + STRANGER.signs(head(ENTRIES), 5).line.encode(), [HUB_ED.key])
    assert [line.key_id for line in lines] == [HUB_ED.key.key_id]
    opened = open_checkpoint(note + body, ORIGIN, KEYS, [HUB_ED.key, HUB_ML.key])
    assert [signer.time for signer in opened.signers[2:]] == [99, 99]


def test_cosignatures_of_something_else_are_refused():
    note = signed(head(ENTRIES))
    body = cosign(head(OTHERS), [(HUB_ED.key, HUB_ED.sign)], 99)
    with pytest.raises(UntrustedSignatureError):
        cosignatures(note, body, [HUB_ED.key])
    with pytest.raises(UntrustedSignatureError):
        cosignatures(note, body, [STRANGER.key])
    with pytest.raises(InvalidNoteError):
        cosignatures(note, b"", [HUB_ED.key])


@pytest.mark.parametrize(
    ("old", "size", "status", "body", "expected"),
    [
        (3, 9, 200, b"lines", (Outcome.COSIGNED, 0)),
        (3, 9, 409, b"5\n", (Outcome.AGAIN, 5)),
        (3, 9, 409, b"9\n", (Outcome.AGAIN, 9)),
        (3, 9, 409, b"12\n", (Outcome.AHEAD, 12)),
        (9, 9, 409, b"9\n", (Outcome.OTHER, 9)),  # the text of C2SP, for another root
        (3, 9, 409, b"3\n", (Outcome.BROKEN, 3)),
        (3, 9, 409, b"03\n", (Outcome.BROKEN, 0)),
        (3, 9, 409, b"3", (Outcome.BROKEN, 0)),
        (3, 9, 409, b"\xff\n", (Outcome.BROKEN, 0)),
        (12, 9, 400, b"", (Outcome.AHEAD, 12)),
        (3, 9, 400, b"", (Outcome.BROKEN, 0)),
        (3, 9, 422, b"", (Outcome.OTHER, 0)),
        (3, 9, 403, b"", (Outcome.NOT_WATCHED, 0)),
        (3, 9, 404, b"", (Outcome.NOT_WATCHED, 0)),
        (3, 9, 503, b"", (Outcome.BROKEN, 0)),
    ],
)
def test_what_an_answer_means(old, size, status, body, expected):
    assert read_answer(old, size, status, f"{SIZE_TYPE}; charset=utf-8", body) == expected


def test_a_conflict_without_its_media_type_is_no_answer():
    assert read_answer(3, 9, 409, "text/html", b"12\n") == (Outcome.BROKEN, 0)


def test_only_the_logs_own_keys_contradict_it():
    def root_of_ours(size: int) -> bytes | None:
        return root_at(size, tree(ENTRIES[:size])) if size <= 12 else None

    def shown(entries, *pairs):
        return contradiction(signed(head(entries), *pairs), ORIGIN, KEYS, root_of_ours)

    assert shown(ENTRIES[:9]) is None
    assert shown(ENTRIES[:12]) is None
    assert shown(ENTRIES[:13]) == head(ENTRIES[:13])  # it saw more
    assert shown(OTHERS[:9]) == head(OTHERS[:9])  # it saw something else
    assert shown(ENTRIES[:13], LOG_ED, STRANGER) is None
    assert contradiction(b"nothing", ORIGIN, KEYS, root_of_ours) is None
