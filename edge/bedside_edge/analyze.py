"""What `bedside-edge analyze` and `bedside-edge profile` do: one model, some files, no state."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bedside_core.errors import BedsideError, InvalidInputError, NotDicomError
from bedside_core.result import NOTICE, caption
from bedside_edge.config import Model as ModelSettings
from bedside_edge.engine.probe import probe
from bedside_edge.services.analysis import AnalysisService
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
        return [_row(service, path, _overlay_path(overlay, path, len(files))) for path in files]
    finally:
        loaded.model.engine.close()


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


def _overlay_path(overlay: Path | None, path: Path, count: int) -> Path | None:
    if overlay is None or count == 1:
        return overlay
    return overlay / f"{path.stem}.png"


def _row(service: AnalysisService, path: Path, overlay: Path | None) -> dict[str, Any]:
    row: dict[str, Any] = {"file": str(path), "exit_code": 0}
    try:
        data = _read(path)
        result = service.describe_object(data)
        row["result"] = result
        if result["value"] is None:
            row["exit_code"] = _REFUSED
        elif overlay is not None:
            overlay.parent.mkdir(parents=True, exist_ok=True)
            picture = service.overlay(data, result["images"][0], caption(result))
            overlay.write_bytes(picture)
            row["overlay"] = str(overlay)
    except BedsideError as error:
        row |= {
            "exit_code": error.exit_code,
            "error": {"code": error.code, "detail": str(error)},
            "notice": NOTICE,
        }
    return row


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise NotDicomError("larger than 2 GiB")
        return path.read_bytes()
    except OSError as cause:
        raise InvalidInputError(f"cannot be read: {cause.strerror}") from cause
