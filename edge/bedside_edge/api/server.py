"""The web server around the application: loopback only, quiet, quick to stop."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from bedside_core.errors import InvalidConfigError
from bedside_edge.api.bulk import BulkProtocol
from bedside_edge.config import Http

_BACKLOG = 512
_KEEP_ALIVE_S = 30


class Server(uvicorn.Server):
    """Tells the application first that it stops, so that waiting requests end early."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_stop = stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let running requests finish, then close."""
        self._tell_stop()
        await super().shutdown(sockets)


def bind(settings: Http) -> socket.socket:
    """Return a listening-ready socket, so that a taken port fails before anything starts.

    Raises:
        InvalidConfigError: the address is taken or does not exist on this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as cause:
        listener.close()
        raise InvalidConfigError(
            f"http.host and http.port: port {settings.port} cannot be bound"
        ) from cause
    return listener


def build_server(app: FastAPI, settings: Http) -> Server:
    """Return a server for `app`; run it with `serve`, end it with `should_exit`."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BulkProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nobody stands in front of a loopback service
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, int(settings.shutdown_s)),
    )
    return Server(config, app.state.stop)


def serve(server: Server, listener: socket.socket) -> None:
    """Run until SIGINT, SIGTERM or `server.should_exit`; the listener is closed on return."""
    runner = asyncio.Runner(loop_factory=server.config.get_loop_factory())
    with runner, listener:
        runner.run(server.serve(sockets=[listener]))
