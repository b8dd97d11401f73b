"""The routing attributes of a DICOM object, read without touching pixels.

One walk over the top-level elements (about a tenth of a millisecond) serves the C-STORE path;
streams that break PS3.5 are handed to pydicom, which understands more bad habits.
"""

import codecs
import struct
from collections.abc import Mapping
from io import BytesIO

import pydicom
from pydicom import charset
from pydicom.valuerep import TEXT_VR_DELIMS

from bedside_core.errors import (
    InvalidUidError,
    NotDicomError,
    SopClassMismatchError,
)
from bedside_edge.dicom import part10
from bedside_edge.dicom.quiet import muted_warnings
from bedside_edge.ports import Header

_TEXTS = {
    "patient_id": 0x00100020,
    "issuer": 0x00100021,
    "accession_number": 0x00080050,
}
# descriptions only help people to find things: one that is too long is cut, not refused
_DESCRIPTIONS = {
    "station": 0x00081010,
    "manufacturer": 0x00080070,
    "device_serial": 0x00181000,
    "study_label": 0x00200010,
    "study_description": 0x00081030,
    "series_description": 0x0008103E,
    "protocol": 0x00181030,
    "procedure": 0x00321060,
    "diagnosis": 0x00081080,
}
_CODES = {
    "study_date": 0x00080020,
    "modality": 0x00080060,
    "presentation_intent": 0x00080068,
    "body_part": 0x00180015,
    "view": 0x00185101,
    "photometric": 0x00280004,
    "birth_date": 0x00100030,
    "sex": 0x00100040,
    "age": 0x00101010,
    "study_time": 0x00080030,
    "series_number": 0x00200011,
    "instance_number": 0x00200013,
    "frames": 0x00280008,
    "burned_in": 0x00280301,
    "pixel_spacing": 0x00280030,
    "detector_spacing": 0x00181164,
    "kvp": 0x00180060,
    "exposure": 0x00181152,
    "exposure_uas": 0x00181153,
}
_CHARSET, _IMAGE_TYPE, _NAME, _REFERRING = 0x00080005, 0x00080008, 0x00100010, 0x00080090
_CLASS, _INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_SERIES_LATERALITY, _LATERALITY = 0x00200060, 0x00200062
_EXPECTED, _ROWS, _COLUMNS, _BITS = 0x00201208, 0x00280010, 0x00280011, 0x00280101
_PRIORITY, _OLD_PRIORITY = 0x00401003, 0x0032000C
# admitting diagnoses, procedure, requested procedure: sequences of coded words
_CODE_SEQUENCES = (0x00081084, 0x00081032, 0x00321064)
_WANTED = frozenset(
    (
        *_TEXTS.values(),
        *_CODES.values(),
        *_DESCRIPTIONS.values(),
        *_CODE_SEQUENCES,
        *(_CHARSET, _IMAGE_TYPE, _NAME, _REFERRING, _CLASS, _INSTANCE, _STUDY, _SERIES),
        *(_SERIES_LATERALITY, _LATERALITY, _EXPECTED, _ROWS, _COLUMNS, _BITS),
        *(_PRIORITY, _OLD_PRIORITY),
    )
)
_LAST = max(_WANTED)
_LONGEST = 1024  # bytes of one text value; PS3.5 allows 64 characters a component
_MOST_CODES = 64
_LONGEST_CODE = 64  # bytes; PS3.5 allows 16 characters of SH
_INFLATED_BEGINNING = 1 << 20
_INFLATED_HEADER = 1 << 24
_PLAIN = frozenset(("iso8859", "latin_1", "utf_8", "utf8", "ascii", "latin-1"))
# pydicom takes the name of any Python codec; some decode no text, some turn one id into another
_CHARACTER_SETS = frozenset(
    codecs.lookup(name).name
    for name in (*charset.python_encoding.values(), "utf-8", "latin-1", "ascii", "cp1252")
)
_NAME_DELIMITERS = TEXT_VR_DELIMS | {0x5E, 0x3D}  # ^ and = reset the character set too


