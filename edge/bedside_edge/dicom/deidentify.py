"""De-identification after PS3.15 annex E, the strict way round: what is not listed does not stay.

The Basic Application Level Confidentiality Profile lists what has to go. This module lists what may
stay: what a picture needs to be shown and measured, and nothing a person wrote. Everything else is
left out, private and unknown attributes, overlays, curves and free text among it. Identifiers are
replaced by keyed pseudonyms, UIDs by keyed UIDs, dates move by a number of days of the patient's
own. The keys are the box's: without the box nobody can make or test a pseudonym.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.pixels import iter_pixels
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from bedside_core.errors import (
    BurnedInTextError,
    InvalidInputError,
    NoPixelsError,
    NotDicomError,
    UndecodableTransferSyntaxError,
)
from bedside_edge.dicom.burned_in import shows_text
from bedside_edge.dicom.quiet import muted_warnings

Mac = Callable[[str, bytes], bytes]  # label, value -> 32 bytes only this box can make

PROFILE: Final = "ps3.15-basic-strict-1"
_ROOT: Final = "2.25."
_SHIFT_DAYS: Final = 3650
_IMPLEMENTATION: Final = "2.25.138466411912037414049373218427319023105"
_PIXELS: Final = frozenset({"PixelData", "FloatPixelData", "DoubleFloatPixelData"})
# Pictures of these modalities have text in them unless somebody says NO
_WRITTEN: Final = frozenset({"US", "SC", "OT", "ES", "XC", "GM", "SM", "IVUS", "DOC", "ECG"})

# Numbers and technical terms that a picture needs; PS3.3 C.7.6, C.7.9, C.8 and C.11
_KEEP: Final = frozenset(
    [
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PlanarConfiguration",
        "PixelAspectRatio",
        "NumberOfFrames",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "PixelData",
        "FloatPixelData",
        "DoubleFloatPixelData",
        "RedPaletteColorLookupTableDescriptor",
        "GreenPaletteColorLookupTableDescriptor",
        "BluePaletteColorLookupTableDescriptor",
        "RedPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData",
        "RescaleIntercept",
        "RescaleSlope",
        "WindowCenter",
        "WindowWidth",
        "PresentationLUTShape",
        "PixelIntensityRelationship",
        "PixelIntensityRelationshipSign",
        "LossyImageCompression",
        "LossyImageCompressionRatio",
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
        "SliceThickness",
        "SpacingBetweenSlices",
        "SliceLocation",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "GantryDetectorTilt",
        "TableHeight",
        "DistanceSourceToDetector",
        "DistanceSourceToPatient",
        "EstimatedRadiographicMagnificationFactor",
        "KVP",
        "XRayTubeCurrent",
        "ExposureTime",
        "Exposure",
        "FilterType",
        "RotationDirection",
        "DataCollectionDiameter",
        "ReconstructionDiameter",
        "EchoTime",
        "RepetitionTime",
        "InversionTime",
        "FlipAngle",
        "MagneticFieldStrength",
        "EchoTrainLength",
        "NumberOfAverages",
        "ImagingFrequency",
        "EchoNumbers",
        "PixelBandwidth",
        "PercentSampling",
        "PercentPhaseFieldOfView",
        "InPlanePhaseEncodingDirection",
        "InstanceNumber",
        "SeriesNumber",
        "AcquisitionNumber",
        "FrameTime",
        "FrameIncrementPointer",
        "StackID",
        "InStackPositionNumber",
        "TemporalPositionIndex",
        "LUTDescriptor",
        "LUTData",
        "SpatialResolution",
        "PatientOrientation",
        "VolumetricProperties",
        "VolumeBasedCalculationTechnique",
        "PixelPresentation",
        "BurnedInAnnotation",
    ]
)
_SEQUENCES: Final = frozenset(
    [
        "ModalityLUTSequence",
        "VOILUTSequence",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "PixelMeasuresSequence",
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelValueTransformationSequence",
        "FrameVOILUTSequence",
        "FrameContentSequence",
    ]
)
# Coded strings that stay when they are one of the standard's own terms
_TERMS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "Modality": frozenset(
            [
                "CR",
                "DX",
                "CT",
                "MR",
                "MG",
                "PT",
                "NM",
                "US",
                "XA",
                "RF",
                "RG",
                "PX",
                "IO",
                "OP",
                "OT",
                "SC",
            ]
        ),
        "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
        "BodyPartExamined": frozenset(
            [
                "CHEST",
                "THORAX",
                "LUNG",
                "ABDOMEN",
                "PELVIS",
                "HEAD",
                "SKULL",
                "BRAIN",
                "NECK",
                "SPINE",
                "CSPINE",
                "TSPINE",
                "LSPINE",
                "HAND",
                "FOOT",
                "KNEE",
                "HIP",
                "SHOULDER",
                "ELBOW",
                "ANKLE",
                "WRIST",
                "BREAST",
                "HEART",
                "LIVER",
                "KIDNEY",
            ]
        ),
        "ViewPosition": frozenset(
            ["AP", "PA", "LL", "RL", "LLD", "RLD", "LLO", "RLO", "CC", "MLO", "ML", "LM"]
        ),
        "ImageLaterality": frozenset(["R", "L", "U", "B"]),
        "Laterality": frozenset(["R", "L"]),
        "PatientPosition": frozenset(["HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS"]),
        "RescaleType": frozenset(["HU", "OD", "US", "MGML", "PCT", "CPS", "BQML"]),
        "ScanningSequence": frozenset(["SE", "IR", "GR", "EP", "RM"]),
        "SequenceVariant": frozenset(["SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"]),
        "MRAcquisitionType": frozenset({"2D", "3D"}),
        "ScanOptions": frozenset(["PER", "RG", "CG", "PPG", "FC", "PFF", "PFP", "SP", "FS"]),
        "ModalityLUTType": frozenset(["HU", "OD", "US"]),
        "VOILUTFunction": frozenset(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
        "LossyImageCompressionMethod": frozenset(
            ["ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_13818_2", "ISO_14496_10"]
        ),
        "ImageType": frozenset(
            [
                "ORIGINAL",
                "DERIVED",
                "PRIMARY",
                "SECONDARY",
                "AXIAL",
                "LOCALIZER",
                "MPR",
                "PROJECTION",
                "REFORMATTED",
                "VOLUME",
                "MIXED",
                "M",
                "P",
                "R",
                "I",
                "NONE",
                "OTHER",
            ]
        ),
    }
)
_DATES: Final = frozenset({"StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"})
_UIDS: Final = frozenset(
    {"SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"}
)
# Type 2: have to be there and say nothing
_EMPTY: Final = [
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientBirthDate",
    "PatientSex",
    "Manufacturer",
    "PositionReferenceIndicator",
    "StudyID",
    "SeriesNumber",
    "InstanceNumber",
    "PatientOrientation",
]
_CODES: Final = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deidentified:
    """What came out, and what was left out; nothing in it names the source.

    Attributes:
        data: a Part 10 file.
        name: the new SOP Instance UID.
        kept: attributes that stayed as they were.
        replaced: attributes with another value.
        dropped: how many attributes are gone, private ones included.
        private: how many of them were private.
    """

    data: bytes
    name: str
    kept: int
    replaced: int
    dropped: int
    private: int


class Deidentifier:
    """De-identifies with the keys of one box; safe to use from several threads."""

    def __init__(self, mac: Mac) -> None:
        self._mac = mac

    def pseudonym(self, issuer: str, patient_id: str) -> str:
        """Return what stands for a patient: the same everywhere this box de-identifies."""
        made = self._mac("deidentify patient", f"{issuer}\0{patient_id}".encode())
        return "B" + base64.b32encode(made[:10]).decode()

    def uid(self, uid: str) -> str:
        """Return what stands for a UID; references between objects stay whole."""
        made = self._mac("deidentify uid", uid.strip("\0 ").encode())
        return _ROOT + str(int.from_bytes(made[:16]))

    def days(self, issuer: str, patient_id: str) -> int:
        """Return by how many days the patient's dates go back: 1 to ten years."""
        made = self._mac("deidentify days", f"{issuer}\0{patient_id}".encode())
        return 1 + int.from_bytes(made[:8]) % _SHIFT_DAYS

    def deidentify(self, data: bytes) -> Deidentified:
        """Return the object without what identifies.

        Raises:
            NotDicomError, InvalidInputError: it cannot be read, or is of a private SOP Class.
            NoPixelsError: not a picture: reports and the like are text, which nobody can clean.
            UndecodableTransferSyntaxError: pixels nobody can look at do not leave.
            BurnedInTextError: text may stand in the pixels.
        """
        with muted_warnings():
            try:
                source = dcmread(io.BytesIO(data))
                source.walk(lambda _, element: element.value)  # everything has to be readable
            except Exception as cause:
                raise NotDicomError("the object cannot be read") from cause
            return self._made(source)

    def _made(self, source: Dataset) -> Deidentified:
        sop_class = UID(str(source.get("SOPClassUID", "")))
        if not sop_class.is_valid or sop_class.is_private or sop_class.name == str(sop_class):
            raise InvalidInputError("only objects of a SOP Class of the standard are cleaned")
        if not any(keyword in source for keyword in _PIXELS):
            raise NoPixelsError("only pictures are de-identified; text cannot be cleaned")
        if str(source.get("Modality", "")) not in _TERMS["Modality"] | _WRITTEN:
            raise InvalidInputError("objects of this modality are more than a picture")
        _refuse_text(source)
        who = (
            str(source.get("IssuerOfPatientID", "") or ""),
            str(source.get("PatientID", "") or ""),
        )
        if not who[1]:
            who = ("", str(source.get("StudyInstanceUID", "")))
        shift = self.days(*who)
        counts = {"kept": 0, "replaced": 0, "dropped": 0, "private": 0}
        made = self._clean(source, shift, counts)
        made.SOPClassUID = sop_class
        for keyword in _EMPTY:
            if keyword not in made:
                setattr(made, keyword, None)
        made.PatientName = made.PatientID = self.pseudonym(*who)
        made.PatientIdentityRemoved = "YES"
        made.DeidentificationMethod = "Bedside: allow-list, keyed pseudonyms"
        made.DeidentificationMethodCodeSequence = [_code(*code) for code in _CODES]
        made.LongitudinalTemporalInformationModified = "MODIFIED"
        made.BurnedInAnnotation = "NO"
        return Deidentified(data=_encoded(made, source), name=str(made.SOPInstanceUID), **counts)

    def _clean(self, source: Dataset, shift: int, counts: dict[str, int]) -> Dataset:
        made = Dataset()
        for element in source:
            found = self._element(element, shift)
            if element.tag.is_private:
                counts["private"] += 1
            if found is None:
                counts["dropped"] += 1
                continue
            if element.VR == "SQ":
                found = DataElement(
                    element.tag,
                    "SQ",
                    Items([self._clean(item, shift, counts) for item in element.value]),
                )
            counts["kept" if found is element else "replaced"] += 1
            made.add(found)
        return made

    def _element(self, element: DataElement, shift: int) -> DataElement | None:
        """Return what stays of an element; None when nothing does."""
        keyword, value = element.keyword, element.value
        if element.tag.is_private or not keyword:
            return None
        if keyword in _SEQUENCES:
            return element
        if keyword in _KEEP:
            return element if element.VR not in _TEXT else _technical(element)
        if keyword in _TERMS:
            several = list(value) if isinstance(value, (list, MultiValue)) else [value]
            kept = [one for one in several if one in _TERMS[keyword]]
            return DataElement(element.tag, element.VR, kept or None)
        if keyword in _UIDS and value:
            return DataElement(element.tag, "UI", self.uid(str(value)))
        if keyword in _DATES and value:
            moved = _moved(str(value), shift)
            return DataElement(element.tag, "DA", moved) if moved else None
        return None


