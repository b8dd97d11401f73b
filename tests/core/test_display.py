"""What a reader sees: the window asked for, true proportions, nothing swapped or clipped twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.display import grey_scale, shown
from bedside_core.errors import MalformedHeaderError
from bedside_core.imaging import Frame, Lut, Window


def ramp(rows=32, columns=64, **changes):
    """Values rise from left to right only: a swapped axis shows."""
    pixels = np.tile(np.arange(columns, dtype=np.uint16) * 10, (rows, 1))
    return Frame(pixels=pixels, **changes)


def test_the_senders_window_is_where_one_begins():
    scale = grey_scale(ramp(window=Window(centre=300, width=200)))
    assert (scale.low, scale.high, scale.centre, scale.width) == (0.0, 630.0, 300.0, 200.0)


def test_without_a_window_all_but_the_outermost_values_are_spanned():
    scale = grey_scale(ramp(slope=2.0, intercept=-100.0))
    assert (scale.low, scale.high) == (-100.0, 1160.0)
    assert scale.centre == pytest.approx(530, abs=10)
    assert 1200 < scale.width <= 1260


def test_a_table_of_the_sender_is_not_taken_for_a_window():
    table = Lut(first=0, bits=8, entries=np.arange(640, dtype=np.int64) % 256)
    scale = grey_scale(ramp(voi_lut=table, window=Window(centre=1, width=2)))
    assert scale.width > 600


def test_values_go_through_the_modality_table():
    table = Lut(first=0, bits=16, entries=np.arange(640, dtype=np.int64) * 3)
    assert grey_scale(ramp(modality_lut=table)).high == 630 * 3


def test_padding_is_no_value_of_the_image():
    assert grey_scale(ramp(padding=(0, 300))).low == 310.0


def test_an_image_of_padding_alone_still_has_a_scale():
    scale = grey_scale(ramp(padding=(0, 1000)))
    assert (scale.low, scale.high) == (0.0, 630.0)


def test_one_value_everywhere_still_has_a_window():
    scale = grey_scale(Frame(pixels=np.full((4, 4), 7, np.uint8)))
    assert (scale.centre, scale.width) == (7.0, 1.0)


def test_a_chosen_window_replaces_the_senders_window_and_table():
    table = Lut(first=0, bits=8, entries=np.zeros(640, np.int64))
    seen = shown(ramp(voi_lut=table), window=Window(centre=315, width=64), inverted=False, size=64)
    assert seen.shape == (32, 64)
    assert seen.dtype == np.uint8
    assert seen[:, 0].max() == 0
    assert seen[:, -1].min() == 255
    assert np.all(np.diff(seen.astype(int), axis=1) >= 0)


def test_without_a_window_the_senders_own_look_is_kept():
    frame = ramp(window=Window(centre=100, width=50))
    assert np.array_equal(
        shown(frame, window=None, inverted=False, size=64),
        shown(ramp(), window=Window(centre=100, width=50), inverted=False, size=64),
    )


def test_inverting_comes_after_what_the_header_says():
    for monochrome1 in (False, True):
        frame = ramp(monochrome1=monochrome1)
        plain = shown(frame, window=None, inverted=False, size=64).astype(int)
        turned = shown(frame, window=None, inverted=True, size=64).astype(int)
        assert np.abs(plain + turned - 255).max() <= 1


def test_pixels_that_are_not_square_are_shown_in_true_proportions():
    seen = shown(ramp(spacing=(2.0, 1.0)), window=None, inverted=False, size=64)
    assert seen.shape == (64, 64)


@pytest.mark.parametrize("size", [15, 4097])
def test_a_size_beyond_the_pipelines_is_refused(size):
    with pytest.raises(MalformedHeaderError):
        shown(ramp(), window=None, inverted=False, size=size)


@given(
    centre=st.floats(-2000, 4000, allow_nan=False),
    width=st.floats(1, 5000, allow_nan=False),
    inverted=st.booleans(),
)
def test_any_window_gives_eight_bits_in_the_order_of_the_values(centre, width, inverted):
    seen = shown(ramp(), window=Window(centre=centre, width=width), inverted=inverted, size=32)
    rising = np.diff(seen[0].astype(int))
    assert np.all(rising <= 0 if inverted else rising >= 0)
