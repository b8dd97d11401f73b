"""The objects a result becomes: valid, readable again, about the right patient and place."""

import shutil
import subprocess
from io import BytesIO

import highdicom
import numpy as np
import pytest
from highdicom import base
from highdicom.ko import KeyObjectSelectionDocument
from highdicom.sr import CodedConcept
from pydicom import DataElement, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import UID

from bedside_core.errors import MalformedHeaderError
from bedside_core.findings import Decision
from bedside_core.review import Review, ReviewKind
from bedside_edge.dicom import encode, write_common
from bedside_edge.dicom import part10 as files
from bedside_edge.dicom.quiet import muted_warnings
from bedside_edge.dicom.write import DicomWriter, random_uid
from bedside_edge.dicom.write_common import read_source
from bedside_edge.services.outputs import Draft, Kind
from support.fake_clock import SeededBytes
from support.sample_result import entry, result_body
from support.source_variants import CHARSETS, variants
from support.synthetic import data_set, part10

AT = 1_700_000_000_000
SOURCES = dict(variants())
PLACED = "made CT with a place"
PICTURE = np.arange(90 * 70 * 3, dtype=np.uint64).reshape(90, 70, 3).astype(np.uint8)


@pytest.fixture(scope="module")
def writer():
    random = SeededBytes("writer")
    return DicomWriter(random_uid(random), "box-1", "0.1.0", random)


def draft_of(data, **entries):
    header = read_source(data)
    body = result_body([entry("i1", (int(header.Rows), int(header.Columns)), **entries)])
    return Draft(body=body, sources={"i1": data}, picture=PICTURE, at=AT)


def review(kind, **changed):
    fields = {
        "kind": kind,
        "reader_name": "王^小東",
        "reader_id": "reader-1",
        "reason": "Rippenüberlagerung",
        "decision": Decision.ABSENT if kind is ReviewKind.EDIT else None,
        "at": AT + 60_000,
    }
    return Review(**(fields | changed))


def parsed(made):
    return dcmread(BytesIO(made.data))


def everything(writer, data):
    """Each object the box may ever send about one image."""
    draft = draft_of(data)
    made = writer.result_objects(draft)
    first = Draft(body=draft.body, sources=draft.sources, at=AT, earlier=made[0].data)
    for kind in ReviewKind:
        made += writer.review_objects(first, review(kind), [one.data for one in made[:2]])
    return made


def words(dataset):
    return "\n".join(str(e.value) for e in dataset.iterall() if e.keyword == "TextValue")


def concept(item):
    return (item.CodeValue, item.CodingSchemeDesignator)


