"""QIDO-RS: a query string becomes a filter, what it lets through becomes DICOM JSON.

Source: PS3.18 sections 8.3.4 and 10.6, PS3.4 C.2.2.2 (matching), PS3.18 annex F (JSON). A key this
box cannot match is refused: a search that ignored it would return other patients.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from bedside_core.errors import InvalidInputError
from bedside_edge.ports import Header
from bedside_edge.services.holdings import Item, StudyEntry, by_series

Json = dict[str, Any]
Test = Callable[[str], bool]

MOST_RESULTS: Final = 5_000
_LONGEST: Final = 1024  # characters of one value
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_UID: Final = re.compile(r"[0-9.]{1,64}")
_DATE: Final = re.compile(r"(\d{8})?-(\d{8})?|\d{8}")
_TIME: Final = re.compile(r"(\d{2,6}(\.\d{1,6})?)?-(\d{2,6}(\.\d{1,6})?)?|\d{2,6}(\.\d{1,6})?")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


class Level(StrEnum):
    """What the rows of an answer are."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True)
class _Key:
    """An attribute that can be searched by and is returned; `name` is the field of `Header`."""

    keyword: str
    vr: str
    name: str = ""

    @property
    def tag(self) -> str:
        return f"{tag_for_keyword(self.keyword) or 0:08X}"


