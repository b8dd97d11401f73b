"""From the sums of training rounds to a head, and the public projection such rounds begin with."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError, InvalidPackageError
from bedside_core.findings import Calibration, Rule
from bedside_core.manifest import MANIFEST_NAME, Manifest, parse_manifest
from bedside_core.trained_head import HeadRound, TrainedHead
from bedside_sync.hub.plan import DELTA, round_epsilon
from bedside_sync.hub.sums import OpenedSum
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.manifest import UNITS, round_cost
from bedside_sync.tasks.calibrated import calibrated
from bedside_sync.tasks.head import solve_head
from bedside_sync.tasks.train import TrainSettings, folded, make_settings

CHOSEN_BY = (
    "Probability and threshold follow from the same noisy sums as the weights, at no further "
    "privacy, taking each class as normal with one spread; the threshold lies where both errors "
    "are equal, the undetermined band where one in ten of a class is expected"
)
_WITHIN = 2.0  # root mean squares of the projected features that have norm 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPackage:
    """What a round needs to know of a model package."""

    manifest: Manifest
    digest: str  # hexadecimal SHA-256 of its manifest, as rounds name it


def read_package(folder: Path) -> ReadPackage:
    """Return a package's manifest and digest; InvalidPackageError."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InvalidPackageError("the folder holds no model package")
    raw = path.read_bytes()
    return ReadPackage(manifest=parse_manifest(raw), digest=hashlib.sha256(raw).hexdigest())


def settings_for(folder: Path, reduced: int) -> tuple[ReadPackage, TrainSettings]:
    """Return the settings of a training round on a package's features.

    The projection is onto the main directions of the features of the package's own training
    images, which it carries for its input check: public, and the same for every site.

    Args:
        folder: the package.
        reduced: directions to keep; fewer bear less noise.

    Raises:
        InvalidInputError: more directions than features.
        InvalidPackageError: not a package, or its statistics are damaged.
    """
    package = read_package(folder)
    entry, count = package.manifest.outlier, package.manifest.outlier.features
    if not 1 <= reduced <= count:
        raise InvalidInputError(f"the package has {count} features to choose directions from")
    mean = _floats(folder, package.manifest, entry.mean, count)
    root = _floats(folder, package.manifest, entry.precision_chol, count * count)
    square = root.reshape(count, count)
    spread, directions = np.linalg.eigh(np.linalg.inv(square @ square.T))
    kept = directions[:, ::-1][:, :reduced]
    size = _WITHIN * float(np.sqrt(spread[::-1][:reduced].sum()))
    finding = package.manifest.finding.code
    return package, make_settings(mean, (kept / size).T, (finding,))


def _floats(folder: Path, manifest: Manifest, path: str, count: int) -> NDArray[np.float64]:
    data = (folder / path).read_bytes()
    listed = manifest.files[path]
    if (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)) != (listed.sha256, 4 * count):
        raise InvalidPackageError(f"{path} is not the file the manifest describes")
    return np.frombuffer(data, "<f4").astype(np.float64)


def trained_head(nights: Sequence[OpenedSum], finding: str = "") -> TrainedHead:
    """Return the head that one or several nights' sums hold.

    Args:
        nights: opened sums of rounds with one package and one settings file.
        finding: which of the settings' findings; may be empty when there is one.

    Raises:
        InvalidInputError: a round is no training, or two rounds do not belong together.
        RoundRefusedError: the noise is too much for a head.
    """
    first = nights[0]
    alike = {(one.manifest.task, one.manifest.model, one.manifest.settings) for one in nights}
    if len(alike) != 1 or len({one.manifest.round for one in nights}) != len(nights):
        raise InvalidInputError("nights of a head are different rounds of one model and settings")
    if first.manifest.task != "train" or not first.settings:
        raise InvalidInputError("a head comes from rounds of the task train")
    settings = decode(TrainSettings, first.settings)
    wanted = finding or (settings.findings[0] if len(settings.findings) == 1 else "")
    if wanted not in settings.findings:
        raise InvalidInputError(f"name one of the findings: {', '.join(settings.findings)}")
    column = settings.findings.index(wanted)
    totals = [one.total for one in nights]
    variance = sum(one.variance for one in nights) / len(nights)
    head = solve_head(settings.task, totals, variance, constant=settings.constant)
    found = calibrated(
        settings.task,
        totals,
        variance,
        head,
        constant=settings.constant,
        finding=column,
    )
    weights, offset = folded(settings, head)
    return TrainedHead(
        model=first.manifest.model,
        finding=wanted,
        weights=tuple(weights[:, column].tolist()),
        offset=float(offset[column]),
        calibration=Calibration(scale=round(found.scale, 6), offset=round(found.offset, 6)),
        rule=Rule(
            threshold=round(found.threshold, 6),
            low=round(found.low, 6),
            high=round(found.high, 6),
        ),
        chosen_by=CHOSEN_BY,
        patients=round(found.patients, 1),
        positives=round(found.positives, 1),
        ridge=round(head.ridge, 6),
        rounds=tuple(_round(one) for one in nights),
    )


def _round(one: OpenedSum) -> HeadRound:
    return HeadRound(
        round=one.manifest.round,
        manifest=one.manifest.hash.hex(),
        record=one.record.body.hash.hex(),
        boxes=one.boxes,
        organisations=len(one.organisations),
        sigma=round(one.variance**0.5, 3),
        rho=round_cost(one.manifest) / UNITS,
        epsilon=round(round_epsilon(one.manifest) + 5e-7, 6),  # never too small
        delta=DELTA,
    )
