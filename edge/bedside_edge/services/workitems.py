"""UPS-RS: workitems kept for all, and performed by the box where they ask for what it does.

A scheduled workitem whose code this box serves and whose one input study is held is claimed under
a Transaction UID of our own, its study goes through the ordinary job queue, and what comes of it
is the workitem's outcome: completed with the objects named, or cancelled with a coded reason.
"""

import datetime
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from bedside_core import workitem as rules
from bedside_core.errors import (
    BedsideError,
    NotFoundError,
    StaleRevisionError,
    WrongStateError,
)
from bedside_core.workitem import Json, StepState, coded, element, text
from bedside_edge.ports import Clock, Header, Job, JobQueue, JobState, Priority, RandomBytes
from bedside_edge.ports.workitems import Workitem, WorkitemStore
from bedside_edge.services.holdings import Holdings
from bedside_edge.services.outputs import Output
from bedside_edge.services.publish import PublishService

log = logging.getLogger(__name__)
T = TypeVar("T")

BOX: Final = "service:workitems"
_TRIES: Final = 5
_IDLE_S: Final = 5.0
_URGENT: Final = {"HIGH": Priority.STAT, "MEDIUM": Priority.URGENT}
# CID 9300; what the box refuses is of the wrong kind unless it says otherwise
_REASONS: Final = {
    "unsupported": ("110522", "Object Types not supported"),
    "corrupt": ("110521", "Objects incorrectly formatted"),
    "failure": ("110501", "Equipment failure"),
    "asked": ("110513", "Discontinued for unspecified reason"),
    "expired": ("110533", "Workitem expired"),
}
_FORMAT_CODES: Final = frozenset(
    ("corrupt-pixels", "malformed-header", "undecodable-transfer-syntax", "missing-rescale")
)
_PERFORMED_CODE: Final = ("110004", "DCM", "Computer Aided Detection")


class WorkitemService:
    """What callers do with workitems. Safe to call from several threads."""

    def __init__(
        self, store: WorkitemStore, clock: Clock, random: RandomBytes, wake: Callable[[], None]
    ) -> None:
        """Stand on the store; `wake` is called when the performer may have something to do."""
        self._store, self._clock, self._random, self._wake = store, clock, random, wake

    def create(self, uid: str, body: object, actor: str) -> tuple[Workitem, str]:
        """Keep a new workitem; return it and a warning, often empty.

        Raises:
            InvalidInputError: the data set is not one of a new workitem.
            AlreadyExistsError: one of that UID exists.
            QueueFullError: too many wait.
        """
        found = rules.check_form(body)
        uid = uid or text(found, rules.INSTANCE_UID) or new_uid(self._random)
        made, modified = rules.created(found, uid)
        kept = self._store.add(uid, made, self._clock.now(), actor)
        log.info("workitem created", extra={"workitem": kept.workitem_id})
        self._wake()
        return kept, rules.MODIFIED if modified else ""

    def get(self, uid: str) -> Workitem:
        """Return one; NotFoundError."""
        return self._store.workitem(uid)

    def workitems(self, states: Iterable[StepState] = ()) -> list[Workitem]:
        """Return them, newest first."""
        return self._store.workitems(states)

    def update(self, uid: str, change: object, transaction: str, actor: str) -> None:
        """Change attributes.

        Raises:
            NotFoundError, InvalidInputError, WrongTransactionError, WrongStateError.
        """
        found = rules.check_form(change)
        transaction = transaction or text(found, rules.TRANSACTION)

        def decide(held: Workitem) -> Workitem:
            rules.may_update(held.state, transaction, held.owner)
            return replace(held, body=rules.updated(held.body, found))

        self._change(uid, decide, actor)

    def change_state(self, uid: str, body: object, actor: str) -> str:
        """Claim, complete or cancel; return a warning, often empty.

        Raises:
            NotFoundError, InvalidInputError, WrongTransactionError, WrongStateError.
        """
        found = rules.check_form(body)
        asked, transaction = text(found, rules.STATE), text(found, rules.TRANSACTION)
        warning = ""

        def decide(held: Workitem) -> Workitem:
            nonlocal warning
            warning = rules.follows(held.state, asked, transaction, held.owner)
            if warning:
                return held
            state = StepState(asked)
            rules.final_ready(held.body, state)
            return in_state(held, state, owner=transaction)

        self._change(uid, decide, actor)
        return warning

    def request_cancel(self, uid: str, reason: object, actor: str) -> str:
        """Ask that a workitem be cancelled; return a warning, often empty.

        One that nobody has claimed is cancelled here; one that this box performs is cancelled by
        its performer. Of others nobody listens here, so nobody can be asked.

        Raises:
            NotFoundError, InvalidInputError.
            WrongStateError: it is completed, or its performer cannot be reached.
        """
        found = rules.check_form(reason)
        warning = ""

        def decide(held: Workitem) -> Workitem:
            nonlocal warning
            warning = rules.ALREADY[held.state] if held.state is StepState.CANCELED else ""
            if held.state is StepState.COMPLETED:
                raise WrongStateError("The Workitem is already COMPLETED.")
            if held.state is StepState.IN_PROGRESS and not held.ours:
                raise WrongStateError("The performer of the Workitem could not be contacted.")
            if warning:
                return held
            words = text(found, "00741238") or "cancelled on request"
            return cancelled(held, "asked", words, self._clock.now())

        self._change(uid, decide, actor)
        return warning

    def _change(self, uid: str, decide: Callable[[Workitem], Workitem], actor: str) -> None:
        """Decide on the newest revision; of two who decide at once, one decides again."""
        for left in reversed(range(_TRIES)):
            held = self._store.workitem(uid)
            made = decide(held)
            if made == held:
                return
            try:
                self._store.replace(replace(made, updated=self._clock.now()), actor)
            except StaleRevisionError:
                if not left:
                    raise
                continue
            self._wake()
            return


