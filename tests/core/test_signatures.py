"""Signature verdicts, strict base64 and the DSSE envelope."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import (
    BedsideError,
    InvalidEnvelopeError,
    InvalidKeyError,
    UntrustedSignatureError,
)
from bedside_core.signatures import (
    MAX_ENVELOPE,
    Algorithm,
    PublicKey,
    countersigned,
    exact_base64,
    open_envelope,
    seal_envelope,
    signers_of,
    to_base64,
)
from support.evidence_log import HUB_ED, HUB_ML, LOG_ED, LOG_ML

TYPE = "application/vnd.bedside.test+json"
KEYS = {"ed": LOG_ED.key.public, "ml": LOG_ML.key.public}
SIGNERS = {"ed": LOG_ED.sign, "ml": LOG_ML.sign}


@pytest.mark.parametrize("pair", [LOG_ED, LOG_ML])
def test_a_key_accepts_its_own_signature_of_that_message_only(pair):
    public, signature = pair.key.public, pair.sign(b"message")
    assert public.accepts(b"message", signature)
    assert not public.accepts(b"messagE", signature)
    assert not public.accepts(b"message", signature[:-1])
    assert not public.accepts(b"message", signature + b"\0")


@given(place=st.integers(0, 63), bit=st.integers(0, 7))
def test_any_flipped_bit_of_an_ed25519_signature_is_seen(place, bit):
    signature = bytearray(LOG_ED.sign(b"message"))
    signature[place] ^= 1 << bit
    assert not LOG_ED.key.public.accepts(b"message", bytes(signature))


def test_two_ml_dsa_signatures_of_one_message_differ_and_both_hold():
    first, second = LOG_ML.sign(b"message"), LOG_ML.sign(b"message")
    assert first != second
    assert LOG_ML.key.public.accepts(b"message", first)
    assert LOG_ML.key.public.accepts(b"message", second)


def test_a_key_of_another_length_is_none():
    for algorithm in Algorithm:
        with pytest.raises(InvalidKeyError):
            PublicKey(algorithm=algorithm, raw=bytes(31))


def test_bytes_that_are_no_point_accept_nothing():
    public = PublicKey(algorithm=Algorithm.ED25519, raw=b"\xff" * 32)
    assert not public.accepts(b"message", bytes(64))


@given(data=st.binary(max_size=80))
def test_base64_returns_what_was_written(data):
    assert exact_base64(to_base64(data)) == data


@pytest.mark.parametrize("text", ["AB==", "AAA", "AA=", "A A=", "AA==\n", "_w==", "é", "AA==AA=="])
def test_a_second_spelling_of_base64_is_none(text):
    assert exact_base64(text) is None


def test_an_envelope_returns_the_payload_that_its_keys_signed():
    sealed = seal_envelope(TYPE, b"{}", SIGNERS)
    assert open_envelope(sealed, TYPE, KEYS, 2) == b"{}"
    assert open_envelope(sealed, TYPE, {"ed": KEYS["ed"]}, 1) == b"{}"


def test_an_envelope_in_the_url_safe_alphabet_is_read():
    payload = b"\xfb\xff\xfe"
    sealed = json.loads(seal_envelope(TYPE, payload, {"ed": LOG_ED.sign}))
    sealed["payload"] = base64.urlsafe_b64encode(payload).decode()
    assert open_envelope(json.dumps(sealed).encode(), TYPE, KEYS, 1) == payload


def test_one_key_under_two_ids_counts_once():
    sealed = seal_envelope(TYPE, b"{}", {"ed": LOG_ED.sign, "again": LOG_ED.sign})
    with pytest.raises(UntrustedSignatureError):
        open_envelope(sealed, TYPE, {"ed": KEYS["ed"], "again": KEYS["ed"]}, 2)


def test_unknown_keys_do_not_count():
    sealed = seal_envelope(TYPE, b"{}", {"stranger": HUB_ED.sign})
    with pytest.raises(UntrustedSignatureError):
        open_envelope(sealed, TYPE, KEYS, 1)


def test_a_failing_signature_of_a_trusted_key_condemns_the_envelope():
    sealed = seal_envelope(TYPE, b"{}", {"ed": LOG_ED.sign, "ml": HUB_ML.sign})
    with pytest.raises(UntrustedSignatureError):
        open_envelope(sealed, TYPE, KEYS, 1)


def test_an_envelope_of_another_type_or_with_no_threshold_is_refused():
    sealed = seal_envelope(TYPE, b"{}", SIGNERS)
    with pytest.raises(InvalidEnvelopeError):
        open_envelope(sealed, "text/plain", KEYS, 1)
    with pytest.raises(InvalidEnvelopeError):
        open_envelope(sealed, TYPE, KEYS, 0)


def changed(**fields) -> bytes:
    return json.dumps(json.loads(seal_envelope(TYPE, b"{}", SIGNERS)) | fields).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b" " * (MAX_ENVELOPE + 1),
        changed(payload=None),
        changed(payload="!"),
        changed(payloadType=7),
        changed(signatures=[7]),
        changed(signatures=[{"keyid": 7, "sig": ""}]),
        changed(signatures=[{"keyid": "ed"}]),
        changed(signatures=[{"sig": ""}] * 65),
    ],
)
def test_what_is_no_envelope_is_refused(data):
    with pytest.raises(InvalidEnvelopeError):
        open_envelope(data, TYPE, KEYS, 1)


SEALED = seal_envelope(TYPE, b'{"a":1}', {"ed": LOG_ED.sign})


@given(place=st.integers(0, len(SEALED) - 1), value=st.integers(0, 255))
def test_a_changed_byte_never_opens_to_another_payload(place, value):
    data = SEALED[:place] + bytes([value]) + SEALED[place + 1 :]
    try:
        assert open_envelope(data, TYPE, KEYS, 1) == b'{"a":1}'
    except BedsideError:
        assert data != SEALED


# --- who signed, and signing again -----------------------------------------------------------


def test_signers_are_the_trusted_keys_that_signed_each_once():
    both = seal_envelope(TYPE, b"payload", SIGNERS)
    assert signers_of(both, TYPE, KEYS) == ("ed", "ml")
    assert signers_of(both, TYPE, {"ed": KEYS["ed"]}) == ("ed",)
    twice = KEYS | {"ed-again": KEYS["ed"]}
    doubled = seal_envelope(TYPE, b"payload", SIGNERS | {"ed-again": LOG_ED.sign})
    assert len(signers_of(doubled, TYPE, twice)) == 2
    assert signers_of(seal_envelope(TYPE, b"x", {"ed": HUB_ED.sign}), TYPE, KEYS) == ()
    with pytest.raises(InvalidEnvelopeError):
        signers_of(both, "other", KEYS)


def test_a_second_person_signs_the_same_payload():
    one = seal_envelope(TYPE, b"payload", {"ed": LOG_ED.sign})
    two = countersigned(one, TYPE, {"ml": LOG_ML.sign})
    assert open_envelope(two, TYPE, KEYS, 2) == b"payload"
    again = countersigned(two, TYPE, {"ml": LOG_ML.sign})
    assert len(json.loads(again)["signatures"]) == 2
    with pytest.raises(InvalidEnvelopeError):
        countersigned(one, "other", {"ml": LOG_ML.sign})
