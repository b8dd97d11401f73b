"""A blocking client of an ASGI application: no socket, a real event loop, the real lifespan."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
from fastapi import FastAPI


class AsgiClient:
    """Requests run on a loop in a thread of its own, so several test threads may ask at once."""

    def __init__(self, app: FastAPI, base_url: str) -> None:
        self._app = app
        self._lifespan = app.router.lifespan_context(app)
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        self._client = httpx.AsyncClient(transport=transport, base_url=base_url)

    def __enter__(self) -> "AsgiClient":
        # not before: a client that is made and never entered would leave its loop behind
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="asgi-client")
        self._thread.start()
        self.await_(self._lifespan.__aenter__())
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self.await_(self._lifespan.__aexit__(None, None, None))
            self.await_(self._client.aclose())
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def await_(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.await_(self._client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


async def in_pieces(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Send a body piece by piece, chunked: without a Content-Length."""
    for piece in pieces:
        yield piece
