"""The trained network as one .npz: arrays and a JSON description, no pickle.

A checkpoint lets `export`, `quantise` and `package` run again without the training images.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_models.network import Architecture, Network

_DESCRIPTION = "description"
_FORMAT = "bedside-checkpoint/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights by name (float32 or int64) and how they came about."""

    architecture: Architecture
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    training: Mapping[str, Any] = field(repr=False)

    def network(self) -> Network:
        """Return the network in inference mode."""
        network = Network(self.architecture)
        state = {name: torch.from_numpy(np.array(a)) for name, a in self.arrays.items()}
        try:
            network.load_state_dict(state)
        except RuntimeError as cause:
            raise InvalidInputError("checkpoint: weights do not fit the architecture") from cause
        network.eval()
        return network

    def digest(self) -> str:
        """Return sha256 over names, shapes and values, whatever the container did to them."""
        total = hashlib.sha256()
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name])
            total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            total.update(array.tobytes())
        return "sha256:" + total.hexdigest()


def of_network(network: Network, training: Mapping[str, Any]) -> Checkpoint:
    """Return the checkpoint of a trained network."""
    arrays = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    return Checkpoint(architecture=network.architecture, arrays=arrays, training=dict(training))


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write the checkpoint; an existing file is replaced only once the new one is complete."""
    description = {
        "format": _FORMAT,
        "architecture": checkpoint.architecture.describe(),
        "training": checkpoint.training,
    }
    text = np.frombuffer(json.dumps(description, sort_keys=True).encode(), np.uint8)
    part = path.with_suffix(".part.npz")
    named: dict[str, Any] = {_DESCRIPTION: text, **checkpoint.arrays}
    np.savez_compressed(part, **named)
    part.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; pickled objects in it are refused by numpy, never run.

    Raises:
        InvalidInputError: not a checkpoint of this format.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        description = json.loads(arrays.pop(_DESCRIPTION).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as cause:
        raise InvalidInputError(f"checkpoint cannot be read: {type(cause).__name__}") from cause
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise InvalidInputError(f"checkpoint is not in format {_FORMAT}")
    return Checkpoint(
        architecture=Architecture.parse(description["architecture"]),
        arrays=arrays,
        training=description["training"],
    )
