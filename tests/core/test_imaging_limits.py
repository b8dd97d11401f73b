"""Frames at the edge of what the pipeline takes."""

import numpy as np
import pytest

from bedside_core.errors import MalformedHeaderError
from bedside_core.imaging import Frame, Lut, PipelineSpec, prepare


@pytest.mark.parametrize(
    ("entries", "bits"),
    [(np.arange(4), 0), (np.arange(4), 17), (np.arange(0), 8), (np.zeros((2, 2)), 8)],
)
def test_a_table_without_entries_or_of_odd_depth_is_refused(entries, bits):
    with pytest.raises(MalformedHeaderError):
        Lut(first=0, bits=bits, entries=entries.astype(np.int64))


def test_a_frame_of_nothing_but_padding_is_flat_and_finite():
    pixels = np.full((40, 30), -2000, dtype=np.int16)
    prepared = prepare(Frame(pixels=pixels, padding=(-2000, -2000)), PipelineSpec(size=32))
    assert np.isfinite(prepared.tensor).all()
    assert np.ptp(prepared.tensor) == 0


def test_padding_that_covers_every_sampled_pixel_still_gives_a_finite_tensor():
    """Percentiles look at a grid of pixels; here only pixels off that grid are image."""
    pixels = np.full((2048, 2048), -2000, dtype=np.int16)
    pixels[1::4, 1::4] = 500
    prepared = prepare(Frame(pixels=pixels, padding=(-2000, -2000)), PipelineSpec(size=64))
    assert np.isfinite(prepared.tensor).all()
