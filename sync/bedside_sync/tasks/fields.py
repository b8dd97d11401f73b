"""What a settings file may ask about a case: names, sources and units, the same at every site.

A field outside these lists is refused. A value that is missing, of another type or no number has
a public meaning: words count as `other`, numbers as missing.
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from bedside_core.errors import InvalidInputError
from bedside_sync.tasks.tables import OTHER

Value = str | float | None
Facts = Mapping[str, Value]  # by field; a field that is left out is missing

WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "image.modality": "Modality (0008,0060)",
        "image.body_part": "Body Part Examined (0018,0015)",
        "image.view": "View Position (0018,5101)",
        "image.laterality": "Laterality (0020,0060) or (0020,0062)",
        "image.photometric": "Photometric Interpretation (0028,0004)",
        "image.manufacturer": "Manufacturer (0008,0070)",
        "image.transfer_syntax": "Transfer Syntax UID",
        "image.intent": "Presentation Intent Type (0008,0068)",
        "image.spacing_kind": "which spacing the object has: image, detector, both or none",
        "image.exposure_unit": "how exposure is written: mAs, uAs, both or none",
        "image.age_unit": "unit of Patient's Age (0010,1010): Y, M, W or D",
        "patient.sex": "Patient's Sex (0010,0040)",
        "study.year": "year of Study Date (0008,0020)",
        "study.grade": "data grade, 1 to 5",
        "study.way": "how the first object came: dimse, stow or http",
        "result.decision": "what the box said: present, absent or undetermined",
        "result.model": "name of the model that said it",
        "reader.label": "what was signed: present, absent or undetermined",
        "reader.verdict": "accept, edit or reject",
    }
)
NUMBERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "image.rows": "pixels",
        "image.columns": "pixels",
        "image.bits_stored": "bits",
        "image.pixel_spacing": "mm",
        "image.kvp": "kV",
        "image.exposure": "mAs",
        "patient.age": "years",
        "result.probability": "1",
        "reader.minutes": "min",
    }
)
# Data a hospital adds itself, joined by patient: `extra.<name>`
EXTRA: Final = "extra."
_BAND: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5})|\+)")

FieldName = Annotated[str, Field(pattern=r"^[a-z]{1,16}\.[a-z][a-z0-9_]{0,47}$")]
Key = Annotated[str, Field(min_length=1, max_length=64)]


def check_word(field: str) -> None:
    """Return when a table may have this axis: words, or numbers cut into bands."""
    if field not in WORDS and field not in NUMBERS and not field.startswith(EXTRA):
        raise InvalidInputError(f"no field is called {field}")


def check_number(field: str) -> None:
    """Return when the field is a number."""
    if field not in NUMBERS:
        raise InvalidInputError(f"no number is called {field}")


def source(field: str) -> str:
    """Return where a field comes from: image, patient, study, result, reader or extra."""
    return field.partition(".")[0]


def number(facts: Facts, field: str) -> float | None:
    """Return a finite number, or None when it is missing or none."""
    value = facts.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def word(facts: Facts, field: str, keys: tuple[str, ...]) -> str:
    """Return the key a case counts under; `other` for whatever is none of them.

    Keys of a number are bands in its unit: `18-39` holds 18 up to, not including, 40; `65+` holds
    65 and more.
    """
    if field in NUMBERS:
        value = number(facts, field)
        if value is None:
            return OTHER
        for key in keys:
            band = _BAND.fullmatch(key)
            end = math.inf if band is None or band[2] is None else int(band[2]) + 1
            if band is not None and int(band[1]) <= value < end:
                return key
        return OTHER
    found = facts.get(field)
    return found if isinstance(found, str) and found in keys else OTHER


def check_keys(field: str, keys: tuple[str, ...]) -> None:
    """Return when the keys go with the field: numbers have bands."""
    if field in NUMBERS and not all(_BAND.fullmatch(key) for key in keys):
        raise InvalidInputError(f"keys of {field} are bands such as 18-39 or 65+")
