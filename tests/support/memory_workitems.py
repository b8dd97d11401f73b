"""`WorkitemStore` in memory; passes the contract of the real one."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from bedside_core.errors import (
    AlreadyExistsError,
    NotFoundError,
    QueueFullError,
    StaleRevisionError,
)
from bedside_core.workitem import FINAL, StepState
from bedside_edge.ports.workitems import Workitem


class MemoryWorkitems:
    def __init__(self, most_open: int = 10_000) -> None:
        self.held: dict[str, Workitem] = {}
        self._most_open = most_open

    def add(self, uid: str, body: dict[str, Any], now: int, actor: str) -> Workitem:
        assert actor
        if uid in self.held:
            raise AlreadyExistsError("a workitem of that UID exists")
        if sum(one.state not in FINAL for one in self.held.values()) >= self._most_open:
            raise QueueFullError("too many workitems wait")
        self.held[uid] = Workitem(
            workitem_id=f"workitem-{len(self.held)}",
            uid=uid,
            state=StepState.SCHEDULED,
            revision=1,
            body=body,
            created=now,
            updated=now,
        )
        return self.held[uid]

    def workitem(self, uid: str) -> Workitem:
        if uid not in self.held:
            raise NotFoundError("no workitem of that UID")
        return self.held[uid]

    def workitems(
        self, states: Iterable[StepState] = (), *, ours: bool | None = None
    ) -> list[Workitem]:
        wanted = set(states)
        return [
            one
            for one in reversed(self.held.values())
            if (not wanted or one.state in wanted) and ours in (None, one.ours)
        ]

    def replace(self, changed: Workitem, actor: str) -> Workitem:
        assert actor
        if self.workitem(changed.uid).revision != changed.revision:
            raise StaleRevisionError("somebody changed the workitem meanwhile")
        self.held[changed.uid] = replace(changed, revision=changed.revision + 1)
        return self.held[changed.uid]
