"""What the demonstration sends: files of the packages pydicom and pydicom-data, none downloaded."""

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bedside_edge.demo.problem import DemoError

ANALYSED = "analysed"


class Route(StrEnum):
    """The way in that a delivery takes."""

    C_STORE = "C-STORE"
    STOW = "STOW-RS"
    HTTP = "HTTP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One file and what it is.

    Attributes:
        lossless: whether the pixels are those the detector gave; None where that is no question.
    """

    path: Path
    about: str
    lossless: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Files of one study that are sent together.

    Attributes:
        expects: `analysed`, or the code of the refusal that is the right answer.
    """

    key: str
    title: str
    route: Route
    samples: tuple[Sample, ...]
    expects: str


def deliveries(scratch: Path) -> list[Delivery]:
    """Return what to send, in order.

    Args:
        scratch: a folder for the two files that are made up from the others.

    Raises:
        DemoError: the package with the sample radiographs is not installed.
    """
    radiographs, bundled = _radiographs(), _folder("pydicom") / "data" / "test_files"
    return [
        Delivery(
            key="chest",
            title="Chest, CR, PA",
            route=Route.C_STORE,
            samples=_four_encodings(radiographs, "RG1"),
            expects=ANALYSED,
        ),
        Delivery(
            key="extremity",
            title="Extremity, CR",
            route=Route.C_STORE,
            samples=_four_encodings(radiographs, "RG3"),
            expects="wrong-body-part",
        ),
        Delivery(
            key="ct",
            title="CT slice",
            route=Route.C_STORE,
            samples=(Sample(path=bundled / "CT_small.dcm", about="uncompressed"),),
            expects="wrong-modality",
        ),
        Delivery(
            key="mr",
            title="MR slice",
            route=Route.STOW,
            samples=(Sample(path=bundled / "MR_small.dcm", about="uncompressed"),),
            expects="wrong-modality",
        ),
        Delivery(
            key="cut-off",
            title="Chest, cut off half-way",
            route=Route.STOW,
            samples=(_cut_off(radiographs, scratch),),
            expects="corrupt-pixels",
        ),
        Delivery(
            key="no-dicom",
            title="Text file named .dcm",
            route=Route.HTTP,
            samples=(_no_dicom(scratch),),
            expects="not-dicom",
        ),
    ]


def again(delivery: Delivery) -> Delivery:
    """Return the same files once more, by the other standard way."""
    return Delivery(
        key=f"{delivery.key}-again",
        title=f"{delivery.title}, again",
        route=Route.STOW,
        samples=delivery.samples,
        expects=delivery.expects,
    )


def _four_encodings(folder: Path, name: str) -> tuple[Sample, ...]:
    """The last two have one SOP Instance UID and equal pixels: one image in two encodings."""
    return (
        Sample(path=folder / f"{name}_UNCR.dcm", about="uncompressed", lossless=True),
        Sample(path=folder / f"{name}_J2KR.dcm", about="JPEG 2000 lossless", lossless=True),
        Sample(path=folder / f"{name}_UNCI.dcm", about="JPEG 2000 lossy, decoded", lossless=False),
        Sample(path=folder / f"{name}_J2KI.dcm", about="JPEG 2000 lossy", lossless=False),
    )


def _cut_off(folder: Path, scratch: Path) -> Sample:
    data = (folder / "RG1_UNCR.dcm").read_bytes()
    own = data.replace(b".20040826185059.5457", b".20040826185059.5458")  # same length, other study
    path = scratch / "RG1_cut_off.dcm"
    path.write_bytes(own[: len(own) // 2])
    return Sample(path=path, about="second half missing")


def _no_dicom(scratch: Path) -> Sample:
    path = scratch / "letter.dcm"
    path.write_text("Dear colleague, thank you for referring this patient.\n" * 20)
    return Sample(path=path, about="no DICOM inside")


def _radiographs() -> Path:
    if importlib.util.find_spec("data_store") is None:
        raise DemoError(
            "the sample radiographs are in the package pydicom-data, which is not installed.\n"
            "`make demo` installs it; by hand: pip install pydicom-data==1.0.0"
        )
    return _folder("data_store") / "data"


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise DemoError(f"the package {package} is not installed")
    return Path(places[0])
