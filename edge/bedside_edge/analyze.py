"""What `bedside-edge analyze` and `bedside-edge profile` do: one model, some files, no state."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bedside_core.errors import BedsideError, InvalidInputError, NotDicomError
from bedside_core.result import NOTICE, caption
from bedside_core.routing import Image
from bedside_edge.config import Model as ModelSettings
from bedside_edge.dicom.header import read_header
from bedside_edge.engine.probe import probe
from bedside_edge.services.analysis import AnalysisService
from bedside_edge.services.routing import image_of
from bedside_edge.wiring import analysis_service, load_model

_REFUSED = 3
_LARGEST = 2 << 30  # bytes


def analyze_files(
    files: Sequence[Path], settings: ModelSettings, overlay: Path | None
) -> list[dict[str, Any]]:
    """Return one row per file: `file`, `exit_code` and `result` or `error`.

    Raises:
        BedsideError: the model cannot be loaded; single files never raise.
    """
    loaded = load_model(settings)
    service = analysis_service(loaded)
    try:
        places = _overlay_paths(overlay, files)
        return [_row(service, path, place) for path, place in zip(files, places, strict=True)]
    finally:
        loaded.model.engine.close()


def images_of(files: Sequence[Path], source: str) -> list[Image]:
    """Return what routing rules see of DICOM files.

    Raises:
        InvalidInputError: one cannot be read as DICOM; there is nothing to try.
    """
    if not files:
        raise InvalidInputError("no files in there")
    return [image_of(read_header(_read(path)), source) for path in files]


def describe_profile(settings: ModelSettings) -> dict[str, Any]:
    """Return this board, the profile in force and the self-test, in plain values."""
    board = probe()
    loaded = load_model(settings)
    try:
        return {
            "board": f"{board.arch} {board.level} {board.cpu_vendor}, {board.cores} CPUs, "
            f"{board.memory_mib} MiB",
            "profile": loaded.profile.label,
            "profile_digest": loaded.profile.digest,
            "passed_over": [f"{label}: {why}" for label, why in loaded.passed_over],
            "engine": dataclasses.asdict(loaded.model.engine.info),
            "plan": dataclasses.asdict(loaded.opened.plan),
            "engines_refused": [f"{name}: {why}" for name, why in loaded.opened.refused],
            "package": loaded.package.label,
            "package_digest": loaded.package.digest,
            "self_test": dataclasses.asdict(loaded.opened.test),
        }
    finally:
        loaded.model.engine.close()


def _overlay_paths(overlay: Path | None, files: Sequence[Path]) -> list[Path | None]:
    """Return where each file's overlay goes: equal names of two folders are two patients."""
    if overlay is None or len(files) == 1:
        return [overlay] * len(files)
    stems, taken = {path.stem for path in files}, set[str]()
    places: list[Path | None] = []
    for path in files:
        name, number = path.stem, 1
        while name in taken or (number > 1 and name in stems):
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name)
        places.append(overlay / f"{name}.png")
    return places


def _row(service: AnalysisService, path: Path, overlay: Path | None) -> dict[str, Any]:
    row: dict[str, Any] = {"file": str(path), "exit_code": 0}
    try:
        data = _read(path)
        result = service.describe_object(data)
        row["result"] = result
        if result["value"] is None:
            row["exit_code"] = _REFUSED
        elif overlay is not None:
            _write(overlay, service.overlay(data, result["images"][0], caption(result)))
            row["overlay"] = str(overlay)
    except BedsideError as error:
        row |= {
            "exit_code": error.exit_code,
            "error": {"code": error.code, "detail": str(error)},
            "notice": NOTICE,
        }
    return row


def _write(path: Path, picture: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    except OSError as cause:
        raise InvalidInputError(f"the overlay cannot be written: {cause.strerror}") from cause


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise NotDicomError("larger than 2 GiB")
        return path.read_bytes()
    except OSError as cause:
        raise InvalidInputError(f"cannot be read: {cause.strerror}") from cause
