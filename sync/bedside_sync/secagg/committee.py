"""The helpers: one digest per round, a quorum before anything opens, seeds destroyed after.

A helper signs one digest of one set of reports, ever. Two quorums of q = ceil((m + t + 1) / 2)
share more than t helpers, so an honest one, so only one set of reports can be opened; sums over
two sets that differ by one box, whose difference is that box, cannot both exist.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import Field

from bedside_core.errors import RoundRefusedError, UntrustedSignatureError
from bedside_core.signatures import Sign
from bedside_sync.secagg.bodies import Body
from bedside_sync.secagg.manifest import Manifest
from bedside_sync.secagg.prg import Tag, Words, digest, signed_bytes, sum_of_masks, word_type
from bedside_sync.secagg.report import Report, check_report
from bedside_sync.secagg.roster import Hex32, Hex64, Name, Roster


class Listed(Body):
    """One report in the set, as the digest counts it."""

    box: Name
    vector: Hex32
    signature: Hex64


class DigestBody(Body):
    """The set of reports a helper agrees to open; empty once the round has expired."""

    manifest: Hex32
    reports: Annotated[list[Listed], Field(max_length=100_000)]

    @property
    def hash(self) -> bytes:
        """The digest D."""
        return digest(
            Tag.DIGEST,
            bytes.fromhex(self.manifest),
            *(
                part
                for one in self.reports
                for part in (
                    one.box.encode(),
                    bytes.fromhex(one.vector),
                    bytes.fromhex(one.signature),
                )
            ),
        )


class Cosignature(Body):
    """A helper's signature of D."""

    helper: Name
    digest: Hex32
    signature: Hex64


class MaskTable(Body):
    """Signed digests of every mask sum a helper knows, by subset: what the others are held to."""

    helper: Name
    digest: Hex32
    masks: dict[str, Hex32]  # subset's index in decimal


class SignedMaskTable(Body):
    """The table with the helper's signature."""

    table: MaskTable
    signature: Hex64


class Findings(Body):
    """What a helper found in the candidates: the boxes whose envelope or seeds are not right."""

    manifest: Hex32
    helper: Name
    bad: Annotated[list[Name], Field(max_length=100_000)]


class SignedFindings(Body):
    """Findings with the helper's signature."""

    findings: Findings
    signature: Hex64


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasked:
    """What a helper gives out: the mask sums it owns, and the table of all it knows."""

    table: SignedMaskTable
    masks: Mapping[int, Words] = field(repr=False)


def find(manifest: Manifest, helper: str, bad: Iterable[str], sign: Sign) -> SignedFindings:
    """Sign what a helper found."""
    findings = Findings(manifest=manifest.hash.hex(), helper=helper, bad=sorted(bad))
    signature = sign(signed_bytes(Tag.COMPLAINT, findings.encode()))
    return SignedFindings(findings=findings, signature=signature.hex())


def check_findings(manifest: Manifest, roster: Roster, signed: SignedFindings) -> None:
    """Check that findings are a helper's of this round; RoundRefusedError, UntrustedSignature."""
    findings = signed.findings
    manifest.helper(findings.helper)
    if findings.manifest != manifest.hash.hex():
        raise RoundRefusedError("the findings are of another round")
    message = signed_bytes(Tag.COMPLAINT, findings.encode())
    key = roster.members[findings.helper].key
    if not key.accepts(message, bytes.fromhex(signed.signature)):
        raise UntrustedSignatureError("the findings are not signed by the helper")


def digest_of(manifest: Manifest, reports: Iterable[Report]) -> DigestBody:
    """Return the set as it is signed, in order of the boxes' names."""
    listed = [
        Listed(box=one.body.box, vector=one.body.vector, signature=one.signature) for one in reports
    ]
    listed.sort(key=lambda one: one.box)
    return DigestBody(manifest=manifest.hash.hex(), reports=listed)


def check_set(
    manifest: Manifest,
    roster: Roster,
    reports: Sequence[Report],
    *,
    receipts: frozenset[str],
) -> DigestBody:
    """Check what the hub wants opened, and return the digest to sign.

    Args:
        manifest: the round.
        roster: as the manifest names it.
        reports: the set.
        receipts: boxes of the helper's own site that hold a receipt for this round: they must be
            in the set, or the hub leaves sites out.

    Raises:
        RoundRefusedError: a box twice or unknown, too few organisations, an own box missing.
        UntrustedSignatureError: a report is not signed by its box.
    """
    organisations: set[str] = set()
    boxes: set[str] = set()
    for report in reports:
        box = report.body.box
        member = roster.members.get(box)
        if member is None:
            raise RoundRefusedError("a report comes from a box that is not on the roster")
        if box in boxes:
            raise RoundRefusedError("a box is in the set twice")
        check_report(manifest, report, member.key)
        boxes.add(box)
        organisations.add(member.organisation)
    if len(organisations) < manifest.least_boxes:
        raise RoundRefusedError(
            f"the set has {len(organisations)} organisations, "
            f"the round asks for {manifest.least_boxes}"
        )
    if len(boxes) > manifest.most_boxes:
        raise RoundRefusedError("the set has more boxes than the overflow proof counts")
    if receipts - boxes:
        raise RoundRefusedError("a report of this helper's own site is missing from the set")
    return digest_of(manifest, reports)


