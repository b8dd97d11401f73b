"""Instances for benchmarks: one template, any number of copies with UIDs of their own."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from bedside_edge.dicom.part10 import EXPLICIT_LE
from support import synthetic
from support.dicom_files import bundled_path

_serials = itertools.count(1)
_DIGITS = 10
SIZES = {"512x512 (525 KB)": (512, 512), "140x140 (39 KB)": (140, 140)}


def _uid(kind: int, serial: int) -> str:
    """UIDs of one length, so that a copy differs in nothing but these bytes."""
    return f"{synthetic.ROOT}77.{kind}.{10**_DIGITS + serial}"


@dataclass(frozen=True, slots=True)
class Template:
    """An encoded instance; `head` holds every UID, `tail` is shared by all copies."""

    head: bytes
    tail: bytes

    @property
    def size(self) -> int:
        """Bytes of a copy."""
        return len(self.head) + len(self.tail)

    def head_of(self, serial: int, study: int) -> bytes:
        """Return the head of copy `serial` in study `study`."""
        head = self.head
        for kind, number in ((1, study), (2, study), (3, serial)):
            head = head.replace(_uid(kind, 0).encode(), _uid(kind, number).encode())
        return head

    def copy(self) -> bytes:
        """Return a copy nobody has seen, in a study of its own."""
        serial = next(_serials)
        return self.head_of(serial, serial) + self.tail

    def write(self, folder: Path, count: int, studies: int = 1) -> list[list[Path]]:
        """Write `count` fresh copies, dealt into `studies` studies; return the files of each."""
        groups: list[list[Path]] = []
        for part in range(studies):
            study = next(_serials)
            paths = []
            for _ in range(part, count, studies):
                serial = next(_serials)
                path = folder / f"{serial}.dcm"
                path.write_bytes(self.head_of(serial, study) + self.tail)
                paths.append(path)
            groups.append(paths)
        return groups


def serials(count: int) -> int:
    """Reserve `count` serial numbers and return the first."""
    first = next(_serials)
    for _ in range(count - 1):
        next(_serials)
    return first


def ct_template(rows: int, columns: int) -> Template:
    """A CT slice of 16 bits: taken in like any other, and refused by a chest model at once."""
    made = synthetic.data_set(
        synthetic.picture(rows, columns, bits=12),
        SOPClassUID=synthetic.CT,
        Modality="CT",
        BodyPartExamined="HEAD",
        ViewPosition=None,
    )
    return _split(_encode(made))


def chest_template(side: int) -> Template:
    """The chest radiograph of pydicom-data, resampled to side x side x 16 bit, uncompressed."""
    source = pydicom.dcmread(bundled_path("RG1_UNCR"))
    pixels = source.pixel_array
    rows = np.linspace(0, pixels.shape[0] - 1, side).astype(int)
    columns = np.linspace(0, pixels.shape[1] - 1, side).astype(int)
    small = np.ascontiguousarray(pixels[np.ix_(rows, columns)].astype(np.uint16))
    made = synthetic.data_set(
        small,
        bits=int(source.BitsStored),
        PhotometricInterpretation=source.PhotometricInterpretation,
    )
    return _split(_encode(made))


def _encode(made: pydicom.Dataset) -> bytes:
    made.StudyInstanceUID, made.SeriesInstanceUID = _uid(1, 0), _uid(2, 0)
    made.SOPInstanceUID = _uid(3, 0)
    return synthetic.part10(made, EXPLICIT_LE)


def _split(data: bytes) -> Template:
    last = max(data.rfind(_uid(kind, 0).encode()) for kind in (1, 2, 3)) + 64
    return Template(data[:last], data[last:])


def bundled_chest() -> bytes:
    """The chest radiograph of pydicom-data as it came, 1955 x 1841."""
    return bundled_path("RG1_UNCR").read_bytes()
