"""The loop that turns ready jobs into results, and the waiting room for those who asked.

Several workers may run, in threads of one process. A kill between any two steps costs a repeat,
never a result: the queue's `finish` is one transaction and honours only the living lease.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from bedside_core.errors import BedsideError, TimedOutError, WrongStateError
from bedside_edge.ports import Clock, Instance, Job, JobQueue, JobState, ObjectStore, Outcome
from bedside_edge.ports.evidence import BOX
from bedside_edge.services.ingest import IngestService, failure_code

log = logging.getLogger(__name__)

ENDED = frozenset({JobState.DONE, JobState.REFUSED, JobState.DEAD, JobState.CANCELLED})
_IDLE_S = 5.0  # longest sleep without looking at the queue
_AFTER_ERROR_S = 1.0
_GATHER_S = 0.05  # arrivals within this long wake the workers once

Observe = Callable[[str, float], None]  # outcome code, seconds it took


class Bell:
    """Wakes workers when there may be work, and waiters when a job may have ended."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._condition = threading.Condition()
        self._monotonic = monotonic
        self._rings = 0
        self._soon: float | None = None

    def ring(self) -> None:
        """Wake everybody."""
        with self._condition:
            self._ring()

    def ring_soon(self) -> None:
        """Wake everybody in a moment; what calls until then shares the one ring.

        For what comes in floods: a sender of 400 images a second must not make every worker look
        at the queue 400 times a second.
        """
        with self._condition:
            if self._soon is None:
                self._soon = self._monotonic() + _GATHER_S
                self._condition.notify()  # one sleeper keeps the time for all

    def count(self) -> int:
        """Return how often it rang; hand it to `wait` so that no ring is missed."""
        with self._condition:
            return self._rings

    def wait(self, seen: int, seconds: float) -> None:
        """Sleep until it rings again after `seen`, or the time is over."""
        with self._condition:
            until = self._monotonic() + seconds
            while self._rings == seen:
                now = self._monotonic()
                if self._soon is not None and now >= self._soon:
                    self._ring()
                elif now >= until:
                    if self._soon is not None:  # the time to keep passes to another sleeper
                        self._condition.notify()
                    return
                else:
                    end = until if self._soon is None else min(until, self._soon)
                    self._condition.wait(end - now)

    def _ring(self) -> None:
        self._rings += 1
        self._soon = None
        self._condition.notify_all()


class StudyReader(Protocol):
    """Turns a study's instances into an outcome."""

    def analyse_study(
        self, instances: Sequence[Instance], read: Callable[[Instance], bytes]
    ) -> Outcome:
        """Return the outcome over settled instances; `read` fetches one's plain bytes."""
        ...

    def follow_up(
        self, instances: Sequence[Instance], read: Callable[[Instance], bytes], shown: Outcome
    ) -> None:
        """Do what comes after a stored result and never changes it."""
        ...


class Worker:
    """Takes jobs one by one until told to stop."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        objects: ObjectStore,
        ingest: IngestService,
        analysis: StudyReader,
        clock: Clock,
        bell: Bell,
        job_timeout_s: float,
        observe: Observe,
        resting: Callable[[], bool] = lambda: False,
    ) -> None:
        """Put it together; `resting` says when no job may be taken (heat)."""
        self._resting = resting
        self._queue, self._objects, self._ingest = queue, objects, ingest
        self._analysis, self._clock, self._bell = analysis, clock, bell
        self._timeout_s, self._observe = job_timeout_s, observe
        self._stopping = threading.Event()
        self._owed: tuple[Job, Exception] | None = None  # failed, and the queue does not know yet

    def stop(self) -> None:
        """Finish the job in hand, then return from `run`."""
        self._stopping.set()
        self._bell.ring()

    def run(self) -> None:
        """Work until `stop`; an error of the queue itself is logged and waited out."""
        while not self._stopping.is_set():
            seen = self._bell.count()
            try:
                busy = self.step()
                nap = 0.0 if busy else self._nap()
            except Exception as error:  # a worker thread that dies would stop the clinic unseen
                log.exception("worker error", extra={"code": failure_code(error)})
                nap = _AFTER_ERROR_S
            if nap:
                self._bell.wait(seen, nap)

    def step(self) -> bool:
        """Take and end one job; False when none is ready.

        Raises:
            BedsideError: the queue cannot be written now. A job in hand is not forgotten: it is
                given back before another one is taken.
        """
        if self._owed is not None:
            self._give_back(*self._owed)
        job = None if self._resting() else self._queue.lease(self._clock.now())
        if job is None:
            return False
        started = self._clock.monotonic()
        try:
            code = self._process(job, started)
        except Exception as error:  # any failure of one study must leave the queue running
            # A disk too full for the result may be too full for this as well: nobody else would
            # ever end the job, and the study's later images would wait behind it.
            self._owed = (job, error)
            code = self._give_back(job, error)
        self._observe(code, self._clock.monotonic() - started)
        self._bell.ring()
        return True

    def _give_back(self, job: Job, error: Exception) -> str:
        """Tell the queue that a job failed; return the code of why."""
        code = failure_code(error)
        try:
            state = self._queue.fail(job, code, self._clock.now())
        except WrongStateError:
            self._owed = None
            return "superseded"  # cancelled or taken over meanwhile: its result is nobody's
        self._owed = None
        log.log(
            logging.ERROR if state is JobState.DEAD else logging.WARNING,
            "job failed",
            extra={"job": job.job_id, "code": code, "state": str(state)},
            exc_info=None if isinstance(error, BedsideError) else error,
        )
        return code

    def _process(self, job: Job, started: float) -> str:
        instances = self._ingest.settle_study(job.study_id)

        def read(instance: Instance) -> bytes:
            if self._clock.monotonic() - started > self._timeout_s:
                raise TimedOutError("the job ran past its time limit")
            return self._objects.read(instance.object_name, instance.object_key)

        outcome = self._analysis.analyse_study(instances, read)
        result_id = self._queue.finish(job, outcome, self._clock.now())
        code = outcome.reason if outcome.refused else "analysed"
        log.info("job ended", extra={"job": job.job_id, "result": result_id, "code": code})
        self._bell.ring()  # whoever waits for the result does not wait for what follows
        try:
            self._analysis.follow_up(instances, read, outcome)
        except Exception as error:  # the result stands, whatever a shadow runs into
            log.exception("follow-up failed", extra={"code": failure_code(error)})
        return code

    def _nap(self) -> float:
        if self._resting():
            return _IDLE_S
        due = self._queue.next_due()
        if due is None:
            return _IDLE_S
        return min(_IDLE_S, max(0.0, (due - self._clock.now()) / 1000.0))


class Jobs:
    """The queue as the outside sees it: changes ring the bell, waiting is possible."""

    def __init__(self, queue: JobQueue, clock: Clock, bell: Bell) -> None:
        self.queue, self._clock, self._bell = queue, clock, bell

    def wait(self, job_id: str, seconds: float) -> Job:
        """Return the job when it has ended, or as it is after `seconds`."""
        deadline = self._clock.monotonic() + seconds
        while True:
            seen = self._bell.count()
            job = self.queue.job(job_id)
            left = deadline - self._clock.monotonic()
            if job.state in ENDED or left <= 0:
                return job
            self._bell.wait(seen, left)

    def replay(self, job_id: str, actor: str = BOX) -> Job:
        """Put a dead job back."""
        job = self.queue.replay(job_id, self._clock.now(), actor)
        self._bell.ring()
        return job