class WorkitemPerformer:
    """Claims and performs workitems, one step at a time; runs in a `Loop`."""

    def __init__(
        self,
        *,
        store: WorkitemStore,
        holdings: Holdings,
        queue: JobQueue,
        publisher: PublishService,
        clock: Clock,
        random: RandomBytes,
        wake: Callable[[], None],
        codes: Sequence[tuple[str, str]],
        station: str,
    ) -> None:
        """Perform workitems with one of `codes` (value, scheme); empty performs none."""
        self._store, self._holdings, self._queue = store, holdings, queue
        self._publisher, self._clock, self._random = publisher, clock, random
        self._wake, self._codes, self._station = wake, frozenset(codes), station

    def step(self) -> bool:
        """Do what can be done now for one workitem; False when there is nothing."""
        for held in reversed(self._store.workitems((StepState.IN_PROGRESS,), ours=True)):
            if self._alone(self._go_on, held):
                return True
        if not self._codes:
            return False
        for held in reversed(self._store.workitems((StepState.SCHEDULED,))):
            if self._alone(self._claim, held):
                return True
        return False

    def nap(self) -> float:
        """Return how long there is nothing to do, unless something rings."""
        return _IDLE_S

    def _alone(self, work: Callable[[Workitem], bool], held: Workitem) -> bool:
        """One workitem that cannot be helped does not stop the others."""
        try:
            return work(held)
        except (StaleRevisionError, NotFoundError):
            return False  # changed or erased meanwhile: the next look sees it as it is
        except BedsideError as error:
            log.warning("workitem failed", extra={"workitem": held.workitem_id, "code": error.code})
            self._store.replace(cancelled(held, "failure", error.code, self._clock.now()), BOX)
            return True

    # --- claim ---------------------------------------------------------------------------------

    def _claim(self, held: Workitem) -> bool:
        if not self._codes.intersection(rules.codes(held.body)):
            return False
        now = self._clock.now()
        expires = text(held.body, rules.EXPIRES)
        if expires and expires[:14] < date_time(now)[: len(expires[:14])]:
            self._store.replace(cancelled(held, "expired", "not begun in time", now), BOX)
            return True
        if text(held.body, rules.READINESS) != "READY" or _later(held.body, now):
            return False
        studies = rules.input_studies(held.body)
        found = self._holdings.study(studies[0]) if len(studies) == 1 else []
        if len(found) != 1:
            return False  # not here yet, or more than this box takes as one: others may perform it
        jobs = self._queue.jobs(study_id=found[0].study_id, limit=1)
        if not jobs:
            return False
        claimed = in_state(held, StepState.IN_PROGRESS, owner=new_uid(self._random))
        began = element("DT", date_time(now))
        performed = {rules.BEGAN: began, "00404028": element("SQ", self._station_item())}
        body = claimed.body | {rules.PERFORMED: element("SQ", performed)}
        self._store.replace(
            replace(
                claimed,
                ours=True,
                study_id=found[0].study_id,
                job_id=jobs[0].job_id,
                body=body,
                updated=now,
            ),
            BOX,
        )
        self._hurry(jobs[0], text(held.body, rules.PRIORITY), now)
        log.info("workitem claimed", extra={"workitem": held.workitem_id, "job": jobs[0].job_id})
        return True

    def _hurry(self, job: Job, priority: str, now: int) -> None:
        if job.state is JobState.COLLECTING and priority in _URGENT:
            self._queue.complete(job.study_id, now)
        if job.state in (JobState.COLLECTING, JobState.READY) and priority in _URGENT:
            wanted = _URGENT[priority]
            if wanted < job.priority:
                self._queue.prioritise(job.job_id, wanted, now)
        self._wake()

    # --- perform -------------------------------------------------------------------------------

    def _go_on(self, held: Workitem) -> bool:
        job, now = self._queue.job(held.job_id), self._clock.now()
        newest = self._queue.jobs(study_id=held.study_id, limit=1)[0]
        if newest.job_id != job.job_id:  # late images made a new job: its result is the outcome
            self._store.replace(replace(held, job_id=newest.job_id, updated=now), BOX)
            return True
        if job.state is JobState.DONE:
            made = self._publisher.result_objects(job.result_id)
            self._store.replace(self._completed(held, made, now), BOX)
        elif job.state is JobState.REFUSED:
            why = "corrupt" if job.reason in _FORMAT_CODES else "unsupported"
            self._store.replace(cancelled(held, why, job.reason, now), BOX)
        elif job.state in (JobState.DEAD, JobState.CANCELLED):
            why = "failure" if job.state is JobState.DEAD else "asked"
            self._store.replace(cancelled(held, why, job.reason or "job cancelled", now), BOX)
        else:
            return False
        log.info("workitem ended", extra={"workitem": held.workitem_id, "job": job.job_id})
        return True

    def _completed(self, held: Workitem, made: Sequence[Output], now: int) -> Workitem:
        wanted = {output.sop_instance_uid for output in made}
        (entry,) = [e for e in self._holdings.studies() if e.study_id == held.study_id]
        items = [i for i in self._holdings.items(entry) if i.header.sop_instance_uid in wanted]
        outputs = [_output_item(item.header) for item in items]
        (performed, *_) = rules.items(held.body, rules.PERFORMED) or [{}]
        performed = performed | {
            rules.ENDED: element("DT", date_time(now)),
            "00404019": element("SQ", coded(*_PERFORMED_CODE)),
            rules.OUTPUT: element("SQ", *outputs),
        }
        body = held.body | {
            rules.PERFORMED: element("SQ", performed),
            rules.PROGRESS: element("SQ", {"00741004": element("DS", 100)}),
        }
        return in_state(replace(held, body=body, updated=now), StepState.COMPLETED)

    def _station_item(self) -> Json:
        return coded(self._station[:16], "99BEDSIDE", "Bedside box")


