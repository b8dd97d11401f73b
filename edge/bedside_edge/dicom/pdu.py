"""Protocol data units of the DICOM Upper Layer as bytes and values (PS3.8 section 9.3).

Pure: no socket, no clock. Only what an acceptor needs: it reads A-ASSOCIATE-RQ and writes the
rest. P-DATA-TF is not here; `ul` streams it without building objects.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from bedside_edge.dicom.part10 import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION, valid_uid

HEADER = struct.Struct(">BxI")  # type, reserved, length of what follows
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
MAX_CONTEXTS = 128


class PduType(IntEnum):
    """PDU types (PS3.8 tables 9-11 to 9-26)."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    DATA_TF = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class Rejection(IntEnum):
    """Why an association is refused: result, source and reason packed as 0xRRSSNN (table 9-21)."""

    APPLICATION_CONTEXT = 0x010102
    CALLING_AE_TITLE = 0x010103
    CALLED_AE_TITLE = 0x010107
    PROTOCOL_VERSION = 0x010202
    TOO_MANY_ASSOCIATIONS = 0x020302  # transient: local limit exceeded


class AbortReason(IntEnum):
    """Reasons of an A-ABORT by the service provider (table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


class BadPduError(Exception):
    """A PDU breaks PS3.8: the association ends with A-ABORT. Never leaves the acceptor."""

    def __init__(self, message: str, reason: AbortReason = AbortReason.INVALID_PARAMETER) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedContext:
    """A presentation context as the requestor proposes it."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedContext:
    """The answer to one proposed context; `result` 0 accepted, 3 abstract, 4 transfer syntax."""

    context_id: int
    result: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRequest:
    """A decoded A-ASSOCIATE-RQ. AE titles are stripped; `raw_titles` are the 32 bytes sent."""

    protocol_version: int
    called_ae: str
    calling_ae: str
    raw_titles: bytes
    application_context: str
    contexts: tuple[ProposedContext, ...]
    max_pdu: int
    roles: tuple[str, ...]  # SOP classes for which the requestor negotiates roles


def decode_associate_rq(body: bytes) -> AssociateRequest:
    """Decode what follows the six header bytes of an A-ASSOCIATE-RQ (table 9-11).

    Raises:
        BadPduError: lengths do not add up, an item is missing or a value is out of range.
    """
    if len(body) < 68:
        raise BadPduError("the association request is too short")
    application_context, contexts, user = "", [], b""
    for kind, value in _items(body, 68):
        if kind == 0x10:
            application_context = _uid(value)
        elif kind == 0x20:
            contexts.append(_proposed(value))
        elif kind == 0x50:
            user = value
    identifiers = [context.context_id for context in contexts]
    if not 1 <= len(contexts) <= MAX_CONTEXTS or len(set(identifiers)) != len(identifiers):
        raise BadPduError("need 1 to 128 presentation contexts with different ids")
    max_pdu, roles = _user_information(user)
    return AssociateRequest(
        protocol_version=int.from_bytes(body[:2], "big"),
        called_ae=_title(body[4:20]),
        calling_ae=_title(body[20:36]),
        raw_titles=body[4:36],
        application_context=application_context,
        contexts=tuple(contexts),
        max_pdu=max_pdu,
        roles=roles,
    )


def negotiate(
    proposed: tuple[ProposedContext, ...], serves: Callable[[str], bool]
) -> tuple[AcceptedContext, ...]:
    """Answer every proposed context: the first transfer syntax of those the sender lists.

    The sender lists first what it has; nothing is decoded on arrival, so nothing is gained by
    making it convert.
    """
    return tuple(_answer(context, serves) for context in proposed)


def _answer(context: ProposedContext, serves: Callable[[str], bool]) -> AcceptedContext:
    usable = [uid for uid in context.transfer_syntaxes if valid_uid(uid)]
    served = valid_uid(context.abstract_syntax) and serves(context.abstract_syntax)
    result = 3 if not served else 0 if usable else 4
    return AcceptedContext(
        context_id=context.context_id,
        result=result,
        abstract_syntax=context.abstract_syntax,
        transfer_syntax=usable[0] if result == 0 else "",
    )


