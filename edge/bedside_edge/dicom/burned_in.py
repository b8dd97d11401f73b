"""Text in pixels: a heuristic that would rather refuse a picture than let a name out.

Letters are rows of short strokes: within a few dozen pixels the brightness jumps up and down many
times, by much, in several rows that lie together. Anatomy, collimator edges and markers of one
letter do not. What it finds is a reason not to export; that it finds nothing is no proof.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_JUMP: Final = 0.30  # of the picture's range within one step
_WIDTH: Final = 48  # pixels of a window
_HEIGHT: Final = 6  # rows of a window
_JUMPS: Final = 7  # changes of direction in a row of a window
_ROWS: Final = 4  # such rows in a window


def shows_text(pixels: NDArray[np.generic]) -> bool:
    """Tell whether text may stand in a frame.

    Args:
        pixels: (rows, columns), or (rows, columns, samples) of a colour frame; any number type.
    """
    frame = np.asarray(pixels, dtype=np.float32)
    if frame.ndim == 3:
        frame = frame.max(axis=2)
    low, high = float(frame.min()), float(frame.max())
    if high <= low:
        return False
    frame = (frame - low) / (high - low)
    while min(frame.shape) >= _HEIGHT:
        if _at_this_size(frame):
            return True
        rows, columns = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if rows < 2 * _HEIGHT or columns < 2 * _HEIGHT or max(frame.shape) < 512:
            return False
        cut = frame[:rows, :columns]
        four = cut[::2, ::2] + cut[1::2, ::2] + cut[::2, 1::2] + cut[1::2, 1::2]
        frame = (four / 4).astype(np.float32)
    return False


def _at_this_size(frame: NDArray[np.float32]) -> bool:
    # over two pixels, so that a smoothed stroke still is one jump
    step = frame[:, 2:] - frame[:, :-2]
    sign = np.where(step > _JUMP, 1, np.where(step < -_JUMP, -1, 0)).astype(np.int8)
    # a change of direction: a jump whose sign is not that of the last jump before it in the row
    columns = np.arange(sign.shape[1])
    at = np.where(sign != 0, columns, -1)
    last = np.maximum.accumulate(at, axis=1)
    before = np.concatenate([np.full((len(sign), 1), -1), last[:, :-1]], axis=1)
    held = np.take_along_axis(sign, np.maximum(before, 0), axis=1) * (before >= 0)
    turned = ((sign != 0) & (held == -sign)).astype(np.int32)
    total = np.cumsum(turned, axis=1)
    width = min(_WIDTH, total.shape[1] - 1)
    if width < 1:
        return False
    busy = ((total[:, width:] - total[:, :-width]) >= _JUMPS).astype(np.int32)
    down = np.cumsum(np.vstack([np.zeros((1, busy.shape[1]), np.int32), busy]), axis=0)
    if len(down) <= _HEIGHT:
        return bool((down[-1] >= _ROWS).any())
    return bool(((down[_HEIGHT:] - down[:-_HEIGHT]) >= _ROWS).any())
