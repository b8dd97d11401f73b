"""The radiograph without marks, through the pipeline that the model looks through."""

import dataclasses
from pathlib import Path

import numpy as np

from bedside_core.imaging import prepare
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.engine.package import open_package
from bedside_edge.system.picture_pillow import PillowPicture
from bedside_edge.wiring import shipped_package

_PIXELS = 768


def unmarked(path: Path) -> bytes:
    """Return a PNG of a file as the pixel pipeline of the shipped model shows it."""
    spec = dataclasses.replace(
        open_package(shipped_package()).manifest.pipeline.spec(), size=_PIXELS
    )
    shown = prepare(PydicomReader().frame(path.read_bytes()), spec).shown
    grey = np.round(np.clip(shown, 0.0, 1.0) * 255).astype(np.uint8)
    return PillowPicture().png(np.repeat(grey[..., None], 3, axis=-1), [])
