"""Saliency painted over the image: arrays in, an RGB array out.

The map is the network's own class-activation map, so what glows is what moved the logit. Only
evidence for the finding is shown; the image stays readable underneath.
"""

import numpy as np
from numpy.typing import NDArray

from bedside_core.findings import saliency
from bedside_core.imaging import Float

# Control points of a dark-to-yellow ramp, readable by the colour-blind: (position, r, g, b).
_RAMP = np.array(
    [
        (0.0, 0.0, 0.0, 0.05),
        (0.25, 0.34, 0.06, 0.43),
        (0.5, 0.73, 0.21, 0.33),
        (0.75, 0.97, 0.55, 0.04),
        (1.0, 0.99, 1.0, 0.64),
    ]
)
_STRONGEST = 0.5  # opacity of full saliency: the image stays readable underneath


def paint(
    shown: Float, cam: Float, placement: tuple[int, int, int, int], tensor_size: int
) -> NDArray[np.uint8]:
    """Return (height, width, 3) uint8: the grey image with saliency in colour.

    Args:
        shown: (height, width) in 0..1, any resolution, covering the image area only.
        cam: (h, w) class-activation map in logit units, covering the whole square tensor.
        placement: (top, left, height, width) of the image area in tensor pixels.
        tensor_size: side of the square tensor in pixels.
    """
    glow = spread(saliency(cam), shown.shape, placement, tensor_size)
    colour = np.stack([np.interp(glow, _RAMP[:, 0], _RAMP[:, i]) for i in (1, 2, 3)], axis=-1)
    opacity = (_STRONGEST * glow)[..., None]
    mixed = shown[..., None] * (1.0 - opacity) + colour * opacity
    return np.asarray(np.clip(mixed * 255.0 + 0.5, 0, 255), np.uint8)


def veil(
    cam: Float, shape: tuple[int, int], placement: tuple[int, int, int, int], tensor_size: int
) -> NDArray[np.uint8]:
    """Return (height, width, 4) uint8: the saliency alone, to lie over the image in a viewer.

    Where there is no evidence it is transparent; at full saliency it is opaque, so the viewer
    sets how strong it is.

    Args:
        cam: (h, w) class-activation map in logit units, covering the whole square tensor.
        shape: (rows, columns) of the answer, covering the image area only.
        placement: (top, left, height, width) of the image area in tensor pixels.
        tensor_size: side of the square tensor in pixels.
    """
    glow = spread(saliency(cam), shape, placement, tensor_size)
    layers = [np.interp(glow, _RAMP[:, 0], _RAMP[:, i]) for i in (1, 2, 3)]
    return np.asarray(np.stack([*layers, glow], axis=-1) * 255.0 + 0.5, np.uint8)


def spread(
    glow: Float, shape: tuple[int, ...], placement: tuple[int, int, int, int], tensor_size: int
) -> Float:
    """Interpolate a map bilinearly at the image's pixels; map cells are centred on their area.

    Args:
        glow: (h, w), covering the whole square tensor.
        shape: (rows, columns) of the image the answer is for.
        placement: (top, left, height, width) of the image area in tensor pixels.
        tensor_size: side of the square tensor in pixels.
    """
    down, across = _both_weights(glow.shape, shape, placement, tensor_size)
    return down @ np.asarray(glow, np.float32) @ across.T


def strong(
    glow: Float,
    shape: tuple[int, ...],
    placement: tuple[int, int, int, int],
    tensor_size: int,
    level: float,
) -> NDArray[np.uint8]:
    """Return (rows, columns) of 0 and 1: 1 where `spread` is at least `level`, which is above 0.

    Looks only at rows and columns that can reach it: a pixel mixes cells with weights that sum to
    one, so it is at most what the strongest cells of those rows give.
    """
    down, across = _both_weights(glow.shape, shape, placement, tensor_size)
    cells = np.asarray(glow, np.float32)
    least = level - 1e-5  # the sum rounds
    rows = np.flatnonzero(down @ cells.max(axis=1) >= least)
    columns = np.flatnonzero(across @ cells.max(axis=0) >= least)
    mask = np.zeros(shape, np.uint8)
    if rows.size and columns.size:
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        near = down[top:bottom] @ cells @ across[left:right].T
        mask[top:bottom, left:right] = near >= level
    return mask


def _both_weights(
    cells: tuple[int, ...],
    shape: tuple[int, ...],
    placement: tuple[int, int, int, int],
    tensor_size: int,
) -> tuple[Float, Float]:
    """Return (rows, h) and (columns, w) weights of a map's cells."""
    top, left, height, width = placement
    rows = top + (np.arange(shape[0]) + 0.5) * height / shape[0]
    columns = left + (np.arange(shape[1]) + 0.5) * width / shape[1]
    return (
        _weights(rows * cells[0] / tensor_size - 0.5, cells[0]),
        _weights(columns * cells[1] / tensor_size - 0.5, cells[1]),
    )


def _weights(places: NDArray[np.float64], cells: int) -> Float:
    """Return (places, cells): how much of each cell a place takes; beyond the ends, the end's."""
    held = np.clip(places, 0.0, cells - 1.0)[:, None]
    return np.asarray(np.clip(1.0 - np.abs(held - np.arange(cells)), 0.0, None), np.float32)
