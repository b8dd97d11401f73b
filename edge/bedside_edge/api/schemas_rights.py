"""Bodies of the routes about consent and patients' requests. Times: ms since 1970, UTC."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bedside_core.consent import Consent, Giver
from bedside_core.uses import Purpose
from bedside_edge.ports.rights import Ask, RightsRequest

At = Annotated[int, Field(ge=0, le=2**43)]  # the year 2248
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Back = Literal["all", "diagnosis", "quality", "training", "statistics", "annotation", "export"]


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoticeBody(_View):
    """POST /api/v1/notices."""

    parts: Annotated[dict[str, Annotated[str, Field(max_length=8000)]], Field(max_length=16)]


class NoticeView(_View):
    """One notice by its digest."""

    digest: str


class NoticeList(_View):
    """GET /api/v1/notices."""

    notices: list[NoticeView]


class ConsentBody(_View):
    """POST /api/v1/subjects/{subject_id}/consents; `document` is the SHA-256 of the paper."""

    purpose: Purpose
    notice: Digest
    given_by: Giver = Giver.PATIENT
    classes: Annotated[list[Word], Field(min_length=1, max_length=16)] = ["images"]
    separate: bool = False
    document: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    valid_from: At = 0
    valid_to: At = 0


class ConsentView(_View):
    """One consent on record."""

    id: str
    purpose: str
    classes: list[str]
    notice: str
    given_by: str
    separate: bool
    valid_from: int
    valid_to: int
    withdrawn_at: int


class ConsentList(_View):
    """GET /api/v1/subjects/{subject_id}/consents."""

    consents: list[ConsentView]


class FhirBody(BaseModel):
    """A FHIR R4B Consent; what the box does not know is left aside."""

    model_config = ConfigDict(extra="allow")
    resourceType: Literal["Consent"]  # noqa: N815  FHIR's own name

    def resource(self) -> dict[str, Any]:
        """Return it as it came."""
        return self.model_dump()


class WithdrawBody(_View):
    """POST /api/v1/subjects/{subject_id}/consents:withdraw."""

    purpose: Back = "all"


class WithdrawnView(_View):
    """What a withdrawal met, and what it cannot take back."""

    purpose: str
    stopped_jobs: int
    earlier_results: int
    objects_in_archives: int
    note: str


class RequestBody(_View):
    """POST /api/v1/subjects/{subject_id}/requests."""

    kind: Ask
    received_at: At = 0


class IdentityBody(_View):
    """POST /api/v1/requests/{request_id}:identify."""

    how: Word


class NoteBody(_View):
    """POST /api/v1/requests/{request_id}:answer or :refuse."""

    note: Word = "done"


class RequestView(_View):
    """One request; `text` says whether the wording of the law was read."""

    id: str
    subject: str
    kind: str
    received_at: int
    due_at: int
    overdue: bool
    duty: str
    text: str
    owner: str
    state: str
    identity: str
    response: str
    answered_at: int


class RequestList(_View):
    """GET /api/v1/requests, the first due first."""

    requests: list[RequestView]


class AnswerView(_View):
    """What is handed over: a zip file, base64."""

    file: str
    sha256: str


def consent_view(one: Consent) -> ConsentView:
    """Return a consent as the API tells it."""
    return ConsentView(
        id=one.consent_id,
        purpose=one.purpose,
        classes=list(one.classes),
        notice=one.notice,
        given_by=one.given_by,
        separate=one.separate,
        valid_from=one.valid_from,
        valid_to=one.valid_to,
        withdrawn_at=one.withdrawn_at,
    )


def request_view(one: RightsRequest, mark: str, now: int) -> RequestView:
    """Return a request as the API tells it."""
    return RequestView(
        id=one.request_id,
        subject=one.subject_id,
        kind=one.kind,
        received_at=one.received_at,
        due_at=one.due_at,
        overdue=one.state == "open" and one.due_at <= now,
        duty=one.duty,
        text=mark,
        owner=one.owner,
        state=one.state,
        identity=one.identity,
        response=one.response,
        answered_at=one.answered_at,
    )
