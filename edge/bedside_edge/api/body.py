"""Reading request bodies straight from ASGI: bounded, with a clock on silence, without copies."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np

from bedside_core.errors import InvalidInputError, TimedOutError, TooLargeError
from bedside_edge.api.reply import ClientGoneError, Request, content_length

_ALIGNMENT = 64  # bytes; engines read aligned tensors without a copy of their own


async def chunks(request: Request, limit: int, idle_s: float) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    Raises:
        TooLargeError: more than `limit` bytes announced or sent.
        TimedOutError: nothing came for `idle_s`.
        ClientGoneError: the sender hung up.
    """
    announced = content_length(request.headers)
    if announced is not None and announced > limit:
        raise TooLargeError(f"the body is larger than {limit} bytes")
    seen, more = 0, True
    while more:
        try:
            async with asyncio.timeout(idle_s):
                message = await request.receive()
        except TimeoutError as cause:
            raise TimedOutError("the sender fell silent in the middle of the body") from cause
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        seen += len(chunk)
        if seen > limit:
            raise TooLargeError(f"the body is larger than {limit} bytes")
        if chunk:
            yield chunk


async def whole(request: Request, limit: int, idle_s: float, align_at: int = 0) -> memoryview:
    """Return the complete body in one buffer.

    Args:
        request: whose body to read.
        limit: most bytes taken.
        idle_s: longest silence.
        align_at: the byte of the body that shall lie on a 64-byte boundary: where the tensors of
            an inference request start, after JSON of any length.
    """
    announced = content_length(request.headers)
    if announced is None:
        parts = [chunk async for chunk in chunks(request, limit, idle_s)]
        announced = sum(len(part) for part in parts)
        view = _aligned(announced, align_at)
        position = 0
        for part in parts:
            view[position : position + len(part)] = part
            position += len(part)
        return view
    if announced > limit:
        raise TooLargeError(f"the body is larger than {limit} bytes")
    view = _aligned(announced, align_at)
    position = 0
    async for chunk in chunks(request, limit, idle_s):
        view[position : position + len(chunk)] = chunk
        position += len(chunk)
    if position != announced:
        raise InvalidInputError("the body is shorter than its Content-Length")
    return view


def _aligned(size: int, align_at: int) -> memoryview:
    """Return a writable view of `size` bytes whose byte `align_at` is aligned."""
    room = np.empty(size + _ALIGNMENT, np.uint8)
    address: int = room.__array_interface__["data"][0]
    start = -(address + align_at) % _ALIGNMENT
    return room.data[start : start + size]
