"""Results as Comprehensive 3D SR with TID 1500 root (IHE AIR), and reports signed by a reader.

Standard codes only. One measurement group per analysed image carries probability, threshold and
finding; areas of strong saliency are groups of their own whose finding is Saliency, so that no
viewer takes them for the outline of a lesion.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from highdicom import SOPClass
from highdicom.sr import (
    AlgorithmIdentification,
    DeviceObserverIdentifyingAttributes,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset

from bedside_core.regions import Ellipse, salient_ellipses
from bedside_core.result import Json
from bedside_core.review import Review, ReviewKind
from bedside_edge.dicom.write_common import (
    MANUFACTURER,
    NOTICE,
    Equipment,
    contributing,
    finish,
    local_time,
)

_PROBABILITY: Final = CodedConcept("122157", "DCM", "Probability")
_THRESHOLD: Final = CodedConcept("122411", "DCM", "Threshold Value")
_NO_UNITS: Final = CodedConcept("1", "UCUM", "no units")
# not 121071 Finding: that names the finding type of the same group, and readers take the first
_PRESENCE: Final = CodedConcept("121052", "DCM", "Presence of property")
_SALIENCY: Final = CodedConcept("130404", "DCM", "Saliency")
_REPORT: Final = CodedConcept("126000", "DCM", "Imaging Measurement Report")
_DECISIONS: Final = {
    "present": CodedConcept("121053", "DCM", "Present"),
    "absent": CodedConcept("121054", "DCM", "Absent"),
    "undetermined": CodedConcept("121059", "DCM", "Presence Undetermined"),
}
_DEVICE: Final = CodedConcept("121007", "DCM", "Device")
_PERSON: Final = CodedConcept("121006", "DCM", "Person")
# the imaging procedure, not the algorithm (IHE AIR); by modality of the source
_PROCEDURES: Final = {
    "CR": CodedConcept("30745-4", "LN", "XR Chest Views"),
    "DX": CodedConcept("30745-4", "LN", "XR Chest Views"),
}
_ANY_PROCEDURE: Final = CodedConcept("18748-4", "LN", "Diagnostic imaging study")
_ORGANISATION: Final = "Unspecified"
SERIES_NUMBER: Final = 9001
_SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR Storage
_EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uids:
    """Fresh UIDs for one object, and one per tracked item."""

    series: str
    instance: str
    tracking: Sequence[str]


def tracked_items(body: Json) -> int:
    """Return how many tracking UIDs a report of this result needs at most."""
    return sum(5 for entry in body["images"] if entry["status"] == "analysed")


def preliminary_sr(
    body: Json,
    sources: Mapping[str, Dataset],
    equipment: Equipment,
    uids: Uids,
    at: int,
    earlier: Dataset | None,
) -> SOPClass:
    """Return the PRELIMINARY, UNVERIFIED report of a result."""
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_device(body, equipment)),
        procedure_reported=_procedure(sources),
        imaging_measurements=_groups(body, sources, uids.tracking),
        title=_REPORT,
    )
    return _document(
        report, body, sources, equipment, uids, at, earlier, f"{NOTICE}: {_meaning(body)}"
    )


def signed_sr(
    body: Json,
    sources: Mapping[str, Dataset],
    equipment: Equipment,
    uids: Uids,
    review: Review,
    earlier: Dataset | None,
) -> SOPClass:
    """Return the FINAL, VERIFIED report of a reader about a result, naming its predecessor.

    An accepted result keeps its measurements. A rejected one has none: only the finding as the
    reader left it, undetermined unless said otherwise.
    """
    context = ObservationContext(
        observer_person_context=ObserverContext(
            observer_type=_PERSON,
            observer_identifying_attributes=PersonObserverIdentifyingAttributes(
                name=person_name(review.reader_name)
            ),
        ),
        observer_device_context=_device(body, equipment),
    )
    if review.kind is ReviewKind.ACCEPT and review.decision is None:
        groups = _groups(body, sources, uids.tracking)
    else:
        decision = str(review.decision or "undetermined")
        groups = [_reader_group(body, sources, uids.tracking[0], decision)]
    words = {
        ReviewKind.ACCEPT: "accepted by reader",
        ReviewKind.EDIT: "corrected by reader",
        ReviewKind.REJECT: "AI result rejected by reader",
    }
    report = MeasurementReport(
        observation_context=context,
        procedure_reported=_procedure(sources),
        imaging_measurements=groups,
        title=_REPORT,
    )
    title = f"{_meaning(body)}: {words[review.kind]}"
    return _document(
        report, body, sources, equipment, uids, review.at, earlier, title, review=review
    )


def _document(
    report: MeasurementReport,
    body: Json,
    sources: Mapping[str, Dataset],
    equipment: Equipment,
    uids: Uids,
    at: int,
    earlier: Dataset | None,
    title: str,
    review: Review | None = None,
) -> SOPClass:
    """Put the content into a document (PS3.3 C.17, A.35.13).

    highdicom's own constructor copies and walks the content four times for the sake of reading it
    back, two thirds of its time; here the document's few attributes are set at once. Tests read
    every report back with highdicom.
    """
    source = _shown(body, sources)
    model = body["model"]
    made = SOPClass(
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=uids.series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids.instance,
        sop_class_uid=_SOP_CLASS,
        instance_number=1,
        modality="SR",
        manufacturer=MANUFACTURER,
        manufacturer_model_name=str(model["name"]),
        software_versions=[str(model["version"]), f"box {equipment.version}"],
        device_serial_number=equipment.serial,
        series_description=title[:64],
        transfer_syntax_uid=_EXPLICIT_LE,
        patient_id=source.PatientID,
        patient_name=source.PatientName,
        patient_birth_date=source.PatientBirthDate,
        patient_sex=source.PatientSex,
        accession_number=source.AccessionNumber,
        study_id=source.StudyID,
        study_date=source.StudyDate,
        study_time=source.StudyTime,
        referring_physician_name=source.ReferringPhysicianName,
        specific_character_set=source.SpecificCharacterSet,
    )
    made.copy_patient_and_study_information(source)
    for element in report[0]:
        made.add(element)
    made.CompletionFlag = "COMPLETE"
    made.PreliminaryFlag = "PRELIMINARY" if review is None else "FINAL"
    made.VerificationFlag = "UNVERIFIED" if review is None else "VERIFIED"
    if review is not None:
        made.VerifyingObserverSequence = [_verifying(review, at)]
    made.CurrentRequestedProcedureEvidenceSequence = _references(sources.values())
    if earlier is not None:
        made.PredecessorDocumentsSequence = _references([earlier])
    made.PerformedProcedureCodeSequence = []
    made.ReferencedPerformedProcedureStepSequence = []
    made.ContributingEquipmentSequence = contributing(equipment, body, at)
    finish(made, source, at)
    return made


def _verifying(review: Review, at: int) -> Dataset:
    item = Dataset()
    item.VerifyingObserverName = person_name(review.reader_name)
    item.VerifyingOrganization = _ORGANISATION
    item.VerificationDateTime = f"{local_time(at):%Y%m%d%H%M%S}"
    item.VerifyingObserverIdentificationCodeSequence = []
    return item


def _references(instances: Iterable[Dataset]) -> list[Dataset]:
    """Return hierarchical SOP Instance references (PS3.3 C.17.2.1), by study and series."""
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for instance in instances:
        named = Dataset()
        named.ReferencedSOPClassUID = instance.SOPClassUID
        named.ReferencedSOPInstanceUID = instance.SOPInstanceUID
        series = studies.setdefault(str(instance.StudyInstanceUID), {})
        series.setdefault(str(instance.SeriesInstanceUID), []).append(named)
    found = []
    for study_uid, by_series in studies.items():
        study = Dataset()
        study.ReferencedSeriesSequence = []
        for series_uid, named_instances in by_series.items():
            item = Dataset()
            item.ReferencedSOPSequence = named_instances
            item.SeriesInstanceUID = series_uid
            study.ReferencedSeriesSequence.append(item)
        study.StudyInstanceUID = study_uid
        found.append(study)
    return found


# --- content -----------------------------------------------------------------------------------


def _groups(body: Json, sources: Mapping[str, Dataset], tracking: Sequence[str]) -> list[Any]:
    """One group per analysed image, the one the study's value comes from first."""
    uids = iter(tracking)
    algorithm = _algorithm(body)
    groups: list[Any] = []
    for number, entry in enumerate(_analysed_first_shown(body), start=1):
        source = sources[entry["instance"]]
        groups.append(
            MeasurementsAndQualitativeEvaluations(
                TrackingIdentifier(uid=next(uids), identifier=f"image {number}"),
                finding_type=_finding(body),
                algorithm_id=algorithm,
                measurements=[
                    Measurement(_PROBABILITY, entry["probability"], _NO_UNITS),
                    Measurement(_THRESHOLD, body["value"]["threshold"], _NO_UNITS),
                ],
                qualitative_evaluations=[
                    QualitativeEvaluation(_PRESENCE, _DECISIONS[entry["decision"]])
                ],
                source_images=[SourceImageForMeasurementGroup.from_source_image(source)],
            )
        )
        groups += _regions(entry, source, uids, f"image {number} saliency")
    return groups


