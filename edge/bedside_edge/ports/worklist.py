"""What the worklist asks of the store: light rows for all studies, names only for those shown.

Identifiers and results lie encrypted under each study's key. Rows carry what that key looks like
in the database: once it is another value, or the row is gone, what was remembered is forgotten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bedside_core.findings import Decision
from bedside_edge.ports import JobState, Priority
from bedside_edge.ports.review import ReviewState


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRow:
    """Where one study stands; nothing in it names a patient.

    Attributes:
        key: the study's wrapped data key, to be compared only.
        state: of its newest job.
        received: when its first image came, milliseconds since 1970.
        changed: when its newest job last changed.
        reason: code of the newest job's refusal or last failure, or empty.
        images: instances held.
        result_id: its newest result, or empty.
        review: what stands under that result.
        grade: of the study, 1 (public) to 5 (special disease).
    """

    study_id: str
    key: bytes = field(repr=False)
    job_id: str
    state: JobState
    priority: Priority
    received: int
    changed: int
    reason: str
    images: int
    result_id: str
    review: ReviewState
    grade: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Whose study it is and what kind, from the header of its first image; empty if absent."""

    patient_name: str = field(repr=False)
    patient_id: str = field(repr=False)
    accession_number: str = field(repr=False)
    study_date: str = field(repr=False)
    modality: str
    body_part: str
    description: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the box said of a study.

    Attributes:
        decision: what the rule in force made of the probability.
        probability, threshold, low, high: in 0..1; low and high bound the undetermined band.
        finding: the finding's name.
        model: name and version of the package.
    """

    decision: Decision
    probability: float = field(repr=False)
    threshold: float
    low: float
    high: float
    finding: str
    model: str


class WorkRows(Protocol):
    """Read access to what a worklist shows."""

    def rows(self) -> list[WorkRow]:
        """Return one row per study whose key is there, newest job first."""
        ...

    def names(self, study_ids: Sequence[str]) -> Mapping[str, Names]:
        """Return names by study id; a study that is gone or erased is left out."""
        ...

    def answers(self, result_ids: Sequence[str]) -> Mapping[str, Answer]:
        """Return answers by result id; results without a value and erased ones are left out."""
        ...
