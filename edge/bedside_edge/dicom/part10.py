"""The DICOM file format of PS3.10: preamble, file meta group, and where the data set starts.

Pure functions over bytes. Element values are only skipped here, never interpreted; every length
is checked against what is there, and nesting is bounded, because the bytes are hostile.
"""

import re
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass

from bedside_core.errors import NotDicomError, TooLargeError

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
# UUID-derived root (PS3.5 B.2): ours without an assigned organisation root.
IMPLEMENTATION_UID = "2.25.310268428237284962414951640421617064301"
IMPLEMENTATION_VERSION = "BEDSIDE_1"

PIXEL_DATA = 0x7FE00010
_UID = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))+", re.ASCII)
_LONG = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_SHORT = frozenset(
    (
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT"),
        *(b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    )
)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MAX_DEPTH = 64  # no IOD nests deeper than about 10
_MAX_META = 1 << 16
_MAX_VALUE = 1 << 16  # of an attribute somebody asked for by tag


class OddEncodingError(Exception):
    """The element stream breaks PS3.5 in a way a tolerant reader may still understand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where the data set starts and how it is encoded; `meta` holds group 0002 by tag."""

    start: int
    transfer_syntax_uid: str
    meta: dict[int, bytes]


def valid_uid(uid: str) -> bool:
    """Tell whether `uid` keeps PS3.5 section 9: characters, no leading zero, 64 at most."""
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return preamble and file meta group for a data set that came without (PS3.10 7.1)."""
    elements = b"".join(
        (
            struct.pack("<HH2sHIH", 2, 1, b"OB", 0, 2, 0x0100),  # bytes 00 01
            _short(0x0002, b"UI", sop_class_uid),
            _short(0x0003, b"UI", sop_instance_uid),
            _short(0x0010, b"UI", transfer_syntax_uid),
            _short(0x0012, b"UI", IMPLEMENTATION_UID),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION),
        )
    )
    group_length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(elements))
    return bytes(128) + b"DICM" + group_length + elements


def _short(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def text(value: bytes) -> str:
    """Return an ASCII value (UI, CS) without its padding; other bytes become U+FFFD."""
    return value.decode("ascii", "replace").strip("\0 ")


def locate(data: bytes | memoryview) -> Located:
    """Find the data set in a DICOM file, or in a bare data set by its first element.

    `data` may be the beginning of a larger object.

    Raises:
        NotDicomError: neither a Part 10 file nor a data set that starts with group 0008.
    """
    view = memoryview(data)
    start = 132 if bytes(view[128:132]) == b"DICM" else 0
    if start == 0 and bytes(view[:2]) != b"\x02\x00":
        return Located(start=0, transfer_syntax_uid=_sniff(view, 0), meta={})
    meta, end = _file_meta(view, start)
    syntax = text(meta.get(0x00020010, b""))
    return Located(start=end, transfer_syntax_uid=syntax or _sniff(view, end), meta=meta)


def _file_meta(view: memoryview, start: int) -> tuple[dict[int, bytes], int]:
    """Read group 0002, always explicit little-endian, up to the first element of another group."""
    meta: dict[int, bytes] = {}
    position, limit = start, min(len(view), start + _MAX_META)
    while position + 8 <= len(view):
        group, element, vr, length = struct.unpack_from("<HH2sH", view, position)
        if group != 2:
            return meta, position
        value = position + 8
        if vr in _LONG and value + 4 <= limit:
            (length,) = struct.unpack_from("<I", view, value)
            value += 4
        if (vr not in _SHORT and vr not in _LONG) or value + length > limit:
            break
        meta[group << 16 | element] = bytes(view[value : value + length])
        position = value + length
    raise NotDicomError("the file meta group cannot be read")


def _sniff(view: memoryview, start: int) -> str:
    """Guess the encoding of a data set that nobody described (trap 13: HTTP bodies)."""
    first = bytes(view[start : start + 8])
    if len(first) < 8:
        raise NotDicomError("too short for a DICOM data set")
    known = first[4:6] in _SHORT or first[4:6] in _LONG
    if known and first[:2] == b"\x08\x00":
        return EXPLICIT_LE
    if known and first[:2] == b"\x00\x08":
        return EXPLICIT_BE
    if first[:2] == b"\x08\x00" and struct.unpack_from("<I", first, 4)[0] <= _MAX_VALUE:
        return IMPLICIT_LE
    raise NotDicomError("neither a DICOM file nor a DICOM data set")


def inflate(data: bytes | memoryview, limit: int) -> bytes:
    """Return the inflated data set of the deflated syntax, at most `limit` bytes.

    Raises:
        TooLargeError: more than `limit` bytes would come out (a deflate bomb).
        NotDicomError: not a raw deflate stream.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(data, limit)
        if not inflater.eof and inflater.decompress(inflater.unconsumed_tail, 1):
            raise TooLargeError("the deflated data set is larger than this box takes")
    except zlib.error as cause:
        raise NotDicomError("the deflated data set cannot be inflated") from cause
    return plain


def inflate_beginning(data: bytes | memoryview, limit: int) -> bytes:
    """Return up to `limit` bytes of a deflated data set: enough for its header.

    Raises:
        NotDicomError: not a raw deflate stream.
    """
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
    except zlib.error as cause:
        raise NotDicomError("the deflated data set cannot be inflated") from cause


def scan(
    data: bytes | memoryview,
    start: int,
    *,
    implicit: bool,
    little: bool,
    stop: int,
    wanted: Collection[int] | None = None,
) -> tuple[dict[int, bytes], int]:
    """Walk the top-level elements up to and including tag `stop`.

    Args:
        data: an element stream; may end early (a prefix, a truncated file).
        start: offset of the first element.
        implicit: implicit VR.
        little: little-endian.
        stop: last tag of interest.
        wanted: tags whose values to return; None for all.

    Returns:
        Values by tag, and the offset of the first element after `stop` (or where data ended).

    Raises:
        OddEncodingError: not a stream of elements, nested too deep, or a wanted value too long.
    """
    order = "<" if little else ">"
    explicit_head, long_length = struct.Struct(order + "HH2sH"), struct.Struct(order + "I")
    implicit_head = struct.Struct(order + "HHI")
    found: dict[int, bytes] = {}
    position, end, previous = start, len(data), -1
    while position + 8 <= end:
        vr = b""
        if implicit:
            group, element, length = implicit_head.unpack_from(data, position)
            value = position + 8
        else:
            group, element, vr, length = explicit_head.unpack_from(data, position)
            value = position + 8
        tag = group << 16 | element
        if tag > stop:
            return found, position
        if not implicit and vr not in _SHORT:
            if vr not in _LONG:
                raise OddEncodingError("unknown value representation")
            if value + 4 > end:
                return found, end
            (length,) = long_length.unpack_from(data, value)
            value += 4
        if tag <= previous:
            raise OddEncodingError("elements out of order")
        previous = tag
        if length == _UNDEFINED:
            if tag == PIXEL_DATA:
                return found, position
            position = _skip_sequence(data, value, implicit=implicit or vr == b"UN", order=order)
            if wanted is not None and tag in wanted and position - value <= _MAX_VALUE:
                found[tag] = bytes(data[value:position])
            continue
        if value + length > end:  # a prefix ends here; so does a truncated object
            return found, end
        if wanted is None or tag in wanted:
            if length > _MAX_VALUE:
                raise OddEncodingError("value longer than its attribute allows")
            found[tag] = bytes(data[value : value + length])
        position = value + length
    return found, position


def _skip_sequence(data: bytes | memoryview, start: int, *, implicit: bool, order: str) -> int:
    """Return the offset behind a sequence of undefined length; without recursion."""
    end, position = len(data), start
    delimiter, head_ = struct.Struct(order + "HHI"), struct.Struct(order + "HH2sH")
    # One entry per open level: True while inside an item, False between items; beside it the VR.
    open_items: list[tuple[bool, bool]] = [(False, implicit)]
    while open_items:
        if position + 8 > end:
            return end
        inside, implicit_here = open_items[-1]
        group, element, length = delimiter.unpack_from(data, position)
        tag, value = group << 16 | element, position + 8
        if tag == (_ITEM_END if inside else _SEQUENCE_END):
            open_items.pop()
            position = value
            continue
        if not inside and tag != _ITEM:
            raise OddEncodingError("a sequence holds something that is no item")
        if inside and not implicit_here:
            _, _, vr, length = head_.unpack_from(data, position)
            if vr in _LONG:
                if value + 4 > end:
                    return end
                (length,) = struct.unpack_from(order + "I", data, value)
                value += 4
            elif vr not in _SHORT:
                raise OddEncodingError("unknown value representation")
            implicit_here = vr == b"UN"
        if length == _UNDEFINED:
            if len(open_items) >= 2 * _MAX_DEPTH:
                raise NotDicomError("sequences are nested deeper than any DICOM object")
            open_items.append((not inside, implicit_here))
            position = value
        else:
            position = value + length
    return position
