"""Bodies of the consortium's routes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bedside_core.accounting import UNITS_PER_RHO
from bedside_edge.ports.sync import Agreement, NightEvent
from bedside_edge.services.sync import RoundView, Status

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9._:-]{0,63}$")]
Purpose = Literal["train", "clean", "collect", "annotate", "validate", "fuse"]
_Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Moment = Annotated[int, Field(ge=0, le=2**53 - 1)]
ASSUMPTION = "if at least so many boxes add their noise"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class JoinBody(_Body):
    """POST /api/v1/sync:request."""

    box: Name
    organisation: Name
    helper: bool = False


class RequestView(_Body):
    """The request file, and what is read out over the phone."""

    request: str
    fingerprint: str


class WelcomeBody(_Body):
    """POST /api/v1/sync:welcome."""

    welcome: Annotated[str, Field(max_length=1 << 20)]


class WelcomeView(_Body):
    """The consortium this box is now in."""

    consortium: str
    box: str
    url: str
    fingerprint: str


class VetoBody(_Body):
    """POST /api/v1/sync/rounds/{round}:veto."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class WithdrawView(_Body):
    """Whether the hub has heard it; it is told again until it has."""

    round: str
    told: bool


class AgreementBody(_Body):
    """POST /api/v1/sync/agreements; times in ms."""

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=200)]
    purposes: Annotated[list[Purpose], Field(min_length=1, max_length=6)]
    same_region: bool
    document_sha256: _Hex32
    starts: _Moment
    ends: _Moment


class AgreementView(_Body):
    """One agreement with the consortium."""

    name: str
    title: str
    purposes: list[str]
    same_region: bool
    document_sha256: str
    starts: int
    ends: int
    ended_at: int
    by: str


class AgreementList(_Body):
    """GET /api/v1/sync/agreements."""

    agreements: list[AgreementView]


class RoundLine(_Body):
    """A round this box has answered."""

    round: str
    task: str
    purpose: str
    state: str
    closes: int
    rho: float
    epsilon: float
    honest_boxes: int
    assumption: str
    reason: str


class StatusView(_Body):
    """GET /api/v1/sync."""

    box: str
    organisation: str
    helper: bool
    consortium: str
    url: str
    root_fingerprint: str
    request_fingerprint: str
    locked: bool
    roster: int
    records: int
    next_visit: int
    failures: int
    rounds: list[RoundLine]


class EventView(_Body):
    """One line of a night."""

    step: str
    round: str
    task: str
    started: int
    ended: int
    outcome: str
    code: str


class NightView(_Body):
    """A night's timeline."""

    night: int
    events: list[EventView]


class NightList(_Body):
    """GET /api/v1/sync/nights, newest first."""

    nights: list[NightView]


class VisitView(_Body):
    """POST /api/v1/sync:now."""

    night: NightView
    waits: bool
    failed: bool


def agreement_view(one: Agreement) -> AgreementView:
    """Return an agreement for people."""
    return AgreementView(
        name=one.agreement_id,
        title=one.title,
        purposes=list(one.purposes),
        same_region=one.same_region,
        document_sha256=one.document.hex(),
        starts=one.starts,
        ends=one.ends,
        ended_at=one.ended_at,
        by=one.actor,
    )


def status_view(found: Status) -> StatusView:
    """Return how the box stands."""
    member, welcome = found.member, found.welcome
    return StatusView(
        box=member.box if member else "",
        organisation=member.organisation if member else "",
        helper=bool(member and member.helper),
        consortium=welcome.root.consortium if welcome else "",
        url=welcome.url if welcome else "",
        root_fingerprint=found.root,
        request_fingerprint=found.request,
        locked=found.locked,
        roster=found.roster,
        records=found.records,
        next_visit=found.next_visit,
        failures=found.failures,
        rounds=[_round(one) for one in found.rounds],
    )


def night_view(night: int, events: list[NightEvent]) -> NightView:
    """Return a night's timeline."""
    return NightView(
        night=night,
        events=[
            EventView(
                step=one.step,
                round=one.round,
                task=one.task,
                started=one.started,
                ended=one.ended,
                outcome=one.outcome,
                code=one.code,
            )
            for one in events
        ],
    )


def _round(one: RoundView) -> RoundLine:
    return RoundLine(
        round=one.round,
        task=one.task,
        purpose=one.purpose,
        state=one.state,
        closes=one.closes,
        rho=one.cost / UNITS_PER_RHO,
        epsilon=one.epsilon,
        honest_boxes=one.honest,
        assumption=ASSUMPTION if one.honest else "",
        reason=one.code,
    )
