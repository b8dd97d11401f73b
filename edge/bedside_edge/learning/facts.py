"""From a case to the fields that settings may ask about; `bedside_sync.tasks.fields` lists them."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from bedside_edge.ports import Header
from bedside_edge.ports.learning import Case
from bedside_sync.tasks.fields import EXTRA, Facts, Value

_AGE: Final = re.compile(r"([0-9]{3})([DWMY])")
_PER_YEAR: Final = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
_DATE: Final = re.compile(r"[0-9]{8}")
_MINUTE_MS: Final = 60_000
_SURE: Final = ("present", "absent", "undetermined")


def facts_of(case: Case) -> Facts:
    """Return what is known of a study; a field nobody wrote is left out."""
    found: dict[str, Value] = {"study.grade": str(case.grade), "study.way": case.way}
    if case.header is not None:
        found |= _of_header(case.header)
    value = (case.result or {}).get("value") or {}
    if value:
        found["result.decision"] = str(value.get("decision", ""))
        found["result.probability"] = _number(value.get("probability"))
        found["result.model"] = str(((case.result or {}).get("model") or {}).get("name", ""))
    if case.signed is not None:
        found["reader.verdict"] = str(case.signed.kind)
        found["reader.label"] = case.signed.decision or None
        found["reader.minutes"] = max(0.0, (case.signed.at - case.received) / _MINUTE_MS)
    return {field: value for field, value in found.items() if value not in (None, "")}


def patient_facts(cases: Sequence[Case], extras: Mapping[str, str]) -> Facts:
    """Return one row for a patient from all sources.

    Images and the patient are as in the first study; the box and the readers say `present` when
    they said so of any study, else `absent` when they said that of one.
    """
    rows = [facts_of(case) for case in cases]
    found: dict[str, Value] = dict(rows[0])
    for field in ("result.decision", "reader.label"):
        said = [row.get(field) for row in rows]
        whole = next((word for word in _SURE if word in said), None)
        found.pop(field, None)
        if whole is not None:
            found[field] = whole
    return found | {f"{EXTRA}{name}": word for name, word in extras.items()}


def _of_header(header: Header) -> dict[str, Value]:
    age = _AGE.fullmatch(header.age)
    return {
        "image.modality": header.modality,
        "image.body_part": header.body_part,
        "image.view": header.view,
        "image.laterality": header.laterality,
        "image.photometric": header.photometric,
        "image.manufacturer": header.manufacturer,
        "image.transfer_syntax": header.transfer_syntax_uid,
        "image.intent": header.presentation_intent,
        "image.spacing_kind": _which(
            header.pixel_spacing, header.detector_spacing, ("image", "detector")
        ),
        "image.exposure_unit": _which(header.exposure, header.exposure_uas, ("mAs", "uAs")),
        "image.age_unit": age[2] if age else None,
        "image.rows": _positive(header.rows),
        "image.columns": _positive(header.columns),
        "image.bits_stored": _positive(header.bits_stored),
        "image.pixel_spacing": _decimal(header.pixel_spacing or header.detector_spacing),
        "image.kvp": _decimal(header.kvp),
        "image.exposure": _exposure(header),
        "patient.sex": header.sex,
        "patient.age": _years(header),
        "study.year": header.study_date[:4] if _DATE.fullmatch(header.study_date) else None,
    }


def _which(first: str, second: str, words: tuple[str, str]) -> str:
    if first and second:
        return "both"
    return words[0] if first else words[1] if second else "none"


def _exposure(header: Header) -> float | None:
    micro = _decimal(header.exposure_uas)
    return _decimal(header.exposure) if micro is None else micro / 1000


def _years(header: Header) -> float | None:
    age = _AGE.fullmatch(header.age)
    if age:
        return int(age[1]) / _PER_YEAR[age[2]]
    if _DATE.fullmatch(header.birth_date) and _DATE.fullmatch(header.study_date):
        years = (int(header.study_date) - int(header.birth_date)) // 10_000
        return float(years) if 0 <= years < 150 else None
    return None


def _decimal(text: str) -> float | None:
    """Read the first value of DS or IS; None when it is none."""
    try:
        return float(text.split("\\")[0].strip())
    except ValueError:
        return None


def _positive(value: int) -> float | None:
    return float(value) if value > 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
