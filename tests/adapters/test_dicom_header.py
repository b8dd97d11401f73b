"""Routing attributes: our walk over the elements against pydicom, and hostile headers."""

import struct
import warnings
from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian

from bedside_core.errors import BedsideError, InvalidUidError, NotDicomError, SopClassMismatchError
from bedside_edge.dicom import part10
from bedside_edge.dicom.header import check_announced, read_header
from support.dicom_files import bundled, bundled_names
from support.synthetic import bytes_of, data_set, uid
from support.synthetic import part10 as file_of

FIELDS = {
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "patient_id": "PatientID",
    "issuer": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "accession_number": "AccessionNumber",
    "study_date": "StudyDate",
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "view": "ViewPosition",
    "photometric": "PhotometricInterpretation",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "age": "PatientAge",
    "station": "StationName",
    "manufacturer": "Manufacturer",
    "device_serial": "DeviceSerialNumber",
    "rows": "Rows",
    "columns": "Columns",
}


def with_attributes():
    """Files that our reader takes: they have the three UIDs."""
    names = []
    for name in bundled_names():
        try:
            read_header(bundled(name))
        except (NotDicomError, InvalidUidError):
            continue
        names.append(name)
    return names


TAKEN = with_attributes()
UNREADABLE_BY_PYDICOM = "emri_small_jpeg_2k_lossless_too_short"  # ends within a fragment