def complaints(path):
    """What dciodvfy says about an object, line by line."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("needs dciodvfy of the Debian package dicom3tools")
    seen = subprocess.run([tool, path], capture_output=True, text=True, timeout=60, check=False)
    lines = (seen.stdout + seen.stderr).splitlines()
    assert lines  # it names the IOD it took the object for
    return lines


@pytest.mark.peer
@pytest.mark.parametrize("name", SOURCES)
def test_dciodvfy_finds_no_error_in_any_object_of_any_source(writer, tmp_path, name):
    for number, made in enumerate(everything(writer, SOURCES[name])):
        path = tmp_path / f"{number}-{made.kind}.dcm"
        path.write_bytes(made.data)
        assert [line for line in complaints(path) if line.startswith("Error")] == []


def test_there_are_sources_enough():
    assert len(SOURCES) >= 40
    assert len(CHARSETS) >= 15


@pytest.mark.peer
def test_an_object_that_breaks_its_iod_is_seen(writer, tmp_path):
    broken = parsed(writer.result_objects(draft_of(SOURCES["CT_small"]))[0])
    del broken.CompletionFlag
    broken.save_as(tmp_path / "broken.dcm")
    assert any(line.startswith("Error") for line in complaints(tmp_path / "broken.dcm"))


@pytest.mark.parametrize("name", ["made CR", "CT_small", "chrH32", "MR_small_bigendian"])
def test_the_report_reads_back_with_every_value(writer, name):
    made = writer.result_objects(draft_of(SOURCES[name], probability=0.873))[0]
    report = highdicom.sr.srread(BytesIO(made.data))
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert report.CompletionFlag == "COMPLETE"
    assert "decision support only" in report.SeriesDescription
    (group,) = report.content.get_image_measurement_groups()
    measured = {concept(m.name): m.value for m in group.get_measurements()}
    assert measured == {("122157", "DCM"): 0.873, ("122411", "DCM"): 0.5}
    (finding,) = group.get_qualitative_evaluations()
    assert concept(finding.value) == ("121053", "DCM")
    assert concept(group.finding_type) == ("128477000", "SCT")
    assert concept(finding.name) == ("121052", "DCM")
    said = words(report)
    assert "sha256:" + "1" * 64 in said  # the pipeline
    assert "sha256:" + "4" * 64 in said  # the package
    (region,) = report.content.get_planar_roi_measurement_groups()
    assert concept(region.finding_type) == ("130404", "DCM")


def test_the_ellipse_lies_where_the_saliency_is_column_before_row(writer):
    source = part10(data_set(np.zeros((400, 200), np.uint16)))
    report = highdicom.sr.srread(BytesIO(writer.result_objects(draft_of(source))[0].data))
    (group,) = report.content.get_planar_roi_measurement_groups()
    points = group.roi.value
    column, row = points[:2].mean(axis=0)
    assert column == pytest.approx(0.3 * 200, abs=20)
    assert row == pytest.approx(0.25 * 400, abs=20)


@pytest.mark.parametrize(
    ("decision", "code"), [("absent", "121054"), ("undetermined", "121059"), ("present", "121053")]
)
def test_each_decision_has_its_standard_code(writer, decision, code):
    made = writer.result_objects(draft_of(SOURCES["made CR"], decision=decision))[0]
    report = highdicom.sr.srread(BytesIO(made.data))
    (group,) = report.content.get_image_measurement_groups()
    assert group.get_qualitative_evaluations()[0].value == CodedConcept(code, "DCM", decision)
    marked = len(report.content.get_planar_roi_measurement_groups())
    assert marked == (1 if decision == "present" else 0)


def test_every_analysed_image_is_in_the_report_the_decisive_one_first(writer):
    sources = {f"i{n}": part10(data_set(number=n)) for n in (1, 2, 3)}
    body = result_body([entry(f"i{n}", probability=0.5 + n / 10) for n in (1, 2, 3)])
    made = writer.result_objects(Draft(body=body, sources=sources, at=AT))
    report = highdicom.sr.srread(BytesIO(made[0].data))
    values = [
        next(m.value for m in group.get_measurements() if m.name.CodeValue == "122157")
        for group in report.content.get_image_measurement_groups()
    ]
    assert values == [0.8, 0.6, 0.7]
    assert len(report.get_evidence()) == 3
    assert [one.kind for one in made] == [Kind.SR]  # no picture was handed in


@pytest.mark.parametrize("name", CHARSETS)
def test_names_stay_what_they_were_and_are_written_in_unicode(writer, name):
    source = dcmread(BytesIO(SOURCES[name]))
    source.decode()
    for made in everything(writer, SOURCES[name]):
        written = parsed(made)
        assert written.SpecificCharacterSet == "ISO_IR 192"
        assert str(written.PatientName) == str(source.PatientName)


def test_patient_issuer_and_study_are_the_sources(writer):
    for made in everything(writer, SOURCES["issuer"]):
        written, source = parsed(made), dcmread(BytesIO(SOURCES["issuer"]))
        for keyword in ("PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDate"):
            assert written[keyword].value == source[keyword].value
        assert written.IssuerOfPatientID == "HOSPITAL"
        assert written.SeriesInstanceUID != source.SeriesInstanceUID


def test_private_attributes_of_the_source_never_travel(writer):
    for made in everything(writer, SOURCES["private attributes"]):
        assert b"SECRET" not in made.data


def test_the_capture_is_the_picture_and_says_what_it_is(writer):
    capture = parsed(writer.result_objects(draft_of(SOURCES["laterality"]))[1])
    assert np.array_equal(capture.pixel_array, PICTURE)
    assert capture.BurnedInAnnotation == "YES"
    assert capture.ImageType == ["DERIVED", "SECONDARY"]
    assert "decision support only" in capture.SeriesDescription
    assert (capture.Laterality, capture.PatientOrientation) == ("L", ["L", "F"])
    source = dcmread(BytesIO(SOURCES["laterality"]))
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_the_orientation_of_a_slice_is_derived(writer):
    capture = parsed(writer.result_objects(draft_of(SOURCES["MR_small"]))[1])
    assert capture.PatientOrientation == ["L", "P"]


def test_the_segmentation_lies_where_the_saliency_is(writer):
    made = writer.result_objects(draft_of(SOURCES[PLACED]))
    seg = highdicom.seg.segread(BytesIO(made[2].data))
    mask = seg.get_total_pixel_matrix() if seg.is_tiled else seg.pixel_array
    mask = np.squeeze(mask)
    assert mask.shape == (64, 48)
    rows, columns = np.nonzero(mask)
    assert rows.mean() == pytest.approx(0.25 * 64, abs=4)
    assert columns.mean() == pytest.approx(0.3 * 48, abs=4)
    place = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    assert [float(v) for v in place.ImagePositionPatient] == [-10, -20, 30]
    shared = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(v) for v in shared.PixelSpacing] == [0.7, 0.5]  # row spacing first


@pytest.mark.parametrize(
    "name", ["made CR", "without a frame of reference", "without spacing", "693_J2KI"]
)
def test_without_a_place_in_space_there_is_no_segmentation(writer, name):
    kinds = [made.kind for made in writer.result_objects(draft_of(SOURCES[name]))]
    assert kinds == [Kind.SR, Kind.SC]


def test_nothing_strong_is_no_segmentation(writer):
    draft = draft_of(SOURCES[PLACED])
    draft.body["images"][0]["cam"] = np.zeros((20, 20)).tolist()
    assert [made.kind for made in writer.result_objects(draft)] == [Kind.SR, Kind.SC]


def test_an_accepted_result_is_final_verified_and_names_its_predecessor(writer):
    first = writer.result_objects(draft_of(SOURCES["made CR"]))[0]
    draft = Draft(
        body=draft_of(SOURCES["made CR"]).body,
        sources={"i1": SOURCES["made CR"]},
        at=AT,
        earlier=first.data,
    )
    (signed,) = writer.review_objects(draft, review(ReviewKind.ACCEPT), [])
    report = highdicom.sr.srread(BytesIO(signed.data))
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("FINAL", "VERIFIED")
    observer = report.VerifyingObserverSequence[0]
    assert str(observer.VerifyingObserverName) == "王^小東"
    before = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert before.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.sop_instance_uid
    assert len(report.content.get_image_measurement_groups()[0].get_measurements()) == 2


def test_a_rejection_names_every_object_and_supersedes_the_report(writer):
    draft = draft_of(SOURCES["made CR"])
    made = writer.result_objects(draft)
    after = Draft(body=draft.body, sources=draft.sources, at=AT, earlier=made[0].data)
    key, report = writer.review_objects(
        after, review(ReviewKind.REJECT), [one.data for one in made]
    )
    document = KeyObjectSelectionDocument.from_dataset(parsed(key))
    assert document.ConceptNameCodeSequence[0].CodeValue == "113001"
    named = {
        instance.ReferencedSOPInstanceUID
        for series in document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert named == {one.sop_instance_uid for one in made}
    assert "Rippenüberlagerung" in words(document)
    after_report = highdicom.sr.srread(BytesIO(report.data))
    (group,) = after_report.content.get_image_measurement_groups()
    assert group.get_measurements() == []
    assert group.get_qualitative_evaluations()[0].value.CodeValue == "121059"
    assert after_report.PredecessorDocumentsSequence


def test_an_edit_says_what_the_reader_says(writer):
    (report,) = writer.review_objects(draft_of(SOURCES["made CR"]), review(ReviewKind.EDIT), [])
    (group,) = highdicom.sr.srread(BytesIO(report.data)).content.get_image_measurement_groups()
    assert group.get_qualitative_evaluations()[0].value.CodeValue == "121054"


def test_the_algorithm_is_contributing_equipment(writer):
    for made in everything(writer, SOURCES["made CR"]):
        (item, *_) = [
            item
            for item in parsed(made).ContributingEquipmentSequence
            if item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        ]
        assert (item.ManufacturerModelName, item.SoftwareVersions[0]) == ("sample", "1.0.0")
        assert UID(item.DeviceUID).is_valid


def test_uids_are_fresh_and_valid(writer):
    uids = [
        uid
        for _ in range(2)
        for made in everything(writer, SOURCES["made CR"])
        for uid in (made.sop_instance_uid, parsed(made).SeriesInstanceUID)
    ]
    assert len(set(uids)) == len(uids)
    assert all(UID(uid).is_valid for uid in uids)


@pytest.mark.parametrize("data", [part10(data_set(StudyInstanceUID=None))])
def test_a_source_without_its_uids_is_refused(data):
    with pytest.raises(MalformedHeaderError):
        read_source(data)


@pytest.mark.peer
def test_dcmtk_reads_every_object(writer, tmp_path):
    if shutil.which("dcmdump", path="/usr/bin") is None:
        pytest.skip("needs dcmdump of the Debian package dcmtk")
    for made in everything(writer, SOURCES[PLACED]):
        path = tmp_path / f"{made.sop_instance_uid}.dcm"
        path.write_bytes(made.data)
        tool = "/usr/bin/dsrdump" if made.kind in (Kind.SR, Kind.KO) else "/usr/bin/dcmdump"
        seen = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
        assert seen.returncode == 0, seen.stderr


def test_remembered_answers_about_the_standard_are_the_librarys(writer):
    classes = {made.sop_class_uid for made in everything(writer, SOURCES[PLACED])}
    for sop_class in classes:
        for keyword in ("ContentDate", "ContentTime", "NumberOfFrames", "PixelData"):
            assert base.is_attribute_in_iod is write_common._in_iod
            told = write_common._in_iod(keyword, sop_class)
            assert told == write_common._walk_iod(keyword, sop_class)


@pytest.mark.parametrize("name", SOURCES)
def test_the_fast_encoding_says_what_pydicoms_own_does(writer, name, monkeypatch):
    made = []

    def both(dataset):
        made.append(dataset)
        head = files.head(dataset.SOPClassUID, dataset.SOPInstanceUID, files.EXPLICIT_LE)
        return head + encode.explicit_le(dataset)  # raises Unusual where it would not be taken

    monkeypatch.setattr(write_common, "encoded", both)
    for one, dataset in zip(everything(writer, SOURCES[name]), made, strict=True):
        theirs = BytesIO()
        with muted_warnings():
            dataset.save_as(theirs, enforce_file_format=True)
        expected, found = dcmread(BytesIO(theirs.getvalue())), parsed(one)
        assert found == expected
        assert [e.VR for e in found.iterall()] == [e.VR for e in expected.iterall()]


def test_what_the_fast_encoding_does_not_know_is_written_by_pydicom():
    plain = data_set(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    with pytest.raises(encode.Unusual):
        encode.explicit_le(plain)
    assert dcmread(BytesIO(write_common.encoded(plain))).PatientName == "Müller^Jörg"
    odd = data_set(SpecificCharacterSet="ISO_IR 192")
    odd.add_new(0x00280106, "US or SS", 3)
    for dataset in (odd, _with_long_text()):
        with pytest.raises(encode.Unusual):
            encode.explicit_le(dataset)


def _with_long_text():
    long = data_set(SpecificCharacterSet="ISO_IR 192")
    long.add(DataElement(0x00081030, "LO", "x" * 70_000, validation_mode=0))
    return long


SLOPPY = {
    "one": {
        "PatientName": "A\nB\x07^C\\D",
        "ReferringPhysicianName": "Smith^A\\Jones^B",
        "PatientBirthDate": "19991399",
        "StudyDate": "20240230",
        "StudyDescription": "x" * 300,
        "StudyID": "y" * 90,
        "PatientSize": "1,75",
        "PatientWeight": "abc",
        "PixelSpacing": "0.1",
        "InstanceNumber": "x1",
    },
    "two": {
        "PatientName": "^" * 10 + "x" * 200,
        "ReferringPhysicianName": "\\\\\\",
        "StudyDate": "00000000",
        "StudyTime": "12:99",
        "StudyDescription": "chest\\pa",
        "PatientWeight": "80.123456789012345678",
        "SliceThickness": "1,5",
        "ImagePositionPatient": "nan\\0\\0",
        "NumberOfFrames": "x",
        "PatientOrientation": "Left\\Foot",
        "FrameOfReferenceUID": "1.2.x",
    },
    "three": {
        "PatientName": "a=b=c=d=e",
        "ImageOrientationPatient": "0\\0\\0\\0\\0\\0",
        "PixelSpacing": "0\\0",
        "PositionReferenceIndicator": "x" * 100,
        "PatientSex": "Male",
        "PatientAge": "45",
    },
}


def sloppy(**values):
    """Return the placed CT with these values as a careless sender would write them."""
    source = dcmread(BytesIO(SOURCES[PLACED]))
    for keyword, text in values.items():
        raw = text.encode() + b" " * (len(text) % 2)
        vr = dictionary_VR(keyword)
        source[keyword] = RawDataElement(Tag(keyword), vr, len(raw), raw, 0, False, True)
    out = BytesIO()
    with muted_warnings():
        source.save_as(out)
    return out.getvalue()


@pytest.mark.peer
@pytest.mark.parametrize("name", SLOPPY)
def test_values_that_break_their_form_never_stop_a_report_or_spoil_it(writer, tmp_path, name):
    for number, made in enumerate(everything(writer, sloppy(**SLOPPY[name]))):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(made.data)
        assert [line for line in complaints(path) if "Error" in line] == []


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID", "AccessionNumber"])
@pytest.mark.parametrize("value", ["7" * 100, "1\\2"])
def test_what_an_archive_files_by_is_never_shortened(writer, keyword, value):
    for made in everything(writer, sloppy(**{keyword: value})):
        with muted_warnings():
            found = parsed(made)[keyword].value
        assert value == (found if isinstance(found, str) else "\\".join(found))


def test_numbers_with_a_comma_keep_their_value(writer):
    report = writer.result_objects(draft_of(sloppy(PatientSize="1,75")))[0]
    assert parsed(report).PatientSize == 1.75
