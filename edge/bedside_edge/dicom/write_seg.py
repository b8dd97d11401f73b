"""Strong saliency as a binary segmentation, where the source has a place in space.

Radiographs mostly have no frame of reference: for them the report's ellipses and the secondary
capture say where, and there is no segmentation.
"""

from typing import Final

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from bedside_core.findings import saliency
from bedside_core.overlay import strong
from bedside_core.regions import LEVEL
from bedside_core.result import Json
from bedside_edge.dicom.write_common import MANUFACTURER, NOTICE, Equipment, contributing, finish
from bedside_edge.dicom.write_sr import Uids, tensor_side

SERIES_NUMBER: Final = 9003
_CATEGORY: Final = CodedConcept("309825002", "SCT", "Spatial and Relational Concept")
_TYPE: Final = CodedConcept("130404", "DCM", "Saliency")
_AI: Final = CodedConcept("123110", "DCM", "Artificial Intelligence")


def mask_of(entry: Json, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return (rows, columns) of 0 and 1: 1 where saliency is at least half of full."""
    cam = saliency(np.asarray(entry["cam"], np.float32))
    return strong(cam, shape, tuple(entry["placement"]), tensor_side(entry), LEVEL)


def possible(source: Dataset) -> bool:
    """Tell whether a segmentation of this image would have a place in space."""
    axes, origin = source.get("ImageOrientationPatient"), source.get("ImagePositionPatient")
    return bool(
        source.get("FrameOfReferenceUID")
        and source.get("PixelSpacing")
        and axes is not None
        and len(axes) == 6
        and origin is not None
        and len(origin) == 3
        and int(source.get("NumberOfFrames") or 1) == 1
    )


def saliency_seg(
    body: Json,
    source: Dataset,
    mask: NDArray[np.uint8],
    equipment: Equipment,
    uids: Uids,
    at: int,
) -> Segmentation:
    """Return the segmentation; `mask` has the source's rows and columns and is not empty."""
    model = body["model"]
    segment = SegmentDescription(
        segment_number=1,
        segment_label=f"AI saliency >= {LEVEL:g}",
        segmented_property_category=_CATEGORY,
        segmented_property_type=_TYPE,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=str(model["name"]), family=_AI, version=str(model["version"])
        ),
        tracking_uid=uids.tracking[0],
        tracking_id="saliency",
    )
    made = Segmentation(
        source_images=[source],
        pixel_array=mask[None],
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=uids.series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids.instance,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=str(model["name"]),
        software_versions=(str(model["version"]), f"box {equipment.version}"),
        device_serial_number=equipment.serial,
        content_label="AI_SALIENCY",
        content_description=f"{NOTICE}, not a diagnosis",
        series_description=f"{NOTICE}: {body['finding']['meaning']}"[:64],
        contributing_equipment=contributing(equipment, body, at),
    )
    if "PatientOrientation" not in made:
        made.PatientOrientation = source.get("PatientOrientation") or ""
    finish(made, source, at)
    return made
