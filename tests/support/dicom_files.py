"""The DICOM files that come inside the packages pydicom and pydicom-data; nothing is downloaded."""

from functools import cache
from pathlib import Path

import data_store
import pydicom

_NOT_DICOM = frozenset((".py", ".pyc", ".json", ".txt", ".zip", ".gz", ".icc", ".dump", ".md"))


@cache
def _found() -> dict[str, Path]:
    data = Path(pydicom.__file__).parent / "data"
    found: dict[str, Path] = {}
    for folder in (data / "test_files", data / "charset_files"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix not in _NOT_DICOM and path.name != "README":
                found[path.relative_to(folder).with_suffix("").as_posix()] = path
    for path in sorted(Path(data_store.__file__).parent.rglob("*.dcm")):
        found.setdefault(path.stem, path)
    return found


def bundled(name: str) -> bytes:
    """Return a file by its name without `.dcm`, e.g. `CT_small` or `RG1_UNCR`."""
    return _found()[name].read_bytes()


def bundled_path(name: str) -> Path:
    """Return where a bundled file lies."""
    return _found()[name]


def bundled_names() -> list[str]:
    """Return every bundled name, readable or broken."""
    return sorted(_found())
