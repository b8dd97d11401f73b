"""Looks for patients in the clear: reads the state folder as a thief of the disk would."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import pydicom

_SHORTEST = 8  # bytes; shorter strings turn up in ciphertext by chance
_KEYWORDS = ("PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def search_plain(state: Path, sent: Iterable[Path]) -> dict[str, int]:
    """Return how often names and UIDs of the files sent stand in them, and in the state folder.

    The count in the files sent shows that the search finds what is there.
    """
    files = list(sent)
    needles = sorted({needle for path in files for needle in _needles(path)})
    kept = [path for path in state.rglob("*") if path.is_file()]
    return {
        "needles": len(needles),
        "in_sent": sum(_count(path, needles) for path in files),
        "in_state": sum(_count(path, needles) for path in kept),
        "files": len(kept),
        "bytes": sum(path.stat().st_size for path in kept),
    }


def _needles(path: Path) -> Iterable[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the samples bend the rules in many ways
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            return
        for keyword in _KEYWORDS:
            text = str(header.get(keyword, "")).encode()
            if len(text) >= _SHORTEST:
                yield text


def _count(path: Path, needles: Iterable[bytes]) -> int:
    data = path.read_bytes()
    return sum(data.count(needle) for needle in needles)
