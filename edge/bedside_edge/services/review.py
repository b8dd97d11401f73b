"""Sign-off: a named person accepts, corrects or rejects a result, and what that sets in motion.

A verdict is durable before it is confirmed. Its signed report (and the key object of a rejection)
is made afterwards by `step`, in the order of signing, and taken up again after a kill.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bedside_core.access import Action, Actor
from bedside_core.agreement import Agreement, agreement
from bedside_core.errors import (
    BedsideError,
    ForbiddenError,
    InvalidRequestError,
    PreconditionRequiredError,
    WrongStateError,
)
from bedside_core.findings import Decision
from bedside_core.result import Json
from bedside_core.review import Certainty, Review, ReviewKind, plain_text
from bedside_edge.ports import Clock, JobQueue, StoredResult
from bedside_edge.ports.review import (
    Label,
    NewReview,
    PublicationState,
    Retraction,
    ReviewRecord,
    ReviewState,
    ReviewStore,
)
from bedside_edge.services.ingest import failure_code
from bedside_edge.services.outputs import Delivery, DeliveryState, Occasion
from bedside_edge.services.publish import PublishService

log = logging.getLogger(__name__)

_STATES = {
    ReviewKind.ACCEPT: ReviewState.ACCEPTED,
    ReviewKind.EDIT: ReviewState.EDITED,
    ReviewKind.REJECT: ReviewState.REJECTED,
}
_GONE = frozenset({DeliveryState.DELIVERED, DeliveryState.DEAD})
_IDLE_S = 5.0
_ATTEMPTS = 5
_BACKOFF_MS = 2_000
_MOST = 10_000
_PAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOff:
    """What stands under a result.

    Attributes:
        revision: hand it to `sign`; 0 while nobody has signed.
        superseded_by: the newer result of the study, or empty; it has to be signed on its own.
        publication: how far the standing verdict's report is; None while unsigned.
        retraction: of a rejected result, by destination; empty otherwise, and while it is not
            known yet where the result went.
    """

    state: ReviewState
    revision: int
    superseded_by: str
    publication: PublicationState | None
    retraction: Mapping[str, Retraction]

    @property
    def retracted(self) -> Retraction:
        """The retraction over all destinations: ARRIVED only when it arrived at every one."""
        if self.state is not ReviewState.REJECTED:
            return Retraction.NOT_SENT
        if self.publication is PublicationState.DEAD:
            return Retraction.FAILED
        found = set(self.retraction.values())
        if self.publication is PublicationState.WAITING:
            found.add(Retraction.PENDING)
        for worst in (Retraction.FAILED, Retraction.PENDING, Retraction.ARRIVED):
            if worst in found:
                return worst
        return Retraction.NOT_SENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How readers and the box agree: over all standing verdicts, by reader, by model version."""

    overall: Agreement
    by_reader: Mapping[str, Agreement]
    by_version: Mapping[str, Agreement]  # "name version"


