"""The application on a real socket: uvicorn in a thread, as `serve` runs it in the main thread."""

import asyncio
import threading

import uvloop
from fastapi import FastAPI

from bedside_edge.api.server import Server, bind
from bedside_edge.config import Http


class HttpServer:
    """`with HttpServer(app) as server` serves on `server.port` until the block ends."""

    def __init__(self, app: FastAPI, **settings) -> None:
        settings = Http(**{"port": 0} | settings)
        self._listener = bind(settings)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._started = threading.Event()
        self.server = Server(app, settings, self._started.set)
        self._thread = threading.Thread(target=self._run, name="http-server")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, self._listener:
            runner.run(self.server.serve(sockets=[self._listener]))

    def __enter__(self) -> "HttpServer":
        self._thread.start()
        if not self._started.wait(10):
            raise TimeoutError("the server did not start")
        return self

    def leave(self) -> None:
        """Stop and wait until everything is closed."""
        self.server.leave()
        self._thread.join(20)
        if self._thread.is_alive():
            raise TimeoutError("the server did not stop")

    def __exit__(self, *raised: object) -> None:
        if self._thread.is_alive():
            self.leave()
