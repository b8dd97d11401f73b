"""A frozen snapshot of studies, and the first c studies of each patient in it.

Every function is total: whatever stands in a row (NaN, infinity, nothing, another type, a number of
any size) has a public meaning, so no exception, length or order of steps depends on what is in
there. The privacy unit is the patient with all studies; what is kept of a patient depends on that
patient's rows alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import InvalidInputError
from bedside_core.statistics.split import split_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NUMBERS = ("score", "minutes")
WORDS = ("sex", "age_band", "device", "decision", "label")
SPLIT = "split"  # a word that follows from the patient alone: which part of training it may be in
STRICTEST_GRADE = 5
WORST_C = 10_000  # studies per patient and epoch; more is no bound

_FAR = 2**62  # beyond it an arrival number is cut; the box counts from 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One study as the catalogue sees it. Values of any type are accepted and mapped.

    Attributes:
        patient: keyed hash of the patient's index. Rows without one (empty, another type) stand
            together as one patient.
        arrival: order of arrival at the box within the epoch.
        sex, age_band, device, decision, label: words; one outside a statistic's keys counts as
            "other". `decision` is present, absent or undetermined, `label` positive or negative.
        score: calibrated probability, 0 to 1. None: there is none, and the study is left out of
            statistics of the score. NaN, infinity and other types count as the middle of the
            public range, numbers outside it as its nearer end.
        minutes: from arrival to sign-off, as `score`.
        findings: labels of the study, each counted once.
        grade: data grade 1 to 5; anything else is 5. A patient's grade is the highest of the rows.
    """

    patient: object = ""
    arrival: object = 0
    sex: object = ""
    age_band: object = ""
    device: object = ""
    decision: object = ""
    label: object = ""
    score: object = None
    minutes: object = None
    findings: object = ()
    grade: object = STRICTEST_GRADE


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Studies frozen in columns, sorted by patient and, within a patient, by arrival.

    `label` is a random name given when the snapshot is frozen, never a digest of its content: a
    digest would be an exact function of the data.
    """

    label: str
    patients: tuple[str, ...] = field(repr=False)  # keyed hashes, in the order of `patient`
    patient: Ints = field(repr=False)  # (studies,), index into `patients`
    rank: Ints = field(repr=False)  # (studies,), 0 for the patient's first study
    first: Ints = field(repr=False)  # (patients,), row of the patient's first study
    grades: Ints = field(repr=False)  # (patients,)
    numbers: Mapping[str, tuple[Floats, Flags]] = field(repr=False)  # values, and which exist
    words: Mapping[str, tuple[Ints, tuple[str, ...]]] = field(repr=False)  # codes and their words
    findings: tuple[Ints, Ints, tuple[str, ...]] = field(repr=False)  # row, code, words

    def keep(self, c: int, used: Mapping[str, int] | None = None) -> "Kept":
        """Return each patient's first `c` studies by arrival, fewer where some are used up.

        Args:
            c: studies per patient and epoch, 1 to 10,000.
            used: studies of the epoch already released per patient, as `Kept.used` of the last
                night; it must come from the same durable transaction as the charge.
        """
        _require_c(c)
        before = np.zeros(len(self.patients), dtype=np.int64)
        if used:
            before[:] = [min(c, max(0, used.get(name, 0))) for name in self.patients]
        rows = np.flatnonzero(self.rank < (c - before)[self.patient])
        return Kept(snapshot=self, c=c, rows=rows, patient=self.patient[rows], before=before)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Kept:
    """The studies that count: at most `c` per patient and epoch, whatever they hold."""

    snapshot: Snapshot = field(repr=False)
    c: int
    rows: Ints = field(repr=False)  # (kept,), rows of the snapshot
    patient: Ints = field(repr=False)  # (kept,)
    before: Ints = field(repr=False)  # (patients,), studies used up before

    @property
    def studies_of(self) -> Ints:
        """Kept studies per patient, (patients,)."""
        return np.bincount(self.patient, minlength=len(self.snapshot.patients))

    @property
    def hits(self) -> int:
        """Patients who reach the bound with these studies; once in an epoch for each patient."""
        after = self.before + self.studies_of
        return int(np.count_nonzero((self.before < self.c) & (after >= self.c)))

    @property
    def used(self) -> dict[str, int]:
        """Studies used up per patient of this snapshot; merge it over what was used before."""
        after = (self.before + self.studies_of).tolist()
        return dict(zip(self.snapshot.patients, after, strict=True))

    def of_grade(self, grade: int) -> "Kept":
        """Return the patients of one grade, all of a patient's studies or none."""
        inside = self.snapshot.grades == grade
        stays = inside[self.patient]
        before = np.where(inside, self.before, self.c)  # the others reach no bound here
        return Kept(
            snapshot=self.snapshot,
            c=self.c,
            rows=self.rows[stays],
            patient=self.patient[stays],
            before=before,
        )

    def number(self, name: str) -> tuple[Floats, Flags]:
        """Return a field's values (NaN where unusable) and which studies have one at all."""
        values, exists = self.snapshot.numbers[name]
        return values[self.rows], exists[self.rows]

    def codes(self, name: str, keys: Sequence[str]) -> Ints:
        """Return the position of each study's word in `keys`; -1 where it is none of them."""
        codes, vocabulary = self.snapshot.words[name]
        places = {key: place for place, key in enumerate(keys)}
        table = np.array([places.get(word, -1) for word in vocabulary] or [-1], dtype=np.int64)
        return table[codes[self.rows]]

    def found(self, keys: Sequence[str], most: int) -> tuple[Ints, Ints]:
        """Return (kept study, place in `keys`) of the findings; the first `most` of each study."""
        row, code, vocabulary = self.snapshot.findings
        places = {key: place for place, key in enumerate(keys)}
        table = np.array([places.get(word, -1) for word in vocabulary] or [-1], dtype=np.int64)
        kept = np.full(len(self.snapshot.patient), -1, dtype=np.int64)
        kept[self.rows] = np.arange(len(self.rows))
        study, place = kept[row], table[code]
        counts = (study >= 0) & (place >= 0)
        study, place = study[counts], place[counts]
        order = np.lexsort((place, study))
        study, place = study[order], place[order]
        inside = rank_in_runs(study) < most
        return study[inside], place[inside]


