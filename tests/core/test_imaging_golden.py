"""Golden outputs of the pixel pipeline on real files: a revision and its outputs stay together.

The numbers are what revision 1 gives. When a change moves any of them on purpose, raise
`PipelineSpec.revision`, and every package built on the old one is refused until rebuilt.
"""

from typing import NamedTuple

import numpy as np
import pytest

from bedside_core.imaging import PipelineSpec, prepare
from bedside_edge.dicom.read import PydicomReader
from support.dicom_files import bundled

REVISION = 1
SPEC = PipelineSpec(
    name="golden", revision=REVISION, size=320, low_percentile=0.5, high_percentile=99.5
)
LETTERBOX = "normalise:mean-std,letterbox:320"


class Golden(NamedTuple):
    box: tuple[int, int, int, int]  # top, left, height, width
    shown: tuple[float, ...]  # quarter points: (1,1) (1,3) (3,1) (3,3) (2,2)
    mean: float
    std: float
    operations: tuple[str, ...]


GOLDEN = {
    "RG1_UNCR": Golden(
        (0, 9, 320, 301),
        (0.5230, 0.4829, 0.8756, 0.8232, 0.8897),
        0.75360,
        0.15176,
        ("window:linear", "monochrome1-invert", "resample:320x301"),
    ),
    "RG1_J2KI": Golden(
        (0, 9, 320, 301),
        (0.5229, 0.4827, 0.8757, 0.8233, 0.8897),
        0.75360,
        0.15176,
        ("window:linear", "monochrome1-invert", "resample:320x301"),
    ),
    "RG3_UNCR": Golden(
        (0, 0, 320, 320),
        (0.8064, 0.8887, 0.6443, 0.9395, 0.7353),
        0.69608,
        0.35969,
        ("window:linear", "monochrome1-invert", "resample:320x320"),
    ),
    "CT_small": Golden(
        (0, 0, 320, 320),
        (0.1388, 0.0396, 0.4817, 0.5298, 0.9838),
        0.45047,
        0.22905,
        ("rescale:1,-1024", "padding-mask", "window:percentile-0.5-99.5", "resample:320x320"),
    ),
    "dicomdirtests/77654033/CR1/6154": Golden(
        (0, 0, 320, 320),
        (0.3886, 0.3648, 0.3341, 0.3954, 0.3676),
        0.38325,
        0.03272,
        ("rescale:0.684,200", "window:linear", "monochrome1-invert", "resample:320x320"),
    ),
    "dicomdirtests/98892001/CT2N/6293": Golden(
        (14, 0, 292, 320),
        (0.9504, 0.9236, 0.9288, 0.9422, 0.9461),
        0.93485,
        0.02125,
        ("rescale:1,-1024", "window:linear", "resample:292x320"),
    ),
    "MR_small_bigendian": Golden(
        (0, 0, 320, 320),
        (0.6262, 0.3574, 0.3090, 0.5489, 0.2491),
        0.44338,
        0.23593,
        ("window:linear", "resample:320x320"),
    ),
    "examples_overlay": Golden(
        (61, 0, 198, 320),
        (0.1084, 0.1986, 0.6374, 0.3530, 0.0997),
        0.18867,
        0.20492,
        ("window:linear", "resample:198x320"),
    ),
    "J2K_pixelrep_mismatch": Golden(
        (0, 0, 320, 320),
        (0.0, 0.1785, 0.0, 0.0, 0.3908),
        0.24788,
        0.36182,
        ("window:linear", "resample:320x320"),
    ),
    "mlut_18": Golden(
        (0, 0, 320, 320),
        (1.0, 1.0, 0.0, 0.0, 0.3094),
        0.50585,
        0.24828,
        ("modality-lut", "window:percentile-0.5-99.5", "resample:320x320"),
    ),
    "vlut_04": Golden(
        (0, 0, 320, 320),
        (1.0, 1.0, 0.0, 0.0, 0.3086),
        0.50481,
        0.24824,
        ("voi-lut", "resample:320x320"),
    ),
    "image_dfl": Golden(
        (0, 0, 320, 320),
        (0.2417, 0.6083, 0.4618, 0.6794, 0.3248),
        0.49849,
        0.27234,
        ("window:percentile-0.5-99.5", "resample:320x320"),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_revision_keeps_its_outputs(name):
    golden = GOLDEN[name]
    prepared = prepare(PydicomReader().frame(bundled(name)), SPEC)
    box, (height, width) = prepared.placement, prepared.shown.shape
    assert (box.top, box.left, box.height, box.width) == golden.box
    points = ((1, 1), (1, 3), (3, 1), (3, 3), (2, 2))
    shown = [float(prepared.shown[height * r // 4, width * c // 4]) for r, c in points]
    np.testing.assert_allclose(shown, golden.shown, atol=2e-4)
    assert prepared.intensity.mean == pytest.approx(golden.mean, abs=2e-5)
    assert prepared.intensity.std == pytest.approx(golden.std, abs=2e-5)
    assert prepared.operations == (*golden.operations, LETTERBOX)


def test_the_code_is_at_the_revision_of_these_numbers():
    assert PipelineSpec().revision == REVISION


def test_the_digest_covers_every_parameter():
    digests = {
        SPEC.digest(),
        PipelineSpec(name="other", revision=REVISION).digest(),
        PipelineSpec(name="golden", revision=REVISION + 1).digest(),
        PipelineSpec(name="golden", revision=REVISION, size=224).digest(),
        PipelineSpec(name="golden", revision=REVISION, low_percentile=1.0).digest(),
        PipelineSpec(name="golden", revision=REVISION, high_percentile=99.0).digest(),
        PipelineSpec(name="golden", revision=REVISION, std_floor=1e-2).digest(),
    }
    assert len(digests) == 7


def test_the_digest_of_known_parameters_never_changes():
    assert SPEC.digest() == (
        "sha256:b2a3152948dff6cd4eb083a4c4246be15df149770f289bdd8119adfc3a4fad98"
    )


def test_lossless_encodings_of_one_radiograph_give_one_tensor():
    reader = PydicomReader()
    plain, coded = (prepare(reader.frame(bundled(n)), SPEC) for n in ("RG3_UNCR", "RG3_J2KR"))
    np.testing.assert_array_equal(plain.tensor, coded.tensor)
