"""Reading request bodies: bounded, with a clock on silence, with as few copies as can be."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np

from bedside_core.errors import InvalidInputError, TimedOutError, TooLargeError
from bedside_edge.api import bulk
from bedside_edge.api.reply import ClientGoneError, Request, content_length
from bedside_edge.api.room import Take

_ALIGNMENT = 64  # bytes; engines read aligned tensors without a copy of their own
_BATCH = 256 << 10  # bytes; a hop to a storage thread costs as much as sealing a few kB


async def batches(request: Request, limit: int, idle_s: float) -> AsyncIterator[list[bytes]]:
    """Yield the body as it arrives, in lists of pieces of 256 KiB or more together.

    Raises:
        TooLargeError: more than `limit` bytes announced or sent.
        TimedOutError: nothing came for `idle_s`.
        ClientGoneError: the sender hung up.
    """
    _check_announced(request, limit)
    cycle = bulk.cycle_of(request.extensions, request.receive)
    source = bulk.batches(cycle, _BATCH, idle_s) if cycle else _plain(request, idle_s)
    seen = 0
    try:
        async for batch in source:
            seen += sum(len(piece) for piece in batch)
            if seen > limit:
                raise _too_large(limit)
            yield batch
    except TimeoutError as cause:
        raise TimedOutError("the sender fell silent in the middle of the body") from cause


async def whole(
    request: Request, limit: int, idle_s: float, align_at: int = 0, take: Take | None = None
) -> memoryview:
    """Return the complete body in one buffer.

    Args:
        request: whose body to read.
        limit: most bytes taken.
        idle_s: longest silence.
        align_at: the byte of the body that shall lie on a 64-byte boundary: where the tensors of
            an inference request start, after JSON of any length.
        take: claims bytes before they are held; what it raises ends the request.

    Raises:
        TooLargeError, TimedOutError, ClientGoneError: as for `batches`.
        InvalidInputError: shorter than announced.
    """
    size = _check_announced(request, limit)
    cycle = bulk.cycle_of(request.extensions, request.receive)
    if size is not None and take is not None:
        take(size)
    if size is None or cycle is None:
        pieces: list[bytes] = []
        async for batch in batches(request, limit, idle_s):
            if size is None and take is not None:
                take(sum(len(piece) for piece in batch))
            pieces += batch
        size = sum(len(piece) for piece in pieces)
        view = _aligned(size, align_at)
        position = 0
        for piece in pieces:
            view[position : position + len(piece)] = piece
            position += len(piece)
        return view
    view = _aligned(size, align_at)
    try:
        position = await bulk.pour(cycle, view, idle_s)
    except TimeoutError as cause:
        raise TimedOutError("the sender fell silent in the middle of the body") from cause
    if position != size:
        raise InvalidInputError("the body is shorter than its Content-Length")
    return view


async def _plain(request: Request, idle_s: float) -> AsyncIterator[list[bytes]]:
    """The same through ASGI, for any server."""
    batch: list[bytes] = []
    size, more = 0, True
    while more:
        async with asyncio.timeout(idle_s):
            message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        if piece:
            batch.append(piece)
            size += len(piece)
        if batch and (size >= _BATCH or not more):
            yield batch
            batch, size = [], 0


def _check_announced(request: Request, limit: int) -> int | None:
    announced = content_length(request.headers)
    if announced is not None and announced > limit:
        raise _too_large(limit)
    return announced


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {limit} bytes")


def _aligned(size: int, align_at: int) -> memoryview:
    """Return a writable view of `size` bytes whose byte `align_at` is aligned."""
    room = np.empty(size + _ALIGNMENT, np.uint8)
    address: int = room.__array_interface__["data"][0]
    start = -(address + align_at) % _ALIGNMENT
    return room.data[start : start + size]
