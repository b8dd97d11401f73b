"""The hub: adds masked vectors as they come, takes away the masks a quorum gives out, publishes.

Additions modulo 2^b have no order, so an accumulator rebuilt after a crash is the same to the bit.
The hub holds nothing it could read: what it adds is uniform, what it takes away is the same for
every box of the set.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bedside_core.errors import InvalidInputError, RoundRefusedError, UntrustedSignatureError
from bedside_core.signatures import PublicKey, Sign
from bedside_sync.secagg.bodies import Body
from bedside_sync.secagg.committee import (
    Cosignature,
    DigestBody,
    SignedFindings,
    SignedMaskTable,
    check_findings,
    check_quorum,
    digest_of,
    mask_digest,
    owners,
)
from bedside_sync.secagg.manifest import Manifest, SignedManifest, check_manifest, round_cost
from bedside_sync.secagg.prg import Tag, Words, digest, signed_bytes, vector_digest, word_type
from bedside_sync.secagg.report import Report, check_report
from bedside_sync.secagg.ring import from_ring, to_ring
from bedside_sync.secagg.roster import Hex32, Hex64, Name, Roster


class Withdrawal(Body):
    """A site takes its report back before the round closes; the reason stays at the site."""

    manifest: Hex32
    box: Name


class SignedWithdrawal(Body):
    """A withdrawal with the box's signature."""

    withdrawal: Withdrawal
    signature: Hex64


def withdraw(manifest: Manifest, box: str, sign: Sign) -> SignedWithdrawal:
    """Sign that a box takes its report back."""
    body = Withdrawal(manifest=manifest.hash.hex(), box=box)
    signature = sign(signed_bytes(Tag.WITHDRAW, body.encode()))
    return SignedWithdrawal(withdrawal=body, signature=signature.hex())


class Receipt(Body):
    """What the hub signs for a report: the box's proof that it was in time."""

    manifest: Hex32
    box: Name
    vector: Hex32


class SignedReceipt(Body):
    """A receipt with the hub's signature."""

    receipt: Receipt
    signature: Hex64


def give_receipt(report: Report, sign: Sign) -> SignedReceipt:
    """Sign that a report is durable at the hub."""
    body = report.body
    receipt = Receipt(manifest=body.manifest, box=body.box, vector=body.vector)
    signature = sign(signed_bytes(Tag.RECEIPT, receipt.encode()))
    return SignedReceipt(receipt=receipt, signature=signature.hex())


def check_receipt(signed: SignedReceipt, report: Report, hub: PublicKey) -> None:
    """Check that a receipt is the hub's for this report; errors as in `verify_transcript`."""
    body, receipt = report.body, signed.receipt
    if (receipt.manifest, receipt.box, receipt.vector) != (body.manifest, body.box, body.vector):
        raise RoundRefusedError("the receipt is for another report")
    message = signed_bytes(Tag.RECEIPT, receipt.encode())
    if not hub.accepts(message, bytes.fromhex(signed.signature)):
        raise UntrustedSignatureError("the receipt is not signed by the hub")


