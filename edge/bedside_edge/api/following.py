"""Server-sent events: who follows the box's changes, without a thread per listener.

One task looks whether anything is new, and only while somebody listens; each listener then reads
what follows its own place. So a slow one holds nobody up and no queue grows. An id names a change
and its time: after a restart the listener goes on where it was, and where the change is no longer
kept (or the database is an older copy) it is told to load the page again.
"""

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from bedside_core.errors import QueueFullError
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services
from bedside_edge.ports import Job
from bedside_edge.ports.events import Change
from bedside_edge.services.worker import ENDED

HEARTBEAT_S = 15.0
_LOOK_S = 0.25
_RETRY_MS = 2_000
_PAGE = 200
_ID = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")


class Stream(EventSourceResponse):
    """One listener's answer; `leave` is called when it has ended, however it ended."""

    def __init__(self, events: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        super().__init__(events)
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


class Following:
    """All listeners of one service; used from one event loop."""

    def __init__(
        self,
        services: Services,
        storage: WorkPool,
        stopping: Callable[[], bool] = bool,
        *,
        longest_s: float = 600.0,
        most: int = 64,
        most_each: int = 8,
    ) -> None:
        """Stand on the services.

        Args:
            services: have the feed; looked at when somebody listens.
            storage: the threads that read it.
            stopping: whether the service is on its way down.
            longest_s: how long a stream lasts; then the browser comes again and is asked who it is.
            most: listeners at a time.
            most_each: listeners of one actor.
        """
        self._services, self._storage, self._stopping = services, storage, stopping
        self._longest_s, self._most, self._most_each = longest_s, most, most_each
        self._listeners: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._seen = -1
        self._watch: asyncio.Task[None] | None = None

    @property
    def listeners(self) -> int:
        """How many listen."""
        return sum(self._listeners.values())

    async def start(self, actor_id: str, last_id: str, job: Job | None = None) -> "Stream":
        """Return the answer to one listener; its place is taken at once and held until it ends.

        Args:
            actor_id: who listens.
            last_id: Last-Event-ID, or empty.
            job: follow only this one; its present state comes first, and the stream ends with it.

        Raises:
            QueueFullError: too many listen already.
        """
        if self.listeners >= self._most or self._listeners[actor_id] >= self._most_each:
            raise QueueFullError("too many pages follow the box already")
        self._listeners[actor_id] += 1
        try:
            place, lost = await self._place(last_id)
        except BaseException:
            self._leave(actor_id)
            raise
        events = self._stream(place or _nothing(), lost, job)
        return Stream(events, partial(self._leave, actor_id))

    async def _place(self, last_id: str) -> tuple[Change | None, bool]:
        """Return from where to go on, and whether something may have been missed."""
        newest = await self._storage.run(self._services.changes.newest)
        if not last_id:
            return newest, False
        found = _ID.fullmatch(last_id)
        if found is None:
            return newest, True
        seq, at = int(found[1]), int(found[2])
        if seq == 0:
            return _nothing(), newest is not None and newest.seq > _PAGE
        if not await self._storage.run(self._services.changes.known, seq, at):
            return newest, True
        return _nothing(seq, at), False

    async def _stream(self, place: Change, lost: bool, job: Job | None) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        started = spoke = loop.time()
        word = "reload" if lost else "hello"
        yield format_sse_event(event=word, data_str="{}", id=_id(place), retry=_RETRY_MS)
        if job is not None:
            yield format_sse_event(event="job", data_str=json.dumps(_said(_present(job))))
            if job.state in ENDED:
                return
        seq, job_id = place.seq, job.job_id if job else ""
        while not self._stopping() and loop.time() - started < self._longest_s:
            seen = await self._news(seq)
            changes = await self._storage.run(self._read, seq, job_id)
            for change in changes:
                yield format_sse_event(
                    event=change.kind, data_str=json.dumps(_said(change)), id=_id(change)
                )
                if job_id and change.kind == "job" and change.state in ENDED:
                    return
            if changes:
                spoke = loop.time()
            elif loop.time() - spoke >= HEARTBEAT_S:
                spoke = loop.time()
                yield KEEPALIVE_COMMENT
            # changes are committed in their order: what others' listeners saw is behind us too
            last = changes[-1].seq if changes else seq
            seq = last if len(changes) == _PAGE else max(last, seen)

    async def _news(self, seq: int) -> int:
        """Wait for something behind `seq`, a second at most; return the newest that was seen."""
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())
        async with self._changed:
            if self._seen <= seq:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 1.0)
        return self._seen

    def _read(self, seq: int, job_id: str) -> list[Change]:
        return self._services.changes.after(seq, job_id=job_id, limit=_PAGE)

    async def _look(self) -> None:
        """Look for news while somebody listens."""
        while self.listeners and not self._stopping():
            newest = await self._storage.run(self._services.changes.newest)
            if newest is not None and newest.seq != self._seen:
                async with self._changed:
                    self._seen = newest.seq
                    self._changed.notify_all()
            await asyncio.sleep(_LOOK_S)
        async with self._changed:
            self._changed.notify_all()

    def _leave(self, actor_id: str) -> None:
        self._listeners[actor_id] -= 1
        if not self._listeners[actor_id]:
            del self._listeners[actor_id]


def _nothing(seq: int = 0, at: int = 0) -> Change:
    return Change(seq=seq, kind="", id="", job_id="", study_id="", state="", reason="", at=at)


def _id(change: Change) -> str:
    return f"{change.seq}.{change.at}"


def _present(job: Job) -> Change:
    return Change(
        seq=0,
        kind="job",
        id=job.job_id,
        job_id=job.job_id,
        study_id=job.study_id,
        state=job.state,
        reason=job.reason,
        at=job.updated,
    )


def _said(change: Change) -> dict[str, object]:
    return {
        "id": change.id,
        "job": change.job_id,
        "study": change.study_id,
        "state": change.state,
        "reason": change.reason,
        "at": change.at,
    }
