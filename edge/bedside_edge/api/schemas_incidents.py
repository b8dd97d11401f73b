"""Bodies of the routes about incidents. Times: milliseconds since 1970, UTC."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bedside_core.incident import Cause
from bedside_edge.ports.incidents import IncidentRow, StateRow, UnsealAsk
from bedside_edge.services.incident import IncidentService

Reason = Annotated[str, Field(max_length=2000)]
Facts = Annotated[dict[str, Annotated[str, Field(max_length=4000)]], Field(max_length=16)]
At = Annotated[int, Field(ge=0, le=2**53 - 1)]


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SealBody(_View):
    """POST /api/v1/incidents:seal."""

    cause: Cause = Cause.LEAK
    reason: Reason = ""
    aware_at: At = 0


class AskBody(_View):
    """POST /api/v1/incidents:unseal; `shutdown` over the network takes two people as well."""

    state: Literal["normal", "patching", "shutdown"] = "normal"
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


class AskView(_View):
    """What one person asked for."""

    id: str
    state: str
    actor: str
    at: int


class StateBody(_View):
    """POST /api/v1/incidents:state."""

    state: Literal["normal", "alarm", "patching", "drill"]
    reason: Reason = ""


class StateView(_View):
    """How the box is or was."""

    state: str
    incident: str
    actor: str
    second: str
    at: int


class StateList(_View):
    """GET /api/v1/incidents/state; the first is now."""

    states: list[StateView]


class IncidentBody(_View):
    """POST /api/v1/incidents."""

    cause: Cause
    facts: Facts = {}
    aware_at: At = 0
    earliest: At = 0
    drill: bool = False


class FactsBody(_View):
    """PATCH /api/v1/incidents/{incident_id}."""

    facts: Facts


class ClockView(_View):
    """One clock; `mark` says whether the wording of the law was read."""

    duty: str
    regime: str
    words: str
    to: str
    mark: str
    due: int
    alarmed: int
    signed_by: str
    signed_at: int
    notice: str


class IncidentView(_View):
    """One incident; the first clock is the shortest."""

    id: str
    cause: str
    drill: bool
    aware_at: int
    opened_at: int
    opened_by: str
    closed_at: int
    facts: dict[str, str]
    clocks: list[ClockView]


class IncidentList(_View):
    """GET /api/v1/incidents."""

    incidents: list[IncidentView]


class NoticeView(_View):
    """The draft of a notice; `digest` once a person signed it."""

    text: str
    digest: str = ""


def state_view(row: StateRow) -> StateView:
    """Return a state as the API tells it."""
    return StateView(
        state=row.state,
        incident=row.incident_id,
        actor=row.actor,
        second=row.second,
        at=row.at,
    )


def ask_view(asked: UnsealAsk) -> AskView:
    """Return what was asked for as the API tells it."""
    return AskView(id=asked.ask_id, state=asked.state, actor=asked.actor, at=asked.at)


def incident_view(row: IncidentRow, service: IncidentService) -> IncidentView:
    """Return an incident as the API tells it; a duty of an older version keeps its id."""
    clocks = []
    for one in row.clocks:
        duty = service.duties.get(one.duty_id)
        clocks.append(
            ClockView(
                duty=one.duty_id,
                regime=duty.regime if duty else one.duty_id,
                words=duty.words if duty else "",
                to=duty.to if duty else "",
                mark=duty.mark if duty else "unverified - have it checked",
                due=one.due,
                alarmed=one.alarmed,
                signed_by=one.signed_by,
                signed_at=one.signed_at,
                notice=one.notice,
            )
        )
    return IncidentView(
        id=row.incident_id,
        cause=row.cause,
        drill=row.drill,
        aware_at=row.aware_at,
        opened_at=row.opened_at,
        opened_by=row.opened_by,
        closed_at=row.closed_at,
        facts=dict(row.facts),
        clocks=clocks,
    )
