"""Header values that give stored pixel values their meaning, read tolerantly, judged strictly.

What a pipeline cannot do without is refused when unreadable; what only helps (a window, a
spacing) is dropped when unusable, and the result's list of operations shows that.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement

from bedside_core.errors import MalformedHeaderError
from bedside_core.imaging import Frame, Lut, VoiFunction, Window, usable_spacing

_MACROS = {  # enhanced objects keep these in functional groups (PS3.3 C.7.6.16.2)
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
_FUNCTIONS: dict[str, VoiFunction] = {
    "": "LINEAR",
    "LINEAR": "LINEAR",
    "LINEAR_EXACT": "LINEAR_EXACT",
    "SIGMOID": "SIGMOID",
}
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


class Attributes:
    """A parsed data set with typed access; an unreadable value is a MalformedHeaderError."""

    KEYWORDS: ClassVar = (
        *("SpecificCharacterSet", "SOPClassUID", "Modality", "SamplesPerPixel"),
        *("PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
        *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
        *("PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
        *(*_SPACINGS, "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
        *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
        *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    )
    TAGS: ClassVar[list[int]] = [tag_for_keyword(word) or 0 for word in KEYWORDS]

    def __init__(self, data_set: Dataset, transfer_syntax_uid: str) -> None:
        self.data_set = data_set
        self.transfer_syntax_uid = transfer_syntax_uid

    def has(self, keyword: str) -> bool:
        """Tell whether the attribute is present, with or without a value."""
        return keyword in self.data_set

    def value(self, keyword: str) -> Any:  # noqa: ANN401 - pydicom's values have any type
        """Return a value, from the functional groups if it lives there; None when absent."""
        try:
            if keyword in self.data_set:
                return self.data_set[keyword].value
            return self._from_groups(keyword)
        except Exception as cause:  # conversion of hostile bytes: any failure means the same
            raise MalformedHeaderError(f"{keyword} cannot be read") from cause

    def _from_groups(self, keyword: str) -> Any:  # noqa: ANN401
        macro = _MACROS.get(keyword)
        for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            if macro is None or not self.data_set.get(groups):
                continue
            items = self.data_set[groups].value[0].get(macro)
            if items and keyword in items[0]:
                return items[0][keyword].value
        return None

    def text(self, keyword: str) -> str:
        """Return a code string; empty when absent."""
        value = self.value(keyword)
        return "" if value is None else str(_first(value)).strip()

    def integer(self, keyword: str, default: int | None = None) -> int:
        """Return a whole number; MalformedHeaderError when absent without a default."""
        value = _first(self.value(keyword))
        if value is None or value == "":
            if default is None:
                raise MalformedHeaderError(f"{keyword} is missing")
            return default
        return int(_number(keyword, value))

    def number(self, keyword: str, default: float) -> float:
        """Return the first value as a float."""
        value = _first(self.value(keyword))
        return default if value is None or value == "" else _number(keyword, value)

    def numbers(self, keyword: str) -> list[float]:
        """Return all values as floats; empty when absent."""
        value = self.value(keyword)
        if value is None or value == "":
            return []
        several = value if isinstance(value, list | tuple) or _is_multi(value) else [value]
        return [_number(keyword, one) for one in several]

    def has_rescale(self) -> bool:
        """Tell whether stored values can be turned into modality values."""
        if self.value("ModalityLUTSequence"):
            return True
        return bool(self.numbers("RescaleSlope") and self.numbers("RescaleIntercept"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """Everything of a Frame but its pixels; padding still as the header writes it."""

    template: Frame
    padding: tuple[int, int] | None

    def fingerprint(self) -> bytes:
        """Return bytes that are equal only when the same stored values would be shown the same."""
        frame = self.template
        plain = (frame.monochrome1, frame.slope, frame.intercept, frame.window, frame.spacing)
        luts = [
            None if lut is None else (lut.first, lut.bits, lut.entries.tolist())
            for lut in (frame.modality_lut, frame.voi_lut)
        ]
        return repr((plain, luts, self.padding)).encode()

    def frame(self, stored: NDArray[np.generic]) -> Frame:
        """Join the meaning with the decoded values."""
        padding = self.padding
        if padding is not None:
            low, high = (_as_stored(value, stored.dtype) for value in padding)
            padding = (min(low, high), max(low, high))
        return replace(self.template, pixels=stored, padding=padding)


def grey_meaning(header: Attributes) -> Meaning:
    """Read modality and VOI transformations, polarity, padding and spacing.

    Raises:
        MalformedHeaderError: an attribute the values depend on cannot be read.
    """
    padding = header.value("PixelPaddingValue")
    bounds = None
    if padding is not None and padding != "":
        first = header.integer("PixelPaddingValue")
        bounds = (first, header.integer("PixelPaddingRangeLimit", first))
    template = Frame(
        pixels=np.zeros((2, 2), np.uint8),
        monochrome1=header.text("PhotometricInterpretation") == "MONOCHROME1",
        slope=header.number("RescaleSlope", 1.0),
        intercept=header.number("RescaleIntercept", 0.0),
        modality_lut=_lut(header, "ModalityLUTSequence"),
        voi_lut=_lut(header, "VOILUTSequence"),
        window=_window(header),
        spacing=_spacing(header),
    )
    return Meaning(template=template, padding=bounds)


def _window(header: Attributes) -> Window | None:
    """Return the first window of several; None when there is none that can be used."""
    try:
        centres, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
        function = _FUNCTIONS.get(header.text("VOILUTFunction"))
        if not centres or not widths or function is None:
            return None
        return Window(centre=centres[0], width=widths[0], function=function)
    except MalformedHeaderError:
        return None  # width 0 and text in a number exist; a percentile window is shown instead


def _spacing(header: Attributes) -> tuple[float, float] | None:
    """Return (row, column) mm from the first attribute that describes pixels."""
    for keyword in _SPACINGS:
        try:
            values = header.numbers(keyword)
        except MalformedHeaderError:
            continue
        if len(values) == 2 and usable_spacing((values[0], values[1])):
            return values[0], values[1]
    return None


def _lut(header: Attributes, keyword: str) -> Lut | None:
    """Return the first table of a LUT sequence.

    Raises:
        MalformedHeaderError: the table is there but cannot be read: showing the image without
            it would show something else.
    """
    items = header.value(keyword)
    if not items:
        return None
    try:
        item = items[0]
        count, first, bits = (int(v) for v in item.LUTDescriptor)
        entries = _entries(item["LUTData"], count or 1 << 16, bits, _is_little(header))
    except Exception as cause:  # hostile descriptors: any failure means the same
        raise MalformedHeaderError(f"{keyword} cannot be read") from cause
    if first > 0x7FFF and _signed_table(header, keyword):
        first -= 1 << 16  # implicit VR files write a signed first value as unsigned
    return Lut(first=first, bits=bits, entries=entries)


def _signed_table(header: Attributes, keyword: str) -> bool:
    """Tell whether the table's input is signed (PS3.3 C.11.1.1.1, C.11.2.1.1)."""
    signed = header.integer("PixelRepresentation", 0) == 1
    if keyword == "VOILUTSequence":
        return signed or header.number("RescaleIntercept", 0.0) < 0
    return signed


