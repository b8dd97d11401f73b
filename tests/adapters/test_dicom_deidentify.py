"""Nothing that identifies the source is in the bytes that come out; what bears text does not."""

import hashlib
import hmac
import io
import shutil
import subprocess
import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from bedside_core.errors import BedsideError, BurnedInTextError, InvalidInputError, NoPixelsError
from bedside_edge.dicom.burned_in import shows_text
from bedside_edge.dicom.deidentify import Deidentifier
from support.dicom_files import bundled, bundled_names
from support.running_box import part10

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom complains of its own test files

MIXED = ("CR", "1.2.840.10008.5.1.4.1.1.1")


def mac(key: bytes):
    return lambda label, value: hmac.new(
        key, label.encode() + b"\0" + value, hashlib.sha256
    ).digest()


CLEANER = Deidentifier(mac(b"a" * 32))
OTHER_BOX = Deidentifier(mac(b"b" * 32))
NAMES = {"PN", "LO", "SH", "ST", "LT", "UT", "UI", "DA", "DT", "TM", "AE", "UC", "UR", "CS", "AS"}


def cleaned():
    for name in bundled_names():
        data = bundled(name)
        try:
            made = CLEANER.deidentify(data)
        except BedsideError:
            continue
        yield name, data, made


@pytest.fixture(scope="module")
def every_file():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(cleaned())


def header_of(data: bytes) -> Dataset:
    found = dcmread(io.BytesIO(data), stop_before_pixels=True)
    return found


def texts(dataset: Dataset):
    """(VR, keyword, text) of every value of every level, private ones too."""
    for element in dataset.iterall():
        values = element.value if element.VM > 1 else [element.value]
        if element.VR in NAMES or element.VR == "UN":
            for value in values:
                text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
                if len(text.strip("\0 ")) >= 4 and len(set(text)) > 1:
                    yield element.VR, element.keyword, text.strip("\0 ")


def test_many_files_can_be_cleaned(every_file):
    assert len(every_file) >= 60


def test_no_text_uid_or_date_of_the_source_is_in_the_output(every_file):
    """Terms and classes of the standard are the same on both sides and name nobody."""
    found = []
    for name, data, made in every_file:
        header = header_of(made.data)
        out = io.BytesIO()
        header.save_as(out, enforce_file_format=True)
        text = out.getvalue().decode("latin-1")
        own = {value for _, _, value in texts(header)}
        for vr, keyword, value in texts(header_of(data)):
            common = value in own and (vr == "CS" or UID(value).name != value)
            if value in text and not common and not any(value in one for one in own):
                found.append((name, keyword))
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
                        "SOPInstanceUID", "StudyDate", "AccessionNumber"):  # fmt: skip
            value = str(header_of(data).get(keyword, "") or "")
            if len(value) >= 4 and value in text:
                found.append((name, keyword))
    assert found == []


def test_nothing_private_unknown_or_overlaid_stays(every_file):
    for name, _, made in every_file:
        for element in header_of(made.data).iterall():
            assert not element.tag.is_private, name
            assert element.keyword, name
            assert element.tag.group & 0xFF00 not in (0x5000, 0x6000), name


def test_the_pixels_are_the_same_bytes(every_file):
    for name, data, made in every_file:
        before, after = dcmread(io.BytesIO(data)), dcmread(io.BytesIO(made.data))
        if "PixelData" in before:
            assert bytes(before.PixelData) == bytes(after.PixelData), name


