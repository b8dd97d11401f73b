"""Which DICOM objects a result or a review becomes, made once and kept like instances.

With destinations configured every analysed result is published: its row waits in the outbox from
the moment the result is stored. Without any, objects are made when somebody asks for them.
"""

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import BedsideError, NotFoundError, WrongStateError
from bedside_core.result import Json, caption
from bedside_core.review import Review, ReviewKind
from bedside_edge.ports import Clock, JobQueue, ObjectStore, StoredResult, StudyStore
from bedside_edge.services.ingest import failure_code
from bedside_edge.services.outputs import (
    Draft,
    Kind,
    Made,
    NewOutput,
    ObjectWriter,
    Occasion,
    Output,
    OutputStore,
    Routes,
)

log = logging.getLogger(__name__)

Paint = Callable[[bytes, Json, Sequence[str]], NDArray[np.uint8]]  # image, its entry, caption

_IDLE_S = 5.0
_ATTEMPTS = 5
_BACKOFF_MS = 2_000
_OCCASIONS = {
    ReviewKind.ACCEPT: Occasion.ACCEPTED,
    ReviewKind.EDIT: Occasion.EDITED,
    ReviewKind.REJECT: Occasion.REJECTED,
}
_UNTOLD = frozenset({"cam", "checks", "operations"})  # what may differ between equal readings