def encode_associate_ac(
    request: AssociateRequest, contexts: tuple[AcceptedContext, ...], max_pdu: int
) -> bytes:
    """Encode the A-ASSOCIATE-AC to a request (table 9-17). No asynchronous operations."""
    items = [_item(0x10, APPLICATION_CONTEXT.encode())]
    for context in contexts:
        # The transfer syntax of a refused context is not significant, but has to be there.
        syntax = _item(0x40, (context.transfer_syntax or "1.2.840.10008.1.2").encode())
        head = bytes((context.context_id, 0, context.result, 0))
        items.append(_item(0x21, head + syntax))
    user = [_item(0x51, struct.pack(">I", max_pdu)), _item(0x52, IMPLEMENTATION_UID.encode())]
    accepted = {context.abstract_syntax for context in contexts if context.result == 0}
    for sop_class in request.roles:
        if sop_class in accepted:  # the peer may be SCU, we are the SCP
            name = sop_class.encode()
            user.append(_item(0x54, struct.pack(">H", len(name)) + name + b"\1\0"))
    user.append(_item(0x55, IMPLEMENTATION_VERSION.encode()))
    body = b"\0\1\0\0" + request.raw_titles + bytes(32) + b"".join(items)
    return _pdu(PduType.ASSOCIATE_AC, body + _item(0x50, b"".join(user)))


def encode_associate_rj(why: Rejection) -> bytes:
    """Encode an A-ASSOCIATE-RJ (table 9-21)."""
    return _pdu(PduType.ASSOCIATE_RJ, bytes(1) + int(why).to_bytes(3, "big"))


def encode_release_rp() -> bytes:
    """Encode an A-RELEASE-RP (table 9-25)."""
    return _pdu(PduType.RELEASE_RP, bytes(4))


def encode_abort(reason: AbortReason) -> bytes:
    """Encode an A-ABORT by the service provider (table 9-26)."""
    return _pdu(PduType.ABORT, bytes((0, 0, 2, reason)))


def encode_command(context_id: int, command: bytes, max_pdu: int) -> bytes:
    """Encode a command set as P-DATA-TF PDUs the peer can take (tables 9-22 and E.1)."""
    room = max(max_pdu - 6, 64) if max_pdu else len(command)
    pieces = [command[at : at + room] for at in range(0, len(command), room)]
    encoded = []
    for number, piece in enumerate(pieces, 1):
        control = 3 if number == len(pieces) else 1
        value = struct.pack(">IBB", len(piece) + 2, context_id, control) + piece
        encoded.append(_pdu(PduType.DATA_TF, value))
    return b"".join(encoded)


def _pdu(kind: PduType, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _items(data: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value) of items with a 16-bit length; they must fill the rest exactly."""
    end = len(data)
    while position < end:
        if position + 4 > end:
            raise BadPduError("an item header is cut off")
        kind, length = struct.unpack_from(">BxH", data, position)
        position += 4
        if position + length > end:
            raise BadPduError("an item is longer than its PDU")
        yield kind, data[position : position + length]
        position += length


def _proposed(value: bytes) -> ProposedContext:
    if len(value) < 4 or value[0] % 2 == 0:
        raise BadPduError("a presentation context has no odd id")
    abstract, transfer = "", []
    for kind, name in _items(value, 4):
        if kind == 0x30:
            abstract = _uid(name)
        elif kind == 0x40:
            transfer.append(_uid(name))
    return ProposedContext(
        context_id=value[0], abstract_syntax=abstract, transfer_syntaxes=tuple(transfer)
    )


def _user_information(value: bytes) -> tuple[int, tuple[str, ...]]:
    """Return the peer's largest PDU (0: any) and the SOP classes with role selection."""
    max_pdu, roles = 0, []
    for kind, content in _items(value, 0):
        if kind == 0x51 and len(content) == 4:
            (max_pdu,) = struct.unpack(">I", content)
        elif kind == 0x54 and len(content) >= 4:
            (length,) = struct.unpack_from(">H", content)
            if 2 + length + 2 != len(content):
                raise BadPduError("a role selection item does not add up")
            roles.append(_uid(content[2 : 2 + length]))
    return max_pdu, tuple(roles)


def _uid(value: bytes) -> str:
    """Return a UID as text; one that breaks PS3.5 is caught where it is used."""
    return value.decode("ascii", "replace").rstrip("\0 ")


def _title(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")
