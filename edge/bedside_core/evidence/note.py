"""Signed notes (c2sp.org/signed-note): a text and the lines that sign it.

A key is known by its name and id together. A line of an unknown key is ignored; a failing line of
a known key condemns the whole note; a note without a known signature is nothing. What a signature
covers depends on its type, so the caller hands in how a type's message is made.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from bedside_core.errors import InvalidKeyError, InvalidNoteError, UntrustedSignatureError
from bedside_core.signatures import Algorithm, PublicKey, exact_base64, to_base64

MAX_NOTE = 1_000_000  # bytes
MAX_SIGNATURES = 64  # the text asks for at least 16; an ML-DSA line has 3,250 bytes
KEY_ID_BYTES = 4
_DASH = "\N{EM DASH} "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_HEX_ID = re.compile(r"[0-9a-f]{8}")


class SignatureType(IntEnum):
    """Signature type bytes of signed-note and tlog-cosignature that Bedside accepts."""

    ED25519 = 0x01
    ED25519_COSIGNATURE = 0x04
    ML_DSA_44_COSIGNATURE = 0x06

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm under a type's signatures."""
        ml_dsa = self is SignatureType.ML_DSA_44_COSIGNATURE
        return Algorithm.ML_DSA_44 if ml_dsa else Algorithm.ED25519


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """Who may sign notes: a name, a signature type and a public key.

    Attributes:
        name: not empty, no Unicode space, no `+`, at most 255 bytes; of a log, its origin.
        kind: signature type; its algorithm is the key's.
        public: the public key.
    """

    name: str
    kind: SignatureType
    public: PublicKey

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise InvalidKeyError("a key name is not empty and has no space, control or +")
        if self.kind.algorithm is not self.public.algorithm:
            raise InvalidKeyError("the key's algorithm is not that of its signature type")

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || type || public key), first four bytes."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._typed()).digest()[:KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """The key as one line: `name+<id in hex>+<base64 of type and key>`."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(self._typed())}"

    def _typed(self) -> bytes:
        return bytes([self.kind]) + self.public.raw


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line: the key's name and id, and the bytes after the id."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        named = is_key_name(self.name) and len(self.key_id) == KEY_ID_BYTES
        if not named or not self.signature:
            raise InvalidNoteError("a signature line needs a key name, a key id and a signature")

    @property
    def line(self) -> str:
        """The line, its newline included."""
        return f"{_DASH}{self.name} {to_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text that ends in a newline, and at least one signature line."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n") or _CONTROL.search(self.text):
            raise InvalidNoteError("a note's text ends in a newline and has no other control")
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise InvalidNoteError(f"a note has 1 to {MAX_SIGNATURES} signatures")

    def encode(self) -> bytes:
        """The note's bytes: text, blank line, signature lines."""
        return (self.text + "\n" + "".join(each.line for each in self.signatures)).encode()


# What a signature of this key covers: (text, key, signature bytes) -> (message, bare signature),
# or None when the bytes cannot be a signature of that type.
Statement = Callable[[str, VerifierKey, bytes], tuple[bytes, bytes] | None]


def is_key_name(name: str) -> bool:
    """Whether `name` may name a key: also the rule for the origin of a log."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:  # a lone surrogate has no bytes
        return False
    spaced = any(letter.isspace() or letter < " " for letter in name)
    return 0 < length <= 255 and not spaced and "+" not in name


def parse_verifier_key(text: str) -> VerifierKey:
    """Return the key of a line `name+id+base64`.

    Raises:
        InvalidKeyError: malformed, of an unknown type, or the id is not that of the key.
    """
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    typed = exact_base64(encoded)
    if not typed or not _HEX_ID.fullmatch(key_id):
        raise InvalidKeyError("a verifier key is name+<8 lower hex>+<base64 of type and key>")
    if typed[0] not in set(SignatureType):
        raise InvalidKeyError(f"signature type 0x{typed[0]:02x} is not accepted")
    kind = SignatureType(typed[0])
    public = PublicKey(algorithm=kind.algorithm, raw=typed[1:])
    key = VerifierKey(name=name, kind=kind, public=public)
    if key.key_id.hex() != key_id:
        raise InvalidKeyError("the key id does not belong to the key")
    return key


def parse_note(data: bytes) -> Note:
    """Split a note into text and signature lines; nothing is verified yet.

    Raises:
        InvalidNoteError: not UTF-8, a control character, no signature, a malformed line, more
            than 64 signatures or more than 1,000,000 bytes.
    """
    if len(data) > MAX_NOTE:
        raise InvalidNoteError(f"a note has at most {MAX_NOTE} bytes, got {len(data)}")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise InvalidNoteError("a note is UTF-8") from cause
    blank = whole.rfind("\n\n")  # the last blank line: the text may hold others
    if blank < 0 or not whole.endswith("\n"):
        raise InvalidNoteError("a note is a text, a blank line and signature lines")
    text, lines = whole[: blank + 1], whole[blank + 2 : -1].split("\n")
    if len(lines) > MAX_SIGNATURES:  # before any of them is decoded
        raise InvalidNoteError(f"a note has at most {MAX_SIGNATURES} signatures")
    return Note(text=text, signatures=tuple(_parse_line(line) for line in lines))


def plain_statement(text: str, key: VerifierKey, signature: bytes) -> tuple[bytes, bytes] | None:
    """Type 0x01: the signature is over the text. The other types sign checkpoints only."""
    return (text.encode(), signature) if key.kind is SignatureType.ED25519 else None


def verified_signatures(
    note: Note, keys: Iterable[VerifierKey], statement: Statement = plain_statement
) -> tuple[tuple[VerifierKey, NoteSignature], ...]:
    """Return the trusted keys that signed, each once, with its first signature line.

    Raises:
        InvalidKeyError: two trusted keys share name and id, so a line could mean either.
        UntrustedSignatureError: a trusted key's line fails, or no trusted key signed.
    """
    known = _by_name_and_id(tuple(keys))
    found: dict[tuple[str, bytes], tuple[VerifierKey, NoteSignature]] = {}
    for each in note.signatures:
        key = known.get((each.name, each.key_id))
        if key is None:
            continue
        stated = statement(note.text, key, each.signature)
        if stated is None or not key.public.accepts(*stated):
            raise UntrustedSignatureError("the signature of a trusted key fails")
        found.setdefault((each.name, each.key_id), (key, each))
    if not found:
        raise UntrustedSignatureError("no trusted key signed the note")
    return tuple(found.values())


def _by_name_and_id(keys: Sequence[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    known = {(key.name, key.key_id): key for key in keys}
    if len(known) != len(set(keys)):
        raise InvalidKeyError("two different trusted keys share their name and id")
    return known


def _parse_line(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    blob = exact_base64(encoded)
    if not line.startswith(_DASH) or blob is None:
        raise InvalidNoteError("a signature line is an em dash, a key name and base64")
    return NoteSignature(name=name, key_id=blob[:KEY_ID_BYTES], signature=blob[KEY_ID_BYTES:])
