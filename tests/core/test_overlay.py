"""Saliency over the image, on asymmetric inputs so that a swapped axis shows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bedside_core.overlay import paint, spread, strong, veil

SIZE = 320


def painted(cam, shown=None, placement=(0, 60, 320, 200)):
    shown = np.full((160, 100), 0.5, np.float32) if shown is None else shown
    return paint(shown, np.asarray(cam, np.float32), placement, SIZE)


def test_without_evidence_for_the_finding_the_image_is_untouched():
    for value in (0.0, -7.0):
        rgb = painted(np.full((10, 10), value))
        assert rgb.shape == (160, 100, 3)
        assert np.all(rgb == 128)


def test_the_glow_lies_where_the_map_says_not_mirrored_and_not_swapped():
    cam = np.zeros((10, 10))
    cam[1, 6] = 8.0  # rows 32..64 and columns 192..224 of the tensor
    rgb = painted(cam).astype(int)
    change = np.abs(rgb - 128).sum(axis=-1)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert abs(row - (48 * 160 / 320)) < 9
    assert abs(column - ((208 - 60) * 100 / 200)) < 9
    assert change[120:, :].max() == 0


def test_the_picture_stays_within_its_range_for_any_map():
    rgb = painted([[1e9, -1e9], [4.0, 0.0]], np.array([[0.0, 1.0], [1.0, 0.0]], np.float32))
    assert rgb.dtype == np.uint8


@given(
    cells=arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)),
                 elements=st.floats(0, 1, width=32)),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    level=st.sampled_from([0.25, 0.5, 1.0]),
)  # fmt: skip
def test_looking_only_where_it_can_be_strong_misses_nothing(cells, shape, level):
    placement = (10, 60, 300, 200)
    whole = spread(cells, shape, placement, SIZE)
    mask = strong(cells, shape, placement, SIZE, level)
    sure = np.abs(whole - level) > 1e-5  # within rounding either answer is right
    assert np.array_equal(mask[sure], (whole >= level)[sure])


def test_where_nothing_is_strong_the_mask_is_empty():
    assert not strong(np.zeros((4, 4), np.float32), (9, 9), (0, 0, 320, 320), SIZE, 0.5).any()


def test_the_veil_is_clear_without_evidence_and_lies_where_the_map_says():
    cam = np.zeros((10, 10), np.float32)
    cam[1, 6] = 30.0  # beyond full saliency
    seen = veil(cam, (160, 100), (0, 60, 320, 200), SIZE)
    assert (seen.shape, seen.dtype) == ((160, 100, 4), np.uint8)
    opacity = seen[..., 3].astype(int)
    row, column = np.unravel_index(opacity.argmax(), opacity.shape)
    assert abs(row - (48 * 160 / 320)) < 9
    assert abs(column - ((208 - 60) * 100 / 200)) < 9
    assert opacity[row, column] > 230
    assert veil(np.full((10, 10), 30.0), (4, 4), (0, 0, 320, 320), SIZE)[..., 3].min() == 255
    assert opacity[120:].max() == 0