def freeze(rows: Iterable[StudyRow], label: str) -> Snapshot:
    """Freeze rows into columns. Total: no row is refused, whatever it holds."""
    held = list(rows)
    names = [patient_of(row) for row in held]
    patients = tuple(sorted(set(names)))
    place = {name: number for number, name in enumerate(patients)}
    code = np.array([place[name] for name in names], dtype=np.int64)
    arrival = np.array([_order(row.arrival) for row in held], dtype=np.int64)
    order = np.lexsort((arrival, code)).tolist()  # stable: equal arrivals stay as they came
    held = [held[index] for index in order]
    patient = code[order] if held else code
    rank = rank_in_runs(patient)
    highest = grades_of(held)
    grades = np.array([highest[name] for name in patients], dtype=np.int64)
    return Snapshot(
        label=label,
        patients=patients,
        patient=patient,
        rank=rank,
        first=np.flatnonzero(rank == 0),
        grades=grades,
        numbers={name: _numbers([getattr(row, name) for row in held]) for name in NUMBERS},
        words={name: _words([getattr(row, name) for row in held]) for name in WORDS}
        | {SPLIT: _words(_splits(patients, patient))},
        findings=_findings([row.findings for row in held]),
    )


def patient_of(row: StudyRow) -> str:
    """Return the patient a row counts for; empty for all rows without one together."""
    return row.patient if isinstance(row.patient, str) else ""


def grades_of(rows: Iterable[StudyRow]) -> dict[str, int]:
    """Return each patient's grade: the highest of the patient's rows."""
    found: dict[str, int] = {}
    for row in rows:
        name = patient_of(row)
        found[name] = max(found.get(name, 0), _grade(row.grade))
    return found


def rank_in_runs(values: Ints) -> Ints:
    """Return each element's place within its run of equal neighbours, from 0."""
    at = np.arange(len(values))
    starts = np.ones(len(values), dtype=np.bool_)
    starts[1:] = values[1:] != values[:-1]
    return at - np.maximum.accumulate(np.where(starts, at, 0)) if len(values) else at


def _numbers(values: list[object]) -> tuple[Floats, Flags]:
    exists = np.array([value is not None for value in values], dtype=np.bool_)
    return np.array([_number(value) for value in values], dtype=np.float64), exists


def _number(value: object) -> float:
    """Return a finite float, or NaN for whatever is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return math.nan
    try:
        number = float(value)
    except OverflowError:  # an integer beyond any float
        return math.nan
    return number if math.isfinite(number) else math.nan


def _words(values: list[object]) -> tuple[Ints, tuple[str, ...]]:
    words = [value if isinstance(value, str) else "" for value in values]
    vocabulary = tuple(sorted(set(words)))
    place = {word: number for number, word in enumerate(vocabulary)}
    return np.array([place[word] for word in words], dtype=np.int64), vocabulary


def _splits(patients: Sequence[str], patient: Ints) -> list[object]:
    splits = [split_of(name) for name in patients]
    return [splits[number] for number in patient.tolist()]


def _findings(values: list[object]) -> tuple[Ints, Ints, tuple[str, ...]]:
    sets = [
        sorted({word for word in value if isinstance(word, str)})
        if isinstance(value, tuple | list | set | frozenset)
        else []
        for value in values
    ]
    vocabulary = tuple(sorted({word for words in sets for word in words}))
    place = {word: number for number, word in enumerate(vocabulary)}
    pairs = [(row, place[word]) for row, words in enumerate(sets) for word in words]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1], vocabulary


def _order(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return _FAR
    return max(-_FAR, min(_FAR, int(value)))


def _grade(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return STRICTEST_GRADE
    return value if 1 <= value <= STRICTEST_GRADE else STRICTEST_GRADE


def _require_c(c: int) -> None:
    if type(c) is not int or not 1 <= c <= WORST_C:
        raise InvalidInputError(f"c is an integer of 1 to {WORST_C}")