def theirs(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = pydicom.dcmread(BytesIO(bundled(name)), force=True)
        read.decode()
        values = {}
        for field, keyword in FIELDS.items():
            value = read.get(keyword)
            empty = 0 if field in ("rows", "columns") else ""
            values[field] = empty if value is None else value
            if isinstance(empty, str):
                values[field] = str(values[field]).strip("\0 ")
    return values


def test_most_bundled_files_are_taken():
    assert len(TAKEN) > 180


@pytest.mark.parametrize("name", [n for n in TAKEN if n != UNREADABLE_BY_PYDICOM])
def test_the_walk_reads_what_pydicom_reads(name):
    header = read_header(bundled(name))
    ours = {field: getattr(header, field) for field in FIELDS}
    assert ours == theirs(name)


def test_every_character_set_is_decoded():
    names = {name: read_header(bundled(name)).patient_name for name in ("chrH31", "chrGreek")}
    assert names["chrH31"] == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert names["chrGreek"] == "Διονυσιος"


@pytest.mark.parametrize(
    "name", ["punycode", "zlib", "idna", "rot13", "hex", "utf-16", "unicode_escape", "undefined"]
)
def test_a_codec_of_the_language_is_no_character_set(name):
    """Any of them would raise, or turn the patient's id into another."""
    whole = file_of(data_set(PatientID="4711-0815", PatientName="Ada"))
    at = whole.index(struct.pack("<HH", 0x0008, 0x0016))
    value = name.encode() + b" " * (len(name) % 2)
    element = struct.pack("<HH2sH", 0x0008, 0x0005, b"CS", len(value)) + value
    for text in (b"4711-0815", rb"4\x31\\71", b"4711-\xe9\x1b$"):
        changed = whole[:at] + element + whole[at:].replace(b"4711-0815", text.ljust(9))
        assert read_header(changed).patient_id == text.decode("latin-1").strip()


def test_several_valued_and_numeric_attributes():
    made = data_set(
        ImageType=["DERIVED", "PRIMARY", "", "X"],
        NumberOfStudyRelatedInstances=7,
        PresentationIntentType="FOR PROCESSING",
        RequestedProcedurePriority="STAT",
        ImageLaterality="L",
        IssuerOfPatientID="WARD",
    )
    header = read_header(file_of(made))
    assert header.image_type == ("DERIVED", "PRIMARY", "", "X")
    assert header.expected_instances == 7
    assert header.presentation_intent == "FOR PROCESSING"
    assert header.requested_priority == "STAT"
    assert header.laterality == "L"
    assert header.issuer == "WARD"


def test_the_beginning_of_an_object_is_enough():
    whole = bundled("RG1_UNCR")
    assert read_header(whole[: 16 << 10]) == read_header(whole)


@pytest.mark.parametrize("syntax", [part10.EXPLICIT_LE, part10.IMPLICIT_LE, part10.DEFLATED_LE])
@pytest.mark.parametrize("group", [0x0009, 0x0021, 0x0029, 0x0033])
def test_a_cut_header_is_never_taken_for_a_whole_one(syntax, group):
    """Private data of any size may stand before Rows, body part or priority."""
    made = data_set()
    made.add_new(group << 16 | 0x0010, "LO", "ACME")
    made.add_new(group << 16 | 0x1001, "OB", bytes_of(200_000))
    made.RequestedProcedurePriority = "STAT"
    whole = file_of(made, syntax)
    with pytest.raises(NotDicomError, match="longer than what has come"):
        read_header(whole[: 128 << 10], cut=True)
    assert read_header(whole, cut=True) == read_header(whole)
    assert (read_header(whole).rows, read_header(whole).requested_priority) == (64, "STAT")


def test_a_deflated_object_is_read_too():
    made = data_set()
    data = file_of(made, DeflatedExplicitVRLittleEndian)
    assert read_header(data).sop_instance_uid == made.SOPInstanceUID
    assert read_header(data).rows == 64


@pytest.mark.parametrize("missing", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"])
def test_without_one_of_the_three_uids_nothing_can_be_filed(missing):
    made = data_set()
    data = file_of(made)
    del made[missing]
    with pytest.raises(NotDicomError):
        read_header(file_of(made))
    assert read_header(data).series_uid


@pytest.mark.parametrize(
    "hostile",
    [
        *("../../etc/passwd", "1.2.03", ".1.2", "1.2.", "1..2", "1.2.3 4", "1.2.3\\4", "1.2.a"),
        *("1." + "2" * 63, "1.2.840\n", "\u0661.2", "01.2"),
    ],
)
@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_hostile_uid_is_refused(hostile, keyword):
    made = data_set()
    data = file_of(made)
    tag = made[keyword].tag
    element = struct.pack("<HH", tag.group, tag.element) + b"UI"
    at = data.index(element)
    length = struct.unpack_from("<H", data, at + 6)[0]
    value = hostile.encode()
    value += b"\0" * (len(value) % 2)
    changed = data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]
    with pytest.raises(InvalidUidError):
        read_header(changed)


@pytest.mark.parametrize("name", ["1.2.840.10008.1.1", "0.0", "2.25.0", "1." + "2" * 62])
def test_a_proper_uid_is_one(name):
    assert part10.valid_uid(name)


def test_a_data_set_that_was_announced_as_another_is_refused():
    made = data_set()
    header = read_header(file_of(made))
    check_announced(header, made.SOPClassUID, made.SOPInstanceUID)
    with pytest.raises(SopClassMismatchError):
        check_announced(header, "1.2.840.10008.5.1.4.1.1.2", made.SOPInstanceUID)
    with pytest.raises(SopClassMismatchError):
        check_announced(header, made.SOPClassUID, uid(8, 8))


def test_a_file_meta_group_made_here_is_read_by_pydicom():
    made = data_set()
    whole = file_of(made)
    bare = whole[part10.locate(whole).start :]
    again = part10.head(made.SOPClassUID, made.SOPInstanceUID, part10.EXPLICIT_LE) + bare
    read = pydicom.dcmread(BytesIO(again))
    assert read.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert read.file_meta.TransferSyntaxUID == part10.EXPLICIT_LE
    assert read.file_meta.ImplementationVersionName == part10.IMPLEMENTATION_VERSION
    assert part10.valid_uid(read.file_meta.ImplementationClassUID)
    assert len(part10.head("1.2.3", "1.2", part10.IMPLICIT_LE)) % 2 == 0
    assert read.SOPInstanceUID == made.SOPInstanceUID


def test_sequences_nested_beyond_reason_are_refused_without_recursion():
    made = file_of(data_set())
    start = part10.locate(made).start
    level = struct.pack("<HH2sHI", 0x0008, 0x1111, b"SQ", 0, 0xFFFFFFFF)
    level += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(NotDicomError):
        read_header(made[:start] + level * 50_000 + made[start:])


def test_an_attribute_longer_than_dicom_allows_is_refused():
    made = data_set(PatientID="7" * 60)
    data = file_of(made)
    long_id = b"7" * 40_000
    at = data.index(struct.pack("<HH", 0x0010, 0x0020) + b"LO")
    with pytest.raises(NotDicomError):
        read_header(
            data[: at + 6] + struct.pack("<H", len(long_id)) + long_id + data[at + 8 + 60 :]
        )


@pytest.mark.parametrize("data", [b"", b"\0" * 3, b"\0" * 200, b"\0" * 128 + b"DICM", b"%PDF-1.7"])
def test_bytes_that_are_no_dicom_are_refused(data):
    with pytest.raises(NotDicomError):
        read_header(data)


def code_of(call):
    """The code of the refusal, empty when there is none; anything else escapes."""
    try:
        call()
    except BedsideError as error:
        return error.code
    return ""


WHOLE = file_of(data_set(PatientName="Äöü^Name", SpecificCharacterSet="ISO_IR 100"))


@settings(max_examples=400)
@given(cut=st.integers(0, len(WHOLE)), data=st.data())
def test_no_damage_escapes_as_anything_but_a_coded_error(cut, data):
    damaged = bytearray(WHOLE[:cut])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            at = data.draw(st.integers(0, min(len(damaged) - 1, 900)))
            damaged[at] = data.draw(st.integers(0, 255))
    assert code_of(lambda: read_header(bytes(damaged))) in ("", "not-dicom", "invalid-uid")
