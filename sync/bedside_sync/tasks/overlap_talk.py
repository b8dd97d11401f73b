"""Two hospitals count how many patients they share: four signed messages over a relay.

    1 invite   asker -> answerer   purpose, least set, noise; nothing of any patient
    2 accept   answerer -> asker   its points under its secret
    3 return   asker -> answerer   its own points under its secret; the others' under both, shuffled
    4 tell     answerer -> asker   a noisy count

A person at each side agreed first: the invitation and the acceptance are their signatures. From 2
on everything is sealed to the other side, so the relay sees lengths only. Who learns what: both
sets hold dummies, all of a pool at the answerer, a random number k of them at the asker. The
answerer counts true + k and can subtract only what k is on average; the asker knows k and gets the
count with the answerer's noise on top. So each side's count carries the noise of the **other**,
and neither learns the true one. Both follow the messages; a side that lies about its set can make
the count wrong, and with a small true set hidden among invented ids it can probe: hence consent,
the least set, the limit of sessions, and evidence at both sides.

Source: see `overlap`. Dummies as noise on a count: ours, a sum of two independent draws.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from pydantic import Field

from bedside_core.errors import InvalidInputError, RoundRefusedError, UntrustedSignatureError
from bedside_core.signatures import PublicKey, Sign
from bedside_sync.secagg.bodies import Body, decode
from bedside_sync.secagg.gauss import DrawWords64, draw_noise
from bedside_sync.secagg.prg import enc
from bedside_sync.secagg.ring import tail
from bedside_sync.secagg.roster import Hex32, Hex64, Name
from bedside_sync.tasks.overlap import LEAST_SET, POINT_BYTES, RandBelow, blind, shared, to_point

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_TAG: Final = b"bedside/overlap/v1/"
_OFFSET: Final = 1 << 32  # keeps a noisy count above 0 while it is written
_DUMMY: Final = b"\x00dummy "  # no identifier begins with a zero byte
_MOST: Final = 1 << 20  # points of a set
RandomBytes = Callable[[int], bytes]


class Invitation(Body):
    """What the asker proposes; its hash names the session."""

    version: Literal[1] = 1
    nonce: Hex32
    asker: Name
    answerer: Name
    purpose: Annotated[str, Field(min_length=1, max_length=200)]
    identifier: Literal["patient-id", "patient-id+birth-date"] = "patient-id"
    least: Annotated[int, Field(ge=LEAST_SET, le=_MOST)] = LEAST_SET
    sigma2: Annotated[int, Field(ge=1, le=10_000)] = 16  # each side's noise
    expires: Annotated[int, Field(ge=1, le=2**53 - 1)]  # seconds since the epoch
    key: Hex32  # X25519, what the answerer seals to

    @property
    def pool(self) -> int:
        """Dummies: twice as far as the noise reaches."""
        return 2 * tail(self.sigma2)


class SignedInvitation(Body):
    """An invitation with the asker's signature."""

    invitation: Invitation
    signature: Hex64

    @property
    def session(self) -> bytes:
        """What every later message is bound to, 32 bytes."""
        return hashlib.sha256(_TAG + b"session" + self.encode()).digest()


