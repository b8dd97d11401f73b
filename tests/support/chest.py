"""The chest radiograph of pydicom-data as objects of many made-up patients."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.10.1559"


def pydicom_data(name: str) -> Path:
    """Return a file of the package pydicom-data; skips loudly without it."""
    data_store = pytest.importorskip(
        "data_store", reason="needs the package pydicom-data (in the dev extra)"
    )
    return next(Path(data_store.__file__).parent.rglob(name))


def chest(study: int, instance: int = 1, *, step: int = 4, shift: int = 0) -> FileDataset:
    """Return a small valid CR of a made-up patient.

    Args:
        study: number of patient and study.
        instance: number of the image in the study.
        step: every n-th pixel is kept.
        shift: added to every pixel, so that the pixels are others.
    """
    dataset = dcmread(pydicom_data("RG1_UNCR.dcm"))
    pixels = dataset.pixel_array[::step, ::step] + np.uint16(shift)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.PatientID = f"SECRET{study:05d}"
    dataset.PatientName = f"Hidden^Patient{study:05d}"
    dataset.StudyInstanceUID = f"{ROOT}.{study}"
    dataset.SeriesInstanceUID = f"{ROOT}.{study}.1"
    dataset.SOPInstanceUID = f"{ROOT}.{study}.1.{instance}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset
