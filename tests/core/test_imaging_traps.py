"""The traps of radiographs in the wild, one test each: the right tensor, or a coded refusal.

Numbers are those of the table in docs/dicom-in.md. Files come from the packages pydicom and
pydicom-data; where none shows the trap, the test makes one.
"""

import numpy as np
import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from bedside_core.errors import (
    BedsideError,
    ColourImageError,
    CorruptPixelsError,
    MalformedHeaderError,
    MissingRescaleError,
    MultiFrameError,
    NoPixelsError,
    NotDicomError,
    UndecodableTransferSyntaxError,
    UnsupportedPixelsError,
)
from bedside_core.imaging import PipelineSpec, prepare
from bedside_edge.dicom.read import PydicomReader
from support.dicom_files import bundled, bundled_names
from support.synthetic import CT, data_set, part10, picture

READER = PydicomReader()
SPEC = PipelineSpec(name="traps", size=64)


def frame_of(name_or_data_set, **values):
    if isinstance(name_or_data_set, str):
        return READER.frame(bundled(name_or_data_set))
    return READER.frame(part10(name_or_data_set, **values))


def operations(frame):
    return prepare(frame, SPEC).operations


def test_01_monochrome1_is_inverted_by_range_and_not_by_the_images_own_maximum():
    frame = frame_of("dicomdirtests/77654033/CR1/6154")
    assert frame.monochrome1
    pixels = picture(32, 32).copy()
    pixels[0, 0] = 0
    brightest = pixels.copy()
    brightest[0, 0] = 4095
    negative = {
        "PhotometricInterpretation": "MONOCHROME1",
        "WindowCenter": 2048,
        "WindowWidth": 4096,
    }
    shown, with_spot = (
        prepare(frame_of(data_set(p, **negative)), PipelineSpec(size=32)).shown
        for p in (pixels, brightest)
    )
    np.testing.assert_allclose(shown[4:, 4:], with_spot[4:, 4:], atol=1e-6)
    assert shown[0, 0] > with_spot[0, 0]


def test_02_without_a_window_a_percentile_window_is_used_and_named():
    frame = frame_of("CT_small")
    assert frame.window is None
    assert "window:percentile-0.5-99.5" in operations(frame)


@pytest.mark.parametrize(("name", "centre"), [("examples_overlay", 450), ("bad_sequence", 40)])
def test_03_the_first_of_several_windows_is_used(name, centre):
    window = frame_of(name).window
    assert window is not None
    assert window.centre == centre


@pytest.mark.parametrize("width", [0, -5, "", None])
def test_03_a_window_that_cannot_be_used_is_dropped_for_percentiles(width):
    frame = frame_of(data_set(WindowCenter=100, WindowWidth=width or 0))
    assert frame.window is None


@pytest.mark.parametrize(
    ("name", "low", "high"), [("J2K_pixelrep_mismatch", -2000, 1896), ("693_J2KI", -2971, 2836)]
)
def test_04_the_decoded_array_says_whether_values_are_signed(name, low, high):
    pixels = frame_of(name).pixels
    assert (pixels.min(), pixels.max()) == (low, high)


def test_05_rescale_is_applied():
    frame = frame_of("CT_small")
    assert (frame.slope, frame.intercept) == (1.0, -1024.0)
    assert frame_of("dicomdirtests/77654033/CR1/6154").slope == pytest.approx(0.684)


@pytest.mark.parametrize("missing", ["RescaleSlope", "RescaleIntercept"])
def test_05_a_ct_without_rescale_is_refused(missing):
    values = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    whole = data_set(Modality="CT", SOPClassUID=CT, **values)
    assert frame_of(whole).intercept == -1024
    del whole[missing]
    with pytest.raises(MissingRescaleError):
        frame_of(whole)


