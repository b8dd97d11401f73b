"""Check a release from its file and the keys trusted: no server, no state, no data.

Four things are shown: the device signed these bytes; the log's final entry binds them by digest and
stands in a tree that the log's keys signed; the fingerprint, the law of the noise and the price
follow from the question; and every value, interval and figure follows from the released integers.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from bedside_core.errors import InvalidInputError, InvalidReleaseError
from bedside_core.evidence.entry import Entry, Kind, parse_entry
from bedside_core.evidence.note import VerifierKey
from bedside_core.evidence.proof import ProvenEntry, verify_proof
from bedside_core.ledger.entries import Scope, ScopeKind
from bedside_core.planner import Schedule
from bedside_core.release import Prepared, ReleaseRequest, prepare
from bedside_core.release_document import (
    FORMAT,
    PAYLOAD_TYPE,
    Standing,
    Surroundings,
    answer_part,
    canonical,
    public_part,
    released_integers,
)
from bedside_core.signatures import PublicKey, open_envelope
from bedside_core.statistics import spec as specs

FILE_FORMAT = "bedside-release-file/1"
MAX_FILE = 8 << 20  # bytes
_CLOSE = 1e-6  # relative: mathematical libraries differ in the last digits
_ANSWER = ("cells", "figures", "truncation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A document that says nothing but what follows from its question and its integers.

    Attributes:
        values: the released integers.
        complete: False for a running total read without the nights before it, whose totals were
            not derived again.
    """

    prepared: Prepared
    around: Surroundings
    values: tuple[int, ...]
    complete: bool
    document: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A release that is signed, logged and consistent."""

    checked: Checked
    entry: Entry
    proven: ProvenEntry = field(repr=False)


def release_file(envelope: bytes, proof: bytes) -> bytes:
    """Return the one file that a recipient keeps: the signed document and the log's proof."""
    held = {
        "format": FILE_FORMAT,
        "envelope": json.loads(envelope),
        "proof": proof.decode("utf-8"),
    }
    return json.dumps(held, sort_keys=True, indent=1).encode() + b"\n"


def parse_file(data: bytes) -> tuple[bytes, bytes]:
    """Return (envelope, proof) of a release file; nothing is verified.

    Raises:
        InvalidReleaseError: another format, or too large.
    """
    if len(data) > MAX_FILE:
        raise InvalidReleaseError(f"a release file has at most {MAX_FILE} bytes")
    try:
        held: Any = json.loads(data)
        if held["format"] != FILE_FORMAT or not isinstance(held["proof"], str):
            raise InvalidReleaseError("not a release file of version 1")
        return json.dumps(held["envelope"]).encode(), held["proof"].encode("utf-8")
    except (ValueError, RecursionError, TypeError, KeyError) as cause:
        raise InvalidReleaseError("not a release file of version 1") from cause


def verify_release(
    data: bytes,
    origin: str,
    log_keys: Sequence[VerifierKey],
    witness_keys: Sequence[VerifierKey] = (),
) -> Verified:
    """Return what a release file shows, verified from its bytes and the keys alone.

    Args:
        data: the file.
        origin: the log it must be in.
        log_keys: of that log; all must have signed the tree, and one of them the document.
        witness_keys: trusted cosigners.

    Raises:
        InvalidReleaseError: not a release file, or something in it does not follow.
        UntrustedSignatureError, ProofMismatchError and the other errors of envelopes and proofs.
    """
    return _verify(data, origin, log_keys, witness_keys, None)


def verify_nights(
    files: Sequence[bytes],
    origin: str,
    log_keys: Sequence[VerifierKey],
    witness_keys: Sequence[VerifierKey] = (),
) -> Verified:
    """Return the last night of a running total, its totals derived again from all nights before.

    Args:
        files: one release file for each night from the first to the one wanted, in any order.
        origin: the log that every file must be in.
        log_keys: of that log; see `verify_release`, which every file must pass.
        witness_keys: trusted cosigners.

    Raises:
        InvalidReleaseError: files of other releases, a night missing or twice, or what
            `verify_release` raises.
    """
    found: dict[int, tuple[bytes, Verified]] = {}
    for data in files:
        one = verify_release(data, origin, log_keys, witness_keys)
        found[one.checked.around.night] = (data, one)
    names = {one.checked.prepared.fingerprint for _, one in found.values()}
    if len(names) != 1 or len(found) != len(files) or sorted(found) != list(range(len(files))):
        raise InvalidReleaseError("these are not all nights of one release from its first on")
    data, last = found[len(files) - 1]
    if last.checked.prepared.request.schedule is not Schedule.RUNNING:
        raise InvalidReleaseError("only the nights of a running total are verified together")
    earlier = [found[night][1].checked.values for night in range(len(files) - 1)]
    return _verify(data, origin, log_keys, witness_keys, earlier)


