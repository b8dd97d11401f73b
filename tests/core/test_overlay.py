"""Saliency over the image, on asymmetric inputs so that a swapped axis shows."""

import numpy as np

from bedside_core.overlay import paint

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
