"""Checkpoints (c2sp.org/tlog-checkpoint) and the cosignatures on them (c2sp.org/tlog-cosignature).

A checkpoint names a log, a size and a root; whoever signs it says that every entry up to that
size is fixed. The log signs with Ed25519 and with ML-DSA-44; witnesses cosign with a time.
Extension lines are refused: ML-DSA-44 does not cover them, so two readers could see two texts.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bedside_core.errors import (
    InvalidKeyError,
    InvalidNoteError,
    UntrustedSignatureError,
    WrongOriginError,
)
from bedside_core.evidence.merkle import HASH_BYTES
from bedside_core.evidence.note import (
    Note,
    NoteSignature,
    SignatureType,
    VerifierKey,
    is_key_name,
    parse_note,
    verified_signatures,
)
from bedside_core.signatures import Sign, exact_base64, to_base64

MAX_SIZE = 2**63 - 1
MAX_TIME = 2**63 - 1
_TIME = struct.Struct(">Q")
_SUBTREE_LABEL = b"subtree/v1\n\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a log says about itself.

    Attributes:
        origin: name of the log, `<consortium>/<site>/<device>`; also the name of its keys.
        size: number of entries.
        root: 32 bytes, root hash at that size.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.origin):
            raise InvalidNoteError("an origin is not empty and has no space, control or +")
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_BYTES:
            raise InvalidNoteError("a checkpoint has a size from 0 and a root of 32 bytes")

    @property
    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A trusted key that signed, and when it said so (seconds since the epoch; 0 for type 0x01)."""

    key: VerifierKey
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCheckpoint:
    """A checkpoint whose log signed it with every key asked for.

    Attributes:
        checkpoint: what was signed.
        signers: trusted keys that signed, each once: the log's, then witnesses in note order.
    """

    checkpoint: Checkpoint
    signers: tuple[Signer, ...]


def parse_decimal(text: str, largest: int) -> int | None:
    """A number as these formats write it: ASCII digits, no sign, no leading zero; else None."""
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        return None
    value = int(text)
    return value if str(value) == text and value <= largest else None


def parse_checkpoint_text(text: str) -> Checkpoint:
    """Return the checkpoint that a note's text spells.

    Raises:
        InvalidNoteError: not exactly origin, size and root, each in its only spelling.
    """
    parts = text.split("\n")
    if len(parts) != 4 or parts[3]:
        raise InvalidNoteError("a checkpoint has three lines; extension lines are refused")
    size, root = parse_decimal(parts[1], MAX_SIZE), exact_base64(parts[2])
    if size is None or root is None:
        raise InvalidNoteError("the size or root of a checkpoint is not in its only spelling")
    return Checkpoint(origin=parts[0], size=size, root=root)


# --- what a signature covers -----------------------------------------------------------------


def cosignature_message(checkpoint: Checkpoint, time: int) -> bytes:
    """Type 0x04: two header lines and the checkpoint's text. The cosigner's name is not covered."""
    return f"cosignature/v1\ntime {time}\n{checkpoint.text}".encode()


def subtree_message(
    cosigner: str, time: int, origin: str, start: int, end: int, root: bytes
) -> bytes:
    """Type 0x06: the `cosigned_message` structure; for a checkpoint start is 0, end the size.

    Args:
        cosigner: name of the signing key, 1 to 255 bytes.
        time: seconds since the epoch.
        origin: the log's origin, 1 to 255 bytes.
        start: index of the first entry covered.
        end: index after the last entry covered.
        root: 32 bytes, tree hash of those entries.
    """
    name, log = cosigner.encode(), origin.encode()
    return b"".join(
        [
            _SUBTREE_LABEL,
            bytes([len(name)]) + name,
            _TIME.pack(time),
            bytes([len(log)]) + log,
            _TIME.pack(start) + _TIME.pack(end) + root,
        ]
    )


