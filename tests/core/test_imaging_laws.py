"""Laws of the pixel pipeline, and the same steps done by other people's code."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pydicom import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing

from bedside_core.errors import ColourImageError, MalformedHeaderError, UnsupportedPixelsError
from bedside_core.imaging import (
    Frame,
    Lut,
    PipelineSpec,
    Window,
    _triangle,
    placed_size,
    prepare,
    usable_spacing,
)
from support.synthetic import data_set, generator, noise, picture

SPEC = PipelineSpec(name="laws", size=32)
PIXELS = hnp.arrays(
    np.uint16, st.tuples(st.integers(2, 40), st.integers(2, 40)), elements=st.integers(0, 4095)
)
WINDOW = Window(centre=2048, width=3000)


@given(pixels=PIXELS)
def test_byte_order_changes_nothing_but_the_account(pixels):
    little = prepare(Frame(pixels=pixels), SPEC)
    big = prepare(Frame(pixels=pixels.astype(">u2")), SPEC)
    np.testing.assert_array_equal(little.tensor, big.tensor)
    assert big.operations == ("byte-order", *little.operations)


@given(pixels=PIXELS)
def test_monochrome1_shows_the_negative_of_monochrome2(pixels):
    straight = prepare(Frame(pixels=pixels, window=WINDOW), SPEC).shown
    inverted = prepare(Frame(pixels=pixels, window=WINDOW, monochrome1=True), SPEC).shown
    np.testing.assert_allclose(inverted, 1.0 - straight, atol=2e-6)


@given(pixels=PIXELS)
def test_negative_film_and_negative_display_cancel(pixels):
    spec = replace(SPEC, low_percentile=0.0, high_percentile=100.0)
    straight = prepare(Frame(pixels=pixels), spec).shown
    both = prepare(Frame(pixels=(4095 - pixels).astype(np.uint16), monochrome1=True), spec).shown
    if pixels.min() < pixels.max():
        np.testing.assert_allclose(both, straight, atol=1e-5)


@given(pixels=PIXELS, slope=st.floats(0.01, 50), intercept=st.floats(-2000, 2000))
def test_a_percentile_window_does_not_see_a_positive_rescale(pixels, slope, intercept):
    plain = prepare(Frame(pixels=pixels), SPEC)
    scaled = prepare(Frame(pixels=pixels, slope=slope, intercept=intercept), SPEC)
    np.testing.assert_allclose(scaled.shown, plain.shown, atol=1e-5)


@given(pixels=PIXELS, size=st.sampled_from([16, 31, 64]))
def test_the_image_lies_centred_in_the_square_and_nothing_outside_it(pixels, size):
    spec = replace(SPEC, size=size)
    prepared = prepare(Frame(pixels=pixels), spec)
    box, tensor = prepared.placement, prepared.tensor
    assert tensor.shape == (1, 1, size, size)
    assert tensor.dtype == np.float32
    assert tensor.dtype.isnative
    assert tensor.flags.c_contiguous
    assert max(box.height, box.width) == size
    assert abs(size - box.height - 2 * box.top) <= 1
    assert abs(size - box.width - 2 * box.left) <= 1
    outside = tensor[0, 0].copy()
    outside[box.top : box.top + box.height, box.left : box.left + box.width] = 0
    assert not outside.any()


@given(pixels=PIXELS)
def test_the_tensor_has_no_mean_and_the_shown_image_stays_in_range(pixels):
    prepared = prepare(Frame(pixels=pixels), SPEC)
    box = prepared.placement
    inside = prepared.tensor[0, 0, box.top :, box.left :][: box.height, : box.width]
    assert abs(float(inside.mean(dtype=np.float64))) < 2e-3
    assert prepared.shown.min() >= -1e-6
    assert prepared.shown.max() <= 1 + 1e-6
    assert np.isfinite(prepared.tensor).all()


@given(level=st.integers(0, 4095), inverted=st.booleans())
def test_a_flat_image_gives_zeros_not_infinities(level, inverted):
    flat = np.full((20, 30), level, np.uint16)
    prepared = prepare(Frame(pixels=flat, monochrome1=inverted), SPEC)
    assert np.abs(prepared.tensor).max() < 1e-2


@given(pixels=PIXELS, value=st.integers(5000, 65535), inverted=st.booleans())
def test_padding_is_air_and_moves_no_other_pixel(pixels, value, inverted):
    """Painted to a multiple of the output grid, so that no output pixel mixes the two."""
    spec = replace(SPEC, size=32)
    tile = np.ascontiguousarray(np.resize(pixels, (32, 32)))
    padded = tile.copy()
    padded[:, 16:] = value
    half = Frame(pixels=padded, padding=(value, value), monochrome1=inverted)
    shown = prepare(half, spec).shown
    assert not shown[:, 16:].any()
    left = prepare(Frame(pixels=tile[:, :16], monochrome1=inverted), replace(spec, size=32))
    assert left.placement.width == 16
    np.testing.assert_allclose(shown[:, :16], left.shown, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(400, 300), (40, 55), (320, 320), (77, 1203)])
def test_resampling_agrees_with_pillow(rows, columns):
    picture_ = noise(rows, columns, seed=3)
    spec = PipelineSpec(size=320)
    shown = prepare(Frame(pixels=picture_, window=Window(centre=2048, width=4096)), spec).shown
    grey = Window(centre=2048, width=4096).apply(picture_.astype(np.float64))
    height, width = placed_size(picture_.shape, None, 320)
    theirs = Image.fromarray(grey.astype(np.float32), mode=None).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    np.testing.assert_allclose(shown, np.asarray(theirs), atol=1e-5)


@given(source=st.integers(2, 500), target=st.integers(2, 330))
def test_every_output_pixel_is_a_weighted_mean(source, target):
    weights = _triangle(source, target)
    assert weights.shape == (target, source)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-5)  # no half-pixel shift


def test_the_modality_table_agrees_with_pydicom():
    entries = np.sort(generator(5).integers(0, 65535, 4096))
    made = data_set(picture(32, 32), BitsStored=12)
    item = _lut_item(4096, 0, 16, entries)
    made.ModalityLUTSequence = [item]
    stored = picture(32, 32)
    theirs = apply_modality_lut(stored, made)
    ours = Lut(first=0, bits=16, entries=entries.astype(np.int64)).apply(stored.astype(np.float64))
    np.testing.assert_array_equal(ours, theirs)


def test_the_voi_table_agrees_with_pydicom_below_and_above_its_ends():
    entries = np.sort(generator(6).integers(0, 4095, 256))
    made = data_set(picture(32, 32))
    made.VOILUTSequence = [_lut_item(256, 1000, 12, entries)]
    stored = picture(32, 32)
    theirs = apply_voi_lut(stored, made)
    ours = Lut(first=1000, bits=12, entries=entries.astype(np.int64)).apply(stored.astype(float))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2048.0, 3000.0), (100.5, 2.0), (-300.0, 1.5)])
def test_a_window_agrees_with_pydicom(function, centre, width):
    made = data_set(
        picture(32, 32),
        WindowCenter=centre,
        WindowWidth=width,
        VOILUTFunction=function,
        RescaleSlope=1,
        RescaleIntercept=0,
    )
    stored = picture(32, 32).astype(np.float64)
    theirs = apply_windowing(stored, made) / 4095.0  # pydicom answers in the stored range
    ours = Window(centre=centre, width=width, function=function).apply(stored)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_the_table_wins_over_the_window_and_the_modality_table_over_rescale():
    table = Lut(first=0, bits=8, entries=np.arange(256, dtype=np.int64))
    frame = Frame(
        pixels=noise(8, 8, bits=8),
        slope=2.0,
        modality_lut=table,
        voi_lut=table,
        window=WINDOW,
    )
    operations = prepare(frame, SPEC).operations
    assert operations[:2] == ("modality-lut", "voi-lut")
    assert not any(step.startswith(("rescale", "window")) for step in operations)


def test_rows_and_columns_are_not_swapped_by_spacing():
    """40 rows of 2 mm are as tall as 80 columns of 1 mm are wide."""
    assert placed_size((40, 80), (2.0, 1.0), 64) == (64, 64)
    assert placed_size((40, 80), (1.0, 2.0), 64) == (16, 64)
    assert placed_size((40, 80), None, 64) == (32, 64)


@pytest.mark.parametrize(
    "spacing", [None, (0.0, 0.0), (0.1, 0.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, 100.0)]
)
def test_a_spacing_that_describes_no_pixel_counts_as_absent(spacing):
    assert not usable_spacing(spacing)
    assert placed_size((50, 100), spacing, 64) == (32, 64)


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (np.zeros((8, 8, 3), np.uint8), ColourImageError),
        (np.zeros((3, 8, 8), np.uint8), UnsupportedPixelsError),
        (np.zeros((1, 8), np.uint8), UnsupportedPixelsError),
        (np.zeros((8, 8), np.uint32), UnsupportedPixelsError),
        (np.zeros((8, 8), np.float32), UnsupportedPixelsError),
    ],
)
def test_a_frame_outside_the_pipeline_cannot_be_made(pixels, error):
    with pytest.raises(error):
        Frame(pixels=pixels)


@pytest.mark.parametrize("values", [{"slope": 0.0}, {"slope": float("nan")}, {"intercept": 1e400}])
def test_a_rescale_that_is_no_rescale_is_refused(values):
    with pytest.raises(MalformedHeaderError):
        Frame(pixels=noise(8, 8), **values)


@pytest.mark.parametrize(
    ("width", "function"), [(0.5, "LINEAR"), (0.0, "SIGMOID"), (-1.0, "LINEAR_EXACT")]
)
def test_a_window_without_width_is_refused(width, function):
    with pytest.raises(MalformedHeaderError):
        Window(centre=0.0, width=width, function=function)


def _lut_item(count, first, bits, entries):
    item = Dataset()
    item.LUTDescriptor = [count, first, bits]
    item.LUTData = [int(v) for v in entries]
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    return item
