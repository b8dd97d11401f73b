"""What tasks of the consortium see of the box's own cases, and what they keep on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.review import ReviewKind
from bedside_core.uses import Purpose, Use
from bedside_edge.ports import Header

Json = dict[str, Any]
Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The standing verdict on a study's standing result."""

    kind: ReviewKind
    decision: str  # present, absent, undetermined; empty when rejected without a word
    reader_id: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One study, as much as a task may look at.

    Attributes:
        patient: keyed hash, the same whenever this patient comes; empty when no id says who it is.
        arrival: place in the order of arrival at the box.
        received: of the first object, milliseconds since 1970.
        header: of the first object; None when it cannot be read.
        result: the standing result's document.
    """

    study_id: str
    subject_id: str
    patient: str
    arrival: int
    received: int
    grade: int
    way: str
    header: Header | None = field(repr=False, default=None)
    result: Json | None = field(repr=False, default=None)
    result_id: str = ""
    signed: Signature | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JointResult:
    """A published result the hospital took over."""

    kind: str  # clean or annotate
    digest: str
    actor: str
    at: int
    body: bytes = field(repr=False)


class CaseStore(Protocol):
    """Cases, and what learning from them leaves behind."""

    def cases(self, subject_ids: Sequence[str] | None = None) -> list[Case]:
        """Return studies in order of arrival: readable, under no hold; of these patients or all."""
        ...

    def studies_with(self, sop_instance_uid: str) -> list[str]:
        """Return the studies that hold an object of this UID."""
        ...

    def features(self, study_id: str, package: str) -> dict[str, Features]:
        """Return the stored features of a study's images, by instance id."""
        ...

    def keep_features(self, study_id: str, package: str, found: Mapping[str, Features]) -> None:
        """Keep features under the study's key; nothing when it was erased meanwhile."""
        ...

    def extras(self, subject_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return what other sources say of patients, by subject id and name."""
        ...

    def add_extras(self, name: str, rows: Sequence[tuple[str, str]], actor: str) -> None:
        """Replace a source: (subject id, word) for each patient it knows; evidence with it."""
        ...

    def batches(self, model: str) -> dict[str, str]:
        """Return in which round a patient's data went into a model, by keyed hash."""
        ...

    def enter_batch(self, model: str, round_name: str, patients: Sequence[str]) -> list[str]:
        """Put patients into a round's batch, durable; return those that are in it now.

        A patient who is in another round's batch of the model is not taken.
        """
        ...

    def take_over(self, result: JointResult) -> None:
        """Keep a published result, with its evidence; the same one again changes nothing."""
        ...

    def joint_results(self, kind: str) -> list[JointResult]:
        """Return what was taken over, newest first."""
        ...


class Reads(Protocol):
    """What a model package says of cases. Runs a network: slow, never under a lock."""

    def must_hold(self, package: str) -> None:
        """Return when the package can be asked; NotFoundError when the box does not hold it."""
        ...

    def features(self, case: Case, package: str) -> NDArray[np.float64] | None:
        """Return the mean pooled features over a study's images; None when none can be read.

        Raises:
            NotFoundError: the box does not hold this package.
        """
        ...

    def score(self, case: Case, package: str) -> float | None:
        """Return the package's calibrated probability of a study; None when it reads none of it.

        Raises:
            NotFoundError: the box does not hold this package.
        """
        ...


class Permit(Protocol):
    """Asks the policy for a use of many cases."""

    def __call__(self, use: Use, purpose: Purpose, cases: Sequence[Case]) -> frozenset[str]:
        """Return the studies that may be used so."""
        ...
