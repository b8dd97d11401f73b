"""Header rules: which images a chest model may see, and what is said about the others."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import (
    DerivedImageError,
    ForProcessingError,
    UnsupportedPixelsError,
    WrongBodyPartError,
    WrongModalityError,
    WrongViewError,
)
from bedside_core.input_check import check_header, judge_header
from bedside_core.manifest import Accepts

CHEST = Accepts(
    modalities=["CR", "DX"],
    body_parts=["CHEST", "THORAX", "CHEST_TO_ABDOMEN"],
    views=["PA", "AP"],
    minimum_pixels=256,
)


@dataclass(frozen=True)
class Image:
    sop_class_uid: str = "1.2.840.10008.5.1.4.1.1.1"
    modality: str = "CR"
    body_part: str = "CHEST"
    view: str = "PA"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY")
    presentation_intent: str = ""
    rows: int = 2000
    columns: int = 1800


def check(**changes):
    return check_header(replace(Image(), **changes), CHEST)


def test_a_frontal_chest_radiograph_passes_every_check():
    checks = check()
    assert all(line.passed for line in checks)
    assert [line.name for line in checks] == [
        *("modality", "presentation-intent", "image-type", "body-part", "view", "size")
    ]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"modality": "CT"}, WrongModalityError),
        ({"modality": ""}, None),  # the SOP Class says CR
        ({"modality": "", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2"}, WrongModalityError),
        ({"modality": "", "sop_class_uid": "1.2.3"}, WrongModalityError),
        ({"presentation_intent": "FOR PROCESSING"}, ForProcessingError),
        ({"presentation_intent": "FOR PRESENTATION"}, None),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1.1"}, ForProcessingError),
        ({"image_type": ("DERIVED", "PRIMARY")}, None),  # most CR plates, RG1 among them
        ({"image_type": ("DERIVED", "SECONDARY")}, DerivedImageError),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, DerivedImageError),
        ({"image_type": ("DERIVED", "PRIMARY", "SCREEN SAVE")}, DerivedImageError),
        ({"image_type": ("ORIGINAL", "PRIMARY", "DOSE_INFO")}, DerivedImageError),
        ({"image_type": ()}, None),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, DerivedImageError),
        ({"body_part": "EXTREMITY"}, WrongBodyPartError),
        ({"body_part": ""}, None),
        ({"body_part": "Thorax"}, None),
        ({"body_part": "chest to abdomen"}, None),
        ({"view": "LL"}, WrongViewError),
        ({"view": "RL"}, WrongViewError),
        ({"view": "LATERAL"}, WrongViewError),
        ({"view": ""}, None),
        ({"view": "ap"}, None),
        ({"rows": 128}, UnsupportedPixelsError),
        ({"columns": 0}, UnsupportedPixelsError),
    ],
)
def test_each_rule_refuses_what_it_names_and_nothing_else(changes, error):
    if error is None:
        assert all(line.passed for line in check(**changes))
    else:
        with pytest.raises(error):
            check(**changes)


def test_the_most_telling_reason_is_given_first():
    foreign = Image(modality="MR", body_part="KNEE", view="LL", rows=64, columns=64)
    judgement = judge_header(foreign, CHEST)
    assert isinstance(judgement.refusal, WrongModalityError)
    assert [line.name for line in judgement.checks if not line.passed] == [
        *("modality", "body-part", "view", "size")
    ]


def test_a_blank_body_part_is_allowed_with_a_note():
    (line,) = [line for line in check(body_part="  ") if line.name == "body-part"]
    assert line.passed
    assert "no body part given" in line.reason


def test_a_model_that_lists_no_body_part_takes_any():
    anything = Accepts(modalities=["CR"], body_parts=[], views=[], minimum_pixels=2)
    assert all(line.passed for line in check_header(Image(body_part="KNEE", view="LL"), anything))


@given(part=st.text(max_size=40))
def test_a_reason_never_carries_more_than_a_short_plain_code(part):
    judgement = judge_header(replace(Image(), body_part=part), CHEST)
    for line in judgement.checks:
        assert line.reason.isascii()
        assert "<" not in line.reason
        assert "^" not in line.reason
        assert len(line.reason) < 120
