"""Carrying objects to one destination: in order, once acknowledged never again, given up in time.

Each destination has a worker and a queue of its own, so a dead archive or a wrong port holds up
nobody else, and nothing here is waited for by inference.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bedside_core.errors import (
    BedsideError,
    DeliveryRefusedError,
    DestinationUnavailableError,
    PatientMismatchError,
    StoreUnavailableError,
    WrongStateError,
)
from bedside_edge.ports import Clock, ObjectStore, PixelReader
from bedside_edge.ports.evidence import BOX
from bedside_edge.services.outputs import (
    Delivery,
    Destination,
    OutputStore,
    SendRules,
    Session,
)
from bedside_edge.services.worker import Bell

log = logging.getLogger(__name__)

_IDLE_S = 5.0
_BATCH = 16  # objects over one association
GIVEN_UP = "given-up"
SEALED = "sealed"  # the policy's rule
_SEALED_MS = 60_000

Count = Callable[[str, str], None]  # destination, outcome code


@dataclass(slots=True, kw_only=True)
class Condition:
    """How a destination is doing, for people; times in milliseconds, 0 when never."""

    failures: int = 0  # in a row
    last_success: int = 0
    last_failure: int = 0
    reason: str = ""
    paused_until: float = 0.0  # monotonic seconds


@dataclass(frozen=True, slots=True)
class _Load:
    delivery: Delivery
    sop_class: str
    data: bytes = field(repr=False)


class DeliveryWorker:
    """The steps of one destination's loop."""

    def __init__(
        self,
        destination: Destination,
        *,
        outputs: OutputStore,
        objects: ObjectStore,
        reader: PixelReader,
        clock: Clock,
        rules: SendRules,
        count: Count,
        permit: Callable[[str], None] = lambda _study_id: None,
    ) -> None:
        """Stand on the ports; `permit` returns when a study's objects may leave."""
        self.destination, self.condition = destination, Condition()
        self._outputs, self._objects, self._reader = outputs, objects, reader
        self._clock, self._rules, self._count = clock, rules, count
        self._permit = permit

    def kick(self) -> None:
        """Try again at once: a person said the destination is back."""
        self.condition.paused_until = 0.0

    def step(self) -> bool:
        """Send what is due over one association; False when nothing is, or it is paused."""
        if self._clock.monotonic() < self.condition.paused_until:
            return False
        due = self._outputs.due(self.destination.name, self._clock.now(), _BATCH)
        loads = [load for delivery in due if (load := self._load(delivery)) is not None]
        if loads:
            self._send(loads)
        return bool(due)

    def nap(self) -> float:
        """Return the seconds until there may be something to send."""
        due = self._outputs.next_due(self.destination.name)
        if due is None:
            return _IDLE_S
        wait = max(
            (due - self._clock.now()) / 1000.0,
            self.condition.paused_until - self._clock.monotonic(),
        )
        return min(_IDLE_S, max(0.0, wait))

    # --- inside --------------------------------------------------------------------------------

    def _load(self, delivery: Delivery) -> _Load | None:
        """Open the object and check once more whose it is; a mismatch goes to a person."""
        try:
            self._permit(delivery.study_id)
            output = self._outputs.output(delivery.output_id)
            data = self._objects.read(output.object_name, output.object_key)
            header = self._reader.header(data)
            if not self._outputs.same_patient(
                delivery.study_id, header.issuer, header.patient_id, header.study_uid
            ):
                raise PatientMismatchError("the study's patient changed; not sent")
        except StoreUnavailableError:
            raise  # the box's trouble, not the object's: the loop waits and looks again
        except BedsideError as error:
            self._hold_back(delivery, error)
            return None
        return _Load(delivery, output.sop_class_uid, data)

    def _send(self, loads: Sequence[_Load]) -> None:
        classes = list(dict.fromkeys(load.sop_class for load in loads))
        held_up: set[str] = set()  # studies whose order must be kept
        try:
            with self.destination.open(classes) as session:
                for load in loads:
                    if load.delivery.study_id not in held_up and not self._one(session, load):
                        held_up.add(load.delivery.study_id)
        except DestinationUnavailableError as error:
            self._pause(error.code)

    def _hold_back(self, delivery: Delivery, error: BedsideError) -> None:
        now = self._clock.now()
        # a sealed box is unsealed one day; everything else waits for a person
        due = now + _SEALED_MS if SEALED in getattr(error, "rules", ()) else None
        self._outputs.failed(delivery.delivery_id, error.code, now, due)
        self._note("delivery held back", delivery, error.code)

    def _one(self, session: Session, load: _Load) -> bool:
        """Send one object; False when later ones of its study have to wait."""
        delivery, now = load.delivery, self._clock.now()
        try:
            self._permit(delivery.study_id)  # the box may have been sealed since it was loaded
        except StoreUnavailableError:
            raise
        except BedsideError as error:
            self._hold_back(delivery, error)
            return False
        try:
            self._outputs.attempt(delivery.delivery_id, now)
        except WrongStateError:
            return True  # withdrawn while it was in hand
        try:
            session.send(load.data)
        except DeliveryRefusedError as error:
            return self._refused(delivery, error.code)
        except DestinationUnavailableError as error:
            now = self._clock.now()
            self._outputs.failed(delivery.delivery_id, error.code, now, now)
            raise
        self._outputs.delivered(delivery.delivery_id, self._clock.now())
        state = self.condition
        state.failures, state.last_success, state.reason = 0, self._clock.now(), ""
        self._count(self.destination.name, "delivered")
        return True

    def _refused(self, delivery: Delivery, code: str) -> bool:
        """The destination works but does not want this object: a few tries, then a person."""
        now = self._clock.now()
        wait = self._rules.refusal_wait(delivery.refusals + 1)
        due = None if wait is None else now + wait
        self._outputs.failed(delivery.delivery_id, code, now, due, refused=True)
        self._note("delivery refused", delivery, code)
        return due is None

    def _pause(self, code: str) -> None:
        """Leave the destination alone for a while; what waited too long becomes a dead letter."""
        state, now = self.condition, self._clock.now()
        state.failures += 1
        state.last_failure, state.reason = now, code
        wait = self._rules.wait(state.failures)
        state.paused_until = self._clock.monotonic() + wait / 1000.0
        name = self.destination.name
        expired = self._outputs.expire(name, now - self._rules.give_up_ms, GIVEN_UP, now)
        self._count(name, code)
        log.warning(
            "destination unavailable",
            extra={
                "destination": name,
                "code": code,
                "attempts": state.failures,
                "count": expired,
            },
        )

    def _note(self, words: str, delivery: Delivery, code: str) -> None:
        self._count(self.destination.name, code)
        log.warning(
            words,
            extra={
                "destination": self.destination.name,
                "delivery": delivery.delivery_id,
                "code": code,
            },
        )


class Deliveries:
    """The deliveries as the outside sees them."""

    def __init__(
        self,
        outputs: OutputStore,
        workers: Mapping[str, DeliveryWorker],
        clock: Clock,
        bell: Bell,
    ) -> None:
        self.outputs, self.workers = outputs, dict(workers)
        self._clock, self._bell = clock, bell

    def retry(self, delivery_id: str, actor: str = BOX) -> Delivery:
        """Send a dead delivery again, at once; WrongStateError, NotFoundError."""
        delivery = self.outputs.replay(delivery_id, self._clock.now(), actor)
        if worker := self.workers.get(delivery.destination):
            worker.kick()
        self._bell.ring()
        return delivery