@dataclass(slots=True, kw_only=True)
class Tally:
    """The running sum of one round: d words, whatever the number of boxes."""

    manifest: Manifest
    boxes: dict[str, str] = field(default_factory=dict)  # box -> vector digest, in hex
    total: Words = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.manifest.length, word_type(self.manifest.ring))

    def add(self, report: Report, masked: Words, *, vector: bytes | None = None) -> bool:
        """Add a report's vector; return whether it was new.

        Args:
            report: whose.
            masked: (d,) words.
            vector: digest of `masked` when the caller has just computed it: hashing a vector
                costs more than adding it.

        Raises:
            RoundRefusedError: the box has reported another vector, or the vector is not the one
                signed.
        """
        box, signed = report.body.box, report.body.vector
        held = self.boxes.get(box)
        if held is not None:
            if held != signed:
                raise RoundRefusedError("the box has sent another report for this round")
            return False
        self._must_be(report, masked, vector)
        self.total += masked
        self.boxes[box] = signed
        return True

    def drop(self, report: Report, masked: Words) -> None:
        """Take a box out again: it withdrew, or a helper complained about it.

        Raises:
            RoundRefusedError: it is not in the sum, or the vector is not the one added.
        """
        if self.boxes.get(report.body.box) != report.body.vector:
            raise RoundRefusedError("the box is not in the sum")
        self._must_be(report, masked)
        self.total -= masked
        del self.boxes[report.body.box]

    def _must_be(self, report: Report, masked: Words, vector: bytes | None = None) -> None:
        if masked.shape != self.total.shape or masked.dtype != self.total.dtype:
            raise RoundRefusedError("the vector has another length or ring than the round")
        found = vector or vector_digest(masked, self.manifest.ring)[0]
        if found.hex() != report.body.vector:
            raise RoundRefusedError("the vector is not the one the box signed")


def confirmed(manifest: Manifest, helpers: Sequence[str]) -> bool:
    """Whether more than t of these helpers know each mask, so an honest one vouches for it."""
    known = {manifest.helper(name) for name in helpers}
    return all(len(known - set(subset)) > manifest.missing for subset in manifest.subsets)


def collect_tables(
    manifest: Manifest, roster: Roster, wanted: DigestBody, tables: Sequence[SignedMaskTable]
) -> dict[int, str]:
    """Return the agreed digest of every subset's mask sum.

    Raises:
        RoundRefusedError: two helpers say different things (the round stops, both tables are the
            proof), a table is of another set, or fewer than t + 1 confirm a mask.
        UntrustedSignatureError: a table is not signed by its helper.
    """
    if not confirmed(manifest, [signed.table.helper for signed in tables]):
        raise RoundRefusedError("a mask is not confirmed by enough helpers")
    agreed: dict[int, str] = {}
    for signed in tables:
        table = signed.table
        index_of_helper = manifest.helper(table.helper)
        key = roster.members[table.helper].key
        message = signed_bytes(Tag.UNMASK, table.encode())
        if not key.accepts(message, bytes.fromhex(signed.signature)):
            raise UntrustedSignatureError("a table of masks is not signed by its helper")
        if bytes.fromhex(table.digest) != wanted.hash:
            raise RoundRefusedError("a table of masks is of another set")
        for index, subset in enumerate(manifest.subsets):
            said = table.masks.get(str(index))
            if index_of_helper in subset:
                continue
            if said is None or agreed.setdefault(index, said) != said:
                raise RoundRefusedError("two helpers disagree about a mask")
    return agreed


def open_sum(
    tally: Tally, wanted: DigestBody, agreed: Mapping[int, str], masks: Mapping[int, Words]
) -> NDArray[np.int64]:
    """Return the sum over the set, signed.

    Raises:
        RoundRefusedError: the tally is of another set, or a mask is not the agreed one.
    """
    manifest = tally.manifest
    counted = {one.box: one.vector for one in wanted.reports}
    if counted != tally.boxes:
        raise RoundRefusedError("the sum is over another set than the one signed")
    left = tally.total.copy()
    for index in range(len(manifest.subsets)):
        mask = masks.get(index)
        if mask is None or mask_digest(manifest, index, mask) != agreed[index]:
            raise RoundRefusedError("a mask is missing or not the agreed one")
        left -= mask
    return from_ring(left, manifest.ring)


# --- the public record -----------------------------------------------------------------------


class TranscriptBody(Body):
    """A finished round, for everyone to check the next night."""

    manifest: SignedManifest
    reports: Annotated[list[Report], Field(max_length=100_000)]
    cosignatures: list[Cosignature]
    tables: list[SignedMaskTable]
    findings: list[SignedFindings]
    withdrawn: list[Name]
    total: Hex32  # digest of the sum, which travels beside the record
    masked_total: Hex32  # digest of the sum before the masks were taken away
    rho: int  # units of 1e-12, of the whole sum
    previous: Hex32

    @property
    def hash(self) -> bytes:
        """What the next transcript names."""
        return digest(Tag.TRANSCRIPT, self.encode())


