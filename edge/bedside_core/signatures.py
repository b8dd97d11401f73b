"""Signature checks and the DSSE envelope: bytes in, a verdict out.

This is the one module of the rules that reaches an outside library, for the two public-key
algorithms. It holds no private key: whoever signs hands in a function from message to signature.
Two algorithms exist and a key belongs to exactly one, so nothing in a message can choose how it
is checked.

Sources: RFC 8032 (Ed25519), FIPS 204 (ML-DSA-44), DSSE protocol v1.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from bedside_core.errors import InvalidEnvelopeError, InvalidKeyError, UntrustedSignatureError

Sign = Callable[[bytes], bytes]  # message -> signature; the private key stays with the caller

MAX_ENVELOPE = 1 << 20  # bytes
MAX_ENVELOPE_SIGNATURES = 64
_URL_SAFE = str.maketrans("-_", "+/")


class Algorithm(Enum):
    """The signature algorithms Bedside accepts."""

    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"


KEY_BYTES = {Algorithm.ED25519: 32, Algorithm.ML_DSA_44: 1312}
SIGNATURE_BYTES = {Algorithm.ED25519: 64, Algorithm.ML_DSA_44: 2420}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public key and the one algorithm it is used with.

    Attributes:
        algorithm: how signatures under this key are checked.
        raw: the key's bytes as its standard encodes them: 32 (RFC 8032) or 1312 (FIPS 204).
    """

    algorithm: Algorithm
    raw: bytes

    def __post_init__(self) -> None:
        wanted = KEY_BYTES[self.algorithm]
        if len(self.raw) != wanted:
            raise InvalidKeyError(
                f"a key of {self.algorithm.value} has {wanted} bytes, got {len(self.raw)}"
            )

    def accepts(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's signature of exactly `message`.

        ML-DSA-44 is checked in its pure form with an empty context, as the cosignature text asks.
        Needs a `cryptography` that offers ML-DSA; where the library is built without it, its
        UnsupportedAlgorithm passes through: an environment that cannot check is no verdict.
        """
        if len(signature) != SIGNATURE_BYTES[self.algorithm]:
            return False
        try:
            if self.algorithm is Algorithm.ED25519:
                Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
            else:
                MLDSA44PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):  # ValueError: the bytes are no point of the curve
            return False
        return True


def exact_base64(text: str) -> bytes | None:
    """Decode standard base64 with padding; None unless `text` is the only encoding of its bytes.

    Python's decoder ignores the bits left over in the last character, so two texts can mean the
    same bytes. Here they cannot: a changed character is always seen.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if to_base64(data) == text else None


def to_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


# --- DSSE ------------------------------------------------------------------------------------


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature covers: both parts with their lengths, so neither can slide."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal_envelope(payload_type: str, payload: bytes, signers: Mapping[str, Sign]) -> bytes:
    """Return the envelope of `payload`, signed by each function under its key id, as JSON."""
    message = pre_authentication(payload_type, payload)
    envelope = {
        "payload": to_base64(payload),
        "payloadType": payload_type,
        "signatures": [
            {"keyid": key_id, "sig": to_base64(sign(message))} for key_id, sign in signers.items()
        ],
    }
    return json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode("ascii")


def open_envelope(
    data: bytes, payload_type: str, keys: Mapping[str, PublicKey], threshold: int
) -> bytes:
    """Return the payload once `threshold` different trusted keys have signed it.

    Args:
        data: the envelope's JSON, at most 1 MiB.
        payload_type: the only type accepted.
        keys: trusted keys by key id. The id in the envelope is a hint and no more: a signature
            counts for the key that accepts it, and one key counts once whatever its ids.
        threshold: how many keys must have signed; at least 1.

    Raises:
        InvalidEnvelopeError: not an envelope, of another type, or `threshold` below 1.
        UntrustedSignatureError: a signature under a trusted id fails, or too few keys signed.
    """
    if threshold < 1:
        raise InvalidEnvelopeError(f"an envelope needs at least 1 signature, asked for {threshold}")
    found_type, payload, signatures = _parse_envelope(data)
    if found_type != payload_type:
        raise InvalidEnvelopeError("the envelope holds another type of payload")
    message = pre_authentication(payload_type, payload)
    signed: set[tuple[Algorithm, bytes]] = set()
    for key_id, signature in signatures:
        key = keys.get(key_id)
        if key is None:
            continue
        if not key.accepts(message, signature):
            raise UntrustedSignatureError("the signature of a trusted key fails")
        signed.add((key.algorithm, key.raw))
    if len(signed) < threshold:
        raise UntrustedSignatureError(f"{len(signed)} trusted keys signed, {threshold} are needed")
    return payload


def signers_of(data: bytes, payload_type: str, keys: Mapping[str, PublicKey]) -> tuple[str, ...]:
    """Return the ids of the keys that signed the envelope, each key once, in order of the ids.

    Raises:
        InvalidEnvelopeError: not an envelope, or of another type.
    """
    found_type, payload, signatures = _parse_envelope(data)
    if found_type != payload_type:
        raise InvalidEnvelopeError("the envelope holds another type of payload")
    message = pre_authentication(payload_type, payload)
    signed = {
        (key.algorithm, key.raw): key_id
        for key_id, signature in sorted(signatures, reverse=True)
        if (key := keys.get(key_id)) is not None and key.accepts(message, signature)
    }
    return tuple(sorted(signed.values()))


def countersigned(data: bytes, payload_type: str, signers: Mapping[str, Sign]) -> bytes:
    """Return the envelope with further signatures over the same payload.

    Raises:
        InvalidEnvelopeError: not an envelope, or of another type.
    """
    found_type, payload, signatures = _parse_envelope(data)
    if found_type != payload_type:
        raise InvalidEnvelopeError("the envelope holds another type of payload")
    held = dict(signatures)
    made = json.loads(seal_envelope(payload_type, payload, signers))
    kept = [
        {"keyid": key_id, "sig": to_base64(signature)}
        for key_id, signature in held.items()
        if key_id not in signers
    ]
    made["signatures"] = kept + made["signatures"]
    return json.dumps(made, sort_keys=True, separators=(",", ":")).encode("ascii")


def _parse_envelope(data: bytes) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    """The parts of an envelope; fields nobody asked for are ignored, as DSSE wants."""
    if len(data) > MAX_ENVELOPE:
        raise InvalidEnvelopeError(f"an envelope has at most {MAX_ENVELOPE} bytes")
    try:
        envelope: Any = json.loads(data.decode("utf-8"))
        payload_type, payload = envelope["payloadType"], _either_base64(envelope["payload"])
        listed = [(s.get("keyid", ""), _either_base64(s["sig"])) for s in envelope["signatures"]]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as cause:
        raise InvalidEnvelopeError("not a DSSE envelope") from cause
    if not isinstance(payload_type, str) or not all(isinstance(k, str) for k, _ in listed):
        raise InvalidEnvelopeError("a type or key id of the envelope is not a string")
    if len(listed) > MAX_ENVELOPE_SIGNATURES:
        raise InvalidEnvelopeError(f"an envelope has at most {MAX_ENVELOPE_SIGNATURES} signatures")
    return payload_type, payload, listed


def _either_base64(text: str) -> bytes:
    """DSSE lets a writer choose the standard or the URL-safe alphabet; a reader takes both."""
    data = exact_base64(text.translate(_URL_SAFE))
    if data is None:
        raise InvalidEnvelopeError("a field of the envelope is not base64")
    return data
