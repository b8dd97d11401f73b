"""A grey frame as a person looks at it: chosen window, 8 bits, true proportions.

The grey values come from the audited pipeline of `imaging`, so what a reader sees and what the
model saw differ only by window and size.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedside_core.imaging import Frame, PipelineSpec, Window, native, prepare

_SAMPLE = 1 << 18  # pixels looked at for percentiles: a regular grid, so the answer repeats
_OUTER = (0.5, 99.5)  # percentiles that a window spans where the sender gave none


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyScale:
    """Where a frame's values lie, in modality values (PS3.3 C.11.1).

    Attributes:
        low, high: smallest and largest value.
        centre, width: the window to begin with; the width is at least 1.
    """

    low: float
    high: float
    centre: float
    width: float


def grey_scale(frame: Frame) -> GreyScale:
    """Return the range of a frame's values and the window it is shown with at first.

    The sender's window if there is one, else what holds all but the outermost 0.5 % on each side;
    padding is left out.
    """
    pixels = native(frame.pixels)
    step = max(1, int(np.sqrt(pixels.size / _SAMPLE)))
    stored = pixels[::step, ::step].astype(np.float64).ravel()
    if frame.padding is not None:
        image = stored[(stored < min(frame.padding)) | (stored > max(frame.padding))]
        stored = image if image.size else stored
    if frame.modality_lut is not None:
        values = frame.modality_lut.apply(stored)
    else:
        values = stored * frame.slope + frame.intercept
    low, high = float(values.min()), float(values.max())
    if frame.window is not None and frame.voi_lut is None:
        centre, width = frame.window.centre, frame.window.width
    else:
        bottom, top = (float(v) for v in np.percentile(values, _OUTER))
        centre, width = (bottom + top) / 2, top - bottom
    return GreyScale(low=low, high=high, centre=centre, width=max(1.0, width))


def shown(frame: Frame, *, window: Window | None, inverted: bool, size: int) -> NDArray[np.uint8]:
    """Return (height, width) uint8, 0 black and 255 white.

    Args:
        frame: the decoded frame.
        window: in modality values, in place of the sender's window or table; None keeps those.
        inverted: swap black and white after everything else.
        size: longest side in pixels, 16 to 4096.

    Raises:
        MalformedHeaderError: the header values cannot describe these pixels, or `size` is off.
    """
    if window is not None:
        frame = dataclasses.replace(frame, window=window, voi_lut=None)
    grey = prepare(frame, PipelineSpec(size=size)).shown
    if inverted:
        grey = 1.0 - grey
    return np.asarray(np.clip(grey * 255.0 + 0.5, 0, 255), np.uint8)
