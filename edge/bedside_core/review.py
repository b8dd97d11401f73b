"""What a reader said about a result: the label that is kept, and what the signed report says."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from bedside_core.errors import InvalidInputError
from bedside_core.findings import Decision

_LONGEST_REASON = 1024  # characters; SR text and a table cell hold it


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]")


def plain_text(text: str) -> str:
    """Return a typed or pasted text as DICOM's UT and FHIR's string may hold it.

    Control characters but tab and line ends become spaces (PS3.5 6.1.3): an archive that checks
    its objects would refuse the report, and with it the retraction of a rejected result.
    """
    return _CONTROL.sub(" ", text).strip()


class ReviewKind(StrEnum):
    """What the reader did with the result."""

    ACCEPT = "accept"
    REJECT = "reject"
    EDIT = "edit"


class Certainty(StrEnum):
    """How sure the reader was."""

    CERTAIN = "certain"
    PROBABLE = "probable"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One reader's verdict; `reader_name` is a DICOM person name and stands in the signed report.

    Attributes:
        decision: what the reader says of the finding; None leaves it as the box said (accept),
            or open (reject).
        at: milliseconds since 1970, UTC.
    """

    kind: ReviewKind
    reader_name: str = field(repr=False)
    reader_id: str
    reason: str = field(repr=False, default="")
    certainty: Certainty = Certainty.CERTAIN
    decision: Decision | None = None
    at: int

    def __post_init__(self) -> None:
        if not self.reader_name.strip() or not self.reader_id:
            raise InvalidInputError("a review needs a reader")
        if self.kind is not ReviewKind.ACCEPT and not self.reason.strip():
            raise InvalidInputError("to reject or edit a result needs a reason")
        if self.kind is ReviewKind.EDIT and self.decision is None:
            raise InvalidInputError("an edit says what the finding is")
        if len(self.reason) > _LONGEST_REASON:
            raise InvalidInputError(f"a reason has at most {_LONGEST_REASON} characters")