_TEXT: Final = frozenset({"LO", "LT", "ST", "UT", "UC", "PN", "SH", "AE", "UR", "UN"})
_STACK: Final = frozenset({"StackID"})


def _technical(element: DataElement) -> DataElement | None:
    """Return a listed element of free text when it is a short number, as stacks have."""
    text = str(element.value or "")
    fits = element.keyword in _STACK and text.isdecimal() and len(text) <= 4
    return element if fits else None


def _moved(text: str, days: int) -> str:
    text = text.replace(".", "")
    try:
        return f"{date(int(text[:4]), int(text[4:6]), int(text[6:8])) - timedelta(days):%Y%m%d}"
    except (ValueError, OverflowError):
        return ""


def _refuse_text(source: Dataset) -> None:
    said = str(source.get("BurnedInAnnotation", "") or "").upper()
    if said == "YES":
        raise BurnedInTextError("the header says that text stands in the pixels")
    if said != "NO" and str(source.get("Modality", "")) in _WRITTEN:
        raise BurnedInTextError("pictures of this modality bear text unless the header says NO")
    try:
        written = any(shows_text(frame) for frame in _frames(source))
    except Exception as cause:
        raise UndecodableTransferSyntaxError(
            "pixels that cannot be looked at do not leave"
        ) from cause
    if written:
        raise BurnedInTextError("there may be text in the pixels")


def _frames(source: Dataset) -> Iterator[np.ndarray[Any, Any]]:
    if "PixelData" not in source:
        keyword = next(one for one in _PIXELS if one in source)
        kind = np.float32 if keyword == "FloatPixelData" else np.float64
        flat = np.frombuffer(source[keyword].value, kind)
        yield from flat.reshape(-1, int(source.Rows), int(source.Columns))
        return
    yield from iter_pixels(source, raw=True)


def _encoded(made: Dataset, source: Dataset) -> bytes:
    """Write a file whose meta information names nobody; the pixels keep their encoding."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    made.file_meta = meta
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
