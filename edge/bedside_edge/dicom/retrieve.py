"""Objects as WADO-RS hands them out: re-encoded, described as JSON, frame by frame, as pictures.

What is stored is never changed. Text comes out in the character set of the source (files) or as
Unicode (JSON); burned-in notices stay where they are.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, convert_color_space

from bedside_core.errors import (
    BedsideError,
    MalformedHeaderError,
    NotFoundError,
    UndecodableTransferSyntaxError,
    UnsupportedPixelsError,
)
from bedside_core.imaging import Window
from bedside_core.rendering import fitted, render
from bedside_edge.dicom import part10
from bedside_edge.dicom.grey import Attributes, grey_meaning
from bedside_edge.dicom.quiet import muted_warnings
from bedside_edge.dicom.read import PydicomReader, _without_unused_bits

Json = dict[str, Any]

_INFLATED: Final = 1 << 29
_INLINE: Final = 1024  # bytes of a binary value that stays in the JSON
_BINARY: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_SWAPPED: Final = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_DECODED_PHOTOMETRIC: Final = {
    "YBR_RCT": "RGB",  # undone by every JPEG 2000 decoder
    "YBR_ICT": "RGB",
    "YBR_FULL_422": "YBR_FULL",
}
_SAME_BYTES: Final = frozenset((part10.EXPLICIT_LE, part10.IMPLICIT_LE, part10.DEFLATED_LE))
_PIXELS: Final = 0x7FE00010


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How somebody wants to see an image.

    Attributes:
        window: in modality values; None keeps the sender's.
        box: (rows, columns) of the viewport; None keeps the size of the image.
        region: (row, column, rows, columns) of the source to show; None shows all.
        jpeg: quality from 1 to 100, or None for PNG.
    """

    window: Window | None = None
    box: tuple[int, int] | None = None
    region: tuple[int, int, int, int] | None = None
    jpeg: int | None = None


def explicit(data: bytes, reader: PydicomReader) -> bytes:
    """Return the object in explicit VR little-endian, pixels uncompressed.

    Raises:
        RefusedError: no decoder, damaged pixels, or a form that cannot be re-encoded.
    """
    syntax = part10.locate(data).transfer_syntax_uid
    if syntax == part10.EXPLICIT_LE and data[128:132] == b"DICM":
        return data
    with muted_warnings():
        read = _whole(data)
        try:
            if syntax not in _SAME_BYTES:
                if syntax == part10.EXPLICIT_BE:
                    _swap(read)
                if "PixelData" in read:
                    _replace_pixels(read, data, reader)
            return _written(read)
        except BedsideError:
            raise
        except Exception as cause:  # foreign code on hostile bytes: any failure means the same
            raise UndecodableTransferSyntaxError(
                "the object cannot be written in another transfer syntax"
            ) from cause


def frame_values(data: bytes, number: int, reader: PydicomReader) -> bytes:
    """Return the stored values of one frame (from 1), little-endian, colour by pixel.

    Raises:
        NotFoundError: no such frame.
        RefusedError: no pixels, no decoder, or damaged.
    """
    header, (stored,) = reader.stored(data, number)
    if header.integer("BitsAllocated") == 1:
        return np.packbits(stored.astype(bool).ravel(), bitorder="little").tobytes()
    return _little(stored)


def metadata(data: bytes, url: str) -> Json:
    """Return the object as DICOM JSON; long binary values are links below `url`.

    Source: PS3.18 annex F. A value that breaks its own VR is left empty: it helps nobody.
    """
    with muted_warnings():
        read = _whole(data, pixels=False)
        found = _as_json(read, f"{url}/bulkdata")
        if _has_pixels(data):
            vr = "OB" if read.get("BitsAllocated", 16) == 8 else "OW"
            found["7FE00010"] = {"vr": vr, "BulkDataURI": f"{url}/bulkdata/7FE00010"}
    return found


def bulk_data(data: bytes, path: str, reader: PydicomReader) -> bytes:
    """Return a binary value by the path that `metadata` linked, e.g. 00281101 or 0088.../0/...

    Raises:
        NotFoundError: there is no binary value under that path.
    """
    steps = path.split("/")
    if steps == ["7FE00010"]:
        _, frames = reader.stored(data)
        return b"".join(_little(frame) for frame in frames)
    with muted_warnings():
        found: Any = _whole(data, pixels=False)
        try:
            for index, step in enumerate(steps):
                found = found[int(step, 16)] if index % 2 == 0 else found.value[int(step)]
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as cause:
            raise NotFoundError("no binary value lies there") from cause
    value = getattr(found, "value", None)
    if not isinstance(value, bytes | bytearray):
        raise NotFoundError("no binary value lies there")
    return bytes(value)


