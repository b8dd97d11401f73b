"""The training images: reading them through the box's own pixel pipeline, splits, strata, weights.

`bedside-models` expects a folder as described in docs/models.md: `labels.csv` and `images/`. It
never writes there, and nothing it writes elsewhere contains an image or a row of the table.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bedside_core.errors import InvalidInputError
from bedside_core.imaging import Frame, Intensity, PipelineSpec, Window, placed_size, prepare
from bedside_models.draws import Draws

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
COMMON_SIZE = frozenset({2500, 2048})  # 2500 x 2048 or 2048 x 2500: most of the collection
AGE_BANDS = (("<18", 0, 18), ("18-39", 18, 40), ("40-64", 40, 65), ("65+", 65, 200))
_LARGEST_WEIGHT = 3.0  # no image may speak for many
FULL_RANGE = Window(centre=127.5, width=255.0, function="LINEAR_EXACT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of labels.csv. Spacing is (row, column) in mm at the stored 512 px."""

    file: str
    patient: int
    label: int
    split: Split
    age: int
    sex: str
    view: str
    follow_up: int
    original: tuple[int, int]
    spacing: tuple[float, float]
    original_spacing: float

    @property
    def common_size(self) -> bool:
        """True for the commonest original size, in either orientation."""
        return frozenset(self.original) == COMMON_SIZE

    @property
    def stratum(self) -> str:
        """View within the commonest size, or 'other': the label is balanced inside each."""
        return self.view if self.common_size else "other"

    @property
    def age_band(self) -> str:
        """The card's age band."""
        return next(name for name, low, high in AGE_BANDS if low <= self.age < high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The whole table with what identifies it: the digest covers labels and every image."""

    root: Path
    rows: tuple[Row, ...]
    digest: str

    def indices(self, *splits: Split) -> NDArray[np.int64]:
        """Return the rows of these splits."""
        return np.array([i for i, row in enumerate(self.rows) if row.split in splits], np.int64)

    def labels(self) -> NDArray[np.int64]:
        """Return (rows,) 0 or 1."""
        return np.array([row.label for row in self.rows], np.int64)

    def patients(self) -> NDArray[np.int64]:
        """Return (rows,) pseudonym numbers, for drawing by patient only."""
        return np.array([row.patient for row in self.rows], np.int64)


def load_dataset(root: Path) -> Dataset:
    """Read labels.csv and hash the images.

    Raises:
        InvalidInputError: a column or an image is missing, or a patient is in two splits.
    """
    table = root / "labels.csv"
    if not table.is_file():
        raise InvalidInputError("the data folder has no labels.csv")
    digest = hashlib.sha256(table.read_bytes())
    try:
        rows = tuple(_row(line) for line in csv.DictReader(table.read_text("utf-8").splitlines()))
    except (KeyError, ValueError) as cause:
        raise InvalidInputError(f"labels.csv: {type(cause).__name__}: {cause}") from cause
    for row in rows:
        path = root / "images" / row.file
        if not path.is_file():
            raise InvalidInputError("labels.csv names an image that is not there")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    if not rows:
        raise InvalidInputError("labels.csv has no rows")
    check_disjoint(rows)
    return Dataset(root=root, rows=rows, digest="sha256:" + digest.hexdigest())


def check_disjoint(rows: tuple[Row, ...]) -> None:
    """Refuse a table in which one patient is in two splits.

    Raises:
        InvalidInputError: one is; every figure computed from it would be too good.
    """
    home: dict[int, str] = {}
    for row in rows:
        if home.setdefault(row.patient, row.split) != row.split:
            raise InvalidInputError("a patient is in two splits")


def _row(line: dict[str, str]) -> Row:
    split = line["split"]
    if split not in SPLITS or line["label"] not in ("0", "1") or line["view"] not in ("AP", "PA"):
        raise ValueError("unknown split, label or view")
    if "/" in line["file"] or line["file"].startswith("."):
        raise ValueError("image name with a path in it")
    return Row(
        file=line["file"],
        patient=int(line["patient"].lstrip("P")),
        label=int(line["label"]),
        split=split,
        age=int(line["age"]),
        sex=line["sex"],
        view=line["view"],
        follow_up=int(line["follow_up"]),
        original=(int(line["original_width"]), int(line["original_height"])),
        spacing=(float(line["pixel_spacing_512_y_mm"]), float(line["pixel_spacing_512_x_mm"])),
        original_spacing=float(line["pixel_spacing_x_mm"]),
    )


def frame_of(dataset: Dataset, row: Row) -> Frame:
    """Return the stored image as the box would see it: 8 bit, full window, true spacing."""
    with Image.open(dataset.root / "images" / row.file) as image:
        pixels = np.asarray(image.convert("L"))
    return Frame(pixels=pixels, window=FULL_RANGE, spacing=row.spacing)


def tensors(
    dataset: Dataset, index: NDArray[np.int64], spec: PipelineSpec
) -> tuple[NDArray[np.float32], list[Intensity]]:
    """Return (n, 1, size, size) tensors made by the box's pipeline, and their grey-scale use."""
    out = np.empty((index.size, 1, spec.size, spec.size), np.float32)
    seen = []
    for position, row in enumerate(index.tolist()):
        prepared = prepare(frame_of(dataset, dataset.rows[row]), spec)
        out[position] = prepared.tensor[0]
        seen.append(prepared.intensity)
    return out, seen


def canvases(
    dataset: Dataset, index: NDArray[np.int64], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return what augmentation starts from: images on a square canvas, before normalisation.

    Returns:
        (n, size, size) uint8, the image centred with true proportions, and (n, 2) its height
        and width there. `size` is larger than the model's input so that zooming in stays sharp.
    """
    spec = PipelineSpec(size=size)
    out = np.zeros((index.size, size, size), np.uint8)
    extent = np.empty((index.size, 2), np.int64)
    for position, row in enumerate(index.tolist()):
        frame = frame_of(dataset, dataset.rows[row])
        prepared = prepare(frame, spec)
        height, width = placed_size(frame.pixels.shape, frame.spacing, size)
        top, left = prepared.placement.top, prepared.placement.left
        out[position, top : top + height, left : left + width] = np.rint(prepared.shown * 255)
        extent[position] = height, width
    return out, extent


def sample_weights(
    dataset: Dataset, index: NDArray[np.int64], other_weight: float, balance: float = 1.0
) -> NDArray[np.float32]:
    """Return (n,) loss weights with mean 1 that take view, equipment and repeats out of the label.

    Inside each stratum (AP and PA of the commonest size, all other sizes) both labels weigh the
    same, so knowing the stratum says nothing about the label. The 'other' stratum holds hardly
    any negative; it gets `other_weight` of its share. A patient with k images counts sqrt(k).
    `balance` is an exponent on the result: 1 is all of this, 0 none of it.
    """
    weights = np.ones(index.size)
    rows = [dataset.rows[i] for i in index.tolist()]
    groups: dict[tuple[str, int], list[int]] = {}
    for position, row in enumerate(rows):
        groups.setdefault((row.stratum, row.label), []).append(position)
    for (stratum, _), members in groups.items():
        share = sum(len(groups.get((stratum, label), [])) for label in (0, 1)) / 2
        share *= other_weight if stratum == "other" else 1.0
        weights[members] = min(share / len(members), _LARGEST_WEIGHT)
    images = Counter(row.patient for row in rows)
    weights /= np.sqrt([images[row.patient] for row in rows])
    weights **= balance
    return np.asarray(weights / weights.mean(), np.float32)


def patient_folds(
    dataset: Dataset,
    index: NDArray[np.int64],
    folds: int,
    generator: Draws,
) -> NDArray[np.int64]:
    """Return (n,) fold numbers 0..folds-1; all images of a patient share one."""
    patients = dataset.patients()[index]
    unique = np.unique(patients)
    number = dict(zip(unique.tolist(), generator.permutation(unique.size) % folds, strict=True))
    return np.array([number[p] for p in patients.tolist()], np.int64)


def data_card(dataset: Dataset) -> dict[str, Any]:
    """Return counts by split, label, view, sex and size: sums only, no row of the table."""
    card: dict[str, Any] = {"digest": dataset.digest, "splits": {}}
    for split in SPLITS:
        rows = [row for row in dataset.rows if row.split == split]
        card["splits"][split] = {
            "images": len(rows),
            "patients": len({row.patient for row in rows}),
            "positive": sum(row.label for row in rows),
            "by_view_and_label": _counts(f"{r.view} {r.label}" for r in rows),
            "by_stratum_and_label": _counts(f"{r.stratum} {r.label}" for r in rows),
            "by_sex": _counts(r.sex for r in rows),
            "by_age_band": _counts(r.age_band for r in rows),
        }
    return card


def _counts(keys: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(keys).items()))
