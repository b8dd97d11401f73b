"""Where the saliency is strong: ellipses in the pixels of the source image.

An ellipse says where the network looked, not where a lesion ends; whoever writes it out must name
it saliency. Nothing here reads a file or runs a network.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedside_core.findings import saliency
from bedside_core.imaging import Float

LEVEL = 0.5  # of full saliency; weaker evidence is shown by colour only
_MOST = 4  # ellipses per image: more would be noise
_REACH = 2.0  # standard deviations: an even disc's ellipse is then its outline

Point = tuple[
    float, float
]  # (column, row) as PS3.3 C.10.5 writes coordinates; (0, 0) is the corner


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipse:
    """Ends of the long axis, then of the short one (PS3.3 C.18.6, ELLIPSE)."""

    long_axis: tuple[Point, Point]
    short_axis: tuple[Point, Point]


def salient_ellipses(
    cam: Float,
    placement: tuple[int, int, int, int],
    tensor_size: int,
    shape: tuple[int, int],
) -> tuple[Ellipse, ...]:
    """Return one ellipse per connected area of strong saliency, the strongest first.

    Args:
        cam: (h, w) class-activation map in logit units, covering the whole square tensor.
        placement: (top, left, height, width) of the image area in tensor pixels.
        tensor_size: side of the square tensor in pixels.
        shape: (rows, columns) of the source image.
    """
    glow = saliency(cam)
    top, left, height, width = placement
    cell_h = tensor_size / glow.shape[0] * shape[0] / height  # in source rows
    cell_w = tensor_size / glow.shape[1] * shape[1] / width
    areas = sorted(_areas(glow >= LEVEL), key=lambda area: -sum(float(glow[c]) for c in area))
    found = []
    for area in areas[:_MOST]:
        cells = np.array(area, np.float64)
        weights = np.array([float(glow[cell]) for cell in area])
        rows = (cells[:, 0] + 0.5) * cell_h - top * shape[0] / height
        columns = (cells[:, 1] + 0.5) * cell_w - left * shape[1] / width
        ellipse = _ellipse(rows, columns, weights, (cell_h, cell_w), shape)
        if ellipse is not None:
            found.append(ellipse)
    return tuple(found)


def _areas(strong: NDArray[np.bool_]) -> Iterator[list[tuple[int, int]]]:
    """Yield the connected areas (edges touch) of a small boolean grid."""
    open_cells = {(int(row), int(column)) for row, column in np.argwhere(strong)}
    while open_cells:
        reached = [open_cells.pop()]
        for row, column in reached:  # grows while it is walked
            for beside in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            ):
                if beside in open_cells:
                    open_cells.remove(beside)
                    reached.append(beside)
        yield sorted(reached)


def _ellipse(
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    weights: NDArray[np.float64],
    cell: tuple[float, float],
    shape: tuple[int, int],
) -> Ellipse | None:
    """Return the ellipse of the weights' second moments, shrunk until it lies in the image."""
    share = weights / weights.sum()
    row, column = float(share @ rows), float(share @ columns)
    if not (0 < row < shape[0] and 0 < column < shape[1]):
        return None  # the evidence lies in the padding around the image
    down, across = rows - row, columns - column
    # a cell is an area, not a point: its own spread keeps one cell from vanishing
    spread = np.array(
        [
            [share @ (down * down) + cell[0] ** 2 / 12, share @ (down * across)],
            [share @ (down * across), share @ (across * across) + cell[1] ** 2 / 12],
        ]
    )
    variances, axes = np.linalg.eigh(spread)  # ascending: the short axis first
    ends: list[tuple[Point, Point]] = []
    for index in (1, 0):
        reach = _REACH * math.sqrt(float(variances[index]))
        d_row, d_column = (float(part) for part in axes[:, index])
        reach = min(reach, *_room(row, d_row, shape[0]), *_room(column, d_column, shape[1]))
        ends.append(
            (
                (column - reach * d_column, row - reach * d_row),
                (column + reach * d_column, row + reach * d_row),
            )
        )
    if math.dist(*ends[0]) < math.dist(*ends[1]):  # the image's edge cut the long axis
        ends.reverse()
    return Ellipse(long_axis=ends[0], short_axis=ends[1])


def _room(centre: float, direction: float, size: int) -> tuple[float, ...]:
    """Return how far one may go from `centre` both ways along `direction` within 0..size."""
    if abs(direction) < 1e-9:
        return ()
    return (centre / abs(direction), (size - centre) / abs(direction))
