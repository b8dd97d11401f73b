"""Patients as the box knows them: one subject each, found by a keyed hash of issuer and patient id.

A study without a patient id has a subject of its own, flagged as not identified: two such studies
may be one person, and nobody can tell. Every subject has a commitment key of its own; with it,
entries of the evidence log can be shown to be about the patient, and without it nothing can.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

SubjectKey = Callable[[sqlite3.Connection, str], bytes]
"""Commitment key (32 bytes) of a subject id, inside a transaction; NotFoundError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectFacts:
    """What headers said about the person, empty where none did; newest header wins."""

    birth_date: str = field(default="", repr=False)  # DICOM DA, YYYYMMDD
    sex: str = field(default="", repr=False)  # M, F, O
    age: str = field(default="", repr=False)  # DICOM AS, nnnD nnnW nnnM nnnY
    age_on: str = field(default="", repr=False)  # DICOM DA, the day of `age`

    def years(self, today: str) -> int | None:
        """Return the whole years of age on `today` (YYYYMMDD); None when headers do not say.

        Where only an age at an earlier day is known the answer is the lowest that fits it, so
        that a minor is never taken for an adult.
        """
        if _is_date(self.birth_date) and self.birth_date <= today:
            return _years_between(self.birth_date, today)
        if len(self.age) == 4 and self.age[:3].isdecimal() and self.age[:3].isascii():
            count, unit = int(self.age[:3]), self.age[3].upper()
            per_year = {"Y": 1, "M": 12, "W": 53, "D": 366}.get(unit)
            if per_year:
                since = self.age_on if _is_date(self.age_on) and self.age_on <= today else today
                return count // per_year + _years_between(since, today)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One patient; `subject_id` is random and ours."""

    subject_id: str
    identified: bool  # False: no patient id came with the study
    created: int
    studies: tuple[str, ...]  # study ids, in order of arrival


class SubjectStore(Protocol):
    """Subjects; they are made when the first instance of a patient is filed."""

    def subject_of(self, study_id: str) -> str:
        """Return the subject of a study; NotFoundError."""
        ...

    def studies_of(self, subject_id: str) -> list[str]:
        """Return the ids of the subject's studies in order of arrival; NotFoundError."""
        ...

    def find(self, issuer: str, patient_id: str) -> str:
        """Return the subject of a patient id; NotFoundError."""
        ...

    def subject(self, subject_id: str) -> Subject:
        """Return one subject; NotFoundError."""
        ...

    def facts(self, subject_id: str) -> SubjectFacts:
        """Return what headers said about the person; NotFoundError."""
        ...

    def commitment_key(self, subject_id: str) -> bytes:
        """Return the subject's commitment key, 32 bytes; NotFoundError."""
        ...


def _is_date(value: str) -> bool:
    return len(value) == 8 and value.isascii() and value.isdecimal()


def _years_between(earlier: str, later: str) -> int:
    return int(later[:4]) - int(earlier[:4]) - (later[4:] < earlier[4:])
