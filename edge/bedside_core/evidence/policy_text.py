"""Which witnesses are enough: the text of c2sp.org/tlog-policy, and whether a quorum is met.

Names of witnesses and groups are bytes: what they mean does not depend on anybody's Unicode.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from bedside_core.errors import InvalidKeyError, InvalidWitnessPolicyError
from bedside_core.evidence.checkpoint import parse_decimal
from bedside_core.evidence.note import SignatureType, VerifierKey, parse_verifier_key

MAX_POLICY: Final = 1 << 20  # bytes; 32 logs and 32 witnesses with ML-DSA keys have 120,000
MAX_LINES_OF_A_KIND: Final = 1024
_NONE: Final = b"none"
_ALLOWED: Final = frozenset([0x09, 0x0A, *range(0x20, 0x7F), *range(0x80, 0x100)])
_LOG_TYPES: Final = frozenset({SignatureType.ED25519, SignatureType.ML_DSA_44_COSIGNATURE})
_WITNESS_TYPES: Final = frozenset(
    {SignatureType.ED25519_COSIGNATURE, SignatureType.ML_DSA_44_COSIGNATURE}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group witnesses a checkpoint when `threshold` of its members do."""

    threshold: int
    members: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessPolicy:
    """Logs, witnesses, and how many of whom must have cosigned.

    Attributes:
        logs: keys of logs, each named like its origin; may be empty.
        witnesses: key of each witness by its name in the file.
        groups: groups by name.
        quorum: name of a witness or group; `none` asks for nobody.
    """

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[bytes, VerifierKey]
    groups: Mapping[bytes, Group]
    quorum: bytes

    def keys_of(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the keys of the log with that origin; empty when the policy does not name it."""
        return tuple(key for key in self.logs if key.name == origin)

    def met(self, signers: Iterable[VerifierKey]) -> bool:
        """Whether these keys, each with a good signature, are a quorum."""
        signed = set(signers)
        there = {name: key in signed for name, key in self.witnesses.items()}
        there[_NONE] = True  # no group can name it
        for name, group in self.groups.items():  # a group stands after its members
            there[name] = sum(there[each] for each in group.members) >= group.threshold
        return there[self.quorum]


def parse_policy_text(data: bytes) -> WitnessPolicy:
    """Return the policy that a text spells.

    Raises:
        InvalidWitnessPolicyError: a byte or line that the format does not allow, a key of the
            wrong type or twice, a name before it is defined or twice, or not one quorum; names the
            line.
    """
    if len(data) > MAX_POLICY or not _ALLOWED.issuperset(data):
        raise InvalidWitnessPolicyError("a witness policy is lines of text, at most 1 MiB")
    reading = _Reading()
    for number, line in enumerate(data.split(b"\n"), start=1):
        words = line.split()
        if not words or words[0].startswith(b"#"):
            continue
        try:
            reading.take(words)
        except (InvalidWitnessPolicyError, InvalidKeyError) as cause:
            raise InvalidWitnessPolicyError(f"line {number}: {cause}") from cause
    return reading.done()


class _Reading:
    """What the lines so far defined."""

    def __init__(self) -> None:
        self._logs: list[VerifierKey] = []
        self._witnesses: dict[bytes, VerifierKey] = {}
        self._groups: dict[bytes, Group] = {}
        self._members: set[bytes] = set()  # each name is a member of one group at most
        self._quorum: bytes | None = None

    def take(self, words: list[bytes]) -> None:
        kind, rest = words[0], words[1:]
        if kind == b"log" and 1 <= len(rest) <= 2:
            self._logs.append(self._new_key(rest[0], _LOG_TYPES, self._logs))
        elif kind == b"witness" and 2 <= len(rest) <= 3:
            key = self._new_key(rest[1], _WITNESS_TYPES, self._witnesses.values())
            self._witnesses[self._new_name(rest[0])] = key
        elif kind == b"group" and len(rest) >= 3:
            self._group(*rest)
        elif kind == b"quorum" and len(rest) == 1:
            self._set_quorum(rest[0])
        else:
            raise InvalidWitnessPolicyError("not a line of log, witness, group or quorum")
        if max(len(self._logs), len(self._witnesses), len(self._groups)) > MAX_LINES_OF_A_KIND:
            raise InvalidWitnessPolicyError(f"at most {MAX_LINES_OF_A_KIND} lines of a kind")

    def done(self) -> WitnessPolicy:
        if self._quorum is None:
            raise InvalidWitnessPolicyError("there is no quorum line")
        return WitnessPolicy(
            logs=tuple(self._logs),
            witnesses=MappingProxyType(self._witnesses),
            groups=MappingProxyType(self._groups),
            quorum=self._quorum,
        )

    def _group(self, name: bytes, number: bytes, *members: bytes) -> None:
        for member in members:
            self._defined(member)
            if member in self._members:
                raise InvalidWitnessPolicyError("a name is a member of one group at most, once")
            self._members.add(member)
        self._groups[self._new_name(name)] = Group(
            threshold=_threshold(number, len(members)), members=members
        )

    def _set_quorum(self, name: bytes) -> None:
        if self._quorum is not None:
            raise InvalidWitnessPolicyError("there is one quorum line")
        if name != _NONE:
            self._defined(name)
        self._quorum = name

    def _defined(self, name: bytes) -> None:
        if name not in self._witnesses and name not in self._groups:
            raise InvalidWitnessPolicyError("a name is used before it is defined")

    def _new_name(self, name: bytes) -> bytes:
        if name == _NONE or name in self._witnesses or name in self._groups:
            raise InvalidWitnessPolicyError("a name is defined once, and none is taken")
        return name

    def _new_key(
        self, text: bytes, kinds: frozenset[SignatureType], known: Iterable[VerifierKey]
    ) -> VerifierKey:
        try:
            key = parse_verifier_key(text.decode("utf-8"))
        except UnicodeDecodeError as cause:
            raise InvalidWitnessPolicyError("the name of a key is UTF-8") from cause
        if key.kind not in kinds:
            raise InvalidWitnessPolicyError("a key of that type is not for a line of this kind")
        if any(key.public == other.public for other in known):
            raise InvalidWitnessPolicyError("the same public key stands on two lines")
        return key


def _threshold(number: bytes, members: int) -> int:
    if number in (b"any", b"all"):
        return 1 if number == b"any" else members
    threshold = parse_decimal(number.decode("latin-1"), members)
    if not threshold:
        raise InvalidWitnessPolicyError("a group needs any, all, or a number up to its members")
    return threshold