def test_05_rescale_of_an_enhanced_object_comes_from_its_functional_groups():
    transform, measures, per_frame, shared = Dataset(), Dataset(), Dataset(), Dataset()
    transform.RescaleSlope, transform.RescaleIntercept = 2, -1000
    measures.PixelSpacing = [0.7, 0.7]
    per_frame.PixelValueTransformationSequence = Sequence([transform])
    shared.PixelMeasuresSequence = Sequence([measures])
    enhanced = data_set(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1", NumberOfFrames=1)
    enhanced.PerFrameFunctionalGroupsSequence = Sequence([per_frame])
    enhanced.SharedFunctionalGroupsSequence = Sequence([shared])
    frame = frame_of(enhanced)
    assert (frame.slope, frame.intercept) == (2.0, -1000.0)
    assert frame.spacing == (0.7, 0.7)


def test_06_the_modality_table_wins_over_rescale():
    frame = frame_of("mlut_18")
    assert frame.modality_lut is not None
    assert frame.modality_lut.first == -2048
    assert operations(frame)[0] == "modality-lut"


def test_06_the_voi_table_is_scaled_by_its_own_range():
    frame = frame_of("vlut_04")
    assert frame.voi_lut is not None
    shown = prepare(frame, SPEC).shown
    assert 0.0 <= shown.min() < 0.05
    assert 0.95 < shown.max() <= 1.0


def test_06_a_sigmoid_window_is_one():
    window = frame_of(data_set(WindowCenter=9, WindowWidth=5, VOILUTFunction="SIGMOID")).window
    assert window is not None
    assert window.function == "SIGMOID"


def test_06_a_table_that_cannot_be_read_is_a_refusal_not_another_image():
    broken = Dataset()
    broken.LUTDescriptor, broken.LUTData = [256, 0, 8], [1, 2, 3]
    broken["LUTDescriptor"].VR, broken["LUTData"].VR = "US", "US"
    with pytest.raises(MalformedHeaderError):
        frame_of(data_set(VOILUTSequence=Sequence([broken])))


def test_07_padding_never_enters_the_statistics():
    pixels = picture(64, 64).astype(np.int16) - 1000
    painted = pixels.copy()
    painted[:, :16] = -2000
    plain = {"bits": 16, "RescaleSlope": 1, "RescaleIntercept": 0}
    padded = frame_of(data_set(painted, PixelPaddingValue=-2000, **plain))
    assert padded.padding == (-2000, -2000)
    assert frame_of("CT_small").padding == (-2000, -2000)
    shown = prepare(padded, PipelineSpec(size=64)).shown
    assert not shown[:, :16].any()
    unpadded = prepare(frame_of(data_set(pixels[:, 16:], **plain)), PipelineSpec(size=64)).shown
    assert shown[:, 16:].mean() == pytest.approx(unpadded.mean(), abs=0.01)


def test_07_a_padding_range_and_a_value_written_in_the_other_sign():
    pixels = picture(16, 16).astype(np.int16) - 1000
    header = {"bits": 16, "RescaleSlope": 1, "RescaleIntercept": 0}
    made = data_set(pixels, **header)
    made.add_new(0x00280120, "US", 63536)  # -2000 as unsigned
    made.add_new(0x00280121, "US", 63546)
    assert frame_of(made).padding == (-2000, -1990)


@pytest.mark.parametrize(
    "name",
    [
        *("examples_palette", "examples_ybr_color", "SC_rgb", "SC_rgb_jpeg_gdcm", "SC_rgb_rle"),
        *("SC_rgb_small_odd_big_endian", "GDCMJ2K_TextGBR", "US1_J2KI", "SC_rgb_16bit"),
    ],
)
def test_08_colour_is_refused(name):
    with pytest.raises(ColourImageError):
        frame_of(name)


@pytest.mark.parametrize("signed", [False, True])
def test_09_an_overlay_in_unused_high_bits_is_masked_out(signed):
    pixels = picture(32, 32, bits=12)
    values = pixels.astype(np.int16) - 2048 if signed else pixels
    dirty = values & 0x0FFF  # the sign bits above bit 11 replaced by the overlay
    dirty[4:8, 4:8] |= 0x1000 if not signed else 0x7000
    made = data_set(dirty, bits=12, PixelRepresentation=int(signed))
    np.testing.assert_array_equal(frame_of(made).pixels, values)


def test_09_an_overlay_survives_no_encoding_of_the_pixels():
    pixels = picture(64, 64, bits=12)
    dirty = pixels.copy()
    dirty[::2, ::2] |= 0x8000
    plain, coded = data_set(dirty, bits=12), data_set(pixels, bits=12)
    coded.compress(JPEG2000Lossless, generate_instance_uid=False)
    np.testing.assert_array_equal(frame_of(plain).pixels, frame_of(coded).pixels)
    assert READER.pixel_digest(part10(plain)) == READER.pixel_digest(part10(coded))


@pytest.mark.parametrize("name", ["MR_small_bigendian", "MR_small_expb"])
def test_10_big_endian_files_give_the_tensor_of_their_little_endian_copy(name):
    big, little = frame_of(name), frame_of("MR_small")
    assert big.pixels.dtype.isnative
    np.testing.assert_array_equal(prepare(big, SPEC).tensor, prepare(little, SPEC).tensor)


def test_10_a_made_big_endian_file_too():
    made = data_set(picture(20, 30))
    little = frame_of(made)
    made.PixelData = picture(20, 30).astype(">u2").tobytes()
    np.testing.assert_array_equal(
        frame_of(made, transfer_syntax=ExplicitVRBigEndian).pixels, little.pixels
    )


@pytest.mark.parametrize(
    "name",
    [
        *("MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"),
        *("MR_small_implicit", "MR_small_padded"),
    ],
)
def test_11_every_lossless_encoding_gives_the_same_pixels(name):
    np.testing.assert_array_equal(frame_of(name).pixels, frame_of("MR_small").pixels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_11_made_encodings_too(syntax, bits):
    pixels = picture(96, 80, bits=bits).astype(np.uint8 if bits == 8 else np.uint16)
    made = data_set(pixels, bits=bits)
    made.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(frame_of(made).pixels, pixels)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("JPEGLSNearLossless_08", 0, 255),
        ("JPEGLSNearLossless_16", 0, 65535),
        ("JPEG-LL", 0, 278),
        ("JPGLosslessP14SV1_1s_1f_8b", 0, 255),
        ("image_dfl", 0, 255),
        ("RG1_J2KI", 803, 26512),
    ],
)
def test_11_other_compressed_files_decode(name, least, most):
    pixels = frame_of(name).pixels
    assert (pixels.min(), pixels.max()) == (least, most)


