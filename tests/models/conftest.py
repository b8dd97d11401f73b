"""The shipped package, and a made-up collection of images for the training side."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bedside_models.package import read_package
from bedside_models.phantom import chest

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "packages" / "cxr-opacity" / "1.0.0"
COLUMNS = (
    *("file", "patient", "label", "split", "age", "sex", "view", "follow_up"),
    *("original_width", "original_height", "pixel_spacing_x_mm", "pixel_spacing_y_mm"),
    *("pixel_spacing_512_x_mm", "pixel_spacing_512_y_mm"),
)


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The folder of the package in this repository."""
    return SHIPPED


@pytest.fixture(scope="session")
def manifest(shipped):
    """Its manifest, read and checked the way the box does."""
    return read_package(shipped)


@pytest.fixture(scope="session")
def collection(tmp_path_factory) -> Path:
    """A data folder of drawn chests: a cloudy patch is label 1; nobody was X-rayed for it."""
    root = tmp_path_factory.mktemp("collection")
    (root / "images").mkdir()
    lines = []
    for number in range(60):
        label, patient = number % 2, number // 2 + 1
        split = ("train", "train", "train", "val", "test")[patient % 5]
        plane = chest(
            128,
            128,
            opacity=0.4 * label,
            side=1.0 if number % 3 else -1.0,
            rib_phase=0.37 * number,
            scale=0.9 + 0.01 * (number % 20),
        )
        name = f"P{patient:04d}_{number % 2 + 1:02d}.png"
        Image.fromarray(np.rint(plane * 255).astype(np.uint8)).save(root / "images" / name)
        wide = number % 3 != 2
        width, height = (2500, 2048) if wide else (2000, 2000)
        view = "AP" if patient % 2 else "PA"
        sex = "F" if patient % 3 else "M"
        spacing = (0.168 * width / 512, 0.168 * height / 512)
        lines.append(
            (
                *(name, f"P{patient:04d}", label, split, 20 + patient, sex, view, number % 5),
                *(width, height, 0.168, 0.168, *spacing),
            )
        )
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(lines)
    return root
