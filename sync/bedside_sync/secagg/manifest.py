"""What a round is, and whether a box takes part in it.

A manifest is signed by administrators of two organisations. Everything that decides what a sum may
reveal stands in it: who must be in the sum, how patients are bounded, how much noise each box
adds, which helpers hold the masks. A box checks all of it in integers before it touches a patient.

Source of the noise accounting: Kairouz, Liu, Steinke 2021, arXiv:2102.06387, Theorem 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import combinations
from typing import Annotated, Final, Literal

from pydantic import Field

from bedside_core.errors import ManifestRefusedError, UntrustedSignatureError
from bedside_sync.secagg.bodies import MAX_INTEGER, Body
from bedside_sync.secagg.prg import Tag, digest, signed_bytes
from bedside_sync.secagg.ring import fits_ring, overflow_bound
from bedside_sync.secagg.roster import (
    ADMINISTRATORS_NEEDED,
    Hex32,
    Hex64,
    Name,
    Roster,
    Signature,
    signed_by_organisations,
)

UNITS: Final = 10**12  # of rho
_LEAST_SIGMA2: Final = 25  # below sigma 5 the sum of discrete noises is not Gaussian enough
_MOST_HELPERS: Final = 16
KEY_WAITS_S: Final = 30 * 86_400  # a helper's key for its round's manifest; then it is destroyed
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Positive = Annotated[int, Field(ge=1, le=MAX_INTEGER)]


class Purpose(StrEnum):
    """What a round is for; a box's policy names those it serves."""

    TRAIN = "train"
    CLEAN = "clean"
    COLLECT = "collect"
    ANNOTATE = "annotate"
    VALIDATE = "validate"
    FUSE = "fuse"


class Helper(Body):
    """One who holds seeds of this round."""

    box: Name
    round_key: Hex32  # X25519; made for this round and destroyed after it
    signature: Hex64  # by the box's roster key over (round, round key)


class Segment(Body):
    """A named part of the vector."""

    name: Name
    length: Positive


