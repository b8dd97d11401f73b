"""Proof files (c2sp.org/tlog-proof): one file that shows, offline, that an entry is in a log.

The extra data of the format is not authenticated by it. Here it is the entry itself, and the
verifier hashes it, so the inclusion proof binds every byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bedside_core.errors import InvalidProofError, ProofMismatchError
from bedside_core.evidence.checkpoint import (
    MAX_SIZE,
    OpenedCheckpoint,
    open_checkpoint,
    parse_decimal,
)
from bedside_core.evidence.entry import MAX_ENTRY
from bedside_core.evidence.merkle import HASH_BYTES, inclusion_holds, leaf_hash
from bedside_core.evidence.note import MAX_NOTE, VerifierKey
from bedside_core.signatures import exact_base64, to_base64

MAX_PATH = 63  # hashes; the tallest tree of fewer than 2^63 entries
_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_FILE = MAX_NOTE + 2 * MAX_ENTRY + 64 * MAX_PATH  # bytes, with room for the header lines


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofFile:
    """The parts of a proof file; nothing is verified yet.

    Attributes:
        index: zero-based place of the entry in the log.
        path: inclusion proof, 32 bytes each, the leaf's sibling first.
        checkpoint: the signed checkpoint, verbatim.
        extra: in Bedside's files the entry's bytes; None when the file has no such line.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_SIZE or len(self.path) > MAX_PATH:
            raise InvalidProofError("a proof has an index below 2^63 and at most 63 hashes")
        if any(len(each) != HASH_BYTES for each in self.path):
            raise InvalidProofError("a hash of the proof does not have 32 bytes")

    def encode(self) -> bytes:
        """The file's bytes."""
        lines = [_HEADER]
        if self.extra is not None:
            lines.append(f"extra {to_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [to_base64(each) for each in self.path]
        return ("\n".join(lines) + "\n\n").encode("ascii") + self.checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenEntry:
    """An entry shown to be in the log, and who vouched for the tree it is in."""

    entry: bytes
    index: int
    opened: OpenedCheckpoint


def parse_proof(data: bytes) -> ProofFile:
    """Return the parts of a proof file.

    Raises:
        InvalidProofError: a line is missing, out of order or not in its only spelling, or the
            file is larger than an entry, 63 hashes and a note can be.
    """
    if len(data) > _MAX_FILE:
        raise InvalidProofError(f"a proof file has at most {_MAX_FILE} bytes")
    head, blank, checkpoint = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as cause:
        raise InvalidProofError("the lines of a proof are ASCII") from cause
    if not blank or lines.pop(0) != _HEADER:
        raise InvalidProofError(f"a proof file starts with {_HEADER} and holds a checkpoint")
    extra: bytes | None = None
    if lines and lines[0].startswith("extra "):
        extra = exact_base64(lines.pop(0).removeprefix("extra "))
        if extra is None:
            raise InvalidProofError("the extra data of a proof is not base64")
    named = lines.pop(0) if lines else ""
    index = parse_decimal(named.removeprefix("index "), MAX_SIZE)
    if not named.startswith("index ") or index is None:
        raise InvalidProofError("a proof names an index in decimal")
    if len(lines) > MAX_PATH:
        raise InvalidProofError(f"a proof has at most {MAX_PATH} hashes")
    path = tuple(exact_base64(line) or b"" for line in lines)
    return ProofFile(index=index, path=path, checkpoint=checkpoint, extra=extra)


def verify_proof(
    data: bytes,
    origin: str,
    log_keys: Sequence[VerifierKey],
    witness_keys: Sequence[VerifierKey] = (),
) -> ProvenEntry:
    """Verify a proof file from nothing but its bytes and the keys trusted.

    Args:
        data: the file.
        origin: the log it must be of.
        log_keys: keys of the log; every one must have signed the checkpoint.
        witness_keys: trusted cosigners; those that signed are in the result, and whether they
            are enough is the witness policy's question.

    Raises:
        InvalidProofError: not a proof file, or one without the entry.
        ProofMismatchError: the entry is not at that place under the checkpoint's root.
        InvalidKeyError, InvalidNoteError, WrongOriginError, UntrustedSignatureError: see
            `open_checkpoint`.
    """
    proof = parse_proof(data)
    if proof.extra is None:
        raise InvalidProofError("the proof file does not hold the entry")
    opened = open_checkpoint(proof.checkpoint, origin, log_keys, witness_keys)
    tree = opened.checkpoint
    leaf = leaf_hash(proof.extra)
    if not inclusion_holds(proof.index, tree.size, leaf, proof.path, tree.root):
        raise ProofMismatchError("the proof does not lead from the entry to the checkpoint's root")
    return ProvenEntry(entry=proof.extra, index=proof.index, opened=opened)
