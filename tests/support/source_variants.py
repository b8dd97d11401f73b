"""Source images as they come in hospitals: complete ones, and those with gaps and errors."""

import warnings
from collections.abc import Callable, Iterator
from io import BytesIO

from pydicom import Dataset, dcmread

from support.dicom_files import bundled, bundled_names
from support.synthetic import CT, data_set, part10

# the two others hold no image, only text in sequences
CHARSETS = [
    name
    for name in bundled_names()
    if name.startswith("chr") and not name.startswith("chrSQEncoding")
]
_FILES = (
    "CT_small",
    "MR_small",
    "MR_small_bigendian",
    "MR_small_RLE",
    "dicomdirtests/77654033/CR1/6154",
    "examples_overlay",
    "J2K_pixelrep_mismatch",
    "693_J2KI",
    "image_dfl",
    "ExplVR_BigEnd",
    "RG1_UNCR",
    "RG3_J2KI",
    "US1_J2KR",
)
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)


def _changed(**values: object) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some values are wrong on purpose
        return part10(data_set(**values))


def _ct(change: Callable[[Dataset], None]) -> bytes:
    dataset = dcmread(BytesIO(bundled("CT_small")))
    change(dataset)
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def _without(*keywords: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword in keywords:
            dataset.pop(keyword, None)

    return change


def _with(**values: object) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def variants() -> Iterator[tuple[str, bytes]]:
    """Yield (name, Part 10 bytes) of every variant; all have rows and columns."""
    for name in (*_FILES, *CHARSETS):
        yield name, bundled(name)
    yield "made CR", _changed()
    yield (
        "made CT with a place",
        _changed(
            SOPClassUID=CT,
            Modality="CT",
            FrameOfReferenceUID="1.2.3.4",
            PixelSpacing=[0.7, 0.5],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[-10, -20, 30],
            SliceThickness=2,
        ),
    )
    for keyword in _TYPE_2:
        yield f"without {keyword}", _ct(_without(keyword))
    yield "without any of them", _ct(_without(*_TYPE_2))
    yield "without a frame of reference", _ct(_without("FrameOfReferenceUID"))
    yield "without spacing", _ct(_without("PixelSpacing"))
    yield "empty dates", _ct(_with(StudyDate="", StudyTime="", PatientBirthDate=""))
    yield "ACR-NEMA date", _changed(StudyDate="1997.05.02", StudyTime="10:20:30")
    yield "first character set empty", _ct(_with(SpecificCharacterSet=["", "ISO 2022 IR 87"]))
    yield "issuer", _ct(_with(IssuerOfPatientID="HOSPITAL"))
    yield "odd sex and age", _changed(PatientSex="X", PatientAge="47")
    yield "laterality", _changed(Laterality="L", PatientOrientation=["L", "F"])
    yield "private attributes", _ct(_private)


def _private(dataset: Dataset) -> None:
    dataset.private_block(0x0011, "SECRET LABEL", create=True).add_new(1, "LO", "SECRET VALUE")
