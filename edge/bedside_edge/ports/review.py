"""What is kept of a reader's verdict, and the store that keeps it.

A verdict is never changed: a later one of the same result is a new revision. Storing it and noting
that its report has to be made are one transaction.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from bedside_core.findings import Decision
from bedside_core.review import Certainty, Review, ReviewKind


class ReviewState(StrEnum):
    """What stands under a result."""

    UNSIGNED = "unsigned"
    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"


class Retraction(StrEnum):
    """Whether a destination knows that a result was rejected."""

    NOT_SENT = "not-sent"  # nothing of the result went there: there is nothing to take back
    PENDING = "pending"
    ARRIVED = "arrived"  # every object of the rejection was acknowledged
    FAILED = "failed"  # at least one was refused or given up; a person may send it again


class PublicationState(StrEnum):
    """Whether the signed report has been made."""

    WAITING = "waiting"
    DONE = "done"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """A verdict ready to be stored, with what the box had said.

    Attributes:
        result_id: the result it is about.
        review: the verdict.
        finding: code of the finding, in its coding scheme (SNOMED CT).
        box_decision: what the box said of it.
        model, version: which model said it.
    """

    result_id: str
    review: Review
    finding: str
    box_decision: Decision
    model: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRecord:
    """A stored verdict; see `NewReview`.

    Attributes:
        revision: 1 for the first verdict on this result, then 2, 3, ...
        publication: how far its signed report is.
        attempts: tries to make it that failed.
        failure: code of the last failure to make it.
    """

    review_id: str
    result_id: str
    study_id: str
    revision: int
    review: Review
    finding: str
    box_decision: Decision
    model: str
    version: str
    publication: PublicationState
    attempts: int = 0
    failure: str = ""

    @property
    def label(self) -> Decision | None:
        """What the reader says of the finding; None when they rejected without saying."""
        if self.review.kind is ReviewKind.ACCEPT:
            return self.box_decision
        return self.review.decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a case teaches: one reader's word on one finding.

    Attributes:
        seq: place in the order of signing; ask for what follows it.
        standing: no later verdict on the same result.
        decision: None when the reader rejected the result without saying what is there.
        at: milliseconds since 1970, UTC.
    """

    seq: int
    result_id: str
    study_id: str
    revision: int
    standing: bool
    kind: ReviewKind
    reader_id: str
    finding: str
    decision: Decision | None = field(repr=False)
    box_decision: Decision = field(repr=False)
    certainty: Certainty
    model: str
    version: str
    at: int


class ReviewStore(Protocol):
    """Verdicts. Every method is one transaction."""

    def add(self, new: NewReview, expected: int) -> ReviewRecord:
        """Store a verdict and note that its report is to be made.

        No two verdicts on one result have the same time: a second one is moved by a millisecond.

        Args:
            new: the verdict.
            expected: the revision it was made on; 0: nobody had signed.

        Raises:
            NotFoundError: no such result.
            WrongStateError: a newer result has replaced this one.
            StaleRevisionError: somebody signed meanwhile.
        """
        ...

    def reviews(self, result_id: str) -> list[ReviewRecord]:
        """Return the verdicts on a result, first to last; empty when there are none."""
        ...

    def pending(self, now: int, limit: int = 1) -> list[ReviewRecord]:
        """Return verdicts whose report is due, oldest first; one per result."""
        ...

    def next_pending(self) -> int | None:
        """Return when the next report is due, or None."""
        ...

    def published(self, review_id: str) -> None:
        """The report is made and on its way."""
        ...

    def not_published(self, review_id: str, code: str, due: int | None) -> None:
        """Record a failure to make the report; `due` None ends the tries."""
        ...

    def retry(self, review_id: str, now: int) -> None:
        """Try a dead one again; WrongStateError unless DEAD, NotFoundError."""
        ...

    def labels(self, *, after: int = 0, limit: int = 1000, standing: bool = True) -> list[Label]:
        """Return what readers said, in the order of signing.

        Args:
            after: `seq` of the last one already seen.
            limit: how many at most.
            standing: leave out verdicts that a later one on the same result replaced.
        """
        ...
