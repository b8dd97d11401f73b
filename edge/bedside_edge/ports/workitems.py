"""Workitems as the box keeps them, and the store they lie in."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from bedside_core.workitem import StepState


@dataclass(frozen=True, slots=True, kw_only=True)
class Workitem:
    """A Unified Procedure Step. Times are milliseconds since 1970, UTC.

    Attributes:
        workitem_id: ours; may be logged.
        uid: its SOP Instance UID.
        state: Procedure Step State.
        revision: counts changes, from 1.
        owner: Transaction UID it was claimed with; empty before.
        ours: whether this box performs it.
        study_id: of its input, once claimed by this box.
        job_id: the job that performs it; empty before.
        body: the data set in DICOM JSON, without the Transaction UID.
    """

    workitem_id: str
    uid: str = field(repr=False)
    state: StepState
    revision: int
    owner: str = field(repr=False, default="")
    ours: bool = False
    study_id: str = ""
    job_id: str = ""
    body: dict[str, Any] = field(repr=False)
    created: int
    updated: int


class WorkitemStore(Protocol):
    """Workitems by their UID. Every method is one transaction."""

    def add(self, uid: str, body: dict[str, Any], now: int, actor: str) -> Workitem:
        """Keep a new SCHEDULED workitem.

        Raises:
            AlreadyExistsError: one of that UID is here.
            QueueFullError: too many wait already.
        """
        ...

    def workitem(self, uid: str) -> Workitem:
        """Return one; NotFoundError."""
        ...

    def workitems(
        self, states: Iterable[StepState] = (), *, ours: bool | None = None
    ) -> list[Workitem]:
        """Return workitems, newest first; all states when none is named."""
        ...

    def replace(self, changed: Workitem, actor: str) -> Workitem:
        """Keep a changed workitem; its `revision` is the one the change was decided on.

        Raises:
            StaleRevisionError: somebody changed it meanwhile; nothing was kept.
            NotFoundError: it is gone.
        """
        ...
