"""The hub as a process: one per folder, served until told to stop, ended in order.

Another process may append to the roster or open a round meanwhile (`bedside-hub roster`, `round`):
the store is looked at every second. When the roster has grown, the revocation list is made anew
and every connection closed, so that who may no longer come is out at once.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside_core.errors import BedsideError
from bedside_sync.hub import overview
from bedside_sync.hub.folder import Hub, only_one, read_hub
from bedside_sync.hub.server import HubServer
from bedside_sync.hub.service import HubKeys, HubService
from bedside_sync.hub.status_page import StatusPage
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.transport_nng import Server

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
_RENEW_S: Final = 86_400  # a revocation list is never older than a day
_FIELDS: Final = ("code", "state", "members", "rounds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where a hub listens."""

    url: str
    status_url: str


def now() -> int:
    """Return seconds since the epoch."""
    return int(time.time())


def open_service(hub: Hub, store: HubStore) -> HubService:
    """Return the rules over a folder's store."""
    return HubService(store, hub.root, HubKeys(sign=hub.key.sign, now=now))


def run_hub(
    folder: Path,
    listen: str,
    status_port: int | None,
    stop: threading.Event,
    *,
    ready: Callable[[Serving], None],
    open_store: Callable[[Path], HubStore] = HubStore,
    threads: int = 4,
) -> None:
    """Serve a folder until `stop` is set.

    Args:
        folder: made by `bedside-hub init`.
        listen: `tls+tcp://address:port`.
        status_port: of the page on loopback; None for no page, 0 for any port.
        stop: set it to end.
        ready: told the addresses once boxes are served.
        open_store: how the store is opened.
        threads: requests worked on at a time.

    Raises:
        StoreUnavailableError: another process serves the folder. UnavailableError: an address is
            taken. NotFoundError, InvalidConfigError: no hub in the folder.
    """
    hub = read_hub(folder)
    with ExitStack() as held:
        held.enter_context(only_one(folder))
        store = open_store(folder)
        held.callback(store.close)
        service = open_service(hub, store)
        handle = HubServer(service, now).handle
        identity = hub.identity(store, service.roster, now())
        server = held.enter_context(Server(listen, identity, handle, threads=threads))
        url = ""
        if status_port is not None:
            page = StatusPage(
                hub.root.consortium,
                status_port,
                lambda: (overview.views(service, now()), overview.awaited_keys(service)),
                now,
            )
            url = held.enter_context(page).url
        log.info("hub serves", extra={"members": len(service.roster.members)})
        ready(Serving(url=server.url, status_url=url))
        _keep(hub, service, server, stop)
        log.info("hub stops")


def _keep(hub: Hub, service: HubService, server: Server, stop: threading.Event) -> None:
    made = now()
    while not stop.wait(_LOOK_S):
        try:
            grown = service.refresh()
            if grown or now() - made >= _RENEW_S:
                server.renew(hub.identity(service.store, service.roster, now()))
                made = now()
                log.info("revocation renewed", extra={"members": len(service.roster.members)})
            service.go_on_all()
            service.tidy()
        except BedsideError as error:  # a full disk passes; boxes are told so meanwhile
            log.warning("housekeeping failed", extra={"code": error.code})


class JsonFormatter(logging.Formatter):
    """Constant message and listed fields; never arguments, never locals."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        line = {"at": int(record.created), "level": record.levelname.lower(), "event": record.msg}
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line)
