"""From the bytes of a DICOM object to a grey frame, or to the coded reason why not.

Decoding uses the permissively licensed codecs pydicom finds installed. The checks run from the
cheapest and most telling to the decoder itself, and nothing is allocated on the word of a header:
claimed sizes are bounded, deflated streams are inflated to a limit, compressed frames are asked
for their size first.
"""

import hashlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from bedside_core.errors import (
    BedsideError,
    ColourImageError,
    CorruptPixelsError,
    MalformedHeaderError,
    MissingRescaleError,
    MultiFrameError,
    NoPixelsError,
    NotDicomError,
    NotFoundError,
    RefusedError,
    TooLargeError,
    UndecodableTransferSyntaxError,
    UnsupportedPixelsError,
)
from bedside_core.imaging import Frame, native
from bedside_edge.dicom import part10
from bedside_edge.dicom.codestream import describe, rle_can_hold
from bedside_edge.dicom.decoder import decode
from bedside_edge.dicom.grey import Attributes, grey_meaning
from bedside_edge.dicom.header import read_header
from bedside_edge.dicom.isolated import SHARED, DecodingProcesses
from bedside_edge.dicom.quiet import mute_loggers, muted_warnings
from bedside_edge.ports import Header

_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_RLE = "1.2.840.10008.1.2.5"
_NATIVE_SYNTAXES = frozenset(
    (part10.IMPLICIT_LE, part10.EXPLICIT_LE, part10.EXPLICIT_BE, part10.DEFLATED_LE)
)
_GREY = frozenset(("MONOCHROME1", "MONOCHROME2"))