class Letter(Body):
    """A sealed message: which step of which session, from whom, and the sender's next key."""

    session: Hex32
    step: Annotated[int, Field(ge=2, le=4)]
    sender: Name
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""  # in step 2: what to seal to
    signature: Hex64


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """What the asker keeps between its messages; secret."""

    signed: SignedInvitation
    secret: bytes = field(repr=False)  # X25519 scalar that points are multiplied by
    opener: bytes = field(repr=False)  # X25519 key that step 2 and 4 are sealed to
    dummies: int = field(default=0, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerer:
    """What the answerer keeps between its messages; secret."""

    signed: SignedInvitation
    secret: bytes = field(repr=False)
    opener: bytes = field(repr=False)
    sent: int = 0  # points, dummies included


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Randomness from the operating system, and the side's signing key."""

    box: str
    sign: Sign
    random: RandomBytes
    randbelow: RandBelow
    words: DrawWords64


def normalised(patient_id: str, birth_date: str, identifier: str) -> bytes | None:
    """Return what is compared: trimmed and in capitals; None where a part is missing."""
    said = patient_id.strip().upper()
    born = birth_date.strip()
    if not said or (identifier == "patient-id+birth-date" and len(born) != 8):
        return None
    text = said if identifier == "patient-id" else f"{said}|{born}"
    return text.encode()


def invite(tools: Tools, **terms: str | int) -> Asker:
    """Return the asker's state with its signed invitation; terms as in `Invitation`."""
    opener, secret = tools.random(32), tools.random(32)
    given = {"nonce": tools.random(32).hex(), "asker": tools.box, "key": _public(opener).hex()}
    invitation = Invitation.model_validate(given | terms)
    signature = tools.sign(_signed(b"invite", invitation.encode())).hex()
    signed = SignedInvitation(invitation=invitation, signature=signature)
    return Asker(signed=signed, secret=secret, opener=opener)


def check_invitation(data: bytes, asker: PublicKey, box: str, now: int) -> SignedInvitation:
    """Return an invitation to this box that its asker signed and that is not over.

    Raises:
        InvalidMessageError, UntrustedSignatureError, RoundRefusedError.
    """
    signed = decode(SignedInvitation, data)
    message = _signed(b"invite", signed.invitation.encode())
    if not asker.accepts(message, bytes.fromhex(signed.signature)):
        raise UntrustedSignatureError("the invitation is not signed by the box it names")
    if signed.invitation.answerer != box or now >= signed.invitation.expires:
        raise RoundRefusedError("the invitation is to another box, or it is over")
    return signed


def accept(signed: SignedInvitation, ids: Sequence[bytes], tools: Tools) -> tuple[Answerer, bytes]:
    """Return the answerer's state and message 2: its points, every dummy among them.

    Raises:
        RoundRefusedError: fewer ids than the least set.
    """
    opener, secret = tools.random(32), tools.random(32)
    points = _points(signed, ids, signed.invitation.pool)
    once = blind(points, _private(secret), tools.randbelow)
    letter = _letter(signed, 2, tools, _asker_key(signed), once, next_key=_public(opener).hex())
    return Answerer(signed=signed, secret=secret, opener=opener, sent=len(once)), letter


def give_back(
    state: Asker, letter: bytes, ids: Sequence[bytes], tools: Tools, answerer: PublicKey
) -> tuple[Asker, bytes]:
    """Return the asker's state and message 3: its points, and the others' under both secrets.

    Raises:
        RoundRefusedError: too few points on either side, or crooked ones.
        UntrustedSignatureError, InvalidMessageError: not the answerer's message 2.
    """
    head, theirs = _opened(state.signed, letter, 2, answerer, state.opener)
    invitation = state.signed.invitation
    if not invitation.least + invitation.pool <= len(theirs) <= _MOST:
        raise RoundRefusedError("the other side's set is smaller than was agreed")
    secret = _private(state.secret)
    noise = int(draw_noise(invitation.sigma2, 1, tools.words)[0])
    dummies = tail(invitation.sigma2) + noise  # 0 to the whole pool: the noise ends there
    once = blind(_points(state.signed, ids, dummies, tools), secret, tools.randbelow)
    twice = blind(theirs, secret, tools.randbelow)
    key = X25519PublicKey.from_public_bytes(bytes.fromhex(head.key))
    sent = _letter(state.signed, 3, tools, key, [*once, *twice])
    kept = Asker(signed=state.signed, secret=state.secret, opener=state.opener, dummies=dummies)
    return kept, sent


def tell(state: Answerer, letter: bytes, tools: Tools, asker: PublicKey) -> tuple[int, bytes]:
    """Return the answerer's own noisy count, and message 4 with the asker's.

    Raises:
        RoundRefusedError, UntrustedSignatureError, InvalidMessageError: as in `give_back`.
    """
    invitation = state.signed.invitation
    _, points = _opened(state.signed, letter, 3, asker, state.opener)
    once, twice = points[: -state.sent], points[-state.sent :]
    if len(once) < invitation.least or len(twice) != state.sent:
        raise RoundRefusedError("the other side's set is smaller than was agreed")
    ours = blind(once, _private(state.secret), tools.randbelow)
    counted = shared(ours, twice, 0)
    noise = int(draw_noise(invitation.sigma2, 1, tools.words)[0])
    sealed = _letter(
        state.signed, 4, tools, _asker_key(state.signed), [], number=counted + noise + _OFFSET
    )
    return counted - tail(invitation.sigma2), sealed


def hear(state: Asker, letter: bytes, answerer: PublicKey) -> int:
    """Return the asker's noisy count; errors as in `give_back`."""
    _, points = _opened(state.signed, letter, 4, answerer, state.opener)
    return int.from_bytes(points[0], "big") - _OFFSET - state.dummies


# --- inside ------------------------------------------------------------------------------------


def _points(
    signed: SignedInvitation, ids: Sequence[bytes], dummies: int, tools: Tools | None = None
) -> list[bytes]:
    """Return the points of ids and of the first, or of random, dummies of the pool."""
    invitation = signed.invitation
    if not invitation.least <= len(ids) <= _MOST - invitation.pool:
        raise RoundRefusedError(f"an overlap is counted between sets of {invitation.least} or more")
    if len(set(ids)) != len(ids):
        raise InvalidInputError("an identifier stands in a set twice")
    places = list(range(invitation.pool))
    if tools is not None:
        for last in range(len(places) - 1, 0, -1):
            other = tools.randbelow(last + 1)
            places[last], places[other] = places[other], places[last]
    extra = [_DUMMY + str(place).encode() for place in places[:dummies]]
    return [to_point(one, signed.session) for one in [*ids, *extra]]


def _letter(
    signed: SignedInvitation,
    step: int,
    tools: Tools,
    key: X25519PublicKey,
    points: Sequence[bytes],
    *,
    next_key: str = "",
    number: int | None = None,
) -> bytes:
    """Return a signed head, its length before it, and the sealed points."""
    plain = b"".join(points) if number is None else number.to_bytes(POINT_BYTES, "big")
    info = enc(_TAG + b"seal", signed.session, bytes([step]), tools.box.encode())
    sealed = bytes(_SUITE.encrypt(plain, key, info=info))
    message = _signed(b"letter", enc(signed.session, bytes([step]), next_key.encode(), sealed))
    head = Letter(
        session=signed.session.hex(),
        step=step,
        sender=tools.box,
        key=next_key,
        signature=tools.sign(message).hex(),
    ).encode()
    return len(head).to_bytes(4, "big") + head + sealed


def _opened(
    signed: SignedInvitation, data: bytes, step: int, sender: PublicKey, opener: bytes
) -> tuple[Letter, list[bytes]]:
    end = 4 + int.from_bytes(data[:4], "big")
    head, sealed = decode(Letter, data[4:end]), data[end:]
    invitation = signed.invitation
    whom = invitation.asker if step == 3 else invitation.answerer
    if (head.session, head.step, head.sender) != (signed.session.hex(), step, whom):
        raise RoundRefusedError("the message is of another session, step or sender")
    message = _signed(b"letter", enc(signed.session, bytes([step]), head.key.encode(), sealed))
    if not sender.accepts(message, bytes.fromhex(head.signature)):
        raise UntrustedSignatureError("the message is not signed by its sender")
    info = enc(_TAG + b"seal", signed.session, bytes([step]), whom.encode())
    try:
        plain = bytes(_SUITE.decrypt(sealed, _private(opener), info=info))
    except (InvalidTag, ValueError) as cause:
        raise RoundRefusedError("the message does not open") from cause
    if len(plain) % POINT_BYTES or not plain:
        raise RoundRefusedError("the message holds no points")
    return head, [plain[at : at + POINT_BYTES] for at in range(0, len(plain), POINT_BYTES)]


def _asker_key(signed: SignedInvitation) -> X25519PublicKey:
    return X25519PublicKey.from_public_bytes(bytes.fromhex(signed.invitation.key))


def _signed(what: bytes, body: bytes) -> bytes:
    return enc(_TAG + what, body)


def _private(raw: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(raw)


def _public(raw: bytes) -> bytes:
    return _private(raw).public_key().public_bytes_raw()