def _regions(entry: Json, source: Dataset, uids: Iterator[str], name: str) -> list[Any]:
    """Where the evidence was seen, only for what was called present."""
    if entry["decision"] != "present":
        return []
    shape = (int(source.Rows), int(source.Columns))
    cam = np.asarray(entry["cam"], np.float32)
    found = salient_ellipses(cam, tuple(entry["placement"]), tensor_side(entry), shape)
    return [
        PlanarROIMeasurementsAndQualitativeEvaluations(
            TrackingIdentifier(uid=next(uids), identifier=f"{name} {number}"),
            referenced_region=_image_region(ellipse, source),
            finding_type=_SALIENCY,
        )
        for number, ellipse in enumerate(found, start=1)
    ]


def tensor_side(entry: Json) -> int:
    """Return the side of the square tensor: the longer side of an image fills it."""
    _, _, height, width = entry["placement"]
    return max(int(height), int(width))


def _image_region(ellipse: Ellipse, source: Dataset) -> ImageRegion:
    points = np.array([*ellipse.long_axis, *ellipse.short_axis], np.float32)
    return ImageRegion(
        GraphicTypeValues.ELLIPSE, points, SourceImageForRegion.from_source_image(source)
    )


def _reader_group(
    body: Json, sources: Mapping[str, Dataset], tracking: str, decision: str
) -> MeasurementsAndQualitativeEvaluations:
    source = _shown(body, sources)
    return MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(uid=tracking, identifier="reader"),
        finding_type=_finding(body),
        qualitative_evaluations=[QualitativeEvaluation(_PRESENCE, _DECISIONS[decision])],
        source_images=[SourceImageForMeasurementGroup.from_source_image(source)],
    )


