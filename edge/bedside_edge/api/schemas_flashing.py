"""Bodies of the routes about what is flashed. Times: milliseconds since 1970, deadlines seconds."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bedside_core.errors import NotFoundError
from bedside_core.slots import Pair, Slot, SlotState
from bedside_edge.ports.flashing import Step
from bedside_edge.services.flashing import FlashingService, Outcome

KIND = r"^(app|profile|policy|model/[a-z0-9][a-z0-9.-]{0,62})$"


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KindBody(_View):
    """POST /api/v1/updates:rollback and :confirm."""

    kind: Annotated[str, Field(pattern=KIND)]


class InstallBody(_View):
    """POST /api/v1/updates:install; may be left out."""

    again: bool = False  # what was found bad here has another trial


class SlotView(_View):
    """One of the two slots of a kind."""

    name: str
    state: SlotState
    version: str
    digest: str
    release_counter: int
    tries: int
    deadline: int
    reason: str


class PairView(_View):
    """Both slots of a kind; `active` is empty while what the box came with serves."""

    kind: str
    active: str
    floor: int
    lowest: int
    waiting: str
    slots: list[SlotView]


class StepView(_View):
    """One line of what was flashed; `entry` is its place in the evidence log, -1 for none."""

    kind: str
    slot: str
    what: str
    digest: str
    release_counter: int
    reason: str
    actor: str
    at: int
    entry: int


class SlotsView(_View):
    """GET /api/v1/updates/slots."""

    pairs: list[PairView]
    steps: list[StepView]
    restart: bool


class OutcomeView(_View):
    """What became of one installation, trial or way back."""

    kind: str
    state: Literal["good", "bad", "restart", "waiting", "serving"]
    version: str
    code: str
    detail: str
    record: dict[str, Any] | None


class OutcomesView(_View):
    """What became of everything that was ready."""

    outcomes: list[OutcomeView]


def slots_view(service: FlashingService, limit: int = 20) -> SlotsView:
    """Return both slots of every kind, and the newest steps."""
    return SlotsView(
        pairs=[_pair_view(service, pair) for pair in service.pairs()],
        steps=[_step_view(step) for step in service.steps(limit=limit)],
        restart=service.wants_restart,
    )


def outcome_view(outcome: Outcome) -> OutcomeView:
    """Return an outcome as it is shown."""
    return OutcomeView.model_validate(
        {
            "kind": outcome.kind,
            "state": outcome.state,
            "version": outcome.version,
            "code": outcome.code,
            "detail": outcome.detail,
            "record": outcome.record,
        }
    )


def _pair_view(service: FlashingService, pair: Pair) -> PairView:
    return PairView(
        kind=pair.kind,
        active=pair.active,
        floor=pair.floor,
        lowest=pair.lowest,
        waiting=service.waiting.get(pair.kind, ""),
        slots=[_slot_view(service, pair.kind, slot) for slot in (pair.a, pair.b)],
    )


def _slot_view(service: FlashingService, kind: str, slot: Slot) -> SlotView:
    try:
        version = service.held(kind, slot.name).version
    except NotFoundError:
        version = ""
    return SlotView(
        name=slot.name,
        state=slot.state,
        version=version,
        digest=slot.digest,
        release_counter=slot.release_counter,
        tries=slot.tries,
        deadline=slot.deadline,
        reason=slot.reason,
    )


def _step_view(step: Step) -> StepView:
    return StepView(
        kind=step.kind,
        slot=step.slot,
        what=step.what,
        digest=step.digest,
        release_counter=step.release_counter,
        reason=step.reason,
        actor=step.actor,
        at=step.at,
        entry=step.entry,
    )