def in_state(held: Workitem, state: StepState, *, owner: str = "") -> Workitem:
    """Return the workitem in another state, in its row and in its data set alike."""
    body = held.body | {rules.STATE: element("CS", str(state))}
    return replace(held, state=state, owner=owner or held.owner, body=body)


def cancelled(held: Workitem, why: str, words: str, now: int) -> Workitem:
    """Return the workitem cancelled, with the coded reason and the box's own code."""
    value, meaning = _REASONS[why]
    progress: dict[str, Any] = {
        "00741238": element("LT", words[:1024]),
        "00404052": element("DT", date_time(now)),
        "0074100E": element("SQ", coded(value, "DCM", meaning)),
    }
    body = held.body | {rules.PROGRESS: element("SQ", progress)}
    return in_state(replace(held, body=body, updated=now), StepState.CANCELED)


def new_uid(random: RandomBytes) -> str:
    """Return a fresh UID of the UUID root (PS3.5 B.2)."""
    return f"2.25.{int.from_bytes(random(16), 'big')}"


def date_time(at: int) -> str:
    """Return a DICOM DT in the hospital's wall clock, with its offset."""
    when = datetime.datetime.fromtimestamp(at / 1000, tz=datetime.UTC).astimezone()
    return f"{when:%Y%m%d%H%M%S%z}"


def _later(body: Json, now: int) -> bool:
    """Tell whether the scheduled start is still to come; only as many digits as it has count."""
    start = text(body, rules.START)[:14]
    return start[: len(start)] > date_time(now)[: len(start)]


def _output_item(header: Header) -> Json:
    url = (
        f"/dicom-web/studies/{header.study_uid}/series/{header.series_uid}"
        f"/instances/{header.sop_instance_uid}"
    )
    return {
        "0040E020": element("CS", "DICOM"),
        rules.STUDY_UID: element("UI", header.study_uid),
        rules.SERIES_UID: element("UI", header.series_uid),
        "00081199": element(
            "SQ",
            {
                "00081150": element("UI", header.sop_class_uid),
                "00081155": element("UI", header.sop_instance_uid),
            },
        ),
        "0040E025": element("SQ", {"00081190": element("UR", url)}),
    }
