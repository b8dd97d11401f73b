"""Messages between box and hub as bytes: versioned, length-limited, no code, no objects.

    4 bytes  b"BSY" and the version, 1
    4 bytes  length of the header, big-endian
    header   canonical JSON: kind, and fields that are integers or strings
    payload  the rest

A request carries an id of its own, so that a handler that is called twice acts once.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bedside_core.errors import InvalidMessageError

MAX_MESSAGE: Final = 1 << 20  # bytes; a chunk of 256 KiB and a page of reports both fit
MAX_HEADER: Final = 64 << 10
_PREFIX: Final = struct.Struct(">3sBI")
_MAGIC: Final = b"BSY"
_VERSION: Final = 1
_MAX_INTEGER: Final = 2**53 - 1
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KIND: Final = re.compile(r"[a-z][a-z0-9.-]{0,31}")

Value = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message; an object that exists can be written.

    Attributes:
        kind: what is asked or answered, `[a-z][a-z0-9.-]*`.
        fields: integers from 0 to 2^53 - 1 and strings.
        payload: bytes the header speaks of.
    """

    kind: str
    fields: Mapping[str, Value] = field(default_factory=dict)
    payload: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise InvalidMessageError("a message's kind is a short lower-case name")
        for name, value in self.fields.items():
            if not _NAME.fullmatch(name) or name == "kind" or not _plain(value):
                raise InvalidMessageError("a message's fields are integers and strings")

    def integer(self, name: str) -> int:
        """Return an integer field; InvalidMessageError when it is missing or none."""
        value = self.fields.get(name)
        if not isinstance(value, int):
            raise InvalidMessageError(f"the message needs an integer {name}")
        return value

    def text(self, name: str) -> str:
        """Return a text field; InvalidMessageError when it is missing or none."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise InvalidMessageError(f"the message needs a text {name}")
        return value

    def digest(self, name: str) -> bytes:
        """Return a field of 64 hex digits as 32 bytes; InvalidMessageError otherwise."""
        text = self.text(name)
        if len(text) != 64 or not re.fullmatch(r"[0-9a-f]{64}", text):
            raise InvalidMessageError(f"the message needs a digest {name}")
        return bytes.fromhex(text)


def _plain(value: object) -> bool:
    if isinstance(value, str):
        return True
    return type(value) is int and 0 <= value <= _MAX_INTEGER


def write_message(message: Message) -> bytes:
    """Return a message as bytes; InvalidMessageError when it is longer than a message may be."""
    head = _spell(message)
    data = _PREFIX.pack(_MAGIC, _VERSION, len(head)) + head + message.payload
    if len(head) > MAX_HEADER or len(data) > MAX_MESSAGE:
        raise InvalidMessageError(f"a message has at most {MAX_MESSAGE} bytes")
    return data


def _spell(message: Message) -> bytes:
    text = json.dumps(
        {"kind": message.kind, **message.fields},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return text.encode("ascii")


def read_message(data: bytes | memoryview) -> Message:
    """Return the message in `data`.

    Raises:
        InvalidMessageError: too long, cut, of another version, or not spelled as we spell it. The
            text never repeats what was sent.
    """
    view = memoryview(data)
    if len(view) > MAX_MESSAGE or len(view) < _PREFIX.size:
        raise InvalidMessageError("a message is cut or longer than a message may be")
    magic, version, length = _PREFIX.unpack(view[: _PREFIX.size])
    if magic != _MAGIC or version != _VERSION:
        raise InvalidMessageError("not a message of this version")
    if length > MAX_HEADER or _PREFIX.size + length > len(view):
        raise InvalidMessageError("a message's header is cut or too long")
    head = bytes(view[_PREFIX.size : _PREFIX.size + length])
    fields = _header(head)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str):
        raise InvalidMessageError("a message has no kind")
    message = Message(kind=kind, fields=fields, payload=bytes(view[_PREFIX.size + length :]))
    if _spell(message) != head:
        raise InvalidMessageError("a message in another spelling than its own")
    return message


def _header(head: bytes) -> dict[str, Any]:
    try:
        found: Any = json.loads(head.decode("ascii"))
    except (ValueError, RecursionError) as cause:
        raise InvalidMessageError("a message's header is not JSON") from cause
    if not isinstance(found, dict):
        raise InvalidMessageError("a message's header is not an object")
    return found


def join_parts(*parts: bytes) -> bytes:
    """Return several byte strings as one payload: each after its length in four bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def split_parts(payload: bytes) -> list[bytes]:
    """Return the parts of a payload; InvalidMessageError when it is cut or goes on."""
    parts: list[bytes] = []
    at = 0
    while at < len(payload):
        end = at + 4 + int.from_bytes(payload[at : at + 4], "big")
        if at + 4 > len(payload) or end > len(payload):
            raise InvalidMessageError("a payload is cut inside a part")
        parts.append(payload[at + 4 : end])
        at = end
    return parts
