"""Objects of a result: report, secondary capture and segmentation of one radiograph."""

import time
from collections.abc import Callable
from io import BytesIO
from statistics import median

import highdicom
import numpy as np
import pydicom
from highdicom import sr
from highdicom.sr.coding import CodedConcept as Code

from bedside_edge.dicom.write import DicomWriter, random_uid
from bedside_edge.services.outputs import Draft
from bench.plan import Plan
from bench.report import Row, limit_row, ratio_row
from support.fake_clock import SeededBytes
from support.sample_result import entry, result_body
from support.synthetic import CT, data_set, part10, picture

BENCH = "outputs"
_SHAPE = (1955, 1841)
_LIMIT_MS = 25.0


def _source() -> bytes:
    """A radiograph's pixels with a place in space, so that all three objects are possible."""
    return part10(
        data_set(
            picture(*_SHAPE),
            SOPClassUID=CT,
            Modality="CT",
            FrameOfReferenceUID="1.2.3.4",
            PixelSpacing=[0.2, 0.2],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, 0],
            SliceThickness=1,
        )
    )


def _ours(data: bytes, capture: np.ndarray) -> Callable[[], int]:
    random = SeededBytes("bench")
    writer = DicomWriter(random_uid(random), "bench", "0", random)
    body = result_body([entry("i1", _SHAPE)])
    draft = Draft(body=body, sources={"i1": data}, picture=capture, at=1_700_000_000_000)
    return lambda: len(writer.result_objects(draft))


def _plain(data: bytes, capture: np.ndarray) -> Callable[[], int]:
    """The same three kinds by highdicom alone, without regions, mask or completion."""
    mask = np.zeros((1, *_SHAPE), np.uint8)
    mask[0, 400:600, 500:700] = 1
    device = sr.ObserverContext(
        observer_type=Code("121007", "DCM", "Device"),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(uid="1.2.3"),
    )

    def make() -> int:
        source = pydicom.dcmread(BytesIO(data))
        for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            setattr(source, keyword, "")
        source.AccessionNumber = source.StudyID = source.ReferringPhysicianName = ""
        made = (_report(source, device), _capture(source, capture), _mask(source, mask))
        for one in made:
            one.save_as(BytesIO(), enforce_file_format=True)
        return len(made)

    return make


def _report(source: pydicom.Dataset, device: sr.ObserverContext) -> pydicom.Dataset:
    unit = Code("1", "UCUM", "no units")
    group = sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(uid=highdicom.UID(), identifier="1"),
        finding_type=Code("128477000", "SCT", "Abnormal opacity"),
        algorithm_id=sr.AlgorithmIdentification("sample", "1", parameters=["a=1"] * 7),
        measurements=[
            sr.Measurement(Code("122157", "DCM", "Probability"), 0.9, unit),
            sr.Measurement(Code("122411", "DCM", "Threshold Value"), 0.5, unit),
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                Code("121052", "DCM", "Presence of property"), Code("121053", "DCM", "Present")
            )
        ],
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(source)],
    )
    content = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=device),
        Code("30745-4", "LN", "XR Chest Views"),
        imaging_measurements=[group],
    )
    return sr.Comprehensive3DSR(
        [source], content, highdicom.UID(), 1, highdicom.UID(), 1, "maker", is_complete=True
    )


def _capture(source: pydicom.Dataset, capture: np.ndarray) -> pydicom.Dataset:
    return highdicom.sc.SCImage.from_ref_dataset(
        source, capture, "RGB", 8, "PATIENT", highdicom.UID(), 2, highdicom.UID(), 1, "maker",
        patient_orientation=("L", "F"), transfer_syntax_uid="1.2.840.10008.1.2.1",
    )  # fmt: skip


def _mask(source: pydicom.Dataset, mask: np.ndarray) -> pydicom.Dataset:
    segment = highdicom.seg.SegmentDescription(
        1, "x", Code("309825002", "SCT", "Spatial and Relational Concept"),
        Code("130404", "DCM", "Saliency"), "AUTOMATIC",
        highdicom.AlgorithmIdentificationSequence(
            "sample", Code("123110", "DCM", "Artificial Intelligence"), "1"
        ),
    )  # fmt: skip
    return highdicom.seg.Segmentation(
        [source], mask, "BINARY", [segment], highdicom.UID(), 3, highdicom.UID(), 1,
        "maker", "sample", "1", "serial",
    )  # fmt: skip


def run(plan: Plan) -> list[Row]:
    """Alternate between ours and highdicom alone; medians of wall-clock milliseconds."""
    data, capture = _source(), np.zeros((880, 768, 3), np.uint8)
    makers = {"ours": _ours(data, capture), "plain": _plain(data, capture)}
    taken: dict[str, list[float]] = {name: [] for name in makers}
    for number in range(plan.calls + 1):
        for name, make in makers.items():
            began = time.perf_counter()
            assert make() == 3
            if number:  # the first call imports
                taken[name].append((time.perf_counter() - began) * 1000)
    ours, plain = median(taken["ours"]), median(taken["plain"])
    case = "SR + SC + SEG of one radiograph, 1955 x 1841"
    return [
        limit_row(BENCH, case, ours, "ms", at_most=_LIMIT_MS),
        ratio_row(BENCH, case, ours, "ms", "highdicom alone", plain, at_most=1.0),
    ]