class Transcript(Body):
    """The record with the hub's signature."""

    body: TranscriptBody
    signature: Hex64


NOTHING = "00" * 32  # the digest of no sum
MAX_TRANSCRIPT = 64 << 20  # bytes


def sum_digest(manifest: Manifest, total: NDArray[np.int64]) -> str:
    """Return the digest of an opened sum, in hex."""
    return vector_digest(to_ring(total, manifest.ring), manifest.ring)[0].hex()


def publish(body: TranscriptBody, sign: Sign) -> Transcript:
    """Sign a record; written last, after everything it tells."""
    return Transcript(body=body, signature=sign(signed_bytes(Tag.TRANSCRIPT, body.encode())).hex())


def verify_transcript(
    transcript: Transcript,
    roster: Roster,
    hub: PublicKey,
    *,
    previous: bytes,
    own: str = "",
    own_vector: str = "",
    withdrew: bool = False,
) -> None:
    """Check a round's record as every box does the next night.

    Args:
        transcript: as published.
        roster: as the round's manifest names it.
        hub: the hub's key.
        previous: hash of the record before it.
        own: this box's name, when it holds a receipt for the round or withdrew. It is counted
            unless a helper complained about its envelope, and then the complaint is on record.
        own_vector: the digest of the vector it sent, in hex.
        withdrew: whether it took its report back.

    Raises:
        RoundRefusedError, ManifestRefusedError, UntrustedSignatureError: what does not hold.
    """
    body = transcript.body
    message = signed_bytes(Tag.TRANSCRIPT, body.encode())
    if not hub.accepts(message, bytes.fromhex(transcript.signature)):
        raise UntrustedSignatureError("the record is not signed by the hub")
    if bytes.fromhex(body.previous) != previous:
        raise RoundRefusedError("the record does not follow the one before")
    manifest = body.manifest.manifest
    check_manifest(body.manifest, roster)
    if body.rho != round_cost(manifest):
        raise RoundRefusedError("the record states another cost than the round has")
    for report in body.reports:
        member = roster.members.get(report.body.box)
        if member is None:
            raise RoundRefusedError("a report comes from a box that is not on the roster")
        check_report(manifest, report, member.key)
    wanted = digest_of(manifest, body.reports)
    check_quorum(manifest, roster, wanted, body.cosignatures)
    if body.reports:
        collect_tables(manifest, roster, wanted, body.tables)
    if not body.reports and body.total != NOTHING:
        raise RoundRefusedError("a round without reports has no sum")
    for signed in body.findings:
        check_findings(manifest, roster, signed)
    dropped = {box for signed in body.findings for box in signed.findings.bad}
    present = {report.body.box: report.body.vector for report in body.reports}
    if dropped & set(present):
        raise RoundRefusedError("a box that a helper complained about was counted")
    expected = own and not withdrew and own not in dropped and body.reports
    if expected and present.get(own) != own_vector:
        raise RoundRefusedError("this box's report is missing, or another is in its place")
    if withdrew and own in present:
        raise RoundRefusedError("this box withdrew and was counted all the same")


def require_masks(
    manifest: Manifest, signers: Sequence[int], held: Collection[int]
) -> dict[int, list[int]]:
    """Return the subsets each signer is asked for that the hub does not hold yet."""
    wanted: dict[int, list[int]] = {}
    for index, owner in owners(manifest, signers).items():
        if index not in held:
            wanted.setdefault(owner, []).append(index)
    return wanted


def masked_digest(manifest: Manifest, total: Words) -> str:
    """Return the digest of the accumulator, in hex: anyone with the vectors can recompute it."""
    if total.shape != (manifest.length,):
        raise InvalidInputError("the accumulator has another length than the round")
    return vector_digest(total, manifest.ring)[0].hex()