def read_header(data: bytes | memoryview, *, cut: bool = False) -> Header:
    """Read the routing attributes of a Part 10 object, or of a bare data set.

    Args:
        data: an object, or the beginning of one.
        cut: whether more follows; then `data` must reach beyond the last attribute wanted
            (0040,1003): one that has not come yet would be taken for absent.

    Raises:
        NotDicomError: no DICOM, or SOP Class, SOP Instance or Study Instance UID is missing, or
            `cut` and the header goes on.
        InvalidUidError: a UID breaks PS3.5 section 9.
    """
    where = part10.locate(data)
    syntax = _checked(where.transfer_syntax_uid, "Transfer Syntax UID")
    values, little = _values(data, where, cut=cut)
    encodings = _encodings(values.get(_CHARSET, b""))
    codes = {name: part10.text(values.get(tag, b"")) for name, tag in _CODES.items()}
    return Header(
        sop_class_uid=_uid(values, _CLASS, "SOP Class UID"),
        sop_instance_uid=_uid(values, _INSTANCE, "SOP Instance UID"),
        study_uid=_uid(values, _STUDY, "Study Instance UID"),
        series_uid=_uid(values, _SERIES, "Series Instance UID", required=False),
        transfer_syntax_uid=syntax,
        patient_name=_decoded(values.get(_NAME, b""), encodings, _NAME_DELIMITERS).rstrip("="),
        referring_physician=_decoded(
            values.get(_REFERRING, b"")[:_LONGEST], encodings, _NAME_DELIMITERS
        ).rstrip("="),
        laterality=part10.text(values.get(_LATERALITY) or values.get(_SERIES_LATERALITY, b"")),
        image_type=_several(values.get(_IMAGE_TYPE, b"")),
        rows=_unsigned(values.get(_ROWS, b""), little),
        columns=_unsigned(values.get(_COLUMNS, b""), little),
        bits_stored=_unsigned(values.get(_BITS, b""), little),
        expected_instances=_integer_string(values.get(_EXPECTED, b"")),
        codes=_code_values([values.get(tag, b"") for tag in _CODE_SEQUENCES], little),
        requested_priority=part10.text(values.get(_PRIORITY) or values.get(_OLD_PRIORITY, b"")),
        **codes,
        **{
            name: _decoded(values.get(tag, b""), encodings, TEXT_VR_DELIMS)
            for name, tag in _TEXTS.items()
        },
        **{
            name: _decoded(values.get(tag, b"")[:_LONGEST], encodings, TEXT_VR_DELIMS)
            for name, tag in _DESCRIPTIONS.items()
        },
    )