_STUDY: Final = (
    _Key("StudyDate", "DA", "study_date"),
    _Key("StudyTime", "TM", "study_time"),
    _Key("AccessionNumber", "SH", "accession_number"),
    _Key("ModalitiesInStudy", "CS"),
    _Key("SOPClassesInStudy", "UI"),
    _Key("ReferringPhysicianName", "PN", "referring_physician"),
    _Key("StudyDescription", "LO", "study_description"),
    _Key("PatientName", "PN", "patient_name"),
    _Key("PatientID", "LO", "patient_id"),
    _Key("IssuerOfPatientID", "LO", "issuer"),
    _Key("PatientBirthDate", "DA", "birth_date"),
    _Key("PatientSex", "CS", "sex"),
    _Key("StudyInstanceUID", "UI", "study_uid"),
    _Key("StudyID", "SH", "study_label"),
)
_SERIES: Final = (
    _Key("Modality", "CS", "modality"),
    _Key("SeriesDescription", "LO", "series_description"),
    _Key("BodyPartExamined", "CS", "body_part"),
    _Key("SeriesInstanceUID", "UI", "series_uid"),
    _Key("SeriesNumber", "IS", "series_number"),
)
_INSTANCE: Final = (
    _Key("SOPClassUID", "UI", "sop_class_uid"),
    _Key("SOPInstanceUID", "UI", "sop_instance_uid"),
    _Key("InstanceNumber", "IS", "instance_number"),
    _Key("NumberOfFrames", "IS", "frames"),
    _Key("Rows", "US", "rows"),
    _Key("Columns", "US", "columns"),
)
_LEVELS: Final = {Level.STUDY: _STUDY, Level.SERIES: _SERIES, Level.INSTANCE: _INSTANCE}
_ORDER: Final = (Level.STUDY, Level.SERIES, Level.INSTANCE)
_KEYS: Final = {key.keyword: (level, key) for level in _ORDER for key in _LEVELS[level]}
_TAGS: Final = {key.keyword: key.tag for _, key in _KEYS.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A parsed search. `tests` holds, by level, what each attribute has to pass."""

    level: Level
    tests: Mapping[Level, Sequence[tuple[_Key, Test]]] = field(repr=False)
    everything: bool  # return attributes of the levels above as well
    limit: int
    offset: int
    warnings: tuple[str, ...]

    def study(self, entry: StudyEntry) -> bool:
        """Tell whether a study passes."""
        for key, test in self.tests[Level.STUDY]:
            if key.keyword == "ModalitiesInStudy":
                passes = any(test(modality) for modality in entry.modalities)
            elif key.keyword == "SOPClassesInStudy":
                passes = any(test(sop_class) for sop_class in entry.sop_classes)
            else:
                passes = test(getattr(entry.header, key.name))
            if not passes:
                return False
        return True

    def header(self, level: Level, header: Header) -> bool:
        """Tell whether an object passes at its own level."""
        return all(test(str(getattr(header, key.name))) for key, test in self.tests[level])


def parse(level: Level, pairs: Sequence[tuple[str, str]], *, within: bool) -> Query:
    """Return the search a query string asks for.

    Args:
        level: what is searched for.
        pairs: the query string, decoded, in order.
        within: whether the path names the study.

    Raises:
        InvalidInputError: an unknown or unsupported key, or a value that breaks its form.
    """
    tests: dict[Level, list[tuple[_Key, Test]]] = {one: [] for one in _ORDER}
    limit, offset, everything, warnings = MOST_RESULTS, 0, not within, []
    for name, value in pairs:
        if len(value) > _LONGEST:
            raise InvalidInputError("a value of the query is too long")
        if name == "limit":
            limit = min(_whole(value, name), MOST_RESULTS)
        elif name == "offset":
            offset = _whole(value, name)
        elif name == "fuzzymatching":
            if value == "true":
                warnings.append(
                    "The fuzzymatching parameter is not supported."
                    " Only literal matching has been performed."
                )
            elif value != "false":
                raise InvalidInputError("fuzzymatching is true or false")
        elif name == "includefield":
            everything |= any(_above(level, word) for word in value.split(","))
        elif value and (found := _condition(level, name, value)):
            tests[found[0]].append(found[1])
    return Query(
        level=level,
        tests=tests,
        everything=everything,
        limit=limit,
        offset=offset,
        warnings=tuple(warnings),
    )


class Searched(Protocol):
    """Where to search: the holdings, or what of them a caller may see."""

    def studies(self) -> list[StudyEntry]:
        """Return every study, newest first."""
        ...

    def study(self, study_uid: str) -> list[StudyEntry]:
        """Return the studies of a UID."""
        ...

    def items(self, entry: StudyEntry) -> list[Item]:
        """Return the objects of a study."""
        ...


def search(
    query: Query, holdings: Searched, base_url: str, study_uid: str = "", series_uid: str = ""
) -> tuple[list[Json], bool]:
    """Return the rows of an answer, and whether there are more behind them.

    Args:
        query: what is searched for.
        holdings: where.
        base_url: of the DICOMweb service; RetrieveURL begins with it.
        study_uid: study of the path; empty for all.
        series_uid: series of the path; empty for all.
    """
    rows: list[Json] = []
    passed = 0
    for make in _matches(query, holdings, base_url, study_uid, series_uid):
        passed += 1
        if passed <= query.offset:
            continue
        if len(rows) == query.limit:
            return rows, True
        rows.append(make())
    return rows, False


def _matches(
    query: Query, holdings: Searched, base_url: str, study_uid: str, series_uid: str
) -> Iterator[Callable[[], Json]]:
    entries = holdings.study(study_uid) if study_uid else holdings.studies()
    for entry in entries:
        if not query.study(entry):
            continue
        if query.level is Level.STUDY:
            yield lambda entry=entry: _study_row(entry, base_url)  # type: ignore[misc]
            continue
        for series, items in by_series(holdings.items(entry)).items():
            if series_uid not in ("", series) or not query.header(Level.SERIES, items[0].header):
                continue
            if query.level is Level.SERIES:
                yield lambda entry=entry, items=items: _series_row(  # type: ignore[misc]
                    entry, items, base_url, everything=query.everything
                )
                continue
            for item in items:
                if query.header(Level.INSTANCE, item.header):
                    yield lambda entry=entry, item=item: _instance_row(  # type: ignore[misc]
                        entry, item, base_url, everything=query.everything
                    )


# --- conditions --------------------------------------------------------------------------------


def _condition(level: Level, name: str, value: str) -> tuple[Level, tuple[_Key, Test]]:
    keyword = keyword_for_tag(int(name, 16)) if _TAG.fullmatch(name) else name
    if level is Level.STUDY and keyword == "Modality":
        keyword = "ModalitiesInStudy"  # what its senders mean
    found = _KEYS.get(keyword)
    if found is None or _ORDER.index(found[0]) > _ORDER.index(level):
        raise InvalidInputError(f"{_shown(name)} cannot be searched by at {level} level")
    return found[0], (found[1], _test(found[1], value))


def _above(level: Level, word: str) -> bool:
    """Tell whether includefield names something of a level above; the rest comes anyway."""
    if word == "all":
        return True
    keyword = keyword_for_tag(int(word, 16)) if _TAG.fullmatch(word) else word
    found = _KEYS.get(keyword)
    return found is not None and _ORDER.index(found[0]) < _ORDER.index(level)


def _test(key: _Key, value: str) -> Test:
    if key.vr == "UI":
        wanted = set(re.split(r"[,\\]", value))
        if not all(_UID.fullmatch(uid) for uid in wanted):
            raise InvalidInputError(f"{key.keyword} is not a UID or a list of them")
        return wanted.__contains__
    if key.vr == "DA":
        return _range(key, value, _DATE)
    if key.vr == "TM":
        return _range(key, value, _TIME)
    if key.vr in ("IS", "US"):
        if not _NUMBER.fullmatch(value):
            raise InvalidInputError(f"{key.keyword} is not a number")
        return lambda held: bool(_NUMBER.fullmatch(held)) and int(held) == int(value)
    if key.vr == "PN":
        matches = wildcard(value.casefold())
        return lambda held: any(matches(group) for group in _groups(held.casefold()))
    if key.vr == "CS":
        several = [wildcard(one) for one in re.split(r"[,\\]", value)]
        return lambda held: any(one(held) for one in several)
    return wildcard(value)


def _groups(name: str) -> list[str]:
    """Return a person name and its component groups, trailing delimiters left out."""
    return [part.rstrip("^ ") for part in (*name.split("="), name)]


def _range(key: _Key, value: str, form: re.Pattern[str]) -> Test:
    if not form.fullmatch(value) or value == "-":
        raise InvalidInputError(f"{key.keyword} is neither a value nor a range of values")
    first, dash, last = value.partition("-")
    if not dash:
        return lambda held: held.startswith(value) if key.vr == "TM" else held == value
    # a shorter time means its whole minute or hour
    return lambda held: bool(held) and first <= held and (not last or held[: len(last)] <= last)


def wildcard(pattern: str) -> Test:
    """Return a test for `*` (any run of characters) and `?` (one); time grows with the length.

    PS3.4 C.2.2.2.4. The pieces between stars are looked for one after the other, leftmost first,
    so no pattern makes the search back-track.
    """
    pieces = pattern.split("*")
    if len(pieces) == 1 and "?" not in pattern:
        return pattern.__eq__
    found = [re.compile(re.escape(piece).replace(r"\?", "."), re.DOTALL) for piece in pieces]
    lengths = [len(piece) for piece in pieces]

    def test(held: str) -> bool:
        if len(pieces) == 1:
            return bool(found[0].fullmatch(held))
        if not found[0].match(held) or len(held) < lengths[0] + lengths[-1]:
            return False
        at, end = lengths[0], len(held) - lengths[-1]
        for piece in found[1:-1]:
            hit = piece.search(held, at, end)
            if hit is None:
                return False
            at = hit.end()
        return bool(found[-1].match(held, end))

    return test


def _whole(value: str, name: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise InvalidInputError(f"{name} is not a number")
    return int(value)


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9]{1,64}", name) else "a key of the query"


# --- rows --------------------------------------------------------------------------------------


def _study_row(entry: StudyEntry, base_url: str) -> Json:
    row = _attributes(_STUDY, entry.header) | {
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00201206": {"vr": "IS", "Value": [entry.series]},
        "00201208": {"vr": "IS", "Value": [entry.instances]},
        "00081190": {"vr": "UR", "Value": [f"{base_url}/studies/{entry.header.study_uid}"]},
    }
    row[_TAGS["ModalitiesInStudy"]] = _several("CS", entry.modalities)
    row[_TAGS["SOPClassesInStudy"]] = _several("UI", sorted(entry.sop_classes))
    return dict(sorted(row.items()))


def _series_row(
    entry: StudyEntry, items: Sequence[Item], base_url: str, *, everything: bool
) -> Json:
    header = items[0].header
    url = f"{base_url}/studies/{header.study_uid}/series/{header.series_uid}"
    row = _study_row(entry, base_url) if everything else {}
    row |= _attributes(_SERIES, header) | {
        _TAGS["StudyInstanceUID"]: {"vr": "UI", "Value": [header.study_uid]},
        "00201209": {"vr": "IS", "Value": [len(items)]},
        "00081190": {"vr": "UR", "Value": [url]},
    }
    return dict(sorted(row.items()))


def _instance_row(entry: StudyEntry, item: Item, base_url: str, *, everything: bool) -> Json:
    header = item.header
    url = (
        f"{base_url}/studies/{header.study_uid}/series/{header.series_uid}"
        f"/instances/{header.sop_instance_uid}"
    )
    row = _study_row(entry, base_url) if everything else {}
    if everything:
        row |= _attributes(_SERIES, header)
    row |= _attributes(_INSTANCE, header) | {
        _TAGS["StudyInstanceUID"]: {"vr": "UI", "Value": [header.study_uid]},
        _TAGS["SeriesInstanceUID"]: {"vr": "UI", "Value": [header.series_uid]},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00083002": {"vr": "UI", "Value": [header.transfer_syntax_uid]},
        "00081190": {"vr": "UR", "Value": [url]},
    }
    return dict(sorted(row.items()))


def _attributes(keys: Sequence[_Key], header: Header) -> Json:
    return {
        _TAGS[key.keyword]: _element(key.vr, getattr(header, key.name)) for key in keys if key.name
    }


def _element(vr: str, value: str | int) -> Json:
    if value in ("", 0):
        return {"vr": vr}
    if vr == "PN":
        groups = zip(("Alphabetic", "Ideographic", "Phonetic"), str(value).split("="), strict=False)
        return {"vr": vr, "Value": [{name: part for name, part in groups if part}]}
    if vr in ("IS", "US"):
        digits = str(value)
        return {"vr": vr, "Value": [int(digits)]} if _NUMBER.fullmatch(digits) else {"vr": vr}
    return {"vr": vr, "Value": [value]}


def _several(vr: str, values: Sequence[str]) -> Json:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}
