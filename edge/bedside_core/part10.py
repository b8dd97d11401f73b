"""Where the data set begins in a DICOM file, and in which transfer syntax it is written.

Only the first bytes are looked at (PS3.10 section 7.1): preamble, prefix, group 0002. Files that
never had a preamble are recognised by their first element, or refused.
"""

import struct

from bedside_core.errors import NotDicomError

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"

MAX_META = 1 << 20  # bytes; a longer group 0002 is an attack, not a header
_LONG_VRS = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT"))
_SHORT_VRS = b"AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS"
_VRS = _LONG_VRS | {b"SV", b"UV"} | {_SHORT_VRS[i : i + 2] for i in range(0, len(_SHORT_VRS), 2)}


def data_set_start(head: bytes | bytearray) -> tuple[int, str] | None:
    """Return (offset of the data set, transfer syntax UID), or None when more bytes are needed.

    Args:
        head: the first bytes of the object.

    Raises:
        NotDicomError: neither a Part 10 file nor a bare data set, or group 0002 names no syntax.
    """
    if len(head) < 132:
        return None
    if bytes(head[128:132]) != b"DICM":
        return 0, _sniff(head)
    at, syntax = 132, ""
    while True:
        if at > MAX_META:
            raise NotDicomError("the file meta information does not end")
        if len(head) < at + 12:
            return None
        group, element = struct.unpack_from("<HH", head, at)
        if group != 0x0002:
            break
        vr = bytes(head[at + 4 : at + 6])
        if vr not in _VRS:
            raise NotDicomError("the file meta information is not explicit VR little endian")
        if vr in _LONG_VRS:
            start, length = at + 12, struct.unpack_from("<I", head, at + 8)[0]
        else:
            start, length = at + 8, struct.unpack_from("<H", head, at + 6)[0]
        if length > MAX_META:
            raise NotDicomError("the file meta information does not end")
        if len(head) < start + length + 12:
            return None
        if element == 0x0010:
            syntax = bytes(head[start : start + length]).decode("ascii", "replace").strip(" \0")
        at = start + length
    if not syntax:
        raise NotDicomError("the file meta information names no transfer syntax")
    return at, syntax


def finish_start(head: bytes | bytearray) -> tuple[int, str]:
    """Like `data_set_start` for a whole object that may be very short.

    Raises:
        NotDicomError: there is no data set in these bytes.
    """
    found = data_set_start(bytes(head) + b"\xff" * 160)
    if found is None or found[0] > len(head):
        raise NotDicomError("too short for a DICOM data set")
    return found


def _sniff(head: bytes | bytearray) -> str:
    """Recognise a bare data set by its first element, which must lie in groups 0000 to 0010."""
    little, big = struct.unpack_from("<H", head)[0], struct.unpack_from(">H", head)[0]
    vr = bytes(head[4:6])
    if vr in _VRS:
        if little in (0x0002, 0x0008, 0x0010):
            return EXPLICIT_LE
        if big in (0x0008, 0x0010):
            return EXPLICIT_BE
    if little in (0x0008, 0x0010) and struct.unpack_from("<I", head, 4)[0] < 1 << 16:
        return IMPLICIT_LE
    raise NotDicomError("no DICM prefix, and the first bytes are no data element")
