"""The web server around the application: quiet, quick to stop, signals left to its owner."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from bedside_core.errors import InvalidConfigError
from bedside_edge.api.bulk import BulkProtocol
from bedside_edge.config import Http

_BACKLOG = 512
_KEEP_ALIVE_S = 30


def _nothing() -> None:
    """The default of `on_started`."""


class Server(uvicorn.Server):
    """Serves one application; `leave` ends `serve` once running requests have finished."""

    def __init__(
        self,
        app: FastAPI,
        settings: Http,
        on_started: Callable[[], None] = _nothing,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            app: made by `create_app`.
            settings: section `[http]`.
            on_started: called once the server accepts.
            tls: what to speak; plain HTTP when None.
        """
        super().__init__(
            uvicorn.Config(
                app,
                http=BulkProtocol.with_patience(settings.upload_idle_s),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # what a header says about the peer is not believed
                ssl_context_factory=None if tls is None else lambda *_: tls,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(settings.shutdown_s)),
            )
        )
        self._on_started = on_started
        self._stop: Callable[[], None] = app.state.stop

    def leave(self) -> None:
        """Refuse new work, end waits early, finish what runs, return from `serve`."""
        self._stop()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting, then say so."""
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would take them over and raise them once more at the end."""
        yield


def bind(settings: Http) -> socket.socket:
    """Return a bound socket, so that a taken port fails before anything starts.

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
        raise InvalidConfigError(f"http.port: {settings.port} cannot be bound") from cause
    listener.set_inheritable(True)
    return listener
