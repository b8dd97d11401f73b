"""What of a source's header may stand in an object of ours: values in the form of their VR.

Hospitals send dates that no calendar has, weights with a comma and two physicians where one
belongs. An archive that checks would refuse a report with such a value, and the report would not be
made at all where the makers check. So a value that breaks its form is put into it where the meaning
stays, and left out where it does not. Patient ID, its issuer and the accession number stay exactly
as they came: by them the archive files, and a shortened one may be somebody else's.
"""

import datetime
import math
import re
from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DSfloat

from bedside_edge.dicom import part10

_LONGEST_GROUP: Final = 64  # characters of a component group of PN, PS3.5 table 6.2-1
_TEXTS: Final = {"StudyDescription": 64, "StudyID": 16, "PositionReferenceIndicator": 64}
_NAMES: Final = ("PatientName", "ReferringPhysicianName")
_DATES: Final = ("StudyDate", "PatientBirthDate")
# keyword: how many numbers, and whether each is above zero
_NUMBERS: Final = {
    "PatientSize": (1, True),
    "PatientWeight": (1, True),
    "SliceThickness": (1, True),
    "SpacingBetweenSlices": (1, False),
    "PixelSpacing": (2, True),
    "ImagerPixelSpacing": (2, True),
    "ImagePositionPatient": (3, False),
    "ImageOrientationPatient": (6, False),
}
_WHOLE: Final = ("NumberOfFrames", "InstanceNumber")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_OLD_DATE: Final = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})")
_DATE: Final = re.compile(r"[0-9]{8}")
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d|60)?(\.\d{1,6})?)?")
_AGE: Final = re.compile(r"\d{3}[DWMY]")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,9}")
_DIRECTION: Final = re.compile(r"[ALRHFP]{1,3}")
_UNIT: Final = 1e-3  # how far a direction cosine's length and angle may be off


def tidy(source: Dataset) -> None:
    """Put the values of a decoded source into the form of their VR, or leave them out."""
    for keyword in _NAMES:
        setattr(source, keyword, person_name(_text(source, keyword)))
    for keyword, longest in _TEXTS.items():
        if keyword in source:
            setattr(source, keyword, _text(source, keyword).replace("\\", " ")[:longest].strip())
    for keyword in _DATES:
        setattr(source, keyword, _date(_text(source, keyword)))
    time = _text(source, "StudyTime").replace(":", "")
    source.StudyTime = time if _TIME.fullmatch(time) else ""
    if source.PatientSex not in ("M", "F", "O"):
        source.PatientSex = ""
    if not _AGE.fullmatch(_text(source, "PatientAge")):
        source.pop("PatientAge", None)
    for keyword, (count, positive) in _NUMBERS.items():
        _number(source, keyword, count, positive=positive)
    for keyword in _WHOLE:
        if keyword in source and not _INTEGER.fullmatch(_text(source, keyword)):
            del source[keyword]
    if not _orthonormal(source.get("ImageOrientationPatient")):
        source.pop("ImageOrientationPatient", None)
    if not part10.valid_uid(_text(source, "FrameOfReferenceUID")):
        source.pop("FrameOfReferenceUID", None)
    directions = source.get("PatientOrientation") or []
    if len(directions) != 2 or not all(_DIRECTION.fullmatch(str(one)) for one in directions):
        source.pop("PatientOrientation", None)


def person_name(text: str) -> str:
    """Return a person name of at most three groups of 64 characters and five components."""
    groups = []
    for group in text.replace("\\", " ").split("=")[:3]:
        parts = group.split("^")
        named = "^".join([*parts[:4], " ".join(filter(None, parts[4:]))]).rstrip("^ ")
        groups.append(named[:_LONGEST_GROUP].rstrip("^ "))
    return "=".join(groups).rstrip("=")


def _text(source: Dataset, keyword: str) -> str:
    """Return a value as text without control characters; several are joined as they were sent."""
    value = source.get(keyword)
    parts = value if isinstance(value, (MultiValue, list)) else [value]
    joined = "\\".join("" if part is None else str(part) for part in parts)
    return _CONTROL.sub(" ", joined).strip()


def _date(text: str) -> str:
    if old := _OLD_DATE.fullmatch(text):  # ACR-NEMA wrote 1997.05.02
        text = "".join(old.groups())
    if not _DATE.fullmatch(text):
        return ""
    try:
        datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:  # no calendar has it
        return ""
    return text


def _number(source: Dataset, keyword: str, count: int, *, positive: bool) -> None:
    """Write numbers in at most 16 characters (VR DS), or drop what is none."""
    if keyword not in source:
        return
    parts = [part.replace(",", ".") for part in _text(source, keyword).split("\\")]
    try:
        found = [float(part) for part in parts]
    except ValueError:  # a word, or nothing
        found = []
    fits = len(found) == count and all(
        math.isfinite(one) and (one > 0 or not positive) for one in found
    )
    if not fits:
        del source[keyword]
        return
    made = [DSfloat(one, auto_format=True) for one in found]
    setattr(source, keyword, made if count > 1 else made[0])


def _orthonormal(cosines: Sequence[float] | None) -> bool:
    """Whether six numbers are two unit vectors at a right angle (PS3.3 C.7.6.2.1.1)."""
    if cosines is None:
        return True
    row, column = [float(one) for one in cosines[:3]], [float(one) for one in cosines[3:]]
    product = sum(a * b for a, b in zip(row, column, strict=True))
    lengths = (math.hypot(*row), math.hypot(*column))
    return abs(product) < _UNIT and all(abs(length - 1) < _UNIT for length in lengths)
