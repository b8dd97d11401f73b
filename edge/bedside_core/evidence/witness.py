"""What a witness checks before it cosigns, and what a log reads from its answer.

Source: c2sp.org/tlog-witness.

A witness remembers one checkpoint of each log and cosigns the next one only when that log has
grown from it. So two histories of one log never get the same witness's name: a fork, a restored
backup and a cloned disk end here. Both sides are pure; a transport carries status, type and body.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bedside_core.errors import (
    BedsideError,
    InvalidNoteError,
    InvalidRequestError,
    UntrustedSignatureError,
)
from bedside_core.evidence.checkpoint import (
    MAX_SIZE,
    Checkpoint,
    checkpoint_statement,
    open_checkpoint,
    parse_checkpoint_text,
    parse_decimal,
    sign_checkpoint,
)
from bedside_core.evidence.merkle import EMPTY_ROOT, HASH_BYTES, consistency_holds
from bedside_core.evidence.note import (
    MAX_NOTE,
    NoteSignature,
    VerifierKey,
    parse_note,
    verified_signatures,
)
from bedside_core.signatures import Sign, exact_base64, to_base64

MAX_PROOF: Final = 63  # lines
MAX_REQUEST: Final = MAX_NOTE + 64 * 64  # bytes
MAX_ANSWER: Final = MAX_NOTE  # bytes
SIZE_TYPE: Final = "text/x.tlog.size"
NOTE_TYPE: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An add-checkpoint request.

    Attributes:
        old: size that the witness cosigned last, as the log believes.
        proof: consistency proof from that size, 32 bytes each, at most 63.
        checkpoint: the log's signed checkpoint, verbatim.
    """

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.old <= MAX_SIZE or len(self.proof) > MAX_PROOF:
            raise InvalidRequestError("a request has an old size and at most 63 proof lines")
        if any(len(each) != HASH_BYTES for each in self.proof):
            raise InvalidRequestError("a hash of the proof does not have 32 bytes")

    def encode(self) -> bytes:
        """The request's body."""
        lines = [f"old {self.old}", *(to_base64(each) for each in self.proof)]
        return ("\n".join(lines) + "\n\n").encode("ascii") + self.checkpoint


def parse_request(data: bytes) -> Request:
    """Return the parts of a request's body; nothing is verified yet.

    Raises:
        InvalidRequestError: a line is missing or not in its only spelling, there are more than 63
            proof lines, or the body is larger than a request can be.
    """
    if len(data) > MAX_REQUEST:
        raise InvalidRequestError(f"a request has at most {MAX_REQUEST} bytes")
    head, blank, checkpoint = data.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as cause:
        raise InvalidRequestError("the lines of a request are ASCII") from cause
    old = parse_decimal(first.removeprefix("old "), MAX_SIZE)
    if not blank or not first.startswith("old ") or old is None:
        raise InvalidRequestError(
            "a request starts with `old` and a size, and ends in a checkpoint"
        )
    if len(lines) > MAX_PROOF:
        raise InvalidRequestError(f"a request has at most {MAX_PROOF} proof lines")
    return Request(
        old=old,
        proof=tuple(exact_base64(line) or b"" for line in lines),
        checkpoint=checkpoint,
    )


# --- the witness -----------------------------------------------------------------------------


class Why(StrEnum):
    """What a witness says about a request, and under which status."""

    COSIGNED = "cosigned"
    MALFORMED = "malformed"
    UNKNOWN_ORIGIN = "unknown-origin"
    UNTRUSTED = "untrusted"
    OLD_ABOVE_SIZE = "old-above-size"
    OTHER_SIZE = "other-size"  # than the one last cosigned
    OTHER_ROOT = "other-root"  # at one size
    NEEDLESS_PROOF = "needless-proof"  # from nothing to something
    INCONSISTENT = "inconsistent"

    @property
    def status(self) -> int:
        """The HTTP status that carries it."""
        return _STATUS[self]


