"""A grey frame rendered for retrieval: the audited pipeline's grey scale, at its own size or any.

The same table as for the model's tensor (modality transformation, padding, VOI, inversion), with
the viewer's window in place of the sender's, and 8 bits out. Nothing here is measured on.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bedside_core.imaging import (
    Frame,
    PipelineSpec,
    Window,
    _display_table,
    _resample_table,
    native,
)

_SPEC = PipelineSpec()  # its percentiles stand in for a window that is missing


def render(
    frame: Frame, window: Window | None = None, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return the frame in 8 bits, 0 black and 255 white.

    Args:
        frame: what was decoded.
        window: in modality values, in place of the sender's window or table; None keeps those.
        size: (rows, columns) of the picture; None keeps the frame's.

    Returns:
        (rows, columns) uint8. Aspect is the caller's: see `fitted`.
    """
    if window is not None:
        frame = replace(frame, window=window, voi_lut=None)
    pixels = native(frame.pixels)
    table, low = _display_table(frame, pixels, _SPEC, [])
    if size is None or size == pixels.shape:
        eight = np.rint(table * 255.0).astype(np.uint8)
        return np.asarray(eight.take(pixels.astype(np.int32) - low))
    shown = _resample_table(pixels, table, low, *size)
    return np.asarray(np.rint(np.clip(shown, 0.0, 1.0) * 255.0).astype(np.uint8))


def fitted(
    shape: tuple[int, int], spacing: tuple[float, float] | None, box: tuple[int, int]
) -> tuple[int, int]:
    """Return the largest (rows, columns) inside `box` in true proportions; at least 1 x 1.

    Args:
        shape: (rows, columns) of the frame.
        spacing: (row, column) mm of its pixels, or None for square ones.
        box: (rows, columns) of the viewport.
    """
    row_mm, column_mm = spacing or (1.0, 1.0)
    height, width = shape[0] * row_mm, shape[1] * column_mm
    scale = min(box[0] / height, box[1] / width)
    return (
        max(1, min(box[0], round(height * scale))),
        max(1, min(box[1], round(width * scale))),
    )
