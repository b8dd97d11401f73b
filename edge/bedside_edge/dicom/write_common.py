"""What every object the box writes has in common: a clean copy of the source, equipment, times.

Only attributes that belong in a derived object are taken from the source; private ones never.
Text is decoded with the source's character set and written as ISO_IR 192.
"""

import datetime
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

import pydicom
from highdicom import ContributingEquipment, _standard_utils, base
from highdicom.sr import content
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from bedside_core.errors import MalformedHeaderError
from bedside_core.result import Json
from bedside_edge.dicom import encode, part10
from bedside_edge.dicom.quiet import muted_warnings
from bedside_edge.dicom.tidy import tidy

MANUFACTURER: Final = "Bedside"
NOTICE: Final = "AI decision support only"

# Type 2 of the patient and study modules: highdicom wants them present
_TYPE_2: Final = (
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
_COPIED: Final = (
    *_TYPE_2,
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"),
    *("SeriesInstanceUID", "IssuerOfPatientID", "OtherPatientIDs", "PatientAge", "PatientSize"),
    *("PatientWeight", "StudyDescription", "Modality", "BodyPartExamined", "Laterality"),
    *("ImageLaterality", "PatientOrientation", "FrameOfReferenceUID", "PositionReferenceIndicator"),
    *("PixelSpacing", "ImagerPixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
    *("SliceThickness", "SpacingBetweenSlices", "NumberOfFrames", "Rows", "Columns", "ImageType"),
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "InstanceNumber", "TimezoneOffsetFromUTC"),
)
_TAGS: Final = [Tag(keyword) for keyword in _COPIED]

_walk_iod = _standard_utils.is_attribute_in_iod


@functools.cache
def _known_in_iod(keyword: str, sop_class_uid: str, excluded: tuple[str, ...]) -> bool:
    return bool(_walk_iod(keyword, sop_class_uid, excluded or None))


def _in_iod(
    attribute: str, sop_class_uid: str, exclude_path_elements: Sequence[str] | None = None
) -> bool:
    return _known_in_iod(attribute, str(sop_class_uid), tuple(exclude_path_elements or ()))


# highdicom walks its tables of the standard fourteen times for the objects of one result, always
# for the same few questions: a seventh of the time. Its version is pinned; a test compares.
for _module in (_standard_utils, base, content):
    _module.is_attribute_in_iod = _in_iod


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """Who writes: this box."""

    device_uid: str
    serial: str
    version: str
    station: str = field(default="BEDSIDE")


def read_source(data: bytes) -> Dataset:
    """Return a clean, small copy of an image's header, ready for the object makers.

    Raises:
        MalformedHeaderError: the object cannot be read, or lacks its own UIDs.
    """
    where = part10.locate(data)
    with muted_warnings():
        try:
            source = _parse(data, where)
            source.decode()
        except Exception as cause:  # foreign parser on hostile bytes: any failure means the same
            raise MalformedHeaderError("the source image cannot be read") from cause
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"):
            if not source.get(keyword):
                raise MalformedHeaderError(f"the source image has no {keyword}")
        _normalise(source)
    return source


def _parse(data: bytes, where: part10.Located) -> Dataset:
    if where.transfer_syntax_uid == part10.DEFLATED_LE:
        plain = part10.inflate(memoryview(data)[where.start :], 1 << 29)
        data = part10.head("0.0", "0.0", part10.EXPLICIT_LE) + plain
    elif where.start < 132 or not where.meta.get(0x00020010):
        data = part10.head("0.0", "0.0", where.transfer_syntax_uid) + data[where.start :]
    read = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=_TAGS, force=True)
    kept = Dataset()
    for element in read:
        if element.keyword in _COPIED:
            kept.add(element)
    # what pydicom needs to decode text, and what it would refuse to carry over otherwise
    kept.set_original_encoding(*read.original_encoding, read.original_character_set or "iso8859")
    kept.file_meta = pydicom.dataset.FileMetaDataset()
    kept.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return kept


def _normalise(source: Dataset) -> None:
    source.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _TYPE_2:
        if keyword not in source or source[keyword].is_empty:
            setattr(source, keyword, "")
    tidy(source)
    if not source.get("SeriesInstanceUID"):
        source.SeriesInstanceUID = source.SOPInstanceUID  # no such image is valid; a UID is needed


def finish(made: Dataset, source: Dataset, at: int) -> None:
    """Complete an object where the makers leave gaps, and set every time to `at`."""
    made.SpecificCharacterSet = "ISO_IR 192"
    if source.get("IssuerOfPatientID"):
        made.IssuerOfPatientID = source.IssuerOfPatientID
    if source.get("StudyDescription"):
        made.StudyDescription = source.StudyDescription
    if source.get("TimezoneOffsetFromUTC"):
        made.TimezoneOffsetFromUTC = source.TimezoneOffsetFromUTC
    when = local_time(at)
    date, time = f"{when:%Y%m%d}", f"{when:%H%M%S}"
    for keyword in ("InstanceCreationDate", "SeriesDate", "ContentDate", "DateOfSecondaryCapture"):
        if keyword in made or keyword == "SeriesDate":
            setattr(made, keyword, date)
    for keyword in ("InstanceCreationTime", "SeriesTime", "ContentTime", "TimeOfSecondaryCapture"):
        if keyword in made or keyword == "SeriesTime":
            setattr(made, keyword, time)


def local_time(at: int) -> datetime.datetime:
    """Return the hospital's wall clock at `at` (milliseconds since 1970, UTC)."""
    return datetime.datetime.fromtimestamp(at / 1000, tz=datetime.UTC).astimezone()


def contributing(equipment: Equipment, body: Json, at: int) -> list[ContributingEquipment]:
    """Return the box and its model as contributing equipment (IHE AIR)."""
    model = body["model"]
    when = local_time(at).replace(tzinfo=None)
    item = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=CodedConcept("109102", "DCM", "Processing Equipment"),
        manufacturer_model_name=str(model["name"]),
        software_versions=[str(model["version"]), f"box {equipment.version}"],
        device_serial_number=equipment.serial,
        contribution_datetime=when,
        contribution_description=f"{NOTICE}: {body['finding']['meaning']}"[:1024],
    )
    # highdicom has no argument for it; dciodvfy of 2022 warns that it is not in its tables
    item.DeviceUID = equipment.device_uid
    return [item]


def encoded(made: Dataset) -> bytes:
    """Return the object as a DICOM file, explicit VR little-endian."""
    try:
        data_set = encode.explicit_le(made)
    except encode.Unusual:
        return _encoded_by_pydicom(made)
    head = part10.head(str(made.SOPClassUID), str(made.SOPInstanceUID), part10.EXPLICIT_LE)
    return head + data_set


def _encoded_by_pydicom(made: Dataset) -> bytes:
    out = BytesIO()
    with muted_warnings():
        made.save_as(out, enforce_file_format=True)
    return out.getvalue()
