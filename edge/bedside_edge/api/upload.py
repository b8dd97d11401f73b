"""From a request body to an `Intake`: buffers go to a storage thread in batches."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from bedside_core.errors import UnsupportedMediaTypeError
from bedside_edge.api import body
from bedside_edge.api.intake import Intake
from bedside_edge.api.multipart import (
    Data,
    MultipartParser,
    PartEnd,
    PartStart,
    boundary_of,
    parameters,
)
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.reply import Request, media_type
from bedside_edge.config import Http

DICOM = "application/dicom"
MULTIPART_RELATED = "multipart/related"
MULTIPART_FORM = "multipart/form-data"
_FILE_TYPES = ("", "application/octet-stream")

T = TypeVar("T")


class _Reader(Protocol):
    """Turns body bytes into parts of an intake."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        ...

    def end(self) -> None:
        """The body is complete."""
        ...


class _OneObject:
    """The body is one Part 10 object."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._begun = False

    def feed(self, data: bytes) -> None:
        if not self._begun:
            self._intake.begin()
            self._begun = True
        self._intake.write(data)

    def end(self) -> None:
        if self._begun:
            self._intake.end()


class _Parts:
    """The body is multipart; every part is one Part 10 object."""

    def __init__(self, intake: Intake, content_type: str, *, form: bool) -> None:
        self._intake, self._form = intake, form
        self._parser = MultipartParser(boundary_of(content_type))

    def feed(self, data: bytes) -> None:
        for event in self._parser.feed(data):
            if isinstance(event, Data):
                self._intake.write(event.view)
            elif isinstance(event, PartStart):
                check_part(event.headers, form=self._form)
                self._intake.begin()
            elif isinstance(event, PartEnd):
                self._intake.end()

    def end(self) -> None:
        self._parser.close()


def check_part(headers: dict[str, str], *, form: bool) -> None:
    """Refuse a part that is no DICOM object.

    Raises:
        UnsupportedMediaTypeError: its type is another one, or it is a plain form field.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == DICOM or (not form and kind == ""):
        return
    named = "filename" in parameters(headers.get("content-disposition", ""))
    if not (form and named and kind in _FILE_TYPES):
        raise UnsupportedMediaTypeError("every part must be an application/dicom object")


async def receive_upload(
    request: Request,
    intake: Intake,
    *,
    kinds: Sequence[str],
    pool: WorkPool,
    settings: Http,
    finish: Callable[[], T],
) -> T:
    """Stream the body into the intake and return what `finish` makes of it, in one storage thread.

    A sender that hangs up, an error, or a cancelled request leaves nothing of the intake behind.

    Raises:
        UnsupportedMediaTypeError: the Content-Type is none of `kinds`.
        TooLargeError, TimedOutError, ClientGoneError: see `body.batches`.
    """
    reader = _reader(request, intake, kinds)
    pending: asyncio.Future[None] | None = None

    def feed(batch: list[bytes]) -> None:
        for data in batch:
            reader.feed(data)

    def last(batch: list[bytes]) -> T:
        feed(batch)
        reader.end()
        return finish()

    held: list[bytes] = []  # one batch behind, so that the last one shares a hop with the end
    try:
        async for batch in body.batches(request, settings.max_body_bytes, settings.upload_idle_s):
            if pending is not None:
                await pending
            pending = pool.run(feed, held) if held else None
            held = batch
        if pending is not None:
            await pending
        pending = None
        ending = pool.run(last, held)
    except BaseException:
        await _abort(intake, pool, pending)
        raise
    try:
        return await asyncio.shield(ending)
    except BaseException:
        await _abort(intake, pool, ending)
        raise


async def _abort(
    intake: Intake, pool: WorkPool, running: "asyncio.Future[T] | asyncio.Future[None] | None"
) -> None:
    """Forget what is not filed, after the thread that still works on it."""
    if running is not None and not running.done():
        await asyncio.wait([running])
    await asyncio.shield(pool.run(intake.abort))


def _reader(request: Request, intake: Intake, kinds: Sequence[str]) -> _Reader:
    kind = media_type(request.headers)
    if kind not in kinds or request.headers.get(b"content-encoding", b"identity") != b"identity":
        raise UnsupportedMediaTypeError(f"the body must be {' or '.join(kinds)}, not compressed")
    if kind == DICOM:
        return _OneObject(intake)
    content_type = request.headers[b"content-type"].decode("latin-1")
    named = parameters(content_type).get("type", DICOM).lower()
    if kind == MULTIPART_RELATED and named != DICOM:
        raise UnsupportedMediaTypeError("the parts must be application/dicom")
    return _Parts(intake, content_type, form=kind == MULTIPART_FORM)