def _entries(element: DataElement, count: int, bits: int, little: bool) -> NDArray[np.int64]:
    value = element.value
    if isinstance(value, bytes | bytearray):
        kind = np.uint8 if bits <= 8 and len(value) in (count, count + 1) else np.uint16
        stored = np.dtype(kind).newbyteorder("<" if little else ">")
        values = np.frombuffer(value, stored).astype(np.int64)
    else:
        values = np.asarray(value if _is_multi(value) else [value], np.int64)
    if values.size < count:
        raise ValueError("fewer entries than the descriptor says")
    values = values[:count]
    if values.min() < 0 or values.max() >= 1 << bits:
        raise ValueError("an entry has more bits than the descriptor says")
    return values


def _is_little(header: Attributes) -> bool:
    return header.transfer_syntax_uid != "1.2.840.10008.1.2.2"


def _as_stored(value: int, dtype: np.dtype[np.generic]) -> int:
    """Bring a padding value written in the other sign into the pixels' own."""
    size = 1 << (8 * dtype.itemsize)
    if dtype.kind == "i" and value >= size // 2:
        return value - size
    if dtype.kind == "u" and value < 0:
        return value + size
    return value


def _is_multi(value: object) -> bool:
    return type(value).__name__ in ("MultiValue", "list", "tuple", "ConstrainedList")


def _first(value: Any) -> Any:  # noqa: ANN401
    if _is_multi(value):
        return value[0] if len(value) else None
    return value


def _number(keyword: str, value: Any) -> float:  # noqa: ANN401
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as cause:
        raise MalformedHeaderError(f"{keyword} is not a number") from cause
    if not math.isfinite(number):
        raise MalformedHeaderError(f"{keyword} is not finite")
    return number
