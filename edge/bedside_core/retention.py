"""How long studies stay, and which go when room is needed: rules over facts.

A study is received objects, results with the objects made of them, and reviews, all under one key:
it goes as a whole. Every class has a minimum age; a study goes only when each class it holds is
past its own. What was not delivered, is under hold, is still in a job, or (if so set) was not
signed off never goes, however full the disk is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bedside_core.errors import InvalidConfigError

DAY_MS: Final = 86_400_000


class Stay(StrEnum):
    """Why a study stays."""

    HELD = "legal-hold"
    IN_JOB = "in-job"  # waits for the model, or runs
    FAILED = "job-failed"  # a person has to look: replay or cancel the dead job
    UNDELIVERED = "undelivered"  # waiting, or a dead letter
    UNSIGNED = "unsigned"
    YOUNG = "below-minimum-age"
    ROOM = "no-room-needed"


class Go(StrEnum):
    """Why a study goes."""

    MAXIMUM = "past-maximum-age"
    ROOM = "room-needed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What the rules look at. Times are milliseconds since 1970, UTC; 0 is never.

    Attributes:
        study_id: ours.
        size: bytes of its encrypted files.
        received: when its last instance arrived.
        resulted: when its last result was made.
        reviewed: when it was last signed off or rejected.
        signed: whether its current result has a review, or it has no result.
        open_jobs: jobs that have not ended.
        dead_jobs: jobs that failed for good and whose study got no result since.
        undelivered: deliveries that wait or are dead letters, and results not yet published.
        held: under legal hold.
    """

    study_id: str
    size: int
    received: int
    resulted: int = 0
    reviewed: int = 0
    signed: bool = True
    open_jobs: int = 0
    dead_jobs: int = 0
    undelivered: int = 0
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRules:
    """Minimum ages in days, by class, and what else keeps a study."""

    received_days: float = 30
    results_days: float = 90
    reviews_days: float = 90
    at_most_days: float = 0  # 0: a study goes only when room is needed
    keep_unsigned: bool = True
    low_watermark: float = 0.80  # used fraction of the file system above which studies go

    def __post_init__(self) -> None:
        ages = (self.received_days, self.results_days, self.reviews_days, self.at_most_days)
        if min(ages) < 0 or not 0 < self.low_watermark <= 1:
            raise InvalidConfigError("retention: ages in days, 0 < low_watermark <= 1")
        if self.at_most_days and self.at_most_days < max(ages[:3]):
            raise InvalidConfigError("retention: at_most_days is below a minimum age")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a study, and why."""

    study: StudyFacts
    reason: Stay | Go

    @property
    def goes(self) -> bool:
        """Whether it is to be deleted."""
        return isinstance(self.reason, Go)


def room_needed(used: int, total: int, rules: RetentionRules) -> int:
    """Return how many bytes are to be freed; 0 at or below the low watermark."""
    return max(0, used - int(total * rules.low_watermark))


def decide(
    studies: Iterable[StudyFacts], rules: RetentionRules, now: int, needed: int
) -> list[Verdict]:
    """Return a verdict for each study, oldest first: the order in which they go.

    Args:
        studies: in any order.
        rules: in force.
        now: milliseconds since 1970, UTC.
        needed: bytes to be freed; studies go for room until their sizes reach it.
    """
    verdicts = []
    for study in sorted(studies, key=lambda s: (s.received, s.study_id)):
        reason = _reason(study, rules, now, needed)
        if isinstance(reason, Go):
            needed -= study.size
        verdicts.append(Verdict(study=study, reason=reason))
    return verdicts


def batches(verdicts: Sequence[Verdict], most: int) -> list[list[str]]:
    """Return the ids of the studies that go, in order, at most `most` at a time."""
    going = [verdict.study.study_id for verdict in verdicts if verdict.goes]
    return [going[n : n + most] for n in range(0, len(going), most)]


def _reason(study: StudyFacts, rules: RetentionRules, now: int, needed: int) -> Stay | Go:
    stays = (
        (study.held, Stay.HELD),
        (study.open_jobs > 0, Stay.IN_JOB),
        (study.undelivered > 0, Stay.UNDELIVERED),
        (study.dead_jobs > 0, Stay.FAILED),
        (rules.keep_unsigned and not study.signed, Stay.UNSIGNED),
        (_young(study, rules, now), Stay.YOUNG),
    )
    for holds, why in stays:
        if holds:
            return why
    newest = max(study.received, study.resulted, study.reviewed)
    if rules.at_most_days and now - newest >= rules.at_most_days * DAY_MS:
        return Go.MAXIMUM
    return Go.ROOM if needed > 0 else Stay.ROOM


def _young(study: StudyFacts, rules: RetentionRules, now: int) -> bool:
    """Tell whether a class the study holds is not past its minimum age; a clock set back keeps."""
    ages = (
        (study.received, rules.received_days),
        (study.resulted, rules.results_days),
        (study.reviewed, rules.reviews_days),
    )
    return any(at and now - at < days * DAY_MS for at, days in ages)
