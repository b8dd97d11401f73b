"""Staged rollouts: which group comes next, and when to stop. Pure rules over signed inventories.

A box counts as a success only by its own signed report: the package serves, with an acceptance
record, for so many hours without an alarm. All a campaign ever does is to choose what the next
revision of the assignments says; there is no other way to a box.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from bedside_core.errors import WrongStateError
from bedside_sync.distribution.inventory import Inventory, SlotReport
from bedside_sync.secagg.bodies import HEX_32, NAME, Body

_HOUR: Final = 3600
_Name = Annotated[str, Field(pattern=NAME)]
_Percent = Annotated[int, Field(ge=0, le=100)]


class Group(Body):
    """Boxes that get it together."""

    name: _Name
    boxes: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=10_000)]


class Plan(Body):
    """What a rollout is to do; the first group are canaries that agreed to it.

    Attributes:
        path: target path of the package, as its owner published it.
        success_percent: of a group's boxes that must run it well before the next group gets it.
        error_percent: of the boxes reached: more failures than that stop the rollout.
        soak_hours: it must have served for so long without an alarm.
    """

    name: _Name
    path: Annotated[str, Field(max_length=240)]
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=64)]
    success_percent: Annotated[int, Field(ge=1, le=100)] = 100
    error_percent: _Percent = 0
    soak_hours: Annotated[int, Field(ge=0, le=2400)] = 24

    @model_validator(mode="after")
    def _once(self) -> Self:
        boxes = [box for group in self.groups for box in group.boxes]
        names = [group.name for group in self.groups]
        if len(set(boxes)) != len(boxes) or len(set(names)) != len(names):
            raise ValueError("a box and a group are named once")
        return self


RUNNING: Final = "running"


class Campaign(Body):
    """A rollout under way.

    Attributes:
        slot: where the package goes.
        package: digest of its manifest.
        group: index of the newest group that got it.
        since: when that group got it, seconds.
        before: what each box reached was assigned before, for a stop.
        why: of a stop.
    """

    plan: Plan
    slot: Annotated[str, Field(max_length=80)]
    package: Annotated[str, Field(pattern=HEX_32)]
    state: Literal["running", "stopped", "done"] = "running"
    group: Annotated[int, Field(ge=0)] = 0
    since: Annotated[int, Field(ge=0)] = 0
    before: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    why: Annotated[str, Field(max_length=300)] = ""

    @property
    def reached(self) -> tuple[str, ...]:
        """The boxes that were assigned it."""
        return tuple(box for group in self.plan.groups[: self.group + 1] for box in group.boxes)


class Standing(StrEnum):
    """How a box stands."""

    WAITING = "waiting"  # no report yet, or it is under way
    SOAKING = "soaking"  # it serves, not long enough yet
    GOOD = "good"
    BAD = "bad"


class Verdict(StrEnum):
    """What is to be done now."""

    WAIT = "wait"
    ADVANCE = "advance"
    FINISH = "finish"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Where a rollout is, and what follows.

    Attributes:
        boxes: how every box that was reached stands.
        why: in words.
    """

    verdict: Verdict
    boxes: Mapping[str, Standing]
    why: str


def standing(campaign: Campaign, inventory: Inventory | None) -> Standing:
    """Return how one box stands by its newest report."""
    found = _slots(campaign, inventory)
    if inventory is None or not found:
        return Standing.WAITING
    if any(slot.state == "bad" for slot in found):
        return Standing.BAD
    slot = next((one for one in found if one.serving and one.state == "good"), None)
    if slot is None:
        # one that was good and does not serve any more was taken back at the site
        taken_back = any(one.state == "good" for one in found)
        return Standing.BAD if taken_back else Standing.WAITING
    if inventory.alarms:
        return Standing.BAD
    soaked = inventory.at - slot.since >= campaign.plan.soak_hours * _HOUR
    return Standing.GOOD if slot.record and soaked else Standing.SOAKING


def judge(campaign: Campaign, inventories: Mapping[str, Inventory]) -> Judgement:
    """Return what follows from the newest reports.

    Raises:
        WrongStateError: the rollout is over.
    """
    if campaign.state != RUNNING:
        raise WrongStateError(f"the rollout is {campaign.state}")
    plan, group = campaign.plan, campaign.plan.groups[campaign.group]
    boxes = {box: standing(campaign, inventories.get(box)) for box in campaign.reached}
    bad = sorted(box for box, how in boxes.items() if how is Standing.BAD)
    if len(bad) * 100 > plan.error_percent * len(boxes):
        why = f"{len(bad)} of {len(boxes)} boxes failed: {', '.join(bad[:10])}"
        return Judgement(verdict=Verdict.STOP, boxes=boxes, why=why)
    good = sum(boxes[box] is Standing.GOOD for box in group.boxes)
    why = f"{good} of {len(group.boxes)} boxes of {group.name} run it well"
    if good * 100 < plan.success_percent * len(group.boxes):
        return Judgement(verdict=Verdict.WAIT, boxes=boxes, why=why)
    last = campaign.group + 1 == len(plan.groups)
    verdict = Verdict.FINISH if last else Verdict.ADVANCE
    return Judgement(verdict=verdict, boxes=boxes, why=why)


def follow(campaign: Campaign, judgement: Judgement, now: int) -> Campaign:
    """Return the campaign after a judgement; equal when there is nothing to do."""
    if judgement.verdict is Verdict.STOP:
        return stopped(campaign, judgement.why)
    if judgement.verdict is Verdict.FINISH:
        return campaign.model_copy(update={"state": "done", "why": judgement.why})
    if judgement.verdict is Verdict.ADVANCE:
        return campaign.model_copy(update={"group": campaign.group + 1, "since": now})
    return campaign


def stopped(campaign: Campaign, why: str) -> Campaign:
    """Return a stopped campaign; WrongStateError when it is over."""
    if campaign.state != RUNNING:
        raise WrongStateError(f"the rollout is {campaign.state}")
    return campaign.model_copy(update={"state": "stopped", "why": why})


def _slots(campaign: Campaign, inventory: Inventory | None) -> list[SlotReport]:
    if inventory is None:
        return []
    return [
        one
        for one in inventory.slots
        if one.slot == campaign.slot and one.package == campaign.package
    ]
