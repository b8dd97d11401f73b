"""The overlay as Secondary Capture: what every viewer shows, whatever else it understands."""

from typing import Final

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from bedside_core.result import Json
from bedside_edge.dicom.write_common import MANUFACTURER, NOTICE, Equipment, contributing, finish
from bedside_edge.dicom.write_sr import Uids

SERIES_NUMBER: Final = 9002
_SOURCE_IMAGE: Final = CodedConcept("121322", "DCM", "Source image for image processing operation")
_EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"


def overlay_sc(
    body: Json,
    source: Dataset,
    picture: NDArray[np.uint8],
    equipment: Equipment,
    uids: Uids,
    at: int,
) -> SCImage:
    """Return the captioned overlay of `source`; (rows, columns, 3) uint8 RGB."""
    made = SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=uids.series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids.instance,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=str(body["model"]["name"]),
        software_versions=[str(body["model"]["version"]), f"box {equipment.version}"],
        device_serial_number=equipment.serial,
        series_description=f"{NOTICE}: {body['finding']['meaning']}"[:64],
        patient_orientation=("L", "F"),  # replaced below: highdicom takes no empty value
        transfer_syntax_uid=_EXPLICIT_LE,
        contributing_equipment=contributing(equipment, body, at),
    )
    made.PatientOrientation = _orientation(source)
    made.Laterality = source.get("Laterality") or source.get("ImageLaterality") or ""
    if made.Laterality not in ("L", "R"):
        made.Laterality = ""
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.BurnedInAnnotation = "YES"
    made.DerivationDescription = f"{NOTICE}, not a diagnosis: saliency in colour over the image"
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [_SOURCE_IMAGE]
    made.SourceImageSequence = [item]
    finish(made, source, at)
    return made


def _orientation(source: Dataset) -> list[str]:
    """Return the source's Patient Orientation, or that of its axes (PS3.3 C.7.6.1.1.1)."""
    told = source.get("PatientOrientation")
    if told is not None and not isinstance(told, str) and len(told) == 2:
        return [str(part) for part in told]
    axes = source.get("ImageOrientationPatient")
    if axes is not None and len(axes) == 6:
        values = [float(v) for v in axes]
        return [_letters(values[:3]), _letters(values[3:])]
    return []


def _letters(axis: list[float]) -> str:
    """Name the direction of an axis in the patient, strongest part first (LPS: +x is L)."""
    named = [
        ("L" if axis[0] > 0 else "R"),
        ("P" if axis[1] > 0 else "A"),
        ("H" if axis[2] > 0 else "F"),
    ]
    order = sorted(range(3), key=lambda index: -abs(axis[index]))
    return "".join(named[index] for index in order if abs(axis[index]) > 1e-4)