def _analysed_first_shown(body: Json) -> list[Json]:
    shown = body["value"]["image"]
    read = [entry for entry in body["images"] if entry["status"] == "analysed"]
    return sorted(read, key=lambda entry: entry["instance"] != shown)


def _algorithm(body: Json) -> AlgorithmIdentification:
    value, model, engine = body["value"], body["model"], body["engine"]
    low, high = value["undetermined"]
    pipeline = body["pipeline"]
    parameters = [
        f"threshold={value['threshold']:g}, undetermined={low:g}..{high:g}",
        f"precision={engine['precision']}, engine={engine['engine']} {engine['version']}",
        f"pipeline={pipeline['name']}/{pipeline['revision']} {pipeline['digest']}",
        f"package={body['package']}",
    ]
    return _algorithm_of(str(model["name"]), str(model["version"]), tuple(parameters))


# the same for every study a model reads; nothing changes content items once they are made
@functools.lru_cache(maxsize=16)
def _algorithm_of(name: str, version: str, parameters: tuple[str, ...]) -> AlgorithmIdentification:
    return AlgorithmIdentification(name=name, version=version, parameters=parameters)


def _finding(body: Json) -> CodedConcept:
    finding = body["finding"]
    return CodedConcept(finding["code"], finding["scheme"], finding["meaning"][:64])


def _meaning(body: Json) -> str:
    return str(body["finding"]["meaning"])


def _device(body: Json, equipment: Equipment) -> ObserverContext:
    return _device_of(str(body["model"]["name"]), equipment)


@functools.lru_cache(maxsize=16)
def _device_of(model: str, equipment: Equipment) -> ObserverContext:
    return ObserverContext(
        observer_type=_DEVICE,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=equipment.device_uid,
            name=equipment.station,
            manufacturer_name=MANUFACTURER,
            model_name=model,
            serial_number=equipment.serial,
        ),
    )


def _procedure(sources: Mapping[str, Dataset]) -> CodedConcept:
    modality = str(next(iter(sources.values())).get("Modality", ""))
    return _PROCEDURES.get(modality, _ANY_PROCEDURE)


def _shown(body: Json, sources: Mapping[str, Dataset]) -> Dataset:
    return sources[body["value"]["image"]]


def person_name(name: str) -> str:
    """A DICOM person name; a plain `Ada Muster` becomes `Muster^Ada`.

    Its groups (alphabetic, ideographic, phonetic) are kept, 64 characters each: PS3.5 6.2.1.1.
    """
    groups = name.replace("\\", " ").split("=")[:3]
    return "=".join(_name_group(" ".join(group.split())[:64]) for group in groups).rstrip("=")


def _name_group(clean: str) -> str:
    if not clean or "^" in clean or not clean.isascii():
        return clean
    *given, family = clean.split(" ")
    return f"{family}^{' '.join(given)}"
