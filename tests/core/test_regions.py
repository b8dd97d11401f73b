"""Ellipses of strong saliency lie where the saliency lies, in the source's own pixels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.regions import salient_ellipses

SIDE = 320
WHOLE = (0, 0, SIDE, SIDE)


def centre(ellipse):
    (x0, y0), (x1, y1) = ellipse.long_axis
    return (x0 + x1) / 2, (y0 + y1) / 2


def test_nothing_strong_gives_no_ellipse():
    assert salient_ellipses(np.zeros((10, 10), np.float32), WHOLE, SIDE, (100, 100)) == ()


def test_a_cell_becomes_an_ellipse_at_its_place_row_and_column_apart():
    cam = np.zeros((10, 10), np.float32)
    cam[2, 7] = 15.0
    (found,) = salient_ellipses(cam, WHOLE, SIDE, (1000, 500))
    assert centre(found) == pytest.approx((375, 250))  # (column, row)
    assert math.dist(*found.long_axis) > math.dist(*found.short_axis)


def test_padding_around_the_image_is_taken_off():
    cam = np.zeros((10, 10), np.float32)
    cam[5, 4] = 15.0  # tensor columns 128..160
    (found,) = salient_ellipses(cam, (0, 80, SIDE, 160), SIDE, (320, 160))
    assert centre(found) == pytest.approx((64, 176))
    cam[5, 4], cam[5, 1] = 0.0, 15.0  # in the padding
    assert salient_ellipses(cam, (0, 80, SIDE, 160), SIDE, (320, 160)) == ()


def test_areas_apart_are_ellipses_apart_the_strongest_first_and_at_most_four():
    cam = np.zeros((10, 10), np.float32)
    for place in range(5):
        cam[2 * place, 2 * place] = 11.25
    cam[4:6, 4] = 11.25
    found = salient_ellipses(cam, WHOLE, SIDE, (100, 100))
    assert len(found) == 4
    assert centre(found[0]) == pytest.approx((45, 50))


def test_a_slanting_area_gives_a_slanting_ellipse():
    cam = np.zeros((10, 10), np.float32)
    for place in range(2, 8):
        cam[place, place] = cam[place, place - 1] = 15.0
    (found,) = salient_ellipses(cam, WHOLE, SIDE, (100, 100))
    (x0, y0), (x1, y1) = found.long_axis
    assert (x1 - x0) * (y1 - y0) > 0
    assert abs(x1 - x0) == pytest.approx(abs(y1 - y0), rel=0.2)


def test_at_the_edge_the_long_axis_stays_the_longer_one():
    cam = np.zeros((10, 10), np.float32)
    cam[0, :6] = 0.0
    cam[0:8, 0] = 15.0
    (found,) = salient_ellipses(cam, WHOLE, SIDE, (40, 2000))
    assert math.dist(*found.long_axis) >= math.dist(*found.short_axis)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40),
    st.integers(40, 4000),
    st.integers(40, 4000),
)
def test_no_point_leaves_the_image(cells, rows, columns):
    cam = np.zeros((10, 10), np.float32)
    for cell in cells:
        cam[cell] = 15.0
    for ellipse in salient_ellipses(cam, WHOLE, SIDE, (rows, columns)):
        for x, y in (*ellipse.long_axis, *ellipse.short_axis):
            assert -1e-6 <= x <= columns + 1e-6
            assert -1e-6 <= y <= rows + 1e-6
        assert math.dist(*ellipse.long_axis) >= math.dist(*ellipse.short_axis) - 1e-9
