"""Large request bodies without uvicorn's copies and without a task switch per packet.

uvicorn gathers a body in a growing buffer, copies it once more for ASGI and wakes the application
for every read of the socket; for a tensor of 400 kB that costs a quarter of the server's time.
Here the parser hands each piece to a function of the handler, and the handler sleeps until that
function, or the end of the body, wakes it. Any other server, and the tests' client, go the plain
ASGI way in body.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any

from starlette.types import Receive
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bedside_edge.api.mutual import EXTENSION as PEER
from bedside_edge.api.reply import ClientGoneError

EXTENSION = "bedside.bulk"
_TAKE = "take"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)

Take = Callable[[bytes], None]


class BulkProtocol(HttpToolsProtocol):
    """HTTP/1.1 that lets a handler take body pieces as the parser cuts them.

    It also bounds what uvicorn does not: the size of a request's head, which the parser gathers in
    memory, the time it may take, during which a connection holds a descriptor of the box, and the
    time in which a reader takes nothing of an answer, which is in memory until it does.
    """

    head_bytes = 64 << 10
    head_s = 30.0
    _in_head = True
    _head_seen = 0
    _head_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None
    _peer: Mapping[str, object] = MappingProxyType({})

    @classmethod
    def with_patience(cls, seconds: float) -> "type[BulkProtocol]":
        """Return the protocol with another time for a head, and for a reader that takes nothing."""
        return type(cls.__name__, (cls,), {"head_s": seconds})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look at the peer's certificate, if it showed one; start the clock of the first head."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True) if tls is not None else None
        self._peer = {PEER: {"certificate": shown}} if shown else {}
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_clock()
        self._reader_goes_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, then count what belongs to a head that is not complete."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_seen += len(data)
            if self._head_seen > self.head_bytes:
                if self.cycle is None or self.cycle.response_complete:
                    self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        """Say in the scope that this connection can do it."""
        super().on_message_begin()
        offered: dict[str, Any] = {EXTENSION: {}, **self._peer}
        self.scope["extensions"] = offered
        self._in_head, self._head_seen = True, 0
        self._time_head()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        self._stop_clock()
        super().on_headers_complete()

    def _time_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_s, self.transport.close)

    def _stop_clock(self) -> None:
        timer, self._head_timer = self._head_timer, None
        if timer is not None:
            timer.cancel()

    def pause_writing(self) -> None:
        """Start the clock of a reader that is slower than the answer."""
        super().pause_writing()
        self._time_reader()

    def resume_writing(self) -> None:
        """Stop it: the answer goes on."""
        self._reader_goes_on()
        super().resume_writing()

    def _time_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(self.head_s, self._look_at_reader, left)

    def _look_at_reader(self, left: int) -> None:
        """Hang up on a reader that has taken nothing; one that is only slow may go on."""
        if self.transport.get_write_buffer_size() < left:
            self._time_reader()
        else:
            self.transport.abort()

    def _reader_goes_on(self) -> None:
        timer, self._reader_timer = self._reader_timer, None
        if timer is not None:
            timer.cancel()

    def on_body(self, body: bytes) -> None:
        """Hand a piece to the function that asked for it, else gather as usual."""
        take: Take | None = vars(self.cycle).get(_TAKE)
        if take is None:
            super().on_body(body)
        else:
            take(body)


def cycle_of(extensions: Mapping[str, object], receive: Receive) -> RequestResponseCycle | None:
    """Return uvicorn's own record of the request, None when another server runs us."""
    if EXTENSION not in extensions:
        return None
    owner = getattr(receive, "__self__", None)
    return owner if isinstance(owner, RequestResponseCycle) else None


class _Tap:
    """Pieces since the last batch, and how many bytes have come in all."""

    def __init__(self, cycle: RequestResponseCycle, size: int) -> None:
        self._cycle, self._size = cycle, size
        self.held: list[bytes] = []
        self.count = 0
        self.seen = 0

    def take(self, piece: bytes) -> None:
        """Keep a piece; wake the handler for a full batch, stop the sender at two."""
        self.held.append(piece)
        self.count += len(piece)
        self.seen += len(piece)
        if self.count >= self._size:
            self._cycle.message_event.set()
            if self.count >= 2 * self._size:
                self._cycle.flow.pause_reading()

    def full(self) -> bool:
        """Whether a batch is ready."""
        return self.count >= self._size

    def batch(self) -> list[bytes]:
        """Return the pieces held and start anew."""
        batch, self.held, self.count = self.held, [], 0
        return batch


class _Pour:
    """Copies pieces to where they belong."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.seen = 0

    def take(self, piece: bytes) -> None:
        """Copy a piece behind the last one."""
        end = self.seen + len(piece)
        self._view[self.seen : end] = piece
        self.seen = end


async def batches(
    cycle: RequestResponseCycle, size: int, idle_s: float
) -> AsyncIterator[list[bytes]]:
    """Yield the body in lists of pieces of `size` bytes or more; the last may be smaller.

    Reading stops while two batches wait, so a slow disk slows the sender, not the memory.

    Raises:
        TimeoutError: nothing came for `idle_s`.
        ClientGoneError: the sender hung up.
    """
    tap = _Tap(cycle, size)
    _attach(cycle, tap.take)
    try:
        while True:
            while cycle.more_body and not tap.full():
                await _wait(cycle, tap, idle_s)
            more = cycle.more_body
            if tap.held:
                yield tap.batch()
            if not more:
                return
    finally:
        vars(cycle)[_TAKE] = _drop


async def pour(cycle: RequestResponseCycle, view: memoryview, idle_s: float) -> int:
    """Copy the body into `view` and return its size; the parser keeps it to its Content-Length.

    Raises:
        TimeoutError: nothing came for `idle_s`.
        ClientGoneError: the sender hung up.
    """
    pour = _Pour(view)
    _attach(cycle, pour.take)
    try:
        while cycle.more_body:
            await _wait(cycle, pour, idle_s)
        return pour.seen
    finally:
        vars(cycle)[_TAKE] = _drop


def _attach(cycle: RequestResponseCycle, take: Take) -> None:
    """Take over from uvicorn, with what it has gathered so far."""
    if cycle.waiting_for_100_continue and not cycle.transport.is_closing():
        cycle.transport.write(_CONTINUE)
        cycle.waiting_for_100_continue = False
    if cycle.body:
        take(bytes(cycle.body))
        cycle.body = bytearray()
    vars(cycle)[_TAKE] = take


async def _wait(cycle: RequestResponseCycle, progress: _Tap | _Pour, idle_s: float) -> None:
    """Sleep until woken; silence is an error, a slow sender is not."""
    if cycle.disconnected:
        raise ClientGoneError
    cycle.flow.resume_reading()
    cycle.message_event.clear()
    woken = False
    while not woken:
        before = progress.seen
        try:
            async with asyncio.timeout(idle_s):
                woken = await cycle.message_event.wait()
        except TimeoutError:
            if progress.seen == before:
                raise


def _drop(piece: bytes) -> None:
    """What comes after the handler stopped listening is nobody's."""
