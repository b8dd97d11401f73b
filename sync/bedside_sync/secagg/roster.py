"""Who belongs to the consortium: an append-only, hash-chained list that administrators sign.

Adding a site appends one entry and touches no other. An entry counts when two administrators of
different organisations signed it. The administrators are named in the root, which is pinned on
every box: whoever runs the hub can neither invent a site nor take one away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from bedside_core.errors import InvalidMessageError, UntrustedSignatureError
from bedside_core.signatures import Algorithm, PublicKey
from bedside_sync.secagg.bodies import HEX_32, HEX_64, NAME, Body
from bedside_sync.secagg.prg import Tag, digest, signed_bytes

ADMINISTRATORS_NEEDED: Final = 2
Name = Annotated[str, Field(pattern=NAME)]
Hex32 = Annotated[str, Field(pattern=HEX_32)]
Hex64 = Annotated[str, Field(pattern=HEX_64)]


class Administrator(Body):
    """One who may sign entries and manifests."""

    organisation: Name
    key: Hex32  # Ed25519


class Root(Body):
    """What every box pins when it joins; it never changes."""

    consortium: Name
    administrators: Annotated[dict[Name, Administrator], Field(min_length=2, max_length=64)]

    @property
    def hash(self) -> bytes:
        """What the first entry of the roster names as its predecessor."""
        return digest(Tag.ROSTER, b"root", self.encode())


class Change(StrEnum):
    """What an entry does to a member."""

    JOIN = "join"
    RENEW = "renew"  # another certificate under the same key
    REVOKE = "revoke"


class Entry(Body):
    """One line of the roster."""

    seq: Annotated[int, Field(ge=0, le=1 << 32)]
    previous: Hex32
    change: Change
    box: Name
    organisation: Name
    key: Hex32  # the box's Ed25519 identity
    certificate: Hex32  # SHA-256 of its transport certificate
    helper: Annotated[int, Field(ge=0, le=1)]  # whether it may serve as helper

    @property
    def hash(self) -> bytes:
        """The roster's head after this entry."""
        return digest(Tag.ROSTER, self.encode())


class Signature(Body):
    """By whom, and the Ed25519 signature."""

    by: Name
    signature: Hex64


class SignedEntry(Body):
    """An entry with the administrators' signatures."""

    entry: Entry
    signatures: Annotated[list[Signature], Field(max_length=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A site's box as the roster has it."""

    box: str
    organisation: str
    key: PublicKey
    certificate: bytes
    helper: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The members in force after `size` entries."""

    root: Root
    head: bytes
    size: int
    members: Mapping[str, Member]
    gone: frozenset[str]  # revoked: the name never comes back


def ed25519(raw_hex: str) -> PublicKey:
    """Return the public key written as 64 hex digits."""
    return PublicKey(algorithm=Algorithm.ED25519, raw=bytes.fromhex(raw_hex))


def signed_by_organisations(
    root: Root, tag: Tag, body: bytes, signatures: Sequence[Signature]
) -> frozenset[str]:
    """Return the organisations whose administrators signed `body`.

    Raises:
        UntrustedSignatureError: a known administrator's signature fails.
    """
    message = signed_bytes(tag, body)
    found: set[str] = set()
    for one in signatures:
        known = root.administrators.get(one.by)
        if known is None:
            continue
        if not ed25519(known.key).accepts(message, bytes.fromhex(one.signature)):
            raise UntrustedSignatureError(f"the signature of {one.by} fails")
        found.add(known.organisation)
    return frozenset(found)


def read_roster(root: Root, entries: Sequence[SignedEntry]) -> Roster:
    """Fold the entries, from the first, into the members in force.

    Raises:
        InvalidMessageError: an entry out of order, of another chain, or that contradicts the
            list so far (a name twice, a key used twice, a change of somebody unknown).
        UntrustedSignatureError: fewer than two organisations' administrators signed an entry.
    """
    roster = Roster(root=root, head=root.hash, size=0, members={}, gone=frozenset())
    for signed in entries:
        roster = extend(roster, signed)
    return roster


def extend(roster: Roster, signed: SignedEntry) -> Roster:
    """Return the roster with one more entry; errors as in `read_roster`."""
    entry = signed.entry
    if entry.seq != roster.size or bytes.fromhex(entry.previous) != roster.head:
        raise InvalidMessageError("the entry does not follow the roster's head")
    organisations = signed_by_organisations(
        roster.root, Tag.ROSTER, entry.encode(), signed.signatures
    )
    if len(organisations) < ADMINISTRATORS_NEEDED:
        raise UntrustedSignatureError(
            f"administrators of {len(organisations)} organisations signed the entry, "
            f"{ADMINISTRATORS_NEEDED} are needed"
        )
    members, gone = dict(roster.members), roster.gone
    held = members.get(entry.box)
    if entry.change is Change.JOIN:
        _may_join(roster, entry)
        members[entry.box] = _member(entry)
    else:
        if held is None or held.key.raw.hex() != entry.key:
            raise InvalidMessageError("the entry changes a member the roster does not have")
        if held.organisation != entry.organisation:
            raise InvalidMessageError("a member stays with its organisation")
        if entry.change is Change.RENEW:
            members[entry.box] = _member(entry)
        else:
            del members[entry.box]
            gone |= {entry.box}
    return Roster(
        root=roster.root, head=entry.hash, size=roster.size + 1, members=members, gone=gone
    )


def _may_join(roster: Roster, entry: Entry) -> None:
    if entry.box in roster.members or entry.box in roster.gone:
        raise InvalidMessageError("a box's name is given once")
    if any(member.key.raw.hex() == entry.key for member in roster.members.values()):
        raise InvalidMessageError("another member has this key")


def _member(entry: Entry) -> Member:
    return Member(
        box=entry.box,
        organisation=entry.organisation,
        key=ed25519(entry.key),
        certificate=bytes.fromhex(entry.certificate),
        helper=bool(entry.helper),
    )
