"""Grades for what arrives, and for what is held when the rules change."""

import logging
import threading

from bedside_core.errors import BedsideError
from bedside_core.grading import Described, Graded, Grading
from bedside_edge.ports import Clock, Header
from bedside_edge.ports.governance import GradeStore

log = logging.getLogger(__name__)

_PAGE = 500  # instances looked at together


def describe(header: Header, source: str) -> Described:
    """Return what grading rules may look at."""
    return Described(
        modality=header.modality,
        body_part=header.body_part,
        age_years=_years(header.age),
        codes=header.codes,
        texts=tuple(
            text
            for text in (
                header.study_description,
                header.series_description,
                header.protocol,
                header.procedure,
                header.diagnosis,
            )
            if text
        ),
        burned_in=header.burned_in,
        source=source,
    )


class GradingService:
    """Grades by the rules in force. Safe to call from several threads."""

    def __init__(self, grading: Grading, store: GradeStore, clock: Clock) -> None:
        self.grading, self._store, self._clock = grading, store, clock
        self._stopping = threading.Event()

    def grade(self, header: Header, source: str) -> int:
        """Return the grade of an arriving object."""
        return self.grading.grade(describe(header, source)).grade

    def explain(self, header: Header, source: str) -> Graded:
        """Return the grade of an object and the rule that gave it."""
        return self.grading.grade(describe(header, source))

    def run(self) -> None:
        """Grade what is held if the rules changed, in a thread of its own; ends when done."""
        try:
            self.regrade()
        except BedsideError as error:  # the next start begins again; grades given so far hold
            log.exception("held instances not graded", extra={"code": error.code})

    def stop(self) -> None:
        """Let `run` end after the instances in hand."""
        self._stopping.set()

    def regrade(self) -> int:
        """Grade held instances again when the rules changed; grades only rise.

        Returns:
            How many instances rose. Interrupted, it starts over at the next start.
        """
        if self._store.graded_by() == self.grading.digest:
            return 0
        raised, place = 0, 0
        while not self._stopping.is_set():
            rows, place = self._store.rows(place, _PAGE)
            if not rows:
                self._store.finish_grading(self.grading.digest, raised, self._clock.now())
                log.info("held instances graded", extra={"count": raised})
                return raised
            wanted = [(row.instance_id, self.grade(row.header, row.source), row) for row in rows]
            rising = [(name, grade) for name, grade, row in wanted if grade > row.grade]
            raised += self._store.raise_grades(rising) if rising else 0
        return raised


def _years(age: str) -> int | None:
    """Read DICOM AS (nnnD, nnnW, nnnM, nnnY) as whole years; None when it is not one."""
    if len(age) != 4 or not (age[:3].isascii() and age[:3].isdecimal()):
        return None
    per_year = {"Y": 1, "M": 12, "W": 53, "D": 366}.get(age[3].upper())
    return None if per_year is None else int(age[:3]) // per_year