_STATUS: Final = {
    Why.COSIGNED: 200,
    Why.MALFORMED: 400,
    Why.UNKNOWN_ORIGIN: 404,
    Why.UNTRUSTED: 403,
    Why.OLD_ABOVE_SIZE: 400,
    Why.OTHER_SIZE: 409,
    Why.OTHER_ROOT: 422,
    Why.NEEDLESS_PROOF: 422,
    Why.INCONSISTENT: 422,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a witness cosigned last of a log."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a witness decides.

    Attributes:
        why: the decision.
        checkpoint: what the log asked for, once its signatures were found good; else None.
        note: the signed checkpoint, verbatim; empty while `checkpoint` is None.
        last: size last cosigned for the log; 0 for none.
        suspicious: refused, and the log's own signature speaks against it: the box was restored,
            cloned or changed. The note is proof and is kept.
    """

    why: Why
    checkpoint: Checkpoint | None = None
    note: bytes = b""
    last: int = 0
    suspicious: bool = False

    @property
    def body(self) -> bytes:
        """The answer's body where it was refused."""
        if self.why is Why.OTHER_SIZE:
            return f"{self.last}\n".encode()
        return f"{self.why}\n".encode()

    @property
    def content_type(self) -> str:
        """Media type of `body`."""
        return SIZE_TYPE if self.why is Why.OTHER_SIZE else NOTE_TYPE


def judge(
    data: bytes,
    keys_of: Callable[[str], Sequence[VerifierKey]],
    seen_of: Callable[[str], Seen | None],
) -> Verdict:
    """Check a request in the order the protocol fixes; the first failure is the answer.

    Run it inside the transaction that persists a checkpoint found good: between looking at what
    was seen and writing it, nobody else may write.

    Args:
        data: the request's body.
        keys_of: trusted keys of the log of that origin; every one must have signed. Empty for an
            unknown one.
        seen_of: what was last cosigned for that origin.
    """
    try:
        request = parse_request(data)
        origin = parse_checkpoint_text(parse_note(request.checkpoint).text).origin
    except (InvalidRequestError, InvalidNoteError):
        return Verdict(why=Why.MALFORMED)
    keys = keys_of(origin)
    if not keys:
        return Verdict(why=Why.UNKNOWN_ORIGIN)
    try:
        checkpoint = open_checkpoint(request.checkpoint, origin, keys).checkpoint
    except UntrustedSignatureError:
        return Verdict(why=Why.UNTRUSTED)
    seen = seen_of(origin)
    why = _compared(request, checkpoint, seen or Seen(size=0, root=EMPTY_ROOT))
    return Verdict(
        why=why,
        checkpoint=checkpoint,
        note=request.checkpoint,
        last=seen.size if seen else 0,
        suspicious=why in (Why.OTHER_ROOT, Why.INCONSISTENT) or _behind(checkpoint, seen),
    )


def _compared(request: Request, checkpoint: Checkpoint, seen: Seen) -> Why:
    """Checks 4 to 6, of a checkpoint whose signatures are good."""
    if request.old > checkpoint.size:
        return Why.OLD_ABOVE_SIZE
    if request.old != seen.size:
        return Why.OTHER_SIZE
    if request.old == checkpoint.size and checkpoint.root != seen.root:
        return Why.OTHER_ROOT
    if request.old == 0:
        return Why.NEEDLESS_PROOF if request.proof else Why.COSIGNED
    grown = consistency_holds(
        request.old, checkpoint.size, seen.root, checkpoint.root, request.proof
    )
    return Why.COSIGNED if grown else Why.INCONSISTENT


def _behind(checkpoint: Checkpoint, seen: Seen | None) -> bool:
    """Whether a log shows less than, or something else than, what it once had cosigned."""
    if seen is None or checkpoint.size > seen.size:
        return False
    return checkpoint.size < seen.size or checkpoint.root != seen.root


def cosign(checkpoint: Checkpoint, signers: Sequence[tuple[VerifierKey, Sign]], time: int) -> bytes:
    """Return a witness's signature lines. Call it once the checkpoint is persisted, never before.

    Args:
        checkpoint: what `judge` found good.
        signers: the witness's keys, public half and signing function.
        time: seconds since the epoch, above 0.
    """
    lines = [sign_checkpoint(checkpoint, key, sign, time).line for key, sign in signers]
    return "".join(lines).encode()


# --- the log's side --------------------------------------------------------------------------


class Outcome(StrEnum):
    """What an answer means to the log that asked."""

    COSIGNED = "cosigned"
    AGAIN = "again"  # ask again from another old size
    AHEAD = "ahead"  # the witness says it saw more of this log than there is
    OTHER = "other"  # the witness says it saw another history
    NOT_WATCHED = "not-watched"  # origin or keys are not enrolled there
    BROKEN = "broken"  # no answer of this protocol, or the witness cannot now


def read_answer(
    old: int, size: int, status: int, content_type: str, body: bytes
) -> tuple[Outcome, int]:
    """Return what an answer means, and the size the witness named (0 when it named none).

    A witness that says AHEAD or OTHER claims something about this log; `contradiction` tells
    whether it can show it.

    Args:
        old: the old size that was sent.
        size: size of the checkpoint that was sent.
        status: HTTP status.
        content_type: media type of the body.
        body: the answer's body.
    """
    if status == 409:
        last = _named_size(content_type, body)
        if last is None:
            return Outcome.BROKEN, 0
        return _conflict(old, size, last), last
    if status == 400 and old > size:
        return Outcome.AHEAD, old
    known = {
        200: Outcome.COSIGNED,
        403: Outcome.NOT_WATCHED,
        404: Outcome.NOT_WATCHED,
        422: Outcome.OTHER,
    }
    return known.get(status, Outcome.BROKEN), 0


def _named_size(content_type: str, body: bytes) -> int | None:
    if content_type.partition(";")[0].strip() != SIZE_TYPE or not body.endswith(b"\n"):
        return None
    return parse_decimal(body[:-1].decode("ascii", "replace"), MAX_SIZE)


def _conflict(old: int, size: int, last: int) -> Outcome:
    if last > size:
        return Outcome.AHEAD
    if last != old:
        return Outcome.AGAIN
    # It agrees about the size, so it can only disagree about the root (the text of tlog-witness
    # gives 409 for that, ours 422)
    return Outcome.OTHER if last == size else Outcome.BROKEN


def cosignatures(
    checkpoint: bytes, body: bytes, keys: Sequence[VerifierKey]
) -> tuple[NoteSignature, ...]:
    """Return the good signature lines of known witness keys in an answer; others are ignored.

    Args:
        checkpoint: the signed checkpoint that was sent.
        body: the answer's body.
        keys: the keys this witness is known by.

    Raises:
        InvalidNoteError: the body is not signature lines.
        UntrustedSignatureError: a line of a known key fails, or no known key signed.
    """
    text = parse_note(checkpoint).text
    note = parse_note(text.encode() + b"\n" + body)
    return tuple(line for _, line in verified_signatures(note, keys, checkpoint_statement))


def contradiction(
    note: bytes,
    origin: str,
    log_keys: Sequence[VerifierKey],
    root_at: Callable[[int], bytes | None],
) -> Checkpoint | None:
    """Return the checkpoint that shows that this log is not the one a witness saw; else None.

    Only this log's own keys can show it: a witness that is wrong, or lies, locks nobody.

    Args:
        note: what the witness says it cosigned last of this log.
        origin: name of this log.
        log_keys: its own keys; every one must have signed.
        root_at: root of this log at a size; None when it never was that large.
    """
    try:
        checkpoint = open_checkpoint(note, origin, log_keys).checkpoint
    except BedsideError:
        return None
    return None if root_at(checkpoint.size) == checkpoint.root else checkpoint
