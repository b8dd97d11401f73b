"""Chest-like pictures from formulas: golden cases and tests that hold nobody's radiograph.

Deterministic and made of sums, products and tanh only. They look enough like a frontal chest for
the pixel pipeline and the network to be exercised over their whole range; they teach nothing
about disease.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedside_core.golden import GoldenFrame, GoldenWindow

Plane = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """One made-up frame with its header values and stored bytes."""

    name: str
    frame: GoldenFrame
    data: bytes


def chest(
    rows: int, columns: int, *, opacity: float, side: float, rib_phase: float, scale: float = 1.0
) -> Plane:
    """Return a (rows, columns) plane in 0..1: body, lung fields, heart, ribs, an optional patch.

    Args:
        rows: height in pixels.
        columns: width in pixels.
        opacity: strength of a cloudy patch low in one lung, 0 for none.
        side: horizontal centre of the patch, -1 (left of the picture) to 1.
        rib_phase: shifts the ribs, so that no two phantoms share their fine structure.
        scale: size of the chest in the picture.
    """
    y = (np.arange(rows)[:, None] + 0.5) / rows * 2 - 1
    x = (np.arange(columns)[None, :] + 0.5) / columns * 2 - 1
    y, x = y / scale, x / scale
    body = _blob(x, y - 0.25, 0.92, 1.35, 14.0)
    lungs = _blob(x + 0.42, y, 0.33, 0.68, 9.0) + _blob(x - 0.42, y, 0.31, 0.66, 9.0)
    heart = _blob(x - 0.12, y - 0.32, 0.34, 0.36, 8.0)
    spine = np.exp(-((x / 0.10) ** 2)) * _soft(y + 1.1, 6.0)
    ribs = 0.5 + 0.5 * np.tanh(3.0 * np.sin(17.0 * (y + 0.55 * x * x) + rib_phase))
    patch = _blob(x - 0.42 * side, y - 0.28, 0.24, 0.26, 4.0)
    grain = 0.5 + 0.5 * np.sin(61.0 * x + 3.0 * rib_phase) * np.sin(53.0 * y - rib_phase)
    picture = 0.05 + 0.62 * body - 0.42 * np.clip(lungs, 0, 1) + 0.30 * heart + 0.12 * spine
    picture += 0.07 * ribs * np.clip(lungs, 0, 1) + opacity * patch * (0.75 + 0.25 * grain)
    return np.asarray(np.clip(picture + 0.015 * grain * body, 0.0, 1.0), np.float64)


def _blob(x: Plane, y: Plane, half_width: float, half_height: float, edge: float) -> Plane:
    return _soft(1.0 - (x / half_width) ** 2 - (y / half_height) ** 2, edge)


def _soft(value: Plane, edge: float) -> Plane:
    return np.asarray(0.5 + 0.5 * np.tanh(edge * value), np.float64)


def golden_phantoms() -> tuple[Phantom, ...]:
    """Return the frames of every package: the encodings a box meets, over the network's range."""
    clear = chest(400, 488, opacity=0.0, side=0.0, rib_phase=0.3)
    patchy = chest(400, 488, opacity=0.34, side=-1.0, rib_phase=1.1)
    tall = chest(384, 320, opacity=0.22, side=1.0, rib_phase=2.0, scale=0.9)
    dense = chest(360, 360, opacity=0.5, side=1.0, rib_phase=0.7, scale=1.3)
    faint = chest(336, 408, opacity=0.12, side=-1.0, rib_phase=2.6, scale=1.2)
    with_padding = 40.0 + 900.0 * tall
    with_padding[:, :12] = -2000.0
    return (
        _phantom("clear-8-bit", 255 * clear, "|u1", window=_window(127.5, 255.0)),
        _phantom("patchy-8-bit", 255 * patchy, "|u1", window=_window(127.5, 255.0)),
        _phantom("dense-no-window", 30 + 200 * dense, "|u1"),
        _phantom(
            "patchy-12-bit-monochrome1",
            4095 - 3500 * patchy,
            "<u2",
            monochrome1=True,
            window=_window(2345.0, 3500.0),
            spacing=(0.30, 0.30),
        ),
        _phantom(
            "faint-16-bit-big-endian",
            200 + 3000 * faint,
            ">u2",
            slope=0.5,
            intercept=-100.0,
            window=_window(750.0, 1500.0),
            spacing=(0.32, 0.30),
        ),
        _phantom("tall-signed-padded", with_padding, "<i2", padding=(-2000, -2000)),
    )


def _window(centre: float, width: float) -> GoldenWindow:
    return GoldenWindow(centre=centre, width=width, function="LINEAR_EXACT")


def _phantom(
    name: str,
    plane: Plane,
    dtype: str,
    *,
    monochrome1: bool = False,
    slope: float = 1.0,
    intercept: float = 0.0,
    window: GoldenWindow | None = None,
    padding: tuple[int, int] | None = None,
    spacing: tuple[float, float] | None = None,
) -> Phantom:
    stored = np.rint(plane).astype(np.dtype(dtype))
    frame = GoldenFrame.model_validate(
        {
            "path": f"golden/{name}.raw",
            "dtype": dtype,
            "rows": plane.shape[0],
            "columns": plane.shape[1],
            "monochrome1": monochrome1,
            "slope": slope,
            "intercept": intercept,
            "window": window,
            "padding": padding,
            "spacing": spacing,
        }
    )
    return Phantom(name=name, frame=frame, data=stored.tobytes())


def sha256_of(data: bytes) -> str:
    """Return the digest as manifests write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
