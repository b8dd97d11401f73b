"""The box's one message of a round: masked vector, sealed seeds, commitments, signature.

The masked vector is uniform to whoever misses one seed. Every t-subset of helpers misses the seed
of its own subset, so hub and t helpers together see uniform words. Envelopes are bound to round,
box, helper and vector through HPKE's info: a copy sent elsewhere does not open.

Source: RFC 9180 (HPKE base mode, X25519, HKDF-SHA256, AES-256-GCM).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from numpy.typing import NDArray
from pydantic import Field

from bedside_core.errors import InvalidInputError, RoundRefusedError, UntrustedSignatureError
from bedside_core.signatures import PublicKey, Sign
from bedside_sync.secagg.bodies import Body
from bedside_sync.secagg.manifest import Manifest
from bedside_sync.secagg.prg import (
    SEED_BYTES,
    Tag,
    Words,
    add_mask,
    digest,
    enc,
    signed_bytes,
    vector_digest,
)
from bedside_sync.secagg.ring import to_ring
from bedside_sync.secagg.roster import Hex32, Hex64, Name

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_ENVELOPE_OVERHEAD: Final = 48


class ReportBody(Body):
    """What the box signs."""

    manifest: Hex32
    box: Name
    vector: Hex32  # digest of the masked vector
    commitments: Annotated[list[Hex32], Field(max_length=1820)]  # one per subset, in their order
    envelopes: Annotated[list[Hex32], Field(max_length=16)]  # digest of each helper's envelope
    code: Hex32


class Report(Body):
    """Body and signature: what hub and helpers keep beside the chunks of the vector."""

    body: ReportBody
    signature: Hex64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """All a box sends; made once, written to disk, and from then on only read back."""

    report: Report
    envelopes: tuple[bytes, ...] = field(repr=False)
    masked: Words = field(repr=False)
    chunks: tuple[bytes, ...] = field(repr=False)  # digests


def make_report(
    manifest: Manifest,
    *,
    box: str,
    noisy: NDArray[np.int64],
    seeds: Sequence[bytes],
    code: bytes,
    sign: Sign,
) -> Sealed:
    """Mask a noisy sum of bounded patients and seal the seeds to the helpers.

    Args:
        manifest: the round, checked and agreed to.
        box: this box's name.
        noisy: (d,) sum over patients plus this box's noise.
        seeds: one fresh seed of 32 random bytes per subset; the caller wipes them afterwards and
            never stores them. The same seeds under another vector would reveal the difference.
        code: digest of the code that computed the vector.
        sign: the box's Ed25519 signature.

    Raises:
        InvalidInputError: vector or seeds of another length, or a seed given twice.
    """
    if noisy.shape != (manifest.length,):
        raise InvalidInputError(f"the round's vector has {manifest.length} words")
    if len(seeds) != len(manifest.subsets) or len(set(seeds)) != len(seeds):
        raise InvalidInputError(f"a report takes {len(manifest.subsets)} different seeds")
    masked = to_ring(noisy, manifest.ring)
    for seed in seeds:
        add_mask(masked, seed, manifest.ring)
    whole, chunks = vector_digest(masked, manifest.ring)
    commitments = [_commitment(manifest, box, index, seed) for index, seed in enumerate(seeds)]
    envelopes = tuple(
        _seal(manifest, box, helper, whole, commitments, seeds)
        for helper in range(len(manifest.helpers))
    )
    body = ReportBody(
        manifest=manifest.hash.hex(),
        box=box,
        vector=whole.hex(),
        commitments=[commitment.hex() for commitment in commitments],
        envelopes=[digest(Tag.ENVELOPE, envelope).hex() for envelope in envelopes],
        code=code.hex(),
    )
    signature = sign(signed_bytes(Tag.REPORT, body.encode()))
    return Sealed(
        report=Report(body=body, signature=signature.hex()),
        envelopes=envelopes,
        masked=masked,
        chunks=tuple(chunks),
    )


def check_report(manifest: Manifest, report: Report, key: PublicKey) -> None:
    """Check that a report belongs to the round and is signed by its box.

    Raises:
        RoundRefusedError: of another round or code, or of another shape.
        UntrustedSignatureError: the signature fails.
    """
    body = report.body
    if bytes.fromhex(body.manifest) != manifest.hash or body.code != manifest.code:
        raise RoundRefusedError("the report is of another round or code")
    if len(body.commitments) != len(manifest.subsets) or len(body.envelopes) != len(
        manifest.helpers
    ):
        raise RoundRefusedError("the report has another number of seeds than the round")
    message = signed_bytes(Tag.REPORT, body.encode())
    if not key.accepts(message, bytes.fromhex(report.signature)):
        raise UntrustedSignatureError("the report is not signed by its box")


def open_envelope(
    manifest: Manifest, report: Report, helper: int, envelope: bytes, private: X25519PrivateKey
) -> Mapping[int, bytes]:
    """Return the seeds a helper gets from one box, by subset.

    Raises:
        RoundRefusedError: the envelope is not the one signed, does not open, or a seed is not
            what was committed to: the helper complains and the hub drops the box.
    """
    body = report.body
    if digest(Tag.ENVELOPE, envelope).hex() != body.envelopes[helper]:
        raise RoundRefusedError("the envelope is not the one the box signed")
    known = _known(manifest, helper)
    commitments = [bytes.fromhex(one) for one in body.commitments]
    info = _info(manifest, body.box, helper, bytes.fromhex(body.vector), commitments)
    try:
        plain = _SUITE.decrypt(envelope, private, info=info)
    except (InvalidTag, ValueError) as cause:
        raise RoundRefusedError("the envelope does not open") from cause
    if len(plain) != SEED_BYTES * len(known):
        raise RoundRefusedError("the envelope holds another number of seeds")
    seeds = {
        index: plain[place * SEED_BYTES : (place + 1) * SEED_BYTES]
        for place, index in enumerate(known)
    }
    for index, seed in seeds.items():
        if _commitment(manifest, body.box, index, seed) != commitments[index]:
            raise RoundRefusedError("a seed is not the one the box committed to")
    return seeds


def _known(manifest: Manifest, helper: int) -> list[int]:
    """The subsets a helper is not in: those whose seeds it gets."""
    return [index for index, subset in enumerate(manifest.subsets) if helper not in subset]


def _commitment(manifest: Manifest, box: str, subset: int, seed: bytes) -> bytes:
    members = bytes(manifest.subsets[subset])
    return digest(Tag.SEED, manifest.hash, box.encode(), members, seed)


def _info(
    manifest: Manifest, box: str, helper: int, vector: bytes, commitments: Sequence[bytes]
) -> bytes:
    name = manifest.helpers[helper].box
    bound = digest(Tag.SEED, *commitments)
    return enc(Tag.ENVELOPE.raw, manifest.hash, box.encode(), name.encode(), vector, bound)


def _seal(
    manifest: Manifest,
    box: str,
    helper: int,
    vector: bytes,
    commitments: Sequence[bytes],
    seeds: Sequence[bytes],
) -> bytes:
    key = X25519PublicKey.from_public_bytes(bytes.fromhex(manifest.helpers[helper].round_key))
    plain = b"".join(seeds[index] for index in _known(manifest, helper))
    info = _info(manifest, box, helper, vector, commitments)
    sealed = bytes(_SUITE.encrypt(plain, key, info=info))
    if len(sealed) != len(plain) + _ENVELOPE_OVERHEAD:
        raise InvalidInputError("an envelope has an unforeseen length")
    return sealed
