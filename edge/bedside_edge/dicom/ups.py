"""Searching for workitems: a query string becomes a filter over their data sets."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom.datadict import keyword_for_tag

from bedside_core import workitem as rules
from bedside_core.errors import InvalidInputError
from bedside_core.workitem import Json, StepState
from bedside_edge.dicom.qido import wildcard

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_DATE_TIME: Final = re.compile(r"(\d{4,14})?(-(\d{4,14})?)?")
_MOST: Final = 1_000

# keyword -> where its value stands: tags, outermost first
_KEYS: Final = {
    "SOPInstanceUID": (rules.INSTANCE_UID,),
    "ProcedureStepState": (rules.STATE,),
    "ScheduledProcedureStepPriority": (rules.PRIORITY,),
    "ProcedureStepLabel": (rules.LABEL,),
    "WorklistLabel": (rules.WORKLIST,),
    "InputReadinessState": (rules.READINESS,),
    "ScheduledProcedureStepStartDateTime": (rules.START,),
    "PatientID": ("00100020",),
    "PatientName": ("00100010",),
    "ScheduledWorkitemCodeSequence.CodeValue": (rules.WORKITEM_CODE, rules.CODE_VALUE),
    "InputInformationSequence.StudyInstanceUID": (rules.INPUT, rules.STUDY_UID),
    "StudyInstanceUID": (rules.INPUT, rules.STUDY_UID),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkitemQuery:
    """A parsed search; `states` narrows what the store has to open."""

    tests: Sequence[tuple[tuple[str, ...], Callable[[str], bool]]] = field(repr=False)
    states: tuple[StepState, ...]
    limit: int
    offset: int

    def passes(self, body: Json) -> bool:
        """Tell whether a workitem matches every key."""
        return all(any(test(v) for v in _values(body, path)) for path, test in self.tests)


def parse_workitem_query(pairs: Sequence[tuple[str, str]]) -> WorkitemQuery:
    """Return the search a query string asks for.

    Raises:
        InvalidInputError: a key workitems cannot be searched by here, or a broken value.
    """
    tests: list[tuple[tuple[str, ...], Callable[[str], bool]]] = []
    states: tuple[StepState, ...] = ()
    numbers = {"limit": _MOST, "offset": 0}
    for name, value in pairs:
        if name in numbers:
            if not _NUMBER.fullmatch(value):
                raise InvalidInputError(f"{name} is not a number")
            numbers[name] = int(value)
            continue
        if name in ("includefield", "fuzzymatching"):
            continue  # every attribute comes anyway; matching is literal
        keyword = ".".join(_keyword(step) for step in name.split("."))
        path = _KEYS.get(keyword)
        if path is None or len(value) > 256:
            raise InvalidInputError("workitems cannot be searched by that key here")
        if not value:
            continue
        if keyword == "ProcedureStepState":
            states = tuple(state for state in StepState if state in re.split(r"[,\\]", value))
            if not states:
                raise InvalidInputError("no such Procedure Step State")
        tests.append((path, _test(keyword, value)))
    limit = min(numbers["limit"], _MOST)
    return WorkitemQuery(tests=tests, states=states, limit=limit, offset=numbers["offset"])


def _keyword(step: str) -> str:
    return keyword_for_tag(int(step, 16)) if _TAG.fullmatch(step) else step


def _test(keyword: str, value: str) -> Callable[[str], bool]:
    if keyword.endswith("DateTime"):
        if not _DATE_TIME.fullmatch(value) or value == "-":
            raise InvalidInputError(f"{keyword} is neither a value nor a range of values")
        first, dash, last = value.partition("-")
        if not dash:
            return lambda held: held.startswith(value)
        return lambda held: first <= held[:14] and (not last or held[: len(last)] <= last)
    if keyword == "PatientName":
        matches = wildcard(value.casefold())
        return lambda held: matches(held.casefold())
    several = [wildcard(one) for one in re.split(r"[,\\]", value)]
    return lambda held: any(one(held) for one in several)


def _values(body: Json, path: tuple[str, ...]) -> list[str]:
    if len(path) > 1:
        return [v for item in rules.items(body, path[0]) for v in _values(item, path[1:])]
    values = body.get(path[0], {}).get("Value", [])
    found = []
    for value in values:
        found += list(value.values()) if isinstance(value, dict) else [str(value)]
    return found