@pytest.mark.parametrize("name", ["JPGExtended", "JPEG-lossy"])
def test_11_twelve_bit_jpeg_extended_has_no_decoder_here(name):
    with pytest.raises(UndecodableTransferSyntaxError, match=r"1\.2\.840\.10008\.1\.2\.4\.51"):
        frame_of(name)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.105", "1.2.3.4"])
def test_11_an_unknown_syntax_has_no_decoder_here(syntax):
    made = part10(data_set())
    known = b"1.2.840.10008.1.2.1\0"
    data = made.replace(known, syntax.encode().ljust(len(known), b"\0"), 1)
    if len(syntax) > len(known):
        data = made.replace(
            len(known).to_bytes(2, "little") + known,
            (len(syntax) + 1).to_bytes(2, "little") + syntax.encode() + b"\0",
            1,
        )
    with pytest.raises(UndecodableTransferSyntaxError):
        READER.frame(data)


@pytest.mark.parametrize("name", ["JPEG2000-embedded-sequence-delimiter", "MR_truncated"])
def test_12_corrupt_and_truncated_pixels_are_refused(name):
    with pytest.raises(CorruptPixelsError):
        frame_of(name)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_12_a_compressed_frame_cut_in_half_is_refused(syntax):
    made = data_set(picture(200, 160))
    made.compress(syntax, generate_instance_uid=False)
    data = part10(made)
    with pytest.raises((CorruptPixelsError, NoPixelsError)):
        READER.frame(data[: len(data) * 2 // 3])


def test_12_a_plan_that_ends_early_has_no_pixels_to_miss():
    with pytest.raises(NoPixelsError):
        frame_of("rtplan_truncated")


@pytest.mark.parametrize("name", ["no_meta", "meta_missing_tsyntax"])
def test_13_bytes_that_no_one_can_place_are_not_dicom(name):
    with pytest.raises(NotDicomError):
        READER.header(bundled(name))
    with pytest.raises(NotDicomError):
        frame_of(name)


@pytest.mark.parametrize("name", ["ExplVR_LitEndNoMeta", "ExplVR_BigEndNoMeta", "rtstruct"])
def test_13_a_data_set_without_file_meta_is_recognised_by_its_first_element(name):
    assert READER.header(bundled(name)).study_uid


@pytest.mark.parametrize(
    "name", ["test-SR", "reportsi", "rtplan", "waveform_ecg", "rtstruct", "examples_palette"]
)
def test_14_objects_without_a_grey_picture_are_refused_and_filed_all_the_same(name):
    assert READER.header(bundled(name)).sop_instance_uid
    with pytest.raises((NoPixelsError, ColourImageError)):
        frame_of(name)


@pytest.mark.parametrize("name", ["badVR", "nested_priv_SQ"])
def test_14_a_header_that_cannot_be_read_is_refused(name):
    with pytest.raises(MalformedHeaderError):
        frame_of(name)


@pytest.mark.parametrize(
    "missing", ["Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation"]
)
def test_14_pixels_without_their_description_are_refused(missing):
    made = data_set()
    del made[missing]
    with pytest.raises(MalformedHeaderError):
        frame_of(made)


@pytest.mark.parametrize("name", ["rtdose", "emri_small", "eCT_Supplemental", "liver"])
def test_15_several_frames_are_refused(name):
    with pytest.raises(MultiFrameError):
        frame_of(name)


@pytest.mark.parametrize("name", ["rtdose_1frame", "liver_1frame"])
def test_15_a_single_frame_of_other_depth_is_refused(name):
    with pytest.raises(UnsupportedPixelsError):
        frame_of(name)


def test_18_spacing_is_row_before_column_and_detector_spacing_is_second_choice():
    made = data_set(picture(40, 80))
    made.ImagerPixelSpacing = [2.0, 1.0]
    assert frame_of(made).spacing == (2.0, 1.0)
    made.PixelSpacing = [3.0, 1.5]
    assert frame_of(made).spacing == (3.0, 1.5)
    box = prepare(frame_of(made), SPEC).placement
    assert (box.height, box.width) == (64, 64)


def test_18_a_spacing_of_zero_is_no_spacing():
    assert frame_of("RG1_UNCR").spacing is None
    made = data_set(PixelSpacing=[0, 0], ImagerPixelSpacing=[0.2, 0.2])
    assert frame_of(made).spacing == (0.2, 0.2)


@pytest.mark.parametrize(
    "name", [name for name in bundled_names() if name.startswith("chr") and "SQ" not in name]
)
def test_19_no_character_set_stops_an_image(name):
    try:
        frame = frame_of(name)
    except NoPixelsError:
        return
    assert frame.pixels.shape == (32, 32)


def test_21_the_digest_of_pixels_is_of_values_not_of_their_encoding():
    digests = {
        READER.pixel_digest(bundled(name))
        for name in ("MR_small", "MR_small_bigendian", "MR_small_RLE", "MR_small_jp2klossless")
    }
    assert len(digests) == 1
    pair = [READER.pixel_digest(bundled(name)) for name in ("RG1_UNCI", "RG1_J2KI")]
    assert pair[0] == pair[1]
    assert pair[0] != READER.pixel_digest(bundled("RG1_UNCR"))


def test_every_bundled_file_ends_in_a_frame_or_a_coded_refusal():
    """The files that must fail are exactly these; every other object with pixels decodes."""
    undecodable = set()
    for name in bundled_names():
        try:
            READER.pixel_digest(bundled(name))
        except NoPixelsError:
            continue
        except BedsideError:
            undecodable.add(name)
    assert undecodable == {
        *("JPGExtended", "JPEG-lossy", "JPEG2000-embedded-sequence-delimiter", "MR_truncated"),
        *("badVR", "meta_missing_tsyntax", "nested_priv_SQ", "no_meta"),
        "emri_small_jpeg_2k_lossless_too_short",
    }
