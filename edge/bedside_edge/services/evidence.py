"""What the box itself tells the evidence log: its starts and stops, who looked, and checkpoints.

Whoever opens a study or result is in the log by the gate's decision (services.gate). Lists with
patients' names have none for each row, so the look at the list is told here. A page that refreshes
itself must not fill the log: the first look is an entry, durable before the answer, and further
looks of the same actor at the same list within ten minutes are covered by it.
"""

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from bedside_core.errors import DiskFullError
from bedside_core.evidence.entry import Kind, as_actor, as_ref
from bedside_edge.ports import Clock
from bedside_edge.ports.evidence import BOX, Event, EvidenceLog
from bedside_edge.services.loop import Loop
from bedside_edge.services.worker import Bell

log = logging.getLogger(__name__)

LOOK_S: Final = 600.0  # one entry covers the same look for so long
_MOST_LOOKS: Final = 10_000
_LONGEST_NAP_S: Final = 60.0


class EvidenceService:
    """The evidence log as the rest of the box uses it; methods block, any thread may call."""

    def __init__(self, log_store: EvidenceLog, clock: Clock, *, checkpoint_s: float) -> None:
        """Take the log, the clock, and how often the log is signed (seconds)."""
        self.log = log_store
        self._clock = clock
        self._every_s = checkpoint_s
        self._lock = threading.Lock()
        self._looks: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._signed_at: float | None = None
        self._signed_size = -1
        self._bell = Bell()
        self._loop = Loop(self, self._bell)
        self._thread = threading.Thread(target=self._loop.run, name="evidence", daemon=True)

    # --- the box's life ------------------------------------------------------------------------

    def start(self, refs: Mapping[str, int | str]) -> None:
        """Say that the box starts and with what, then sign from time to time.

        A full disk does not keep the box from starting: what is stored can be read, and every
        change is refused with its own entry.
        """
        try:
            self.log.append(Event(kind=Kind.ADMIN, actor=BOX, refs={"what": "started", **refs}))
        except DiskFullError as error:
            log.error("start is not in the evidence log", extra={"code": error.code})  # noqa: TRY400
        self._thread.start()

    def stop(self) -> None:
        """Say that the box stops, and sign everything up to here."""
        if self._thread.ident is None:
            return  # it never started: there is nothing to say
        self._loop.stop()
        self._thread.join()
        try:
            self.log.append(Event(kind=Kind.ADMIN, actor=BOX, refs={"what": "stopped"}))
            if not self.log.locked:
                self.log.checkpoint()
        except DiskFullError as error:
            log.error("stop is not in the evidence log", extra={"code": error.code})  # noqa: TRY400

    def step(self) -> bool:
        """Sign when it is time and something was added; never busy."""
        now = self._clock.monotonic()
        due = self._signed_at is None or now - self._signed_at >= self._every_s
        if self.log.locked:  # entries go on; nothing signs them before the log has a new name
            return False
        if due and (size := self.log.size()) != self._signed_size:
            self.log.checkpoint()
            self._signed_size = size
        if due:
            self._signed_at = now
        return False

    def nap(self) -> float:
        """Return how long nothing is to be signed."""
        return min(_LONGEST_NAP_S, self._every_s)

    # --- who looked ----------------------------------------------------------------------------

    def looked(self, actor: str, what: str, study_id: str = "", **facts: str) -> None:
        """Record that somebody is about to see something; durable when it returns.

        Args:
            actor: id of who looks.
            what: word of ours: `worklist`, `search`.
            study_id: whose; empty for lists.
            facts: ids of ours for the payload.

        Raises:
            DiskFullError, StoreUnavailableError: it is not in the log, so it must not be shown.
        """
        key, now = (actor, what, study_id), self._clock.monotonic()
        with self._lock:
            seen = self._looks.get(key)
        if seen is not None and now - seen < LOOK_S:
            return
        payload = json.dumps(facts | {"study": study_id}, sort_keys=True, separators=(",", ":"))
        self.log.append(
            Event(
                kind=Kind.ACCESS,
                actor=as_actor(actor),
                study_id=study_id,
                payload=payload.encode(),
                refs={"what": "looked", "at": as_ref(what)},
            )
        )
        with self._lock:
            self._looks[key] = now
            self._looks.move_to_end(key)
            while len(self._looks) > _MOST_LOOKS:
                self._looks.popitem(last=False)
