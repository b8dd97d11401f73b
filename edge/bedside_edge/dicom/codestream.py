"""What a compressed frame says about itself, read before any decoder may allocate for it.

A header of a few hundred bytes can claim an image of many gigabytes. Decoders believe it; the
pipeline compares the claim with Rows and Columns first.
Sources: ISO/IEC 15444-1 A.5.1 (SIZ) and I.4 (boxes), PS3.5 annex G (RLE),
ISO/IEC 10918-1 B.2.2 and ISO/IEC 14495-1 C.2.2 (SOF).
"""

import struct
from dataclasses import dataclass

_SOC_SIZ = b"\xff\x4f\xff\x51"
_SOF = frozenset(
    (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7)
)
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_MAX_SEGMENTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Codestream:
    """Size of the coded image in pixels, its samples and bits per sample."""

    rows: int
    columns: int
    samples: int
    bits: int


def describe(frame: bytes) -> Codestream | None:
    """Return what a JPEG, JPEG-LS or JPEG 2000 stream claims; None when it claims nothing."""
    if frame[:2] == b"\xff\xd8":
        return _jpeg(frame)
    start = _codestream_box(frame) if frame[4:8] == b"jP  " else 0
    return _jpeg2000(frame, start) if frame.startswith(_SOC_SIZ, start) else None


def rle_can_hold(frame_bytes: int, image_bytes: int) -> bool:
    """Tell whether an RLE frame could expand to an image: two bytes give at most 128."""
    return image_bytes <= 64 * frame_bytes


def _jpeg(frame: bytes) -> Codestream | None:
    position = 2
    for _ in range(_MAX_SEGMENTS):
        if position + 4 > len(frame) or frame[position] != 0xFF:
            return None
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _ALONE:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", frame, position + 2)
        if marker in _SOF:
            if position + 10 > len(frame):
                return None
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 4)
            return Codestream(rows=rows, columns=columns, samples=samples, bits=bits)
        position += 2 + length
    return None


def _codestream_box(frame: bytes) -> int:
    """Return where the codestream of a JP2 file starts: wrong in DICOM, but in the wild."""
    position = 0
    for _ in range(_MAX_SEGMENTS):
        if position + 16 > len(frame):
            break
        length, kind = struct.unpack_from(">I4s", frame, position)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", frame, position + 8)
            header = 16
        if kind == b"jp2c":
            return position + header
        if length < header:
            break
        position += length
    return len(frame)


def _jpeg2000(frame: bytes, start: int) -> Codestream | None:
    if start + 43 > len(frame):
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, start + 8)
    samples, precision = struct.unpack_from(">HB", frame, start + 40)
    return Codestream(
        rows=bottom - top, columns=right - left, samples=samples, bits=(precision & 0x7F) + 1
    )
