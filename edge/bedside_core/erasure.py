"""What an erasure leaves behind: a list of destroyed objects, bound to one entry of the log.

The list names encrypted files by the box's own random names and the SHA-256 of their encrypted
bytes. Neither says anything about the patient, and whoever finds such a file in an old backup can
tell that it was destroyed. A certificate proves that the log's entry commits to exactly this list;
that the entry is in the log is proven by the proof file inside it (evidence.proof).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bedside_core.errors import InvalidCertificateError, InvalidEntryError, InvalidInputError
from bedside_core.evidence.entry import Entry, Kind, parse_entry

FORMAT: Final = "bedside-deletion-certificate-v1"
REASONS: Final = ("request", "withdrawal", "retention", "restored", "administrative")
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_KEYS: Final = {"format", "erasure", "at", "reason", "studies", "objects", "index", "proof"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """One encrypted file that was removed.

    Attributes:
        name: 64 random hex digits, its name on the box.
        sha256: of its encrypted bytes, 64 hex digits.
        size: of the encrypted file, in bytes.
    """

    name: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not _is_hex(self.name) or not _is_hex(self.sha256):
            raise InvalidInputError("a destroyed object has a name and a digest of 64 hex digits")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 0:
            raise InvalidInputError("a destroyed object has a size of 0 bytes or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Proof that a box destroyed something.

    Attributes:
        erasure: the box's id of the erasure.
        at: when, milliseconds since 1970, UTC.
        reason: one of `REASONS`.
        studies: how many studies went.
        objects: the files, ordered by name.
        index: place of the entry in the log.
        proof: the `.tlog-proof` of that entry.
    """

    erasure: str
    at: int
    reason: str
    studies: int
    objects: tuple[Destroyed, ...]
    index: int
    proof: str

    def encode(self) -> bytes:
        """Return the file: one JSON document."""
        document = {
            "format": FORMAT,
            "erasure": self.erasure,
            "at": self.at,
            "reason": self.reason,
            "studies": self.studies,
            "objects": rows(self.objects),
            "index": self.index,
            "proof": self.proof,
        }
        return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def rows(objects: Sequence[Destroyed]) -> list[list[str | int]]:
    """Return the list in its canonical order: by name."""
    return [[o.name, o.sha256, o.size] for o in sorted(objects, key=lambda o: o.name)]


def list_digest(objects: Sequence[Destroyed]) -> str:
    """Return SHA-256 over the canonical JSON of the list, 64 hex digits."""
    text = json.dumps(rows(objects), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def refs_of(objects: Sequence[Destroyed], *, studies: int, reason: str) -> Mapping[str, int | str]:
    """Return what an `erasure` entry says in plain: counts, the reason, and the list's digest.

    Raises:
        InvalidInputError: a reason that is not one of `REASONS`.
    """
    if reason not in REASONS:
        raise InvalidInputError(f"an erasure has one of the reasons {', '.join(REASONS)}")
    return {
        "code": reason,
        "destroyed": list_digest(objects),
        "objects": len(objects),
        "studies": studies,
    }


def parse_certificate(data: bytes) -> Certificate:
    """Return the certificate that `data` spells.

    Raises:
        InvalidCertificateError: another format, missing or unknown fields, or wrong values.
    """
    try:
        fields: Any = json.loads(data)
        if set(fields) != _KEYS or fields.pop("format") != FORMAT:
            raise InvalidCertificateError("not a deletion certificate of version 1")
        listed = tuple(
            Destroyed(name=name, sha256=sha256, size=size)
            for name, sha256, size in fields.pop("objects")
        )
        made = Certificate(objects=listed, **fields)
    except (ValueError, RecursionError, TypeError, AttributeError, InvalidInputError) as cause:
        raise InvalidCertificateError("not a deletion certificate of version 1") from cause
    numbers = (made.at, made.studies, made.index)
    texts = (made.erasure, made.reason, made.proof)
    if not all(type(n) is int for n in numbers) or not all(type(t) is str for t in texts):
        raise InvalidCertificateError("a deletion certificate has a wrong value")
    return made


def check_entry(certificate: Certificate, entry: bytes) -> Entry:
    """Return the log's entry if it says what the certificate says.

    Args:
        certificate: as read.
        entry: the bytes that the certificate's proof is about.

    Raises:
        InvalidCertificateError: another kind of entry, another list, count or reason.
    """
    try:
        found = parse_entry(entry)
        said = refs_of(certificate.objects, studies=certificate.studies, reason=certificate.reason)
    except (InvalidEntryError, InvalidInputError) as cause:
        raise InvalidCertificateError("the certificate's entry cannot be read") from cause
    if found.kind is not Kind.ERASURE:
        raise InvalidCertificateError("the certificate's entry is not about an erasure")
    if {name: found.refs.get(name) for name in said} != said:
        raise InvalidCertificateError("the log's entry says something else than the certificate")
    return found


def _is_hex(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None
