"""Once a night: look for updates, fetch, install what is due, and tell the hub what runs here.

Each part stands alone: a hub that does not answer keeps nothing from being installed, a package
that fails keeps no other back, and the inventory is told whatever came before it.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from bedside_core.errors import BedsideError, NotReadyError
from bedside_edge.ports import Clock
from bedside_edge.ports.evidence import BOX
from bedside_edge.services.flashing import FlashingService, Outcome
from bedside_edge.services.updates import UpdateService
from bedside_sync.distribution.inventory import Inventory
from bedside_sync.distribution.sources import Source

log = logging.getLogger(__name__)

_MINUTE_MS: Final = 60_000
_DAY_MINUTES: Final = 1440
_AGAIN_MS: Final = 600_000  # after a night that was cut short
_NAP_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """The way to the hub.

    Attributes:
        lend: the source of packages, for as long as it is used.
        report: hands in a signed inventory.
        name: of this box on the roster; empty while it is no member.
    """

    lend: Callable[[], AbstractContextManager[Source]]
    report: Callable[[Inventory], None]
    name: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What a night came to; codes are empty when a part went well.

    Attributes:
        checked: code of the full check of log and ledger.
        fetched: code of looking and fetching.
        outcomes: what was installed, or why not.
        told: code of the report to the hub.
    """

    checked: str
    fetched: str
    outcomes: Sequence[Outcome]
    told: str

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of what did not go well."""
        return tuple(code for code in (self.checked, self.fetched, self.told) if code)


class UpdateNight:
    """`Steps` of a loop; `run` at any time."""

    def __init__(
        self,
        updates: UpdateService,
        flashing: FlashingService,
        hub: Hub,
        clock: Clock,
        *,
        check: Callable[[], object],
        alarms: Callable[[], int],
        window: tuple[int, int],
        restart: Callable[[], None],
        allowed: Callable[[], bool] = lambda: True,
        enabled: bool = True,
    ) -> None:
        """Take what it stands on.

        Args:
            updates: looks and fetches.
            flashing: installs.
            hub: the way to it.
            clock: when a night is.
            check: the whole evidence log and ledger; BedsideError when they are damaged.
            alarms: alarms a person should look at.
            window: minute of the day (UTC) at which a night begins, and its minutes.
            restart: lets the box start again, for what only a start can try.
            allowed: whether the box may talk to the hub by itself: not while it is sealed.
            enabled: whether nights come by themselves.
        """
        self._updates, self._flashing, self._hub, self._clock = updates, flashing, hub, clock
        self._check, self._alarms, self._restart = check, alarms, restart
        self._allowed = allowed
        self._window, self._enabled, self._next = window, enabled, 0
        self._turn = threading.Lock()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End a fetch after the piece under way; what came is kept."""
        self._stopping.set()

    def run(self, actor: str = BOX) -> Night:
        """Do a night's work now."""
        with self._turn:
            checked = _coded(self._check)
            fetched = _coded(lambda: self._fetch(actor))
            due = [] if checked or not self._may_change() else self._updates.ready()
            outcomes = self._flashing.install_ready(due, actor)
            self._flashing.step()
            told = _coded(self._tell)
        night = Night(checked=checked, fetched=fetched, outcomes=outcomes, told=told)
        if night.codes:
            log.warning("night of updates", extra={"code": night.codes[0]})
        if self._flashing.wants_restart:
            self._restart()
        return night

    def step(self) -> bool:
        """Run once a night; again soon after one that was cut short."""
        now = self._clock.now()
        if not self._enabled or now < self._next or not self._inside(now):
            return False
        if not self._hub.name() or not self._allowed():
            return False
        night = self.run()
        left = self._window[1] * _MINUTE_MS
        self._next = self._clock.now() + (_AGAIN_MS if night.codes else left)
        return False

    def nap(self) -> float:
        """Return seconds until the next look at the clock."""
        return _NAP_S

    def inventory(self) -> Inventory:
        """Return what this box runs, as the hub is told."""
        looked = self._updates.looked()
        return Inventory(
            box=self._hub.name(),
            at=self._clock.now() // 1000,
            serial=looked.assignment.serial if looked.assignment else 0,
            code=looked.code,
            alarms=self._alarms(),
            slots=self._flashing.reports(),
        )

    def _fetch(self, actor: str) -> None:
        def tell(_done: int, _total: int) -> None:
            if self._stopping.is_set():
                raise NotReadyError("the box stops; what came is kept")

        with self._hub.lend() as source:
            self._updates.fetch(source, actor, tell)

    def _tell(self) -> None:
        if self._hub.name() and not self._stopping.is_set():
            self._hub.report(self.inventory())

    def _may_change(self) -> bool:
        """Whether the assignment's own window is open."""
        assignment = self._updates.looked().assignment
        minute = self._clock.now() // _MINUTE_MS % _DAY_MINUTES
        return assignment is None or assignment.window.contains(minute)

    def _inside(self, now: int) -> bool:
        start, length = self._window
        return (now // _MINUTE_MS - start) % _DAY_MINUTES < length


def _coded(act: Callable[[], object]) -> str:
    try:
        act()
    except BedsideError as error:
        return error.code
    return ""