def sign_checkpoint(
    checkpoint: Checkpoint, key: VerifierKey, sign: Sign, time: int = 0
) -> NoteSignature:
    """Return the signature line of `key` on a checkpoint.

    Args:
        checkpoint: what is signed. Whether this log or witness may sign it is the caller's duty.
        key: the public half; its type decides what is signed.
        sign: the private half, message to signature.
        time: seconds since the epoch; 0 for type 0x01, above 0 for the others.

    Raises:
        InvalidKeyError: the time does not fit the type, or `sign` belongs to another key; the
            line is checked before it is returned, so a broken signer publishes nothing.
    """
    if key.kind is SignatureType.ED25519:
        fits, prefix = time == 0, b""
    else:
        fits = 0 < time <= MAX_TIME
        prefix = _TIME.pack(time) if fits else b""
    if not fits:
        raise InvalidKeyError("cosignatures carry a time above 0, plain signatures none")
    signature = sign(_message(checkpoint, key, time))
    if not key.public.accepts(_message(checkpoint, key, time), signature):
        raise InvalidKeyError("the signing function does not belong to the key")
    return NoteSignature(name=key.name, key_id=key.key_id, signature=prefix + signature)


def checkpoint_statement(
    text: str, key: VerifierKey, signature: bytes
) -> tuple[bytes, bytes] | None:
    """What a line on a checkpoint covers, for `verified_signatures`.

    None when its time is missing, zero or beyond 2^63 - 1.

    Raises:
        InvalidNoteError: the text is not a checkpoint.
    """
    checkpoint = parse_checkpoint_text(text)
    if key.kind is SignatureType.ED25519:
        return _message(checkpoint, key, 0), signature
    if len(signature) < _TIME.size or not 0 < _time_of(key, signature) <= MAX_TIME:
        return None
    return _message(checkpoint, key, _time_of(key, signature)), signature[_TIME.size :]


def open_checkpoint(
    data: bytes,
    origin: str,
    log_keys: Sequence[VerifierKey],
    witness_keys: Sequence[VerifierKey] = (),
) -> OpenedCheckpoint:
    """Verify a signed checkpoint.

    Args:
        data: the note's bytes.
        origin: the log asked about.
        log_keys: every one of them must have signed; at least one, each named like the origin.
        witness_keys: trusted cosigners. Those that signed are returned; how many suffice is the
            witness policy's question.

    Raises:
        InvalidKeyError: no log key, or a log key of another name.
        InvalidNoteError: not a checkpoint.
        WrongOriginError: a checkpoint of another log.
        UntrustedSignatureError: a log key did not sign, or a trusted signature fails.
    """
    if not log_keys or any(key.name != origin for key in log_keys):
        raise InvalidKeyError("a log has at least one key, named like its origin")
    note = parse_note(data)
    checkpoint = parse_checkpoint_text(note.text)
    if checkpoint.origin != origin:
        raise WrongOriginError("the checkpoint is of another log")
    found = verified_signatures(note, (*log_keys, *witness_keys), checkpoint_statement)
    times = {key: _time_of(key, line.signature) for key, line in found}
    if not times.keys() >= set(log_keys):
        raise UntrustedSignatureError("the log did not sign with every one of its keys")
    witnesses = [key for key in times if key not in log_keys]
    ordered = (*dict.fromkeys(log_keys), *witnesses)
    return OpenedCheckpoint(
        checkpoint=checkpoint,
        signers=tuple(Signer(key=key, time=times[key]) for key in ordered),
    )


def signed_note(checkpoint: Checkpoint, signatures: Sequence[NoteSignature]) -> bytes:
    """The bytes of a checkpoint with its signature lines in the order given."""
    return Note(text=checkpoint.text, signatures=tuple(signatures)).encode()


def _message(checkpoint: Checkpoint, key: VerifierKey, time: int) -> bytes:
    if key.kind is SignatureType.ED25519:
        return checkpoint.text.encode()
    if key.kind is SignatureType.ED25519_COSIGNATURE:
        return cosignature_message(checkpoint, time)
    return subtree_message(key.name, time, checkpoint.origin, 0, checkpoint.size, checkpoint.root)


def _time_of(key: VerifierKey, signature: bytes) -> int:
    if key.kind is SignatureType.ED25519:
        return 0
    return int(_TIME.unpack_from(signature)[0])
