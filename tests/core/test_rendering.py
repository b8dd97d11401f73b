"""What a person is shown: the pipeline's grey scale, under the viewer's window, at any size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.imaging import Frame, Lut, PipelineSpec, Window, prepare
from bedside_core.rendering import fitted, render
from support.synthetic import picture


def test_a_window_is_the_formula_of_the_standard():
    pixels = np.arange(-100, 156, dtype=np.int16).reshape(16, 16)
    shown = render(Frame(pixels=pixels), Window(centre=50.0, width=100.0))
    x = pixels.astype(np.float64)
    wanted = np.clip((x - 49.5) / 99 + 0.5, 0, 1) * 255
    assert shown.dtype == np.uint8
    np.testing.assert_allclose(shown, wanted, atol=0.51)


def test_the_viewers_window_replaces_the_senders_table():
    table = Lut(first=0, bits=8, entries=np.full(256, 255, np.int64))
    frame = Frame(pixels=picture(32, 32, bits=8).astype(np.uint8), voi_lut=table)
    assert render(frame).min() == 255
    assert render(frame, Window(centre=128.0, width=256.0)).min() < 255


def test_monochrome1_is_shown_inverted():
    pixels = picture(32, 32)
    plain = render(Frame(pixels=pixels), Window(centre=2048.0, width=4096.0))
    inverted = render(Frame(pixels=pixels, monochrome1=True), Window(centre=2048.0, width=4096.0))
    np.testing.assert_allclose(plain.astype(int) + inverted, 255, atol=1)


def test_the_model_and_the_person_see_the_same_grey_scale():
    frame = Frame(pixels=picture(640, 640), slope=0.5, intercept=-3.0)
    tensor = prepare(frame, PipelineSpec(size=320)).shown
    np.testing.assert_allclose(render(frame, size=(320, 320)) / 255.0, tensor, atol=0.003)


def test_full_size_keeps_every_pixel_where_it_is():
    pixels = np.zeros((5, 7), np.uint16)
    pixels[1, 6] = 1000
    shown = render(Frame(pixels=pixels), Window(centre=500.0, width=1000.0), size=(5, 7))
    assert np.argwhere(shown == 255).tolist() == [[1, 6]]


@given(
    rows=st.integers(2, 5000),
    columns=st.integers(2, 5000),
    box=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
)
def test_a_picture_fits_its_viewport_and_touches_it(rows, columns, box):
    height, width = fitted((rows, columns), None, box)
    assert 1 <= height <= box[0]
    assert 1 <= width <= box[1]
    assert height == box[0] or width == box[1]


def test_pixels_that_are_not_square_are_shown_in_true_proportions():
    assert fitted((100, 100), (2.0, 1.0), (200, 200)) == (200, 100)
    assert fitted((100, 200), None, (50, 50)) == pytest.approx((25, 50))