def _verify(
    data: bytes,
    origin: str,
    log_keys: Sequence[VerifierKey],
    witness_keys: Sequence[VerifierKey],
    earlier: Sequence[Sequence[int]] | None,
) -> Verified:
    envelope, proof = parse_file(data)
    payload = open_envelope(envelope, PAYLOAD_TYPE, device_keys(log_keys), 1)
    checked = check_document(payload, earlier)
    if checked.around.origin != origin:
        raise InvalidReleaseError("the release names another log")
    proven = verify_proof(proof, origin, log_keys, witness_keys)
    entry = parse_entry(proven.entry)
    if entry.kind is not Kind.RELEASE or answer_digest(payload) not in entry.refs.values():
        raise InvalidReleaseError("the log's entry binds another answer")
    return Verified(checked=checked, entry=entry, proven=proven)


def device_keys(keys: Sequence[VerifierKey]) -> dict[str, PublicKey]:
    """Return the keys by the id that envelopes of the box name: eight digits of hex."""
    return {key.key_id.hex(): key.public for key in keys}


def answer_digest(document: bytes) -> str:
    """Return what the ledger's final entry holds of a document: SHA-256, hex."""
    return hashlib.sha256(document).hexdigest()


def check_document(data: bytes, earlier: Sequence[Sequence[int]] | None = None) -> Checked:
    """Return a document's parts when everything in it follows from its question and integers.

    Args:
        data: canonical JSON.
        earlier: of a running total, the measurements of all nights before; None: not at hand.

    Raises:
        InvalidReleaseError: another format or spelling, or a number that does not follow.
    """
    found = read_document(data)
    try:
        prepared = prepare(parse_request(found))
        around = _surroundings(found)
        values = released_integers(found)
        wanted = public_part(prepared, around)
        running = prepared.request.schedule is Schedule.RUNNING
        complete = not running or earlier is not None or around.night == 0
        if complete:
            wanted |= answer_part(prepared, values, around.night, earlier or ())
        else:
            wanted |= {name: found[name] for name in _ANSWER}
        wanted = json.loads(canonical(wanted))  # plain types, as in a document that was read
    except (
        ArithmeticError,
        AttributeError,
        InvalidInputError,
        KeyError,
        TypeError,
        ValueError,
    ) as cause:
        raise InvalidReleaseError("the release does not follow from its question") from cause
    wrong = sorted(
        name for name in {*found, *wanted} if not _same(found.get(name), wanted.get(name))
    )
    if wrong:
        raise InvalidReleaseError(f"does not follow from the question: {', '.join(wrong)[:200]}")
    return Checked(
        prepared=prepared, around=around, values=values, complete=complete, document=found
    )


def read_document(data: bytes) -> dict[str, Any]:
    """Return a document as plain values; only its spelling and format are checked.

    Raises:
        InvalidReleaseError: not canonical JSON of this format.
    """
    try:
        found: Any = json.loads(data.decode("ascii"))
        plain = isinstance(found, dict) and canonical(found) == data
    except (ValueError, RecursionError, TypeError) as cause:
        raise InvalidReleaseError("not the document of a release") from cause
    if not plain or found.get("format") != FORMAT:
        raise InvalidReleaseError("not the canonical document of a release of version 1")
    return dict(found)


def parse_request(found: Mapping[str, Any]) -> ReleaseRequest:
    """Return the question of a document, or of what `request_document` writes."""
    named = found["identity"]
    return ReleaseRequest(
        specs=tuple(_spec(one) for one in found["statistics"]),
        units=named["units"],
        snapshot=named["snapshot"],
        dataset=named["dataset"],
        epoch=named["epoch"],
        policy=named["policy"],
        purpose=named["purpose"],
        schedule=Schedule(named["schedule"]),
        nights=named["nights"],
        pure=named["pure"],
        strata=tuple(named.get("strata", ())),
    )


def _surroundings(found: Mapping[str, Any]) -> Surroundings:
    named = found["identity"]
    return Surroundings(
        origin=named["log"],
        seq=named["seq"],
        starts=named["arrivals"]["starts"],
        ends=named["arrivals"]["ends"],
        night=named["night"],
        standings=tuple(
            Standing(
                scope=Scope(ScopeKind(one["kind"]), one["name"]),
                cap=one["cap"]["units"],
                spent=one["spent"]["units"],
            )
            for one in found["remaining"]
        ),
        views=found["not_the_gate"],
    )


def _spec(one: Mapping[str, Any]) -> specs.StatSpec:
    number = one["number"]
    return specs.StatSpec(
        name=one["name"],
        kind=specs.Kind(one["kind"]),
        c=one["c"],
        weight=specs.Weight(one["weight"]),
        by=tuple(specs.KeySet(field=k["field"], keys=tuple(k["keys"])) for k in one["by"]),
        number=specs.Number(**number) if number is not None else None,
        bins=one["bins"],
        probabilities=tuple(Fraction(text) for text in one["probabilities"]),
        findings=tuple(one["findings"]),
        l2_cells=one["l2_cells"],
    )


def _same(one: object, other: object) -> bool:
    """Whether two plain documents say the same, floats within `_CLOSE` of each other."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=1e-9)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
