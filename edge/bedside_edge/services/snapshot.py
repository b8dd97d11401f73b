"""From what the box holds of a study to the row that statistics see.

Nothing here decides whether a row counts: `bedside_core.statistics.rows` maps whatever stands in a
row. A value that is missing stays missing, and no step depends on another patient.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bedside_core.findings import Decision
from bedside_core.review import ReviewKind
from bedside_core.statistics.rows import StudyRow
from bedside_edge.ports import Header

_MINUTE_MS = 60_000
_SEXES = {"F": "female", "M": "male"}
_LABELS = {str(Decision.PRESENT): "positive", str(Decision.ABSENT): "negative"}
_AGE = re.compile(r"([0-9]{3})([DWMY])")
_PER_YEAR = {"D": 365, "W": 52, "M": 12, "Y": 1}
_DATE = re.compile(r"[0-9]{8}")
_BAND = re.compile(r"([0-9]{1,3})(?:-([0-9]{1,3})|\+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The last verdict on a study's standing result."""

    kind: ReviewKind
    at: int
    decision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the box holds of one study.

    Attributes:
        patient: keyed hash of the patient; empty when no reliable id says who it is.
        arrival: order of arrival at the box.
        received: of the first instance, milliseconds since 1970.
        header: of the first instance; None when it cannot be read.
        result: the standing result's document; None when there is none.
        signed: the last verdict on it.
    """

    patient: str
    arrival: int
    received: int
    grade: int
    header: Header | None = field(repr=False, default=None)
    result: dict[str, Any] | None = field(repr=False, default=None)
    signed: Signed | None = None


def study_row(known: Known, age_bands: Sequence[str]) -> StudyRow:
    """Return the study as the catalogue sees it.

    The label is the reader's: what was signed, or the model's decision where it was accepted. A
    finding is what the label says, or the model's decision while nobody has signed.

    Args:
        known: what the box holds.
        age_bands: words of the policy, `18-39` or `65+`, in whole years.
    """
    value = (known.result or {}).get("value") or {}
    decision = str(value.get("decision", ""))
    label, minutes = "", None
    if known.signed is not None:
        said = decision if known.signed.kind is ReviewKind.ACCEPT else known.signed.decision
        label = _LABELS.get(said or "", "")
        minutes = max(0.0, (known.signed.at - known.received) / _MINUTE_MS)
    present = label == "positive" if known.signed is not None else decision == Decision.PRESENT
    finding = ((known.result or {}).get("finding") or {}).get("meaning", "")
    header = known.header
    return StudyRow(
        patient=known.patient,
        arrival=known.arrival,
        sex=_SEXES.get(header.sex, "") if header else "",
        age_band=age_band(header, age_bands) if header else "",
        device=header.station if header else "",
        decision=decision,
        label=label,
        score=value.get("probability"),
        minutes=minutes,
        findings=(finding,) if present and finding else (),
        grade=known.grade,
    )


def age_band(header: Header, bands: Sequence[str]) -> str:
    """Return the band of the patient's age at the study; empty when none fits."""
    years = _years(header)
    if years is None:
        return ""
    for band in bands:
        found = _BAND.fullmatch(band)
        if found and int(found[1]) <= years <= int(found[2] or 999):
            return band
    return ""


def _years(header: Header) -> int | None:
    found = _AGE.fullmatch(header.age)
    if found:
        return int(found[1]) // _PER_YEAR[found[2]]
    if _DATE.fullmatch(header.birth_date) and _DATE.fullmatch(header.study_date):
        years = (int(header.study_date) - int(header.birth_date)) // 10_000
        return years if 0 <= years < 150 else None
    return None
