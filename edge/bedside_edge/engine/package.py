"""Model packages on disk: every byte is hashed, and only bytes that were hashed are used.

Nothing is handed to a runtime by path. A file could change between check and use, and OpenVINO's
cache takes an old model for a new one of equal size and time.
"""

import hashlib
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidPackageError
from bedside_core.findings import Familiar
from bedside_core.golden import GoldenSet, parse_golden
from bedside_core.imaging import PipelineSpec
from bedside_core.manifest import MANIFEST_NAME, Manifest, check_files, parse_manifest

_MANIFEST_LIMIT = 4 << 20  # bytes
_FILES_LIMIT = 1000
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package whose every file was compared with its manifest.

    Attributes:
        digest: sha256 of the manifest's bytes; it names all the other files by theirs.
        spec: the pixel pipeline the model was made for.
    """

    folder: Path
    manifest: Manifest
    digest: str
    spec: PipelineSpec
    familiar: Familiar = field(repr=False)
    golden: GoldenSet = field(repr=False)

    @property
    def label(self) -> str:
        """Return `name/version`, as results and logs show it."""
        return f"{self.manifest.name}/{self.manifest.version}"

    def read(self, path: str) -> bytes:
        """Return a file's bytes, hashed again as they were read.

        Raises:
            InvalidPackageError: not listed, gone, or changed since the package was opened.
        """
        return _verified(self.folder, self.manifest, path)


def open_package(folder: Path) -> Package:
    """Read, hash and check a package folder.

    Raises:
        InvalidPackageError: no readable manifest; a file missing, changed, not listed, or not a
            plain file (a link could lead out of what was signed); inconsistent contents.
    """
    folder = folder.absolute()
    raw = _read(folder, MANIFEST_NAME, _MANIFEST_LIMIT)
    manifest = parse_manifest(raw)
    found = {path: _hash(folder, path) for path in _walk(folder) if path != MANIFEST_NAME}
    check_files(manifest, found)
    return Package(
        folder=folder,
        manifest=manifest,
        digest=_digest(raw),
        spec=manifest.pipeline.spec(),
        familiar=_familiar(folder, manifest),
        golden=_golden(folder, manifest),
    )


def _verified(folder: Path, manifest: Manifest, path: str) -> bytes:
    entry = manifest.files.get(path)
    if entry is None:
        raise InvalidPackageError(f"the manifest lists no {path}")
    data = _read(folder, path, entry.size)
    if (_digest(data), len(data)) != (entry.sha256, entry.size):
        raise InvalidPackageError(f"{path} is not the file the manifest describes")
    return data


def _golden(folder: Path, manifest: Manifest) -> GoldenSet:
    golden = parse_golden(_verified(folder, manifest, manifest.golden.path), manifest.files)
    if len(golden.cases) != manifest.golden.cases:
        raise InvalidPackageError("the number of golden cases is not the manifest's")
    return golden


def _familiar(folder: Path, manifest: Manifest) -> Familiar:
    entry, count = manifest.outlier, manifest.outlier.features

    def floats(path: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        data = _verified(folder, manifest, path)
        if len(data) != 4 * math.prod(shape):
            raise InvalidPackageError(f"{path} does not hold {shape} float32 values")
        values = np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)
        if not np.isfinite(values).all():
            raise InvalidPackageError(f"{path} holds values that are not finite")
        return values

    if count != manifest.io.features.shape[-1]:
        raise InvalidPackageError("outlier statistics are not of the model's features")
    return Familiar(
        mean=floats(entry.mean, (count,)),
        precision_chol=floats(entry.precision_chol, (count, count)),
        cutoff=entry.cutoff,
        intensity={str(name): span for name, span in entry.intensity.items()},
    )


def _walk(folder: Path) -> Iterator[str]:
    """Yield every file's path relative to the folder, with slashes; refuse anything else."""
    count = 0
    for where, folders, files in os.walk(folder, onerror=_unreadable):
        for name in folders + files:
            try:
                mode = (Path(where) / name).lstat().st_mode
            except OSError as cause:
                raise InvalidPackageError(f"{name} cannot be read") from cause
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise InvalidPackageError("a package holds plain files and folders only")
        for name in files:
            count += 1
            if count > _FILES_LIMIT:
                raise InvalidPackageError(f"a package holds at most {_FILES_LIMIT} files")
            yield (Path(where) / name).relative_to(folder).as_posix()


def _unreadable(cause: OSError) -> None:
    raise InvalidPackageError("the package folder cannot be read") from cause


def _descriptor(folder: Path, path: str) -> int:
    """Open a file below the folder without following a link in any step of the path below it."""
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        parts = path.split("/")
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            try:
                step = os.open(part, flags | (0 if last else os.O_DIRECTORY), dir_fd=at)
            finally:
                os.close(at)
            at = step
    except OSError as cause:
        raise InvalidPackageError(f"{path} cannot be read") from cause
    if not stat.S_ISREG(os.fstat(at).st_mode):
        os.close(at)
        raise InvalidPackageError(f"{path} is not a plain file")
    return at


def _read(folder: Path, path: str, limit: int) -> bytes:
    with os.fdopen(_descriptor(folder, path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidPackageError(f"{path} is larger than {limit} bytes")
    return data


def _hash(folder: Path, path: str) -> tuple[str, int]:
    total, size = hashlib.sha256(), 0
    with os.fdopen(_descriptor(folder, path), "rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
            size += len(chunk)
    return "sha256:" + total.hexdigest(), size


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
