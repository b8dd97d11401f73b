"""Entries of the evidence log: the exact bytes of a leaf, and the commitments in it.

An entry says that something happened and commits to it; it never holds an identifier or a
payload. Erasing a subject's key, the salts and the payloads outside the log leaves an entry that
says nothing more. One sequence of bytes exists for each entry: the reader refuses every other
spelling, so a leaf hash stands for one meaning.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bedside_core.errors import InvalidEntryError

VERSION = 1
MAX_ENTRY = 65_535  # bytes; the length prefix of a tlog-tiles entry bundle has 16 bits
MAX_INTEGER = 2**53 - 1  # integers every JSON reader keeps exactly (RFC 8259 section 6)
MAX_REFS = 32
KEY_BYTES = 32  # of a subject's key, and of a payload's salt
NONCE_BYTES = 16

_HEX_32 = re.compile(r"[0-9a-f]{64}")
_HEX_16 = re.compile(r"[0-9a-f]{32}")
_ACTOR = re.compile(r"[a-z][a-z0-9._:-]{0,63}")
_REF_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
# A digest, or a name that starts with a letter. DICOM UIDs and numbers of people start with a
# digit and are not digests, so neither fits here by accident.
_REF_TEXT = re.compile(r"[0-9a-f]{64}|[a-z][a-z0-9._:@/+-]{0,127}")


class Kind(StrEnum):
    """What an entry is about. A published kind never changes its meaning; new ones are added."""

    RAW_DIGEST = "raw_digest"
    INFERENCE = "inference"
    MODEL_PARAMS = "model_params"
    CONSENT = "consent"
    WITHDRAWAL = "withdrawal"
    DECISION = "decision"
    POLICY = "policy"
    RELEASE = "release"
    SYNC_ROUND = "sync_round"
    UPDATE_STEP = "update_step"
    ACCEPTANCE = "acceptance"
    ADMIN = "admin"
    ACCESS = "access"
    ALARM = "alarm"
    CLOCK = "clock"
    INCIDENT = "incident"
    SEAL = "seal"
    UNSEAL = "unseal"
    ERASURE = "erasure"
    REPORT = "report"
    CHECKLIST = "checklist"
    GAP = "gap"
    PAD = "pad"
    REVIEW = "review"


class TimeSource(StrEnum):
    """Where an entry's time came from."""

    HUB = "hub"
    WITNESS = "witness"
    LOCAL = "local"
    DOUBTFUL = "doubtful"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry; an object that exists can be written.

    Attributes:
        kind: what happened.
        ts: seconds since the epoch, never below the entry before (`require_order`).
        ts_src: where `ts` came from.
        actor: id minted for a person, service or device; names are kept outside the log.
        subject: 64 lower hex digits from `commit_subject`, or None; needs `nonce`.
        nonce: 32 lower hex digits, fresh for each entry, or None.
        payload: 64 lower hex digits from `commit_payload`, or None.
        refs: name -> index of an earlier entry, digest in 64 lower hex digits, or minted name.
    """

    kind: Kind
    ts: int
    ts_src: TimeSource
    actor: str
    subject: str | None = None
    nonce: str | None = None
    payload: str | None = None
    refs: Mapping[str, int | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, Kind) or not isinstance(self.ts_src, TimeSource):
            raise InvalidEntryError("kind and time source must be ones the log knows")
        _require(_is_count(self.ts), "ts", "whole seconds from 0 to 2^53 - 1")
        _require(_matches(_ACTOR, self.actor), "actor", "a minted id, [a-z][a-z0-9._:-]*")
        for name, shape in (("subject", _HEX_32), ("nonce", _HEX_16), ("payload", _HEX_32)):
            value = getattr(self, name)
            _require(value is None or _matches(shape, value), name, "lower hex of its length")
        _require(self.subject is None or self.nonce is not None, "subject", "kept with a nonce")
        _require(len(self.refs) <= MAX_REFS, "refs", f"at most {MAX_REFS}")
        for name, value in self.refs.items():
            _require(_matches(_REF_NAME, name), "refs", "named [a-z][a-z0-9_]*")
            fits = _is_count(value) or _matches(_REF_TEXT, value)
            _require(fits, "refs", "indices, digests or minted names")

    def encode(self) -> bytes:
        """The entry's bytes: canonical JSON, keys sorted, no spaces, absent fields left out."""
        # Everything in an entry is a name, hex or a count, so no string needs an escape; written
        # out, it takes a third of the time a JSON encoder does
        parts = [f'"actor":"{self.actor}"', f'"kind":"{self.kind.value}"']
        if self.nonce is not None:
            parts.append(f'"nonce":"{self.nonce}"')
        if self.payload is not None:
            parts.append(f'"payload":"{self.payload}"')
        if self.refs:
            refs = ",".join(f'"{name}":{_value(self.refs[name])}' for name in sorted(self.refs))
            parts.append(f'"refs":{{{refs}}}')
        if self.subject is not None:
            parts.append(f'"subject":"{self.subject}"')
        parts.append(f'"ts":{self.ts},"ts_src":"{self.ts_src.value}","v":{VERSION}')
        # 32 refs of at most 160 characters each: an entry cannot reach MAX_ENTRY
        return f"{{{','.join(parts)}}}".encode("ascii")