class Manifest(Body):
    """A round, complete. Times are seconds since the epoch."""

    version: Literal[1] = 1
    round: Name
    task: Name
    purpose: Purpose
    model: Hex32
    code: Hex32
    settings: Hex32  # digest of the task's own settings: grids, labels, projection
    segments: Annotated[list[Segment], Field(min_length=1, max_length=256)]
    ring: Literal[32, 64]
    scale: Positive
    clip: tuple[Positive, Positive]  # numerator and denominator
    sensitivity2: Positive  # Delta^2, squared L2 norm of one patient's integers
    largest: Positive  # most one patient adds to one word
    sigma2: Positive  # each box's noise
    least_boxes: Positive  # n_min, counted by organisation
    most_boxes: Positive
    unhonest: Count  # f: boxes assumed to add no noise
    patients_a_box: Positive
    patients: Positive  # N_max
    opens: Positive
    closes: Positive
    expires: Positive
    audit_until: Positive
    missing: Positive  # t: helpers that may be corrupt or silent
    helpers: Annotated[list[Helper], Field(min_length=4, max_length=_MOST_HELPERS)]
    roster: Hex32  # head
    roster_size: Positive

    @property
    def length(self) -> int:
        """Words of the vector."""
        return sum(segment.length for segment in self.segments)

    @property
    def hash(self) -> bytes:
        """What every message of the round is bound to."""
        return digest(Tag.MANIFEST, self.encode())

    @property
    def subsets(self) -> list[tuple[int, ...]]:
        """The t-subsets of helpers, lexicographic; each has a seed its members do not know."""
        return list(combinations(range(len(self.helpers)), self.missing))

    @property
    def quorum(self) -> int:
        """Cosignatures that open a sum: any two quorums share more than t helpers."""
        return -(-(len(self.helpers) + self.missing + 1) // 2)

    def helper(self, box: str) -> int:
        """Return a helper's index; ManifestRefusedError when it is none."""
        for index, helper in enumerate(self.helpers):
            if helper.box == box:
                return index
        raise ManifestRefusedError("the box is no helper of this round")


class SignedManifest(Body):
    """A manifest with its signatures."""

    manifest: Manifest
    signatures: Annotated[list[Signature], Field(max_length=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePolicy:
    """What a hospital lets its box take part in; everything not named is refused."""

    purposes: frozenset[Purpose]
    codes: frozenset[bytes]
    models: frozenset[bytes]  # empty: any
    least_boxes: int
    longest: int  # words
    rho_a_round: int  # units of 1e-12


def helper_message(round_name: str, round_key: bytes) -> bytes:
    """Return what a helper's roster key signs to announce its key for a round."""
    return signed_bytes(Tag.HELPER_KEY, digest(Tag.HELPER_KEY, round_name.encode(), round_key))


def check_manifest(signed: SignedManifest, roster: Roster) -> None:
    """Check signatures, committee and arithmetic; the box's own will comes in `agree`.

    Raises:
        ManifestRefusedError: a rule is broken; its text says which.
        UntrustedSignatureError: an administrator's or helper's signature fails.
    """
    manifest = signed.manifest
    organisations = signed_by_organisations(
        roster.root, Tag.MANIFEST, manifest.encode(), signed.signatures
    )
    _rule(len(organisations) >= ADMINISTRATORS_NEEDED, "two organisations must have signed it")
    check_content(manifest, roster)


def check_content(manifest: Manifest, roster: Roster) -> None:
    """Check everything but the administrators' signatures; errors as in `check_manifest`."""
    _rule(bytes.fromhex(manifest.roster) == roster.head, "it names another roster than the box has")
    _rule(manifest.roster_size == roster.size, "it names another roster than the box has")
    _check_committee(manifest, roster)
    _check_times(manifest)
    _check_arithmetic(manifest)


def _check_committee(manifest: Manifest, roster: Roster) -> None:
    count = len(manifest.helpers)
    _rule(
        count >= 3 * manifest.missing + 1,
        "m helpers bear t corrupt ones only when m is at least 3 t + 1",
    )
    _rule(len({helper.box for helper in manifest.helpers}) == count, "a helper is named twice")
    _rule(len({helper.round_key for helper in manifest.helpers}) == count, "a key is named twice")
    found: set[str] = set()
    for helper in manifest.helpers:
        member = roster.members.get(helper.box)
        if member is None or not member.helper:
            raise ManifestRefusedError("a helper is not on the roster as one")
        found.add(member.organisation)
        message = helper_message(manifest.round, bytes.fromhex(helper.round_key))
        if not member.key.accepts(message, bytes.fromhex(helper.signature)):
            raise UntrustedSignatureError("a helper's round key is not signed by the helper")
    _rule(len(found) == count, "two helpers belong to one organisation")


def _check_times(manifest: Manifest) -> None:
    _rule(
        manifest.opens < manifest.closes < manifest.expires <= manifest.audit_until,
        "its times are not in order",
    )


def _check_arithmetic(manifest: Manifest) -> None:
    _rule(manifest.sigma2 >= _LEAST_SIGMA2, "each box's noise must have sigma 5 or more")
    _rule(manifest.unhonest < manifest.least_boxes, "no honest box is left to add noise")
    _rule(manifest.least_boxes <= manifest.most_boxes, "it wants more boxes than it allows")
    _rule(manifest.largest**2 <= manifest.sensitivity2, "a word may pass a patient's whole norm")
    _rule(
        manifest.patients_a_box * manifest.most_boxes <= manifest.patients,
        "the boxes may bring more patients than the proof counts",
    )
    magnitude = overflow_bound(
        patients=manifest.patients,
        per_word=manifest.largest,
        boxes=manifest.most_boxes,
        sigma2=manifest.sigma2,
    )
    _rule(fits_ring(manifest.ring, magnitude), "a sum could overflow the ring")


def agree(manifest: Manifest, policy: SitePolicy, *, now: int, known: Sequence[str]) -> int:
    """Return what the round costs a patient, in units of rho, when the box takes part.

    Args:
        manifest: checked before.
        policy: what the hospital allows.
        now: seconds since the epoch, never below the box's time floor.
        known: rounds this box has answered before.

    Raises:
        ManifestRefusedError: the box does not take part; the text says why.
    """
    _rule(manifest.round not in known, "this round was answered before")
    _rule(manifest.opens <= now < manifest.expires, "the round is not open")
    _rule(manifest.purpose in policy.purposes, f"the hospital does not serve {manifest.purpose}")
    _rule(bytes.fromhex(manifest.code) in policy.codes, "the task's code is not known here")
    if policy.models:
        _rule(bytes.fromhex(manifest.model) in policy.models, "the model is not known here")
    _rule(manifest.least_boxes >= policy.least_boxes, "fewer hospitals than this one asks for")
    _rule(manifest.length <= policy.longest, "the vector is longer than this box allows")
    cost = round_cost(manifest)
    _rule(cost <= policy.rho_a_round, "the round costs more privacy than this box allows")
    return cost


def round_cost(manifest: Manifest) -> int:
    """Return rho of the whole sum in units of 1e-12, rounded up, with n_min - f honest boxes.

    rho = 1/2 min(sqrt(D2/V + tau d / 2), D/sqrt(V) + tau sqrt(d))^2 with
    tau = 10 sum_{k=1}^{n-1} exp(-2 pi^2 sigma2 k/(k+1)); V is the noise of the honest boxes.
    """
    honest = manifest.least_boxes - manifest.unhonest
    variance = honest * manifest.sigma2
    tau = 10.0 * sum(
        math.exp(-2 * math.pi**2 * manifest.sigma2 * k / (k + 1)) for k in range(1, honest)
    )
    exact = -(-manifest.sensitivity2 * UNITS // (2 * variance))
    if tau == 0.0:
        return exact
    ratio = manifest.sensitivity2 / variance
    first = math.sqrt(ratio + tau * manifest.length / 2)
    second = math.sqrt(ratio) + tau * math.sqrt(manifest.length)
    rho = 0.5 * min(first, second) ** 2
    # relative error of the few operations above is below 1e-14
    return max(exact, math.ceil(rho * (1 + 1e-12) * UNITS))


def local_sigma2(multiplier: Fraction, sensitivity2: int, least_boxes: int, unhonest: int) -> int:
    """Return each box's noise parameter so that the honest ones reach z^2 Delta^2, rounded up."""
    return math.ceil(multiplier**2 * sensitivity2 / (least_boxes - unhonest))


def _rule(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ManifestRefusedError(f"round refused: {otherwise}")