def cosign(
    manifest: Manifest,
    wanted: DigestBody,
    *,
    helper: str,
    stored: bytes | None,
    now: int,
    sign: Sign,
) -> Cosignature:
    """Sign a digest. The caller has made (round, D) durable before the signature leaves.

    Args:
        manifest: the round.
        wanted: the checked set, or an empty one.
        helper: who signs.
        stored: the D this helper has signed before for the round, if any.
        now: seconds since the epoch.
        sign: the helper's Ed25519 signature.

    Raises:
        RoundRefusedError: another digest was signed before; a set after the round has expired; an
            empty one before.
    """
    found = wanted.hash
    if wanted.manifest != manifest.hash.hex():
        raise RoundRefusedError("the digest is of another round")
    if stored is not None and stored != found:
        raise RoundRefusedError("this helper has signed another set for this round")
    if stored is None and wanted.reports and now >= manifest.expires:
        raise RoundRefusedError("the round has expired")
    if stored is None and not wanted.reports and now < manifest.expires:
        raise RoundRefusedError("an empty set is signed only once the round has expired")
    signature = sign(signed_bytes(Tag.COSIGN, found))
    return Cosignature(helper=helper, digest=found.hex(), signature=signature.hex())


def check_quorum(
    manifest: Manifest, roster: Roster, wanted: DigestBody, cosignatures: Sequence[Cosignature]
) -> tuple[int, ...]:
    """Return the indices of the helpers that signed D, once they are a quorum.

    Raises:
        RoundRefusedError: fewer than a quorum signed this digest.
        UntrustedSignatureError: a signature fails.
    """
    found = wanted.hash
    signed: set[int] = set()
    for one in cosignatures:
        index = manifest.helper(one.helper)
        if bytes.fromhex(one.digest) != found:
            continue
        key = roster.members[one.helper].key
        if not key.accepts(signed_bytes(Tag.COSIGN, found), bytes.fromhex(one.signature)):
            raise UntrustedSignatureError("a helper's cosignature fails")
        signed.add(index)
    if len(signed) < manifest.quorum:
        raise RoundRefusedError(f"{len(signed)} helpers signed, {manifest.quorum} are needed")
    return tuple(sorted(signed))


def owners(manifest: Manifest, signers: Sequence[int]) -> dict[int, int]:
    """Return which signer gives out each subset's mask sum: the least loaded that knows it.

    Raises:
        RoundRefusedError: a subset no signer knows (more than t helpers are silent).
    """
    load = dict.fromkeys(sorted(signers), 0)
    given: dict[int, int] = {}
    for index, subset in enumerate(manifest.subsets):
        able = [signer for signer in load if signer not in subset]
        if not able:
            raise RoundRefusedError("too many helpers are silent: a mask is known to none")
        chosen = min(able, key=lambda signer: (load[signer], signer))
        load[chosen] += 1
        given[index] = chosen
    return given


def unmask(
    manifest: Manifest,
    wanted: DigestBody,
    *,
    helper: str,
    seeds: Mapping[str, Mapping[int, bytes]],
    sign: Sign,
) -> Unmasked:
    """Return the sums of masks over exactly the boxes of D, for every subset this helper knows.

    The caller has checked the quorum, and stores the answer before it destroys round key and
    seeds and lets anything leave.

    Args:
        manifest: the round.
        wanted: the set a quorum signed.
        helper: who answers.
        seeds: by box and subset, as its envelopes held them.
        sign: the helper's Ed25519 signature.

    Raises:
        RoundRefusedError: a box of the set gave this helper no seeds.
    """
    me = manifest.helper(helper)
    masks: dict[int, Words] = {}
    for index, subset in enumerate(manifest.subsets):
        if me in subset:
            continue
        given = [seeds.get(one.box, {}).get(index) for one in wanted.reports]
        if not all(given):
            raise RoundRefusedError("a box of the set gave this helper no seeds")
        known = [seed for seed in given if seed]
        masks[index] = sum_of_masks(known, manifest.ring, manifest.length)
    table = MaskTable(
        helper=helper,
        digest=wanted.hash.hex(),
        masks={str(index): mask_digest(manifest, index, mask) for index, mask in masks.items()},
    )
    signature = sign(signed_bytes(Tag.UNMASK, table.encode()))
    return Unmasked(table=SignedMaskTable(table=table, signature=signature.hex()), masks=masks)


def mask_digest(manifest: Manifest, index: int, mask: Words) -> str:
    """Return the digest of one subset's mask sum, in hex."""
    words = np.ascontiguousarray(mask, word_type(manifest.ring))
    return digest(Tag.UNMASK, manifest.hash, index.to_bytes(8, "big"), words.tobytes()).hex()