class PublishService:
    """Makes, keeps and queues objects. Safe to call from several threads."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        studies: StudyStore,
        objects: ObjectStore,
        outputs: OutputStore,
        writer: ObjectWriter,
        paint: Paint,
        clock: Clock,
        destinations: Mapping[str, frozenset[Kind]],
        wake: Callable[[], None],
    ) -> None:
        """Stand on the ports; `wake` is called when deliveries may be due."""
        self._queue, self._studies, self._objects = queue, studies, objects
        self.outputs, self._writer, self._paint = outputs, writer, paint
        self._clock, self._kinds, self._wake = clock, dict(destinations), wake
        self._making = threading.Lock()  # one result's objects are made once

    def result_objects(self, result_id: str) -> list[Output]:
        """Return the preliminary objects of a result, made now if nobody asked before.

        Raises:
            NotFoundError: no such result, or its images are no longer held.
            WrongStateError: nothing was computed, so there is no object.
        """
        with self._making:
            return self._ensure(self._queue.result(result_id))

    def data(self, output: Output) -> bytes:
        """Return a kept object as a DICOM file."""
        return self._objects.read(output.object_name, output.object_key)

    def publish(self, result_id: str) -> list[Output]:
        """Make the objects of a result and queue them for every destination.

        A refused result has none, a superseded one is left to its successor, and one that reads
        the same as what was published before (a report arrived, no new image) changes nothing.
        """
        with self._making:
            stored = self._queue.result(result_id)
            body: Json = json.loads(stored.body)
            before = self.outputs.earlier_result(stored.study_id, result_id)
            if body["value"] is None or stored.superseded_by or self._unchanged(before, body):
                now = self._clock.now()
                self.outputs.published(result_id, [], Routes(kinds={}), now)
                return []
            made = self._ensure(stored)
            sent = [output.output_id for output in made]
            self.outputs.published(
                result_id,
                [],
                Routes(kinds=self._kinds),
                self._clock.now(),
                again=sent,
                withdraw=before,
            )
        self._wake()
        log.info("result published", extra={"result": result_id, "objects": len(made)})
        return made

    def publish_review(self, result_id: str, review: Review) -> list[Output]:
        """Make the signed report (and the key object of a rejection) and queue them.

        They go wherever objects of the result went; what had not left yet is withdrawn when the
        result was rejected. Called again with the same review it returns what it made before, so
        a caller may repeat it after a crash.

        Raises:
            NotFoundError: no such result, or its images are no longer held.
            WrongStateError: nothing was computed, so there is nothing to review.
        """
        with self._making:
            stored = self._queue.result(result_id)
            occasion = _OCCASIONS[review.kind]
            kept = self._ensure(stored)
            known = self.outputs.outputs(result_id=result_id)
            again = [o for o in known if o.occasion is occasion and o.created == review.at]
            if again:
                return again
            made = self._write_review(stored, review, known or kept)
            rejected = review.kind is ReviewKind.REJECT
            filed = self._file(
                stored,
                made,
                occasion,
                Routes(kinds=self._kinds, everywhere=not rejected, follow=result_id),
                review.at,
                # the result may not have left yet: then it goes first, or not at all
                again=[] if rejected else [output.output_id for output in kept],
                withdraw=result_id if rejected else "",
            )
        self._wake()
        log.info(
            "review published",
            extra={"result": result_id, "outcome": str(occasion), "objects": len(filed)},
        )
        return filed

    # --- the publisher's loop ------------------------------------------------------------------

    def step(self) -> bool:
        """Publish one waiting result; False when none is due."""
        pending = self.outputs.pending(self._clock.now())
        if not pending:
            return False
        one = pending[0]
        try:
            self.publish(one.result_id)
        except Exception as error:  # one result that cannot be written must not stop the others
            code, now = failure_code(error), self._clock.now()
            last = one.attempts + 1 >= _ATTEMPTS
            due = None if last else now + (_BACKOFF_MS << one.attempts)
            self.outputs.not_published(one.result_id, code, now, due)
            foreseen = isinstance(error, BedsideError)
            log.log(
                logging.ERROR if last else logging.WARNING,
                "result not published",
                extra={"result": one.result_id, "code": code},
                exc_info=None if foreseen else error,
            )
        return True

    def nap(self) -> float:
        """Return the seconds until a publication is due."""
        due = self.outputs.next_pending()
        if due is None:
            return _IDLE_S
        return min(_IDLE_S, max(0.0, (due - self._clock.now()) / 1000.0))

    # --- inside --------------------------------------------------------------------------------

    def _ensure(self, stored: StoredResult) -> list[Output]:
        """Return the result's own objects, making and keeping them when there are none."""
        held = self.outputs.outputs(result_id=stored.result_id)
        kept = [output for output in held if output.occasion is Occasion.RESULT]
        if kept:
            return kept
        body: Json = json.loads(stored.body)
        if body["value"] is None:
            raise WrongStateError("the study was not processed; the result says why")
        draft = self._draft(stored, body, self._earlier_report(stored), with_picture=True)
        made = self._writer.result_objects(draft)
        return self._file(
            stored, made, Occasion.RESULT, Routes(kinds={}), draft.at, unfinished=True
        )

    def _write_review(
        self, stored: StoredResult, review: Review, known: Sequence[Output]
    ) -> list[Made]:
        body: Json = json.loads(stored.body)
        reports = [output for output in known if output.kind is Kind.SR]
        earlier = self.data(reports[-1]) if reports else b""
        draft = self._draft(stored, body, earlier, with_picture=False)
        named = [self.data(output) for output in known if output.kind is not Kind.KO]
        return self._writer.review_objects(draft, review, named)

    def _draft(
        self, stored: StoredResult, body: Json, earlier: bytes, *, with_picture: bool
    ) -> Draft:
        entries = {e["instance"]: e for e in body["images"] if e["status"] == "analysed"}
        sources = {
            instance.instance_id: self._objects.read(instance.object_name, instance.object_key)
            for instance in self._studies.instances(stored.study_id)
            if instance.instance_id in entries
        }
        shown = body["value"]["image"]
        if shown not in sources:
            raise NotFoundError("the image is no longer held")
        picture = None
        if with_picture:
            picture = self._paint(sources[shown], entries[shown], caption(body))
        return Draft(
            body=body, sources=sources, picture=picture, at=self._clock.now(), earlier=earlier
        )

    def _earlier_report(self, stored: StoredResult) -> bytes:
        """Return the report this result replaces, unless it will never have left the box."""
        before = self.outputs.earlier_result(stored.study_id, stored.result_id)
        reports = [o for o in self.outputs.outputs(result_id=before) if o.kind is Kind.SR]
        if not before or not reports:
            return b""
        ways = self.outputs.deliveries(result_id=before)
        if ways and not any(way.attempts for way in ways):
            return b""
        return self.data(reports[-1])

    def _unchanged(self, before: str, body: Json) -> bool:
        if not before:
            return False
        earlier: Json = json.loads(self._queue.result(before).body)
        return _told(earlier) == _told(body)

    def _file(
        self,
        stored: StoredResult,
        made: Sequence[Made],
        occasion: Occasion,
        routes: Routes,
        at: int,
        *,
        again: Sequence[str] = (),
        withdraw: str = "",
        unfinished: bool = False,
    ) -> list[Output]:
        """Seal, make durable, then file; on an error nothing stays."""
        sealed: list[NewOutput] = []
        try:
            for one in made:
                sink = self._objects.create()
                try:
                    sink.write(one.data)
                    done = sink.seal("")
                except BaseException:
                    sink.abort()
                    raise
                sealed.append(
                    NewOutput(
                        kind=one.kind,
                        occasion=occasion,
                        sop_class_uid=one.sop_class_uid,
                        sop_instance_uid=one.sop_instance_uid,
                        sealed=done,
                    )
                )
            self._objects.flush()
            return self.outputs.published(
                stored.result_id,
                sealed,
                routes,
                at,
                again=again,
                withdraw=withdraw,
                unfinished=unfinished,
            )
        except BaseException:
            for new in sealed:
                self._objects.delete(new.sealed.name)
            raise


def _told(body: Json) -> Json:
    """Return what a report says: the same again need not be sent again."""
    images = [
        {key: value for key, value in entry.items() if key not in _UNTOLD}
        for entry in body["images"]
        if entry["status"] == "analysed"
    ]
    kept = ("value", "finding", "model", "pipeline", "package")
    return {key: body[key] for key in kept} | {"images": images}