def check_announced(header: Header, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Compare a data set with the C-STORE command that brought it.

    Raises:
        SopClassMismatchError: class or instance differ (status 0xA900).
    """
    if (header.sop_class_uid, header.sop_instance_uid) != (sop_class_uid, sop_instance_uid):
        raise SopClassMismatchError("the data set is not what the C-STORE request announced")


def _values(
    data: bytes | memoryview, where: part10.Located, *, cut: bool
) -> tuple[Mapping[int, bytes], bool]:
    """Return the wanted raw values and whether numbers in them are little-endian."""
    syntax, start = where.transfer_syntax_uid, where.start
    if syntax == part10.DEFLATED_LE:
        # a whole object may have a long header; of a cut one not more is there than the beginning
        limit = _INFLATED_BEGINNING if cut else _INFLATED_HEADER
        data, start = part10.inflate_beginning(memoryview(data)[start:], limit), 0
        syntax = part10.EXPLICIT_LE
    little = syntax != part10.EXPLICIT_BE
    try:
        values, reached = part10.scan(
            data,
            start,
            implicit=syntax == part10.IMPLICIT_LE,
            little=little,
            stop=_LAST,
            wanted=_WANTED,
        )
    except part10.OddEncodingError:
        if cut:
            raise _goes_on() from None
        return _tolerant_values(bytes(memoryview(data)[start:]), syntax), little
    if cut and reached + 8 > len(data):
        raise _goes_on()
    return values, little


def _goes_on() -> NotDicomError:
    return NotDicomError("the header is longer than what has come of the object")


def _tolerant_values(data_set: bytes, syntax: str) -> Mapping[int, bytes]:
    """Let pydicom read what the strict walk refuses, and return the same raw values."""
    source = BytesIO(part10.head("0.0", "0.0", syntax) + data_set)
    with muted_warnings():
        try:
            read = pydicom.dcmread(
                source, stop_before_pixels=True, specific_tags=sorted(_WANTED), force=True
            )
            raw = {tag: read.get_item(tag) for tag in _WANTED if tag in read}
        except Exception as cause:  # foreign parser on hostile bytes: any failure means the same
            raise NotDicomError("the data set cannot be read") from cause
    values = {}
    for tag, element in raw.items():
        value = getattr(element, "value", None)
        if isinstance(value, str):  # the character set is converted on reading
            value = value.encode("ascii", "replace")
        elif value is not None and not isinstance(value, bytes):  # several values
            value = "\\".join(str(v) for v in value).encode("ascii", "replace")
        values[tag] = value if isinstance(value, bytes) else b""
    return values


def _uid(values: Mapping[int, bytes], tag: int, name: str, *, required: bool = True) -> str:
    uid = part10.text(values.get(tag, b""))
    if not uid:
        if required:
            raise NotDicomError(f"the data set has no {name}")
        return ""
    return _checked(uid, name)


def _checked(uid: str, name: str) -> str:
    if not part10.valid_uid(uid):
        raise InvalidUidError(f"the {name} breaks PS3.5 section 9")
    return uid


def _several(value: bytes) -> tuple[str, ...]:
    """Split a CS value of several parts; parts in the middle and at the end may be empty."""
    return tuple(part.strip() for part in part10.text(value).split("\\")) if value else ()


def _code_values(sequences: list[bytes], little: bool) -> tuple[str, ...]:
    """Find Code Value (0008,0100) in raw sequences, in explicit and implicit VR alike.

    They grade the study and find nothing else, so what looks like one may pass for one.
    """
    tag = b"\x08\x00\x00\x01" if little else b"\x00\x08\x01\x00"
    order = "<" if little else ">"
    found: list[str] = []
    for raw in sequences:
        at = raw.find(tag)
        while at >= 0 and at + 8 <= len(raw) and len(found) < _MOST_CODES:
            if raw[at + 4 : at + 6] == b"SH":
                (length,) = struct.unpack_from(order + "H", raw, at + 6)
            else:
                (length,) = struct.unpack_from(order + "I", raw, at + 4)
            if length <= _LONGEST_CODE:
                found.append(part10.text(raw[at + 8 : at + 8 + length]))
            at = raw.find(tag, at + 8)
    return tuple(code for code in dict.fromkeys(found) if code)


def _unsigned(value: bytes, little: bool) -> int:
    if len(value) != 2:
        return 0
    return int(struct.unpack("<H" if little else ">H", value)[0])


def _integer_string(value: bytes) -> int:
    """Read IS; what is no number counts as absent, for it only helps to guess completeness."""
    digits = part10.text(value)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else 0


def _encodings(value: bytes) -> list[str]:
    if not value:
        return ["iso8859"]
    names = [part.strip() for part in part10.text(value).split("\\")]
    try:
        with muted_warnings():
            encodings: list[str] = charset.convert_encodings(names)
            known = all(codecs.lookup(name).name in _CHARACTER_SETS for name in encodings)
    except (ValueError, LookupError):  # a character set nobody knows: ASCII stays readable
        return ["iso8859"]
    return encodings if known else ["iso8859"]


def _decoded(value: bytes, encodings: list[str], delimiters: set[int]) -> str:
    if len(value) > _LONGEST:
        raise NotDicomError("an identifying attribute is longer than DICOM allows")
    if not value:
        return ""
    if value.isascii() and b"\x1b" not in value and encodings[0] in _PLAIN:
        decoded = value.decode("ascii")
    else:
        with muted_warnings():
            try:
                decoded = charset.decode_bytes(value, encodings, delimiters)
            except (UnicodeError, LookupError):  # another set than it says
                decoded = value.decode("iso8859")
    return decoded.strip("\0 ")