def test_it_says_what_was_done(every_file):
    header = header_of(every_file[0][2].data)
    assert header.PatientIdentityRemoved == "YES"
    assert header.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = [item.CodeValue for item in header.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113105", "113107"]


def image(**changes) -> bytes:
    """A CR image of noise with everything in it that a person might have written."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = MIXED[1], "1.2.3.4.1"
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.9"
    made.PatientName, made.PatientID, made.Modality = "Muster^Ada", "P-4711", MIXED[0]
    made.StudyDate, made.StudyTime, made.AcquisitionDate = "20260102", "101112", "20260109"
    made.BodyPartExamined, made.StudyDescription = "CHEST", "for Ada Muster"
    made.Rows = made.Columns = 64
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    pixels = np.random.Generator(np.random.PCG64(1)).normal(120, 8, (64, 64))  # noqa: TID251
    made.PixelData = pixels.astype("u1").tobytes()
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    from pydicom.dataset import FileMetaDataset

    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.SourceApplicationEntityTitle = "ADAMUSTER"
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_one_patient_keeps_one_pseudonym_and_one_shift_on_one_box_only():
    first = header_of(CLEANER.deidentify(image()).data)
    second = header_of(CLEANER.deidentify(image(SOPInstanceUID="1.2.3.4.2")).data)
    assert first.PatientID == second.PatientID != "P-4711"
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.StudyDate == second.StudyDate < "20260102"
    assert int(first.AcquisitionDate) > int(first.StudyDate), "a week stays a week"
    other = header_of(OTHER_BOX.deidentify(image()).data)
    assert other.PatientID != first.PatientID
    assert other.StudyInstanceUID != first.StudyInstanceUID


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BodyPartExamined", "ADA MUSTER"),
        ("ViewPosition", "MUSTER"),
        ("ImageType", ["DERIVED", "PRIMARY", "ADA"]),
        ("StackID", "MUSTER"),
        ("StudyDate", "MUSTER"),
    ],
)
def test_a_name_in_a_field_that_stays_does_not_stay(keyword, value):
    data = CLEANER.deidentify(image(**{keyword: value})).data
    assert b"MUSTER" not in data
    assert b"ADA" not in data


def test_a_field_nobody_can_read_is_not_passed_through():
    with pytest.raises(BedsideError):
        CLEANER.deidentify(b"\0" * 128 + b"DICM" + b"nonsense" * 40)
    with pytest.raises(InvalidInputError):
        CLEANER.deidentify(image(SOPClassUID="1.2.3.4.5.6.7"))


def test_a_report_is_refused():
    reports = [name for name in bundled_names() if "report" in name.lower()]
    assert reports
    with pytest.raises(NoPixelsError):
        CLEANER.deidentify(bundled(reports[0]))


@pytest.mark.parametrize(
    "changes", [{"BurnedInAnnotation": "YES"}, {"Modality": "US"}, {"Modality": "SC"}]
)
def test_what_the_header_does_not_vouch_for_is_refused(changes):
    with pytest.raises(BurnedInTextError):
        CLEANER.deidentify(image(**changes))


def test_text_in_the_pixels_is_refused_whatever_the_header_says():
    data = dcmread(io.BytesIO(image(BurnedInAnnotation="NO", Rows=512, Columns=512)))
    data.PixelData = written(background(512, 512, 0), 14).astype("u1").tobytes()
    with pytest.raises(BurnedInTextError):
        CLEANER.deidentify(part10(data))


def background(rows, columns, seed):
    y, x = np.mgrid[:rows, :columns]
    noise = np.random.Generator(np.random.PCG64(seed)).normal(0, 6, (rows, columns))  # noqa: TID251
    return np.clip(90 + 60 * np.sin(x / columns * 3) * np.cos(y / rows * 2) + noise, 0, 220)


def written(pixels, size):
    picture = Image.fromarray(pixels.astype("u1"))
    words = ImageDraw.Draw(picture)
    words.text((20, 20), "MUSTER^ADA 1970-01-02", fill=255, font=ImageFont.load_default(size))
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        *(((512, 512), size) for size in (10, 14, 20, 32, 48)),
        ((1024, 1024), 14),
        ((2048, 1760), 48),
    ],
)
def test_bright_text_is_found_and_plain_pictures_are_let_go(shape, size):
    plain = background(*shape, seed=size)
    assert not shows_text(plain)
    assert shows_text(written(plain, size))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
def test_what_conformed_before_conforms_after(every_file, tmp_path):
    """Radiographs and CT of the bundled files; the tool knows the type 1 and 2 attributes."""

    def errors(data: bytes) -> list[str]:
        path = tmp_path / "one.dcm"
        path.write_bytes(data)
        done = subprocess.run(
            ["dciodvfy", str(path)],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return [line for line in done.stderr.splitlines() if line.startswith("Error")]

    worse = {}
    for name, data, made in every_file:
        if errors(data) == [] and (after := errors(made.data)):
            worse[name] = after
    assert worse == {}
