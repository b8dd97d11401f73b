"""The one audited way from stored pixel values to a model's tensor.

Box and training share it. It takes a decoded frame and the header values that give the numbers
their meaning, and applies, in this order: native byte order, modality LUT or rescale, padding
mask, VOI LUT or window, MONOCHROME1 inversion, resampling with the aspect kept, normalisation.
Every step that was applied is named in the answer. It reads no file and decodes no codec.

Sources: DICOM PS3.3 C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.5.1.1.2
(padding). Rows come before columns everywhere; spacings are in mm.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import ColourImageError, MalformedHeaderError, UnsupportedPixelsError

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
Float = NDArray[np.float32]

_STRIP = 16  # output rows per block of the banded product: the strip stays in the L2 cache
_SAMPLE = 1 << 18  # pixels looked at for percentiles: a regular grid, so the result is repeatable
_MAX_ASPECT = 4.0  # beyond this a spacing ratio is a typing error, not a detector


@dataclass(frozen=True, slots=True)
class Lut:
    """A lookup table (PS3.3 C.11.1.1.1): `first` is the input value of entry 0."""

    first: int
    bits: int
    entries: NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        if self.entries.ndim != 1 or self.entries.size == 0 or not 1 <= self.bits <= 16:
            raise MalformedHeaderError("a lookup table needs entries of 1 to 16 bits")

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map values; those outside the table take its first or last entry."""
        index = np.clip(np.rint(values) - self.first, 0, self.entries.size - 1).astype(np.int64)
        return np.asarray(self.entries[index], np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A VOI window in modality values (PS3.3 C.11.2.1.2)."""

    centre: float
    width: float
    function: VoiFunction = "LINEAR"

    def __post_init__(self) -> None:
        least = 1.0 if self.function == "LINEAR" else 0.0
        finite = np.isfinite(self.centre) and np.isfinite(self.width)
        if not finite or self.width < least or self.width == 0:
            raise MalformedHeaderError("window width or centre is out of range")

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map modality values to 0..1, darkest to brightest before any inversion."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4.0 * (values - self.centre) / self.width, -700.0, 700.0)
            return 1.0 / (1.0 + np.exp(exponent))
        if self.function == "LINEAR_EXACT" or self.width == 1:
            return np.clip((values - self.centre) / self.width + 0.5, 0.0, 1.0)
        return np.clip((values - (self.centre - 0.5)) / (self.width - 1.0) + 0.5, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One decoded grey frame with what its numbers mean.

    Args:
        pixels: (rows, columns) stored values, 8 or 16 bit integers in any byte order.
        monochrome1: True when the lowest value is shown white.
        slope, intercept: rescale to modality values; ignored when `modality_lut` is given.
        voi_lut, window: how the sender wants it shown; the table wins over the window.
        padding: inclusive range of stored values that are not image, or None.
        spacing: (row, column) distance of pixel centres in mm, or None when not usable.
    """

    pixels: NDArray[np.generic] = field(repr=False)
    monochrome1: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    voi_lut: Lut | None = None
    window: Window | None = None
    padding: tuple[int, int] | None = None
    spacing: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim == 3 and self.pixels.shape[-1] in (3, 4):
            raise ColourImageError("the model reads grey images, this one has colour samples")
        if self.pixels.ndim != 2 or min(self.pixels.shape) < 2:
            raise UnsupportedPixelsError("need one frame of at least 2 x 2 pixels")
        if self.pixels.dtype.kind not in "iu" or self.pixels.dtype.itemsize > 2:
            raise UnsupportedPixelsError("need stored values of at most 16 bit")
        if not (np.isfinite(self.slope) and np.isfinite(self.intercept)) or self.slope == 0:
            raise MalformedHeaderError("rescale slope or intercept is out of range")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """A pixel pipeline by name; its digest goes into every result.

    `revision` is raised by hand whenever the code below changes any output; a golden test holds
    the two together.
    """

    name: str = "cxr-frontal"
    revision: int = 1
    size: int = 320
    low_percentile: float = 0.5
    high_percentile: float = 99.5
    std_floor: float = 1e-3

    def __post_init__(self) -> None:
        if (
            not 16 <= self.size <= 4096
            or not 0 <= self.low_percentile < self.high_percentile <= 100
        ):
            raise MalformedHeaderError("pipeline size or percentiles are out of range")

    def digest(self) -> str:
        """Return sha256 over the canonical JSON of the parameters, in hex."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the image lies inside the square tensor, in tensor pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """How the frame uses its grey scale, after window and inversion (0 black, 1 white)."""

    black: float
    white: float
    mean: float
    std: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The model's tensor and an account of how it came about.

    Attributes:
        tensor: (1, 1, size, size) float32, native byte order, C order.
        shown: (height, width) float32 in 0..1: what a person would see, for the overlay.
        operations: the steps applied to this very image, in order.
    """

    tensor: Float = field(repr=False)
    shown: Float = field(repr=False)
    placement: Placement
    intensity: Intensity
    operations: tuple[str, ...]


def prepare(frame: Frame, spec: PipelineSpec) -> Prepared:
    """Turn a frame into the model's tensor.

    Raises:
        MalformedHeaderError: the header values cannot describe these pixels.
    """
    pixels = native(frame.pixels)
    operations: list[str] = []
    if pixels.dtype != frame.pixels.dtype:
        operations.append("byte-order")
    table, offset = _display_table(frame, pixels, spec, operations)
    height, width = placed_size(pixels.shape, frame.spacing, spec.size)
    shown = _resample_table(pixels, table, offset, height, width)
    operations.append(f"resample:{height}x{width}")
    placement = Placement(
        top=(spec.size - height) // 2, left=(spec.size - width) // 2, height=height, width=width
    )
    mean, std = float(shown.mean(dtype=np.float64)), float(shown.std(dtype=np.float64))
    tensor = np.zeros((1, 1, spec.size, spec.size), np.float32)
    inside = tensor[0, 0, placement.top :, placement.left :][:height, :width]
    np.subtract(shown, np.float32(mean), out=inside)
    inside /= np.float32(max(std, spec.std_floor))
    operations.append(f"normalise:mean-std,letterbox:{spec.size}")
    intensity = Intensity(
        black=float((shown <= 0.005).mean()),
        white=float((shown >= 0.995).mean()),
        mean=mean,
        std=std,
    )
    return Prepared(
        tensor=tensor,
        shown=shown,
        placement=placement,
        intensity=intensity,
        operations=tuple(operations),
    )


def native(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the array in this machine's byte order: engines misread any other without a word."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def placed_size(
    shape: tuple[int, ...], spacing: tuple[float, float] | None, size: int
) -> tuple[int, int]:
    """Return (height, width) in tensor pixels: true proportions, the longer side fills `size`."""
    row_mm, column_mm = spacing if usable_spacing(spacing) and spacing else (1.0, 1.0)
    height_mm, width_mm = shape[0] * row_mm, shape[1] * column_mm
    longest = max(height_mm, width_mm)
    return (
        max(2, min(size, round(size * height_mm / longest))),
        max(2, min(size, round(size * width_mm / longest))),
    )


def usable_spacing(spacing: tuple[float, float] | None) -> bool:
    """Tell whether a spacing describes pixels: real files carry 0.000 and typing errors."""
    if spacing is None or not all(np.isfinite(v) and v > 0 for v in spacing):
        return False
    return 1 / _MAX_ASPECT <= spacing[0] / spacing[1] <= _MAX_ASPECT


def _display_table(
    frame: Frame, pixels: NDArray[np.generic], spec: PipelineSpec, operations: list[str]
) -> tuple[Float, int]:
    """Fold every value-wise step into one table over the stored values that can occur."""
    low, high = int(pixels.min()), int(pixels.max())
    stored = np.arange(low, high + 1, dtype=np.int64)
    values = _modality_values(frame, stored, operations)
    masked = np.zeros(stored.shape, bool)
    if frame.padding is not None:
        masked = (stored >= min(frame.padding)) & (stored <= max(frame.padding))
        operations.append("padding-mask")
    shown = _voi(frame, values, masked, pixels, low, spec, operations)
    if frame.monochrome1:
        shown = 1.0 - shown
        operations.append("monochrome1-invert")
    shown[masked] = 0.0  # padding is air, whichever way the grey scale runs
    return shown.astype(np.float32), low


def _modality_values(
    frame: Frame, stored: NDArray[np.int64], operations: list[str]
) -> NDArray[np.float64]:
    values = stored.astype(np.float64)
    if frame.modality_lut is not None:
        operations.append("modality-lut")
        return frame.modality_lut.apply(values)
    if (frame.slope, frame.intercept) != (1.0, 0.0):
        operations.append(f"rescale:{frame.slope:g},{frame.intercept:g}")
    return values * frame.slope + frame.intercept


def _voi(
    frame: Frame,
    values: NDArray[np.float64],
    masked: NDArray[np.bool_],
    pixels: NDArray[np.generic],
    low: int,
    spec: PipelineSpec,
    operations: list[str],
) -> NDArray[np.float64]:
    if frame.voi_lut is not None:
        operations.append("voi-lut")
        return np.asarray(frame.voi_lut.apply(values) / ((1 << frame.voi_lut.bits) - 1))
    if frame.window is not None:
        operations.append(f"window:{frame.window.function.lower()}")
        return frame.window.apply(values)
    operations.append(f"window:percentile-{spec.low_percentile:g}-{spec.high_percentile:g}")
    step = max(1, int(np.sqrt(pixels.size / _SAMPLE)))
    index = pixels[::step, ::step].astype(np.int64).ravel() - low
    index = index[~masked[index]]
    if index.size == 0:
        return np.zeros_like(values)
    bottom, top = np.percentile(values[index], [spec.low_percentile, spec.high_percentile])
    return np.asarray(np.clip((values - bottom) / max(top - bottom, 1e-12), 0.0, 1.0))


def _resample_table(
    pixels: NDArray[np.generic], table: Float, offset: int, height: int, width: int
) -> Float:
    """Look up and resample rows strip by strip, then columns: no full-size float copy."""
    half = np.empty((height, pixels.shape[1]), np.float32)
    for start, first, last, weights in _bands(pixels.shape[0], height):
        strip = pixels[first:last]
        index: NDArray[Any] = strip if offset == 0 else strip.astype(np.int32) - offset
        np.matmul(weights, table.take(index), out=half[start : start + _STRIP])
    shown = np.empty((height, width), np.float32)
    for start, first, last, weights in _bands(pixels.shape[1], width):
        shown[:, start : start + _STRIP] = half[:, first:last] @ weights.T
    return shown


@lru_cache(maxsize=32)
def _bands(source: int, target: int) -> tuple[tuple[int, int, int, Float], ...]:
    """Cut the filter into blocks of output rows: (start, first, last used input, weights)."""
    matrix, bands = _triangle(source, target), []
    for start in range(0, target, _STRIP):
        block = matrix[start : start + _STRIP]
        used = np.flatnonzero(block.any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        bands.append((start, first, last, np.ascontiguousarray(block[:, first:last])))
    return tuple(bands)


def _triangle(source: int, target: int) -> Float:
    """Return the (target, source) weights of a triangle filter widened by the reduction factor.

    Reducing averages over the whole footprint, so a thin line dims but never vanishes; enlarging
    is plain bilinear. Every row sums to 1.
    """
    scale = source / target
    support = max(1.0, scale)
    centres = (np.arange(target, dtype=np.float64) + 0.5) * scale
    distance = np.abs((np.arange(source, dtype=np.float64) + 0.5)[None, :] - centres[:, None])
    weights = np.clip(1.0 - distance / support, 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