def picture(data: bytes, number: int, view: View, reader: PydicomReader) -> bytes:
    """Return one frame (from 1) as PNG or JPEG.

    Grey images go through the audited grey scale, colour is shown as it is.

    Raises:
        NotFoundError: no such frame, or the region lies outside it.
        RefusedError: no pixels, no decoder, or damaged.
    """
    with muted_warnings():
        header, (stored,) = reader.stored(data, number)
        if view.region is not None:
            stored = _region(stored, view.region)
        samples = header.integer("SamplesPerPixel", 1)
        photometric = header.text("PhotometricInterpretation")
        if samples == 1 and photometric != "PALETTE COLOR":
            shown = _grey(header, stored, view)
        else:
            shown = _sized(_colour(data, header, stored, photometric), header, view)
    return _encoded(shown, view.jpeg)


def has_pixels(data: bytes) -> bool:
    """Tell whether an object carries an image."""
    return _has_pixels(data)


# --- pictures ----------------------------------------------------------------------------------


def _grey(header: Attributes, stored: NDArray[np.generic], view: View) -> NDArray[np.uint8]:
    bits = header.integer("BitsStored")
    frame = grey_meaning(header).frame(_without_unused_bits(stored, bits))
    size = None
    if view.box is not None:
        size = fitted((stored.shape[0], stored.shape[1]), frame.spacing, view.box)
    return render(frame, view.window, size)


def _colour(
    data: bytes, header: Attributes, stored: NDArray[np.generic], photometric: str
) -> NDArray[np.uint8]:
    try:
        if photometric == "PALETTE COLOR":
            palette = _whole(data, pixels=False)
            table = apply_color_lut(stored, palette)[..., :3]
            bits = int(palette.RedPaletteColorLookupTableDescriptor[2])
            return _eight(table, bits)
        if photometric.startswith("YBR_FULL"):
            stored = convert_color_space(stored, "YBR_FULL", "RGB")
    except Exception as cause:  # hostile palettes: any failure means the same
        raise MalformedHeaderError("the colours of the image cannot be read") from cause
    if stored.ndim != 3 or stored.shape[-1] != 3:
        raise UnsupportedPixelsError("colour images need three samples per pixel")
    return _eight(stored, header.integer("BitsStored", 8))


