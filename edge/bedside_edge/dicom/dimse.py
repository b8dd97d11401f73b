"""DIMSE command sets as bytes and values (PS3.7 section 6.3 and annex E). Pure."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from bedside_edge.dicom.pdu import BadPduError

VERIFICATION = "1.2.840.10008.1.1"
MAX_COMMAND = 1 << 14  # bytes; real command sets have 100 to 300
_NO_DATA_SET = 0x0101
_RESPONSE = 0x8000

_AFFECTED_CLASS, _COMMAND_FIELD, _MESSAGE_ID = 0x0002, 0x0100, 0x0110
_RESPONDED_TO, _DATA_SET_TYPE, _STATUS, _COMMENT = 0x0120, 0x0800, 0x0900, 0x0902
_AFFECTED_INSTANCE = 0x1000


class Operation(IntEnum):
    """Command fields this box knows (PS3.7 table E.1-1)."""

    C_STORE = 0x0001
    C_ECHO = 0x0030
    C_CANCEL = 0x0FFF


class Status(IntEnum):
    """Statuses this box answers with (PS3.7 annex C, PS3.4 table B.2-1)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    UNRECOGNISED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A request as it came; UIDs are not checked yet."""

    operation: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str


def decode_command(data: bytes | bytearray) -> Command:
    """Decode a command set: implicit VR little-endian, group 0000 only.

    Raises:
        BadPduError: not a command set of a request.
    """
    values: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise BadPduError("a command element is cut off")
        group, element, length = struct.unpack_from("<HHI", data, position)
        position += 8
        if group != 0 or position + length > len(data):
            raise BadPduError("a command set holds something else")
        values[element] = bytes(data[position : position + length])
        position += length
    operation = _number(values, _COMMAND_FIELD)
    if operation & _RESPONSE:
        raise BadPduError("a response nobody asked for")
    return Command(
        operation=operation,
        message_id=_number(
            values, _RESPONDED_TO if operation == Operation.C_CANCEL else _MESSAGE_ID
        ),
        has_data_set=_number(values, _DATA_SET_TYPE) != _NO_DATA_SET,
        sop_class_uid=_text(values, _AFFECTED_CLASS),
        sop_instance_uid=_text(values, _AFFECTED_INSTANCE),
    )


def encode_response(command: Command, status: int, comment: str = "") -> bytes:
    """Encode the response to a command (PS3.7 tables 9.3-2 and 9.3-13).

    `comment` is one of our error codes: senders write it to their logs.
    """
    elements = b"".join(
        (
            _element(_AFFECTED_CLASS, _padded(command.sop_class_uid, "\0")),
            _element(_COMMAND_FIELD, struct.pack("<H", command.operation | _RESPONSE)),
            _element(_RESPONDED_TO, struct.pack("<H", command.message_id)),
            _element(_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
            _element(_STATUS, struct.pack("<H", status)),
            _element(_COMMENT, _padded(comment[:64], " ")) if comment else b"",
            _element(_AFFECTED_INSTANCE, _padded(command.sop_instance_uid, "\0"))
            if command.sop_instance_uid
            else b"",
        )
    )
    return _element(0, struct.pack("<I", len(elements))) + elements


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, element, len(value)) + value


def _padded(text: str, pad: str) -> bytes:
    return (text + pad * (len(text) % 2)).encode("ascii", "replace")


def _number(values: dict[int, bytes], element: int) -> int:
    value = values.get(element, b"")
    if len(value) != 2:
        raise BadPduError("a command set lacks a number it needs")
    return int.from_bytes(value, "little")


def _text(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("ascii", "replace").rstrip("\0 ")[:256]