def parse_entry(data: bytes) -> Entry:
    """Return the entry that `data` spells.

    Raises:
        InvalidEntryError: anything but the one canonical spelling of a valid entry: other
            versions, unknown or repeated keys, spaces, floats, nulls, escapes, other order.
    """
    if len(data) > MAX_ENTRY:
        raise InvalidEntryError(f"an entry has at most {MAX_ENTRY} bytes, got {len(data)}")
    try:
        fields: Any = json.loads(data.decode("ascii"))
        del fields["v"]  # read by the comparison below
        kind, ts_src = Kind(fields.pop("kind")), TimeSource(fields.pop("ts_src"))
        refs = dict(fields.pop("refs", {}))
        entry = Entry(kind=kind, ts_src=ts_src, refs=refs, **fields)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as cause:
        raise InvalidEntryError("not an entry of the evidence log") from cause
    if entry.encode() != data:  # one comparison refuses every second spelling
        raise InvalidEntryError("not the canonical spelling of an entry of version 1")
    return entry


def require_order(previous: Entry, following: Entry) -> None:
    """Refuse an entry whose time lies before the one it follows.

    Raises:
        InvalidEntryError: `following.ts` is below `previous.ts`.
    """
    if following.ts < previous.ts:
        raise InvalidEntryError("an entry's time is never below that of the entry before it")


# --- names that can stand in an entry --------------------------------------------------------


def as_ref(text: str) -> str:
    """Return `text` where it can stand in `refs`, else its SHA-256: a change is never refused.

    For names that people or packages choose (a model, a destination), never for identifiers.
    """
    if _matches(_REF_TEXT, text):
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def as_actor(text: str) -> str:
    """Return `text` where it can stand as an actor, else `other:` and 40 digits of its SHA-256."""
    if _matches(_ACTOR, text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"other:{digest[:40]}"


# --- commitments -----------------------------------------------------------------------------


def commit_subject(key: bytes, nonce: bytes, local_id: bytes) -> str:
    """HMAC-SHA256(key, nonce || local id) in lower hex.

    Args:
        key: the subject's own 32 random bytes, kept outside the log and destroyed on erasure.
        nonce: 16 fresh random bytes; two entries of one subject then share nothing.
        local_id: the subject's id inside the hospital.

    Raises:
        InvalidEntryError: key or nonce of another length.
    """
    _require(len(key) == KEY_BYTES, "key", f"{KEY_BYTES} bytes")
    _require(len(nonce) == NONCE_BYTES, "nonce", f"{NONCE_BYTES} bytes")
    return hmac.digest(key, nonce + local_id, "sha256").hex()


def commit_payload(salt: bytes, payload: bytes) -> str:
    """SHA-256(salt || payload) in lower hex.

    The 32 random bytes of salt make it hiding: the bare hash of a yes or no is found by trying.

    Raises:
        InvalidEntryError: salt of another length.
    """
    _require(len(salt) == KEY_BYTES, "salt", f"{KEY_BYTES} bytes")
    return hashlib.sha256(salt + payload).hexdigest()


def is_about(entry: Entry, key: bytes, local_id: bytes) -> bool:
    """Whether the entry is about this subject; needs the subject's key."""
    if entry.subject is None or entry.nonce is None:
        return False
    return hmac.compare_digest(
        entry.subject, commit_subject(key, bytes.fromhex(entry.nonce), local_id)
    )


def commits_to(entry: Entry, salt: bytes, payload: bytes) -> bool:
    """Whether the entry commits to exactly this payload; needs its salt."""
    if entry.payload is None:
        return False
    return hmac.compare_digest(entry.payload, commit_payload(salt, payload))


def _require(holds: bool, name: str, wanted: str) -> None:
    if not holds:
        raise InvalidEntryError(f"{name} must be {wanted}")  # never the value: it may name someone


def _matches(shape: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and shape.fullmatch(value) is not None


def _value(value: int | str) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_INTEGER