def _eight(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if values.dtype.kind not in "iu" or not 1 <= bits <= 16:
        raise UnsupportedPixelsError("colour images need at most 16 bits a sample")
    return np.asarray(values >> (bits - 8) if bits > 8 else values).astype(np.uint8)


def _sized(shown: NDArray[np.uint8], header: Attributes, view: View) -> NDArray[np.uint8]:
    if view.box is None:
        return shown
    height, width = fitted((shown.shape[0], shown.shape[1]), None, view.box)
    image = Image.fromarray(shown).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _region(stored: NDArray[np.generic], region: tuple[int, int, int, int]) -> NDArray[np.generic]:
    row, column, rows, columns = region
    cut = stored[row : row + rows, column : column + columns]
    if min(cut.shape[:2]) < 2:
        raise NotFoundError("the region lies outside the image")
    return cut


def _encoded(shown: NDArray[np.uint8], jpeg: int | None) -> bytes:
    out = BytesIO()
    image = Image.fromarray(shown)
    if jpeg is None:
        image.save(out, "PNG", compress_level=3)
    else:
        image.save(out, "JPEG", quality=jpeg)
    return out.getvalue()


# --- data sets ---------------------------------------------------------------------------------


def _whole(data: bytes, *, pixels: bool = True) -> Dataset:
    """Parse an object, its pixels only when they are needed."""
    where = part10.locate(data)
    if where.transfer_syntax_uid == part10.DEFLATED_LE:
        plain = part10.inflate(memoryview(data)[where.start :], _INFLATED)
        data = part10.head("0.0", "0.0", part10.EXPLICIT_LE) + plain
    elif where.start < 132 or not where.meta.get(0x00020010):
        data = part10.head("0.0", "0.0", where.transfer_syntax_uid) + data[where.start :]
    try:
        return pydicom.dcmread(BytesIO(data), stop_before_pixels=not pixels, force=True)
    except Exception as cause:  # foreign parser on hostile bytes: any failure means the same
        raise MalformedHeaderError("the data set cannot be read") from cause


def _has_pixels(data: bytes) -> bool:
    where = part10.locate(data)
    view, start, syntax = memoryview(data), where.start, where.transfer_syntax_uid
    if syntax == part10.DEFLATED_LE:
        view, start = memoryview(part10.inflate(view[start:], _INFLATED)), 0
    mark = struct.pack(">HH" if syntax == part10.EXPLICIT_BE else "<HH", 0x7FE0, 0x0010)
    try:
        _, at = part10.scan(
            view,
            start,
            implicit=syntax == part10.IMPLICIT_LE,
            little=syntax != part10.EXPLICIT_BE,
            stop=_PIXELS - 1,
            wanted=(),
        )
        return bytes(view[at : at + 4]) == mark
    except part10.OddEncodingError:
        return "PixelData" in _whole(data)


def _replace_pixels(read: Dataset, data: bytes, reader: PydicomReader) -> None:
    header, frames = reader.stored(data)
    allocated = header.integer("BitsAllocated")
    if allocated not in (8, 16) or any(8 * f.dtype.itemsize != allocated for f in frames):
        raise UnsupportedPixelsError("only 8 and 16 bit images are re-encoded")
    values = b"".join(_little(frame) for frame in frames)
    read.PixelData = values + b"\0" * (len(values) % 2)
    read["PixelData"].VR = "OW" if allocated == 16 else "OB"
    read["PixelData"].is_undefined_length = False
    if header.integer("SamplesPerPixel", 1) > 1:
        read.PlanarConfiguration = 0
    photometric = header.text("PhotometricInterpretation")
    if photometric in _DECODED_PHOTOMETRIC:
        read.PhotometricInterpretation = _DECODED_PHOTOMETRIC[photometric]
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in read:
            delattr(read, keyword)


def _swap(read: Dataset) -> None:
    """Turn the words of a big-endian data set round; pydicom leaves their bytes alone."""
    for element in read.iterall():
        width = _SWAPPED.get(element.VR)
        if width and element.tag != _PIXELS and isinstance(element.value, bytes):
            whole = len(element.value) // width * width
            words = np.frombuffer(element.value[:whole], f">u{width}").astype(f"<u{width}")
            element.value = words.tobytes() + element.value[whole:]


def _written(read: Dataset) -> bytes:
    plain = Dataset()
    plain.update({element.tag: element for element in read if element.tag.group > 2})
    plain.set_original_encoding(*read.original_encoding, read.original_character_set or "iso8859")
    plain.file_meta = FileMetaDataset()
    plain.file_meta.MediaStorageSOPClassUID = read.SOPClassUID
    plain.file_meta.MediaStorageSOPInstanceUID = read.SOPInstanceUID
    plain.file_meta.TransferSyntaxUID = part10.EXPLICIT_LE
    plain.file_meta.ImplementationClassUID = part10.IMPLEMENTATION_UID
    plain.file_meta.ImplementationVersionName = part10.IMPLEMENTATION_VERSION
    out = BytesIO()
    pydicom.dcmwrite(out, plain, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return out.getvalue()


def _little(stored: NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).tobytes()


# --- JSON --------------------------------------------------------------------------------------


def _as_json(read: Dataset, url: str) -> Json:
    found: Json = {}
    for element in _elements(read):
        if element.tag.group <= 2 or element.tag == _PIXELS or element.tag.element == 0:
            continue
        name = f"{element.tag:08X}"
        if element.VR == "SQ":
            items = [
                _as_json(item, f"{url}/{name}/{index}") for index, item in enumerate(element.value)
            ]
            found[name] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        elif (
            element.VR in _BINARY
            and isinstance(element.value, bytes)
            and len(element.value) > _INLINE
        ):
            found[name] = {"vr": element.VR, "BulkDataURI": f"{url}/{name}"}
        else:
            found[name] = _plain(element)
    return found


def _elements(read: Dataset) -> Iterator[DataElement]:
    """Yield what can be read; an element that breaks its VR would end the whole walk."""
    for tag in sorted(read.keys()):
        try:
            yield read[tag]
        except Exception:  # noqa: S112  foreign parser: the attribute is left out of the answer
            continue


def _plain(element: DataElement) -> Json:
    try:
        made: Json = element.to_json_dict(None, _INLINE)
    except Exception:  # a value that is not of its VR: the attribute stays, empty
        return {"vr": str(element.VR)[:2]}
    if "Value" in made:
        made["Value"] = [_finite(value) for value in made["Value"]]
    return made


def _finite(value: object) -> object:
    """JSON has no word for what is no number; PS3.18 F.2.4 takes the text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
