"""Is this an image the model was made for? What the header alone can answer.

Rules run in a fixed order, the most telling reason first, and all of them are listed in the
result: a reader sees what was looked at, not only what failed. A blank attribute never fails:
many senders leave body part and view empty, and pixels are checked later. Pixel-based checks
are in `findings`.

Sources: DICOM PS3.3 C.7.6.1.1.2 (Image Type), C.8.11.1 (Presentation Intent Type),
PS3.16 CID 4010 (views); PS3.4 B.5 (SOP Classes).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from bedside_core.errors import (
    DerivedImageError,
    ForProcessingError,
    RefusedError,
    UnsupportedPixelsError,
    WrongBodyPartError,
    WrongModalityError,
    WrongViewError,
)
from bedside_core.findings import Check
from bedside_core.manifest import Accepts

_DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_MODALITY_OF_CLASS = {  # for senders that leave Modality empty
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    _DX_FOR_PROCESSING: "DX",
    "1.2.840.10008.5.1.4.1.1.1.2": "MG",
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.6.1": "US",
}
_FOR_PROCESSING_CLASSES = frozenset(
    (
        _DX_FOR_PROCESSING,
        "1.2.840.10008.5.1.4.1.1.1.2.1",
        "1.2.840.10008.5.1.4.1.1.1.3.1",
    )
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Values after the second of Image Type that mark pictures about an examination, not of a patient.
_NOT_AN_ACQUISITION = frozenset(
    (
        "LOCALIZER",
        "SCOUT",
        "TOPOGRAM",
        "DOSE_INFO",
        "DOSE INFO",
        "SCREEN SAVE",
        "SCREENSHOT",
        "REPORT",
    )
)


class Described(Protocol):
    """The header values the rules read; empty when the sender left them out."""

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID (0008,0016)."""
        ...

    @property
    def modality(self) -> str:
        """Modality (0008,0060)."""
        ...

    @property
    def body_part(self) -> str:
        """Body Part Examined (0018,0015)."""
        ...

    @property
    def view(self) -> str:
        """View Position (0018,5101)."""
        ...

    @property
    def image_type(self) -> tuple[str, ...]:
        """Image Type (0008,0008), its values in order."""
        ...

    @property
    def presentation_intent(self) -> str:
        """Presentation Intent Type (0008,0068)."""
        ...

    @property
    def rows(self) -> int:
        """Rows (0028,0010)."""
        ...

    @property
    def columns(self) -> int:
        """Columns (0028,0011)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """All header checks in order, and the refusal the first failed one leads to."""

    checks: tuple[Check, ...]
    refusal: RefusedError | None


_Line = tuple[Check, type[RefusedError]]


def judge_header(image: Described, accepts: Accepts) -> Judgement:
    """Hold the header against what the model was made for."""
    lines: tuple[_Line, ...] = (
        _modality(image, accepts),
        _intent(image),
        _image_type(image),
        _body_part(image, accepts),
        _view(image, accepts),
        _size(image, accepts),
    )
    failed = next(((check, error) for check, error in lines if not check.passed), None)
    return Judgement(
        checks=tuple(check for check, _ in lines),
        refusal=None if failed is None else failed[1](failed[0].reason),
    )


def check_header(image: Described, accepts: Accepts) -> tuple[Check, ...]:
    """Return the checks of an image the model may see.

    Raises:
        RefusedError: WrongModality, ForProcessing, DerivedImage, WrongBodyPart, WrongView or
            UnsupportedPixels (too small), the most telling one.
    """
    judgement = judge_header(image, accepts)
    if judgement.refusal is not None:
        raise judgement.refusal
    return judgement.checks


def _modality(image: Described, accepts: Accepts) -> _Line:
    named = modality_of(image)
    passed = plain(named) in _plain_all(accepts.modalities)
    if passed:
        reason = f"modality {shown(named)}"
    elif named:
        reason = f"modality {shown(named)}, the model reads {_listed(accepts.modalities)}"
    else:
        reason = f"no modality given, the model reads {_listed(accepts.modalities)}"
    return Check(name="modality", passed=passed, reason=reason), WrongModalityError


def _intent(image: Described) -> _Line:
    raw = (
        plain(image.presentation_intent) == "FORPROCESSING"
        or image.sop_class_uid in _FOR_PROCESSING_CLASSES
    )
    reason = "raw detector values, FOR PROCESSING" if raw else "not FOR PROCESSING"
    return Check(name="presentation-intent", passed=not raw, reason=reason), ForProcessingError


def _image_type(image: Described) -> _Line:
    values = tuple(value.upper() for value in image.image_type)
    reason, passed = "an acquisition", False
    if image.sop_class_uid.startswith(_SECONDARY_CAPTURE):
        reason = "a secondary capture, not an acquisition"
    elif len(values) > 1 and values[1] == "SECONDARY":
        reason = "a secondary image, not an acquisition"
    elif other := [value for value in values[2:] if value in _NOT_AN_ACQUISITION]:
        reason = f"image type {other[0].lower()}, not an acquisition"
    else:
        passed = True
        if not values:
            reason = "no image type given"
    return Check(name="image-type", passed=passed, reason=reason), DerivedImageError


def _body_part(image: Described, accepts: Accepts) -> _Line:
    if not plain(image.body_part):
        reason, passed = "no body part given; the pixels decide", True
    elif not accepts.body_parts or plain(image.body_part) in _plain_all(accepts.body_parts):
        reason, passed = f"body part {shown(image.body_part)}", True
    else:
        listed = _listed(accepts.body_parts)
        reason, passed = f"body part {shown(image.body_part)}, the model reads {listed}", False
    return Check(name="body-part", passed=passed, reason=reason), WrongBodyPartError


def _view(image: Described, accepts: Accepts) -> _Line:
    if not plain(image.view):
        reason, passed = "no view given; the pixels decide", True
    elif not accepts.views or plain(image.view) in _plain_all(accepts.views):
        reason, passed = f"view {shown(image.view)}", True
    else:
        listed = _listed(accepts.views)
        reason, passed = f"view {shown(image.view)}, the model reads {listed}", False
    return Check(name="view", passed=passed, reason=reason), WrongViewError


def _size(image: Described, accepts: Accepts) -> _Line:
    passed = min(image.rows, image.columns) >= accepts.minimum_pixels
    reason = f"{image.rows} x {image.columns} pixels"
    if not passed:
        reason += f", the model needs at least {accepts.minimum_pixels} a side"
    return Check(name="size", passed=passed, reason=reason), UnsupportedPixelsError


def modality_of(image: Described) -> str:
    """Return the modality; where the sender left it out, the SOP Class's, if it has one."""
    return image.modality or _MODALITY_OF_CLASS.get(image.sop_class_uid, "")


def plain(value: str) -> str:
    """Fold spelling: `Chest`, `CHEST ` and `FOR_PROCESSING`, `FOR PROCESSING` are one."""
    return "".join(letter for letter in value.upper() if letter.isalnum())


def _plain_all(values: Iterable[str]) -> set[str]:
    return {plain(value) for value in values}


def shown(value: str) -> str:
    """Return a code a sender chose, short and plain: it goes into results and pages."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in value)
    return " ".join(kept.split())[:16] or "(unreadable)"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))
