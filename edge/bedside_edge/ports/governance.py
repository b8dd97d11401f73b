"""What the gate has to know of data before it may be used, and who keeps grades."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bedside_core.grading import Graded, Lowering
from bedside_edge.ports import Header


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What the box itself knows of a study.

    Attributes:
        subject_id: the patient, as the box knows them.
        grade: highest grade of the study's instances.
        burned_in: text in the pixels of one of them, as the sender says.
        minor: under the age of consent at the day of asking; False when no header says an age.
        hold: under a legal hold.
    """

    study_id: str
    subject_id: str
    grade: int
    burned_in: bool = False
    minor: bool = False
    hold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is on record about a patient's will, and valid now; the default is nothing.

    `basis` says whether there is any ground for reading a study at all: the treatment, or consent.
    """

    consents: frozenset[str] = frozenset()
    withdrawn: bool = False
    guardian_consent: bool = False
    separate_consent: bool = False
    basis: bool = True


# Return the standing of patients by subject id; who is not in the answer has none.
StandingOf = Callable[[Sequence[str]], Mapping[str, Standing]]


def no_standing(subject_ids: Sequence[str]) -> Mapping[str, Standing]:
    """Return nothing: no consent and no withdrawal is on record for anybody."""
    return {}


class StudyFactsStore(Protocol):
    """Looks studies up for the gate."""

    def facts(self, study_ids: Sequence[str], today: str) -> dict[str, StudyFacts]:
        """Return the facts of the studies that exist, by id.

        Args:
            study_ids: ours.
            today: YYYYMMDD, UTC; ages are counted on this day.
        """
        ...

    def study_of(self, *, result_id: str = "", output_id: str = "") -> str:
        """Return the study of a result or of an object made of one; NotFoundError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeRow:
    """The grade of one instance."""

    instance_id: str
    study_id: str
    grade: int
    header: Header
    source: str


class GradeStore(Protocol):
    """Grades of instances; those of studies, results and objects follow by themselves."""

    def graded_by(self) -> str:
        """Return the digest of the rules that held instances were last graded by, or empty."""
        ...

    def rows(self, after: int, limit: int) -> tuple[list[GradeRow], int]:
        """Return instances in order of arrival after a place in it, and the next place."""
        ...

    def raise_grades(self, grades: Iterable[tuple[str, int]]) -> int:
        """Raise instances to these grades, never lower one; return how many rose."""
        ...

    def finish_grading(self, digest: str, raised: int, at: int) -> None:
        """Record that every held instance was graded by these rules, with its evidence."""
        ...

    def record_deidentification(
        self, deidentification_id: str, instance_id: str, profile: str, actor: str, at: int
    ) -> None:
        """Record that a held instance was made by de-identification, with its evidence."""
        ...

    def lower(self, instance_id: str, grade: int, lowering: Lowering, at: int) -> None:
        """Let a grade fall, with its evidence, in one transaction.

        Raises:
            NotFoundError: no such instance, or no such de-identification of it.
            GradeFallsError: nothing shows a de-identification, or one person is not two.
        """
        ...


GradeOf = Callable[[Header, str], Graded]  # header and source -> grade of an arriving object