class PydicomReader:
    """PixelReader over pydicom and its codecs. Holds no state between calls; thread-safe.

    Args:
        max_samples: most samples of one frame; twice the largest mammogram.
        max_frames: most frames of one object.
        max_bytes: largest data set after inflating.
        processes: where native codecs run; those of this program when not given.
    """

    def __init__(
        self,
        *,
        max_samples: int = 1 << 26,
        max_frames: int = 1 << 14,
        max_bytes: int = 1 << 29,
        processes: DecodingProcesses = SHARED,
    ) -> None:
        mute_loggers()
        self._processes = processes
        self._max_samples = max_samples
        self._max_frames = max_frames
        self._max_bytes = max_bytes

    def header(self, data: bytes, *, cut: bool = False) -> Header:
        """Read the routing attributes of a Part 10 object or bare data set.

        Raises:
            NotDicomError: no DICOM, a required UID is missing, or the header goes on (`cut`).
            InvalidUidError: a UID breaks PS3.5 section 9.
        """
        return read_header(data, cut=cut)

    def frame(self, data: bytes) -> Frame:
        """Decode the single grey frame of an object.

        Raises:
            RefusedError: a leaf says why the pipeline cannot see this object.
            NotDicomError: the bytes are no DICOM object.
        """
        with muted_warnings():
            header = self._open(data)
            self._refuse_what_is_not_one_grey_frame(header)
            meaning = grey_meaning(header)
            self._refuse_undecodable(header)
            stored = _without_unused_bits(next(self._decoded(header)), header.integer("BitsStored"))
            return meaning.frame(stored)

    def stored(
        self, data: bytes, number: int | None = None
    ) -> tuple[Attributes, list[NDArray[np.generic]]]:
        """Return the header and stored values of one frame, or of all: for retrieval.

        Args:
            data: the object.
            number: which frame, from 1; None for all of them.

        Raises:
            NotFoundError: the object has no such frame.
            RefusedError: a leaf says why the pixels cannot be decoded.
            NotDicomError: the bytes are no DICOM object.
        """
        with muted_warnings():
            header = self._open(data)
            self._refuse_without_pixels(header)
            frames = max(1, header.integer("NumberOfFrames", 1))
            if number is not None and not 1 <= number <= frames:
                raise NotFoundError("the object has no such frame")
            self._refuse_undecodable(header)
            only = None if number is None else number - 1
            return header, list(self._decoded(header, only))

    def decodes(self, transfer_syntax_uid: str) -> bool:
        """Tell whether there is a decoder for a transfer syntax."""
        if transfer_syntax_uid in _NATIVE_SYNTAXES:
            return True
        try:
            return bool(get_decoder(transfer_syntax_uid).is_available)
        except NotImplementedError:
            return False

    def pixel_digest(self, data: bytes) -> str:
        """Return sha256 over every frame's stored values, their shape, type and grey meaning.

        Two encodings of one image agree; byte order and unused high bits do not count. Another
        window, rescale, lookup table, spacing or padding of the same values is another image.

        Raises:
            RefusedError: a leaf says why the pixels cannot be decoded.
            NotDicomError: the bytes are no DICOM object.
        """
        hasher = hashlib.sha256()
        with muted_warnings():
            header = self._open(data)
            self._refuse_without_pixels(header)
            self._refuse_undecodable(header)
            grey = header.text("PhotometricInterpretation") in _GREY
            if grey:
                hasher.update(_meant(header))
            for stored in self._decoded(header):
                if grey:
                    stored = _without_unused_bits(stored, header.integer("BitsStored"))
                plain = np.ascontiguousarray(stored, stored.dtype.newbyteorder("<"))
                hasher.update(f"{plain.dtype.str}{plain.shape}".encode())
                hasher.update(plain.data)
        return hasher.hexdigest()

    def _open(self, data: bytes) -> Attributes:
        """Parse the attributes the pipeline knows; the rest is skipped."""
        where = part10.locate(data)
        syntax = where.transfer_syntax_uid
        if syntax == part10.DEFLATED_LE:
            plain = self._inflated(memoryview(data)[where.start :])
            syntax = part10.EXPLICIT_LE
            source = part10.head("0.0", "0.0", syntax) + plain
        elif where.meta.get(0x00020010):
            source = data if where.start >= 132 else bytes(128) + b"DICM" + data
        else:
            source = part10.head("0.0", "0.0", syntax) + data[where.start :]
        try:
            read = pydicom.dcmread(BytesIO(source), specific_tags=Attributes.TAGS, force=True)
        except Exception as cause:  # foreign parser on hostile bytes: any failure means the same
            raise MalformedHeaderError("the data set cannot be read") from cause
        if len(read) == 0 and self._describes_an_image(source):
            raise CorruptPixelsError("the object ends in the middle of its pixel data")
        return Attributes(read, syntax)

    def _inflated(self, deflated: memoryview) -> bytes:
        """Inflate a stored object; what is wrong with it is the object's fault, not the job's."""
        try:
            return part10.inflate(deflated, self._max_bytes)
        except TooLargeError as cause:
            raise UnsupportedPixelsError(
                "inflated, the object is larger than this box takes"
            ) from cause
        except NotDicomError as cause:
            raise CorruptPixelsError("the deflated data set cannot be inflated") from cause

    def _describes_an_image(self, source: bytes) -> bool:
        """Tell what pydicom does not: it gives up everything when a fragment is cut off."""
        try:
            return read_header(source).rows > 0
        except BedsideError:
            return False

    def _refuse_without_pixels(self, header: Attributes) -> None:
        if header.has("FloatPixelData") or header.has("DoubleFloatPixelData"):
            raise UnsupportedPixelsError("floating point pixels are outside the pipeline")
        if not header.has("PixelData"):
            raise NoPixelsError("the object carries no pixel data")
        rows, columns = header.integer("Rows"), header.integer("Columns")
        frames, samples = header.integer("NumberOfFrames", 1), header.integer("SamplesPerPixel", 1)
        if min(rows, columns, samples) < 1 or frames < 0:
            raise MalformedHeaderError("rows, columns, frames or samples are out of range")
        if rows * columns * samples > self._max_samples or frames > self._max_frames:
            raise UnsupportedPixelsError("the object claims more pixels than this box takes")
        if header.integer("BitsAllocated") < header.integer("BitsStored"):
            raise MalformedHeaderError("more bits are stored than allocated")

    def _refuse_what_is_not_one_grey_frame(self, header: Attributes) -> None:
        self._refuse_without_pixels(header)
        photometric = header.text("PhotometricInterpretation")
        if not photometric:
            raise MalformedHeaderError("there is no Photometric Interpretation")
        if photometric not in _GREY or header.integer("SamplesPerPixel", 1) != 1:
            raise ColourImageError("the model reads grey images, this one has colour")
        if header.integer("NumberOfFrames", 1) > 1:
            raise MultiFrameError("the model reads one frame, this object has several")
        if header.integer("BitsAllocated") not in (8, 16):
            raise UnsupportedPixelsError("need 8 or 16 bits allocated")
        bits = header.integer("BitsStored")
        if not 2 <= bits <= 16:
            raise UnsupportedPixelsError("need 2 to 16 bits stored")
        if header.integer("HighBit", bits - 1) != bits - 1:
            # allowed until 2014: what is below the value would count as value, what is above not
            raise UnsupportedPixelsError("the stored bits are not the low ones")
        if header.text("Modality") == "CT" and not header.has_rescale():
            raise MissingRescaleError("a CT without rescale has no Hounsfield units")

    def _refuse_undecodable(self, header: Attributes) -> None:
        syntax = header.transfer_syntax_uid
        if syntax in _NATIVE_SYNTAXES:
            return
        available = self.decodes(syntax)
        # gdcm and Pillow register for JPEG Extended but read its 8-bit form only.
        twelve_bit = syntax == _JPEG_EXTENDED and header.integer("BitsStored") > 8
        if not available or twelve_bit:
            named = syntax if syntax.startswith("1.2.840.10008.") else "(private)"
            raise UndecodableTransferSyntaxError(f"no decoder here for transfer syntax {named}")

    def _decoded(
        self, header: Attributes, only: int | None = None
    ) -> Iterator[NDArray[np.generic]]:
        """Yield every frame's stored values in native byte order, or those of one (from 0).

        Raises:
            CorruptPixelsError: a frame is missing or cannot be decoded.
        """
        syntax, frames = header.transfer_syntax_uid, max(1, header.integer("NumberOfFrames", 1))
        if syntax in _NATIVE_SYNTAXES:
            for index in range(frames) if only is None else (only,):
                yield _native_frame(header, index)
            return
        description: dict[str, int | str] = {
            "transfer_syntax_uid": syntax,
            "rows": header.integer("Rows"),
            "columns": header.integer("Columns"),
            "samples_per_pixel": header.integer("SamplesPerPixel", 1),
            "photometric_interpretation": header.text("PhotometricInterpretation"),
            "planar_configuration": header.integer("PlanarConfiguration", 0),
            "bits_allocated": header.integer("BitsAllocated"),
            "bits_stored": header.integer("BitsStored"),
            "pixel_representation": header.integer("PixelRepresentation", 0),
        }
        for index, coded in enumerate(_coded_frames(header, frames)):
            if only not in (None, index):
                continue
            if syntax == _RLE:
                yield _rle_frame(coded, description)
            else:
                yield native(self._processes.decode(coded, **description))


