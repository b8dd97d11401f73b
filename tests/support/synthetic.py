"""Made-up images and data sets. The one place of the tests with random numbers."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from bedside_core.statistics.rows import StudyRow

CR = "1.2.840.10008.5.1.4.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.8.498."


def generator(seed: int) -> np.random.Generator:
    """A numpy generator that gives the same numbers everywhere."""
    return np.random.default_rng(seed)


def noise(rows: int, columns: int, *, seed: int = 1, bits: int = 12) -> NDArray[np.uint16]:
    """Random stored values of `bits` bits."""
    return generator(seed).integers(0, 1 << bits, (rows, columns), dtype=np.uint16)


def picture(rows: int, columns: int, *, seed: int = 1, bits: int = 12) -> NDArray[np.uint16]:
    """A smooth asymmetric picture with some noise: compresses as real images do."""
    down, across = np.mgrid[0:rows, 0:columns]
    smooth = np.sin(down / rows * 3.0) + 0.6 * np.cos(across / columns * 7.0) + across / columns
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    noisy = smooth + generator(seed).normal(0.0, 0.01, smooth.shape)
    return np.clip(noisy * ((1 << bits) - 1), 0, (1 << bits) - 1).astype(np.uint16)


def bytes_of(count: int, *, seed: int = 1) -> bytes:
    """Random bytes."""
    return generator(seed).bytes(count)


def uid(*parts: int) -> str:
    """A UID under a test root."""
    return ROOT + ".".join(str(part) for part in parts)


def data_set(
    pixels: NDArray[Any] | None = None,
    *,
    number: int = 1,
    study: int = 1,
    bits: int = 12,
    **values: Any,
) -> Dataset:
    """A grey CR instance; keyword arguments replace or (None) remove attributes by keyword."""
    if pixels is None:
        pixels = picture(64, 48, seed=number, bits=bits)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = CR, uid(study, 1, number)
    made.StudyInstanceUID, made.SeriesInstanceUID = uid(study), uid(study, 1)
    made.PatientID, made.PatientName = f"T{study}", "Test^Case"
    made.Modality, made.BodyPartExamined, made.ViewPosition = "CR", "CHEST", "PA"
    made.ImageType = ["ORIGINAL", "PRIMARY"]
    made.Rows, made.Columns = pixels.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        made.NumberOfFrames = pixels.shape[0]
    made.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    made["PixelData"].VR = "OW"
    for keyword, value in values.items():
        if value is None:
            del made[keyword]
        else:
            setattr(made, keyword, value)
    return made


def part10(made: Dataset, transfer_syntax: str = "") -> bytes:
    """A DICOM file of a data set; a syntax given here must be that of its pixel data."""
    meta = made.file_meta
    meta.TransferSyntaxUID = transfer_syntax or meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = made.get("SOPClassUID", CR)
    meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", uid(9))
    buffer = BytesIO()
    dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


DEVICES = tuple(f"device-{number}" for number in range(12))
AGE_BANDS = ("0-17", "18-39", "40-64", "65+")


def hospital(patients: int = 10_000, seed: int = 20240) -> list[StudyRow]:
    """Studies of a made-up hospital; the defaults are the set other libraries were measured on.

    30,762 studies of 10,000 patients on 12 devices, four fifths on the patient's home device, 12 %
    of the patients ill; 3,585 scores above one half, mean score .254.
    """
    draw = np.random.default_rng(seed)
    studies = np.minimum(draw.geometric(0.33, patients), 20)
    patient = np.repeat(np.arange(patients), studies)
    count = len(patient)
    minutes = np.clip(draw.lognormal(3.6, 0.8, count), 0, 599)
    ill = draw.random(patients) < 0.12
    home = draw.integers(0, 12, patients)
    device = np.where(draw.random(count) < 0.8, home[patient], draw.integers(0, 12, count))
    score = np.where(ill[patient], draw.beta(6, 3, count), draw.beta(2, 8, count))
    sex, age = draw.integers(0, 2, patients), draw.integers(0, 4, patients)
    grade = draw.integers(1, 6, patients)
    arrival = draw.permutation(count)
    return [
        StudyRow(
            patient=f"patient-{patient[n]}",
            arrival=int(arrival[n]),
            sex=("female", "male")[sex[patient[n]]],
            age_band=AGE_BANDS[age[patient[n]]],
            device=DEVICES[device[n]],
            decision="present" if score[n] > 0.5 else "absent",
            label="positive" if ill[patient[n]] else "negative",
            score=float(score[n]),
            minutes=float(minutes[n]),
            findings=("opacity",) if ill[patient[n]] else (),
            grade=int(grade[patient[n]]),
        )
        for n in range(count)
    ]