class ReviewService:
    """Signs, tells what stands, and makes the reports. Safe to call from several threads."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        reviews: ReviewStore,
        publisher: PublishService,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        """Stand on the ports; `wake` is called when a report is due."""
        self._queue, self._reviews, self._publisher = queue, reviews, publisher
        self._clock, self._wake = clock, wake

    def sign(
        self,
        result_id: str,
        *,
        reader: Actor,
        kind: ReviewKind,
        reason: str = "",
        decision: Decision | None = None,
        certainty: Certainty = Certainty.CERTAIN,
        expected: int | None,
    ) -> ReviewRecord:
        """Put a reader's name under a result; durable when it returns.

        Args:
            result_id: the result.
            reader: who signs: a person; the name goes into the report.
            kind: accept, edit or reject.
            reason: needed to edit or reject.
            decision: what the reader says of the finding: needed to edit, possible to reject.
            certainty: how sure the reader is.
            expected: the revision the reader saw (`SignOff.revision`).

        Raises:
            ForbiddenError: the actor may not sign, or is not a person.
            InvalidInputError: no reason where one is needed.
            InvalidRequestError: the decision does not go with the kind.
            NotFoundError: no such result.
            PreconditionRequiredError: `expected` is None.
            StaleRevisionError: somebody signed meanwhile.
            WrongStateError: nothing was computed, or a newer result has replaced this one.
        """
        reader.must(Action.REVIEW)
        if not reader.actor_id.startswith("person:"):
            raise ForbiddenError("only a person who is logged in can sign")
        if expected is None:
            raise PreconditionRequiredError("say which revision you saw: If-Match")
        stored = self._queue.result(result_id)
        body: Json = json.loads(stored.body)
        if body["value"] is None:
            raise WrongStateError("the study was not processed; there is nothing to sign")
        said = Decision(body["value"]["decision"])
        _check_decision(kind, decision, said)
        review = Review(
            kind=kind,
            reader_name=reader.name,
            reader_id=reader.actor_id,
            reason=plain_text(reason),
            certainty=certainty,
            decision=decision,
            at=self._clock.now(),
        )
        record = self._reviews.add(
            NewReview(
                result_id=result_id,
                review=review,
                finding=body["finding"]["code"],
                box_decision=said,
                model=body["model"]["name"],
                version=body["model"]["version"],
            ),
            expected,
        )
        log.info("result signed", extra={"result": result_id, "outcome": str(kind)})
        self._wake()
        return record

    def reviews(self, result_id: str) -> list[ReviewRecord]:
        """Return the verdicts on a result, first to last; NotFoundError: no such result."""
        self._queue.result(result_id)
        return self._reviews.reviews(result_id)

    def state(self, result_id: str) -> SignOff:
        """Return what stands under a result; NotFoundError: no such result."""
        return self._sign_off(self._queue.result(result_id), self._reviews.reviews(result_id))

    def standing(self, result_id: str) -> tuple[SignOff, list[ReviewRecord]]:
        """Return what stands and how it came to that, read once."""
        found = self._reviews.reviews(result_id)
        return self._sign_off(self._queue.result(result_id), found), found

    def retry(self, result_id: str) -> None:
        """Try a signed report that was given up again; WrongStateError when none was."""
        dead = [
            record
            for record in self.reviews(result_id)
            if record.publication is PublicationState.DEAD
        ]
        if not dead:
            raise WrongStateError("no signed report of this result has been given up")
        for record in dead:
            self._reviews.retry(record.review_id, self._clock.now())
        self._wake()

    def labels(self, *, after: int = 0, limit: int = _PAGE) -> list[Label]:
        """Return the standing verdicts in the order of signing, from the one behind `after`."""
        return self._reviews.labels(after=after, limit=limit)

    def agreement(self) -> Figures:
        """Count how readers and the box agree.

        A reader counts with their own last word on each result, a version with the standing one.
        A reader who signs has seen the box's answer: this is no independent second reading.
        """
        labels = self._all_labels()
        own = {(label.reader_id, label.result_id): label for label in labels}
        standing = [label for label in labels if label.standing]
        return Figures(
            overall=_agreement(standing),
            by_reader=_grouped(own.values(), lambda label: label.reader_id),
            by_version=_grouped(standing, lambda label: f"{label.model} {label.version}"),
        )

    # --- the loop that makes reports -----------------------------------------------------------

    def step(self) -> bool:
        """Make the report of one verdict; False when none is due."""
        pending = self._reviews.pending(self._clock.now())
        if not pending:
            return False
        one = pending[0]
        try:
            self._publisher.publish_review(one.result_id, one.review)
        except Exception as error:  # one report that cannot be made must not stop the others
            code = failure_code(error)
            last = one.attempts + 1 >= _ATTEMPTS
            due = None if last else self._clock.now() + (_BACKOFF_MS << one.attempts)
            self._reviews.not_published(one.review_id, code, due)
            log.log(
                logging.ERROR if last else logging.WARNING,
                "review not published",
                extra={"result": one.result_id, "code": code},
                exc_info=None if isinstance(error, BedsideError) else error,
            )
        else:
            self._reviews.published(one.review_id)
        return True

    def nap(self) -> float:
        """Return the seconds until a report is due."""
        due = self._reviews.next_pending()
        if due is None:
            return _IDLE_S
        return min(_IDLE_S, max(0.0, (due - self._clock.now()) / 1000.0))

    # --- inside --------------------------------------------------------------------------------

    def _sign_off(self, stored: StoredResult, found: Sequence[ReviewRecord]) -> SignOff:
        last = found[-1] if found else None
        state = ReviewState.UNSIGNED if last is None else _STATES[last.review.kind]
        rejected = state is ReviewState.REJECTED
        return SignOff(
            state=state,
            revision=len(found),
            superseded_by=stored.superseded_by,
            publication=None if last is None else last.publication,
            retraction=self._retraction(stored.result_id) if rejected else {},
        )

    def _retraction(self, result_id: str) -> dict[str, Retraction]:
        ways = self._publisher.outputs.deliveries(result_id=result_id, limit=_MOST)
        names = sorted({way.destination for way in ways})
        return {name: _retracted([w for w in ways if w.destination == name]) for name in names}

    def _all_labels(self) -> list[Label]:
        labels: list[Label] = []
        while page := self._reviews.labels(
            after=labels[-1].seq if labels else 0, limit=_PAGE, standing=False
        ):
            labels += page
        return labels


def _check_decision(kind: ReviewKind, decision: Decision | None, said: Decision) -> None:
    if kind is ReviewKind.ACCEPT and decision not in (None, said):
        raise InvalidRequestError("to accept is to say what the box said; edit it instead")
    if kind is ReviewKind.EDIT and decision is said:
        raise InvalidRequestError("the box said the same; accept it instead")


def _retracted(ways: Sequence[Delivery]) -> Retraction:
    """Return how far the retraction at one destination is, by its deliveries."""
    states = {
        way.state
        for way in ways
        if way.occasion is Occasion.REJECTED and way.state is not DeliveryState.WITHDRAWN
    }
    if not states:
        told = any(way.state in _GONE or way.attempts for way in ways)
        return Retraction.PENDING if told else Retraction.NOT_SENT
    if DeliveryState.DEAD in states:
        return Retraction.FAILED
    return Retraction.ARRIVED if states == {DeliveryState.DELIVERED} else Retraction.PENDING


def _agreement(labels: Sequence[Label]) -> Agreement:
    return agreement((label.box_decision, label.decision) for label in labels)


def _grouped(labels: Iterable[Label], key: Callable[[Label], str]) -> dict[str, Agreement]:
    groups: dict[str, list[Label]] = {}
    for label in labels:
        groups.setdefault(key(label), []).append(label)
    return {name: _agreement(groups[name]) for name in sorted(groups)}