def _native_frame(header: Attributes, index: int) -> NDArray[np.generic]:
    try:
        pixels, _ = get_decoder(header.transfer_syntax_uid).as_array(
            header.data_set, raw=True, index=index
        )
    except Exception as cause:  # foreign code on hostile bytes: any failure means the same
        raise CorruptPixelsError("the pixel data ended early or cannot be read") from cause
    return native(pixels)


def _rle_frame(coded: bytes, description: dict[str, int | str]) -> NDArray[np.generic]:
    """Decode in pydicom's own code: pylibjpeg-rle panics on damaged frames, no Exception at all."""
    try:
        return decode(coded, description, "pydicom")
    except Exception as cause:  # foreign code on hostile bytes: any failure means the same
        raise CorruptPixelsError("the pixel data ended early or cannot be decoded") from cause


def _coded_frames(header: Attributes, frames: int) -> Iterator[bytes]:
    """Yield the compressed frames, each of which claims the size the header has.

    Raises:
        CorruptPixelsError: too few frames, no readable codestream, or another size.
    """
    found = 0
    try:
        for coded in generate_frames(header.data_set.PixelData, number_of_frames=frames):
            _compare_with_header(coded, header)
            found += 1
            yield coded
            if found == frames:
                return
    except CorruptPixelsError:
        raise
    except Exception as cause:  # hostile fragments and offset tables
        raise CorruptPixelsError("the frames of the pixel data cannot be found") from cause
    raise CorruptPixelsError("there are fewer frames than the header says")


def _compare_with_header(coded: bytes, header: Attributes) -> None:
    rows, columns = header.integer("Rows"), header.integer("Columns")
    samples = header.integer("SamplesPerPixel", 1)
    if header.transfer_syntax_uid == _RLE:
        size = rows * columns * samples * header.integer("BitsAllocated") // 8
        if not rle_can_hold(len(coded), size):
            raise CorruptPixelsError("the compressed frame is too short for its image")
        return
    claim = describe(coded)
    if claim is None:
        raise CorruptPixelsError("the compressed frame has no readable header")
    if (claim.rows, claim.columns, claim.samples) != (rows, columns, samples):
        raise CorruptPixelsError("the compressed frame has another size than the header")


def _meant(header: Attributes) -> bytes:
    """Return what the stored values mean; headers nobody can read are alike in that."""
    try:
        return grey_meaning(header).fingerprint()
    except RefusedError as why:
        return why.code.encode()


def _without_unused_bits(stored: NDArray[np.generic], bits: int) -> NDArray[np.generic]:
    """Clear what lies above Bits Stored (overlays of old objects) and restore the sign.

    The decoded array says whether values are signed: a JPEG 2000 stream may contradict Pixel
    Representation, and pydicom has settled that.
    """
    spare = stored.dtype.itemsize * 8 - bits
    if spare <= 0 or stored.dtype.kind not in "iu":
        return stored
    low, high = int(stored.min()), int(stored.max())
    least = -(1 << (bits - 1)) if stored.dtype.kind == "i" else 0
    if least <= low and high < least + (1 << bits):
        return stored
    shifted: NDArray[np.generic] = np.left_shift(stored, spare)
    np.right_shift(shifted, spare, out=shifted)
    return shifted
