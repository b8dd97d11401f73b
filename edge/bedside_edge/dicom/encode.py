"""Data sets made by this box to bytes: explicit VR little-endian, text in UTF-8.

pydicom's writer serves every transfer syntax and character set and repairs what it is given; for
the objects of one result that took a third of all the time. This one writes what our own makers
produce, refuses anything else with `Unusual`, and the caller then takes pydicom's. Tests compare
both, element by element, over every source variant.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

_UTF8: Final = "ISO_IR 192"
_TEXT: Final = frozenset({"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_TIMES: Final = frozenset({"DA", "DT", "TM"})
_DIGITS: Final = frozenset({"DS", "IS"})
_NUMBERS: Final = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q",
}  # fmt: skip
_BYTES: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
# PS3.5 7.1.2: two reserved bytes and a length of four
_LONG: Final = frozenset({*_BYTES, "SQ", "SV", "UC", "UR", "UT", "UV"})
_SHORT_HEAD: Final = struct.Struct("<HH2sH")
_LONG_HEAD: Final = struct.Struct("<HH2s2xI")
_ITEM: Final = struct.Struct("<HHI")
_MOST_SHORT: Final = 0xFFFE
_PIXEL_DATA: Final = 0x7FE00010


class Unusual(Exception):  # noqa: N818  not an error: the caller takes the general writer
    """The data set holds something this writer does not write."""


def explicit_le(made: Dataset) -> bytes:
    """Return the data set's elements, without preamble and file meta information.

    Raises:
        Unusual: another character set, an ambiguous VR, raw or foreign values.
    """
    if made.get("SpecificCharacterSet") != _UTF8:
        raise Unusual
    out: list[bytes] = []
    _write(made, out.append)
    return b"".join(out)


def _write(made: Dataset, put: Callable[[bytes], None]) -> None:
    for element in made.elements():  # in the order of tags, nothing converted
        if not isinstance(element, DataElement):
            raise Unusual
        tag, kind = element.tag, element.VR
        if tag.element == 0:
            continue  # group lengths are gone from the standard
        if kind == "OB or OW" and tag == _PIXEL_DATA:  # PS3.5 A.2: more than 8 bits are words
            kind = "OW" if made.BitsAllocated > 8 else "OB"
        value = _sequence(element.value) if kind == "SQ" else _value(kind, element.value)
        code = kind.encode()
        if kind in _LONG:
            put(_LONG_HEAD.pack(tag.group, tag.element, code, len(value)))
        elif len(value) > _MOST_SHORT:
            raise Unusual
        else:
            put(_SHORT_HEAD.pack(tag.group, tag.element, code, len(value)))
        put(value)


def _sequence(items: Iterable[Dataset] | None) -> bytes:
    out: list[bytes] = []
    for item in items or ():
        inside: list[bytes] = []
        _write(item, inside.append)
        data = b"".join(inside)
        out += (_ITEM.pack(0xFFFE, 0xE000, len(data)), data)
    return b"".join(out)


def _value(kind: str, value: Any) -> bytes:  # noqa: ANN401  whatever pydicom holds
    if value is None:
        return b""
    if kind in _TEXT:
        return _padded(_joined(value, str).encode(), b" ")
    if kind == "UI":
        return _padded(_joined(value, str).encode("ascii"), b"\0")
    if kind in _DIGITS:
        return _padded(_joined(value, _digits).encode("ascii"), b" ")
    if kind in _TIMES:
        return _padded(_joined(value, _as_sent).encode("ascii"), b" ")
    if kind in _NUMBERS:
        values = value if isinstance(value, MultiValue | list | tuple) else [value]
        return b"" if value == "" else struct.pack(f"<{len(values)}{_NUMBERS[kind]}", *values)
    if kind == "AT":
        values = value if isinstance(value, MultiValue | list | tuple) else [value]
        return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in values)
    if kind in _BYTES and isinstance(value, bytes):
        return _padded(value, b"\0")
    raise Unusual


def _joined(value: Any, text: Callable[[Any], str]) -> str:  # noqa: ANN401
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(text(one) for one in value)
    return text(value)


def _digits(value: object) -> str:
    return str(getattr(value, "original_string", None) or value)


def _as_sent(value: object) -> str:
    """Dates and times are kept as text; what was made from a clock says how it is written."""
    text = value if isinstance(value, str) else getattr(value, "original_string", None)
    if not isinstance(text, str):
        raise Unusual
    return text


def _padded(value: bytes, filler: bytes) -> bytes:
    return value + filler if len(value) % 2 else value
