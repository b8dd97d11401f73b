"""The bill of materials of a package, with what its checkpoint says of the training. No torch."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bedside_core.errors import InvalidInputError
from bedside_core.model_bom import model_bom
from bedside_models.package import read_package, training_facts


def read_training(checkpoint: Path) -> Mapping[str, Any]:
    """Return what a checkpoint file says of its training.

    Raises:
        InvalidInputError: it is no checkpoint.
    """
    try:
        with np.load(checkpoint, allow_pickle=False) as stored:
            found: Mapping[str, Any] = json.loads(stored["description"].tobytes())["training"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as cause:
        raise InvalidInputError("the checkpoint cannot be read") from cause
    return found


def package_bom(folder: Path, training: Mapping[str, Any]) -> bytes:
    """Return the bill of a package on disk, which is checked first.

    Raises:
        InvalidPackageError: the package is not whole.
        InvalidInputError: it holds no evaluation.
    """
    manifest = read_package(folder)
    try:
        evaluation = json.loads((folder / "evaluation.json").read_bytes())
    except (OSError, ValueError) as cause:
        raise InvalidInputError("the package holds no evaluation.json") from cause
    return model_bom(manifest, evaluation, training_facts(training))
