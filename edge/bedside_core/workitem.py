"""Workitems (Unified Procedure Steps): which state follows which, and what a workitem must say.

The state table is PS3.4 Table CC.1.1-2, its answers those of PS3.18 section 11; the data set is
DICOM JSON (PS3.18 annex F) as plain dictionaries. Nothing here stores, waits or names a patient.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from bedside_core.errors import InvalidInputError, WrongStateError, WrongTransactionError

Json = dict[str, Any]

SOP_CLASS: Final = "1.2.840.10008.5.1.4.34.6.1"  # Unified Procedure Step - Push
STATE, TRANSACTION, PRIORITY, LABEL = "00741000", "00081195", "00741200", "00741204"
WORKLIST, START, READINESS = "00741202", "00404005", "00404041"
CLASS_UID, INSTANCE_UID, STUDY_UID, SERIES_UID = "00080016", "00080018", "0020000D", "0020000E"
WORKITEM_CODE, INPUT, OUTPUT = "00404018", "00404021", "00404033"
PERFORMED, PROGRESS, EXPIRES = "00741216", "00741002", "00404008"
BEGAN, ENDED = "00404050", "00404051"
CODE_VALUE, CODE_SCHEME, CODE_MEANING = "00080100", "00080102", "00080104"

_TAG: Final = re.compile(r"[0-9A-F]{8}")
_VR: Final = re.compile(r"[A-Z]{2}")
_UID: Final = re.compile(r"[0-9.]{1,64}")
_DEEPEST: Final = 8
_MOST: Final = 5_000  # elements of one workitem, its items' included


class StepState(StrEnum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


FINAL: Final = frozenset((StepState.COMPLETED, StepState.CANCELED))

ALREADY: Final[Mapping[StepState, str]] = {
    StepState.CANCELED: "The UPS is already in the requested state of CANCELED.",  # B304
    StepState.COMPLETED: "The UPS is already in the requested state of COMPLETED.",  # B306
}
MODIFIED: Final = "The Workitem was created with modifications."


def follows(current: StepState, asked: str, transaction: str, owner: str) -> str:
    """Return a warning (often empty) when the state may become `asked`.

    Args:
        current: the state now.
        asked: the state asked for.
        transaction: Transaction UID of the request.
        owner: Transaction UID the workitem was claimed with; empty while nobody has.

    Raises:
        InvalidInputError: no such state, or no usable Transaction UID (C303).
        WrongTransactionError: another performer owns it (C301).
        WrongStateError: the table does not allow it (C300, C302, C310).
    """
    if asked not in (StepState.IN_PROGRESS, *FINAL):
        raise InvalidInputError("The requested state is not one a Workitem can be changed to.")
    wanted = StepState(asked)
    if not _UID.fullmatch(transaction):
        raise InvalidInputError("The Transaction UID is missing.")
    if current in FINAL:
        if current is wanted:
            return ALREADY[current]
        raise WrongStateError("The Workitem is final and may no longer be updated.")  # C300
    if current is StepState.SCHEDULED:
        if wanted is StepState.IN_PROGRESS:
            return ""
        raise WrongStateError("The Workitem is not yet in the state IN PROGRESS.")  # C310
    if wanted is StepState.IN_PROGRESS:
        raise WrongStateError("The Workitem is already IN PROGRESS.")  # C302
    _must_own(transaction, owner)
    return ""


def may_update(current: StepState, transaction: str, owner: str) -> None:
    """Return when attributes may be changed.

    Raises:
        InvalidInputError: IN PROGRESS, and the request has no Transaction UID.
        WrongTransactionError: another performer owns it (C301).
        WrongStateError: the workitem is final (C300).
    """
    if current in FINAL:
        raise WrongStateError("The Workitem is final and may no longer be updated.")
    if current is StepState.IN_PROGRESS:
        if not transaction:
            raise InvalidInputError("The Transaction UID is missing.")
        _must_own(transaction, owner)


def _must_own(transaction: str, owner: str) -> None:
    if transaction != owner:
        raise WrongTransactionError("The Transaction UID is incorrect.")


def check_form(found: object) -> Json:
    """Return a data set in DICOM JSON, tags in upper case.

    Raises:
        InvalidInputError: not that form, nested too deep, or too large.
    """
    count = [0]
    return _checked(found, 0, count)


def _checked(found: object, depth: int, count: list[int]) -> Json:
    if not isinstance(found, dict) or depth > _DEEPEST:
        raise InvalidInputError("a data set is an object of tags, nested at most 8 deep")
    made: Json = {}
    for name, element in found.items():
        count[0] += 1
        tag = name.upper()
        if count[0] > _MOST or not _TAG.fullmatch(tag) or not isinstance(element, dict):
            raise InvalidInputError("an element is an object under a tag of eight hex digits")
        vr, values = element.get("vr"), element.get("Value", [])
        if not isinstance(vr, str) or not _VR.fullmatch(vr) or not isinstance(values, list):
            raise InvalidInputError("an element has a vr of two letters and a list of values")
        if vr == "SQ":
            values = [_checked(item, depth + 1, count) for item in values]
        elif not all(_simple(value) for value in values):
            raise InvalidInputError("a value is a text, a number or a person name")
        made[tag] = {"vr": vr, "Value": values} if values else {"vr": vr}
    return made


def _simple(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(part, str) for part in value.values())
    return value is None or isinstance(value, str | int | float)


def text(found: Json, tag: str) -> str:
    """Return the first value of an element as text; empty when there is none."""
    values = found.get(tag, {}).get("Value") or [""]
    return "" if values[0] is None or isinstance(values[0], dict) else str(values[0])


def items(found: Json, tag: str) -> list[Json]:
    """Return the items of a sequence; empty when it is absent or no sequence."""
    element = found.get(tag, {})
    return list(element.get("Value", [])) if element.get("vr") == "SQ" else []


def element(vr: str, *values: object) -> Json:
    """Return an element."""
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def coded(value: str, scheme: str, meaning: str) -> Json:
    """Return the item of a code sequence."""
    return {
        CODE_VALUE: element("SH", value),
        CODE_SCHEME: element("SH", scheme),
        CODE_MEANING: element("LO", meaning),
    }


def created(found: Json, uid: str) -> tuple[Json, bool]:
    """Return a new workitem as it is stored, and whether something was filled in.

    Source: PS3.4 Table CC.2.5-3, column N-CREATE; PS3.18 11.4.

    Raises:
        InvalidInputError: an attribute it cannot do without is missing or has a forbidden value.
    """
    if text(found, TRANSACTION):
        raise InvalidInputError("a new Workitem has no Transaction UID")
    if text(found, STATE) != StepState.SCHEDULED:
        raise InvalidInputError("a new Workitem has the Procedure Step State SCHEDULED")
    if text(found, INSTANCE_UID) not in ("", uid):
        raise InvalidInputError("the data set names another SOP Instance UID than the request")
    for tag, allowed in _ALLOWED.items():
        if text(found, tag) not in allowed:
            raise InvalidInputError(f"attribute {tag} is one of {', '.join(allowed)}")
    for tag, name in ((LABEL, "Procedure Step Label"), (START, "Scheduled Start DateTime")):
        if not text(found, tag):
            raise InvalidInputError(f"a new Workitem has a {name} ({tag})")
    made = {tag: value for tag, value in found.items() if tag != TRANSACTION}
    modified = not text(found, WORKLIST)
    if modified:
        made[WORKLIST] = element("LO", "Bedside")
    made[CLASS_UID], made[INSTANCE_UID] = element("UI", SOP_CLASS), element("UI", uid)
    return made, modified


_ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {
    PRIORITY: ("HIGH", "MEDIUM", "LOW"),
    READINESS: ("INCOMPLETE", "UNAVAILABLE", "READY"),
}
_FIXED: Final = frozenset((STATE, TRANSACTION, CLASS_UID, INSTANCE_UID))


def updated(found: Json, change: Json) -> Json:
    """Return the workitem with the attributes of `change` in place of its own.

    Raises:
        InvalidInputError: the change is about the state or identity, or breaks a value.
    """
    for tag in _FIXED - {TRANSACTION}:
        if text(change, tag) not in ("", text(found, tag)):
            raise InvalidInputError(f"attribute {tag} cannot be changed by an update")
    for tag, allowed in _ALLOWED.items():
        if tag in change and text(change, tag) not in allowed:
            raise InvalidInputError(f"attribute {tag} is one of {', '.join(allowed)}")
    return found | {tag: value for tag, value in change.items() if tag not in _FIXED}


def final_ready(found: Json, asked: StepState) -> None:
    """Return when a workitem says what its final state needs (PS3.4 Table CC.2.5-3, C304).

    Raises:
        WrongStateError: it does not.
    """
    if asked is StepState.COMPLETED:
        done = items(found, PERFORMED)
        if not done or not text(done[0], BEGAN) or not text(done[0], ENDED):
            raise WrongStateError("The submitted request is inconsistent: no performed procedure.")
        if OUTPUT not in done[0]:
            raise WrongStateError("The submitted request is inconsistent: no output information.")


def codes(found: Json) -> Iterator[tuple[str, str]]:
    """Yield (value, scheme) of every Scheduled Workitem Code."""
    for item in items(found, WORKITEM_CODE):
        yield text(item, CODE_VALUE), text(item, CODE_SCHEME)


def input_studies(found: Json) -> list[str]:
    """Return the Study Instance UIDs the input information names, each once."""
    return list(
        dict.fromkeys(uid for item in items(found, INPUT) if (uid := text(item, STUDY_UID)))
    )
