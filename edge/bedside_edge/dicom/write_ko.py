"""A rejection as Key Object Selection: 'Rejected for Quality Reasons', naming every object."""

from collections.abc import Sequence
from typing import Final

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import ObserverContext, PersonObserverIdentifyingAttributes
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset

from bedside_core.result import Json
from bedside_core.review import Review
from bedside_edge.dicom.write_common import MANUFACTURER, Equipment, contributing, finish
from bedside_edge.dicom.write_sr import Uids, person_name

SERIES_NUMBER: Final = 9004
_REJECTED: Final = CodedConcept("113001", "DCM", "Rejected for Quality Reasons")
_PERSON: Final = CodedConcept("121006", "DCM", "Person")


def rejection_ko(
    body: Json,
    source: Dataset,
    rejected: Sequence[Dataset],
    review: Review,
    equipment: Equipment,
    uids: Uids,
) -> KeyObjectSelectionDocument:
    """Return the key object that marks `rejected`, all of one study, with the reader's reason."""
    content = KeyObjectSelection(
        document_title=_REJECTED,
        referenced_objects=list(rejected),
        observer_person_context=ObserverContext(
            observer_type=_PERSON,
            observer_identifying_attributes=PersonObserverIdentifyingAttributes(
                name=person_name(review.reader_name)
            ),
        ),
        description=f"AI result rejected by reader: {review.reason}"[:1024],
    )
    made = KeyObjectSelectionDocument(
        evidence=list(rejected),
        content=content,
        series_instance_uid=uids.series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids.instance,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=str(body["model"]["name"]),
        software_versions=[str(body["model"]["version"]), f"box {equipment.version}"],
        device_serial_number=equipment.serial,
        series_description=f"AI result rejected: {body['finding']['meaning']}"[:64],
        contributing_equipment=contributing(equipment, body, review.at),
    )
    finish(made, source, review.at)
    return made
