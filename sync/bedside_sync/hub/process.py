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
from typing import TYPE_CHECKING, Final

from bedside_core.errors import BedsideError, UpdateRunningError
from bedside_sync.hub import overview
from bedside_sync.hub.folder import Hub, only_one, read_hub
from bedside_sync.hub.server import HubServer
from bedside_sync.hub.service import HubKeys, HubService
from bedside_sync.hub.status_page import StatusPage
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.transport_nng import Server

if TYPE_CHECKING:  # python-tuf takes a while to import: only who serves needs it
    from bedside_sync.distribution.repository import Repository
    from bedside_sync.hub.inventories import Rollouts

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
_FRESH_S: Final = 60  # between two looks at whether the repository has to be signed anew
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
    from bedside_sync.distribution.gateway import Gateway, site_of
    from bedside_sync.distribution.repository import Repository
    from bedside_sync.distribution.repository_files import REPOSITORY
    from bedside_sync.hub.inventories import campaigns, summary

    hub = read_hub(folder)
    with ExitStack() as held:
        held.enter_context(only_one(folder))
        store = open_store(folder)
        held.callback(store.close)
        service = open_service(hub, store)
        repository = Repository(folder / REPOSITORY)
        gateway = Gateway(
            repository.folder, lambda box: site_of(service.roster.members[box].key.raw.hex())
        )
        handle = HubServer(service, now, gateway).handle
        identity = hub.identity(store, service.roster, now())
        server = held.enter_context(Server(listen, identity, handle, threads=threads))
        url = ""
        if status_port is not None:
            page = StatusPage(
                hub.root.consortium,
                status_port,
                lambda: (overview.views(service, now()), overview.awaited_keys(service)),
                now,
                lambda: summary(campaigns(store)),
            )
            url = held.enter_context(page).url
        log.info("hub serves", extra={"members": len(service.roster.members)})
        ready(Serving(url=server.url, status_url=url))
        _keep(hub, service, server, repository, stop)
        log.info("hub stops")


def _keep(
    hub: Hub, service: HubService, server: Server, repository: "Repository", stop: threading.Event
) -> None:
    from bedside_sync.hub.inventories import Rollouts

    made, looked = now(), 0
    while not stop.wait(_LOOK_S):
        try:
            grown = service.refresh()
            if grown or now() - made >= _RENEW_S:
                server.renew(hub.identity(service.store, service.roster, now()))
                made = now()
                log.info("revocation renewed", extra={"members": len(service.roster.members)})
            service.go_on_all()
            service.tidy()
            if now() - looked >= _FRESH_S:
                looked = now()
                _keep_fresh(repository)
                _advance(
                    Rollouts(
                        store=service.store,
                        repository=repository,
                        roster=lambda: service.roster,
                        now=now,
                    )
                )
        except BedsideError as error:  # a full disk passes; boxes are told so meanwhile
            log.warning("housekeeping failed", extra={"code": error.code})


def _keep_fresh(repository: "Repository") -> None:
    try:
        if repository.keep_fresh(now()):
            log.info("repository signed anew")
    except UpdateRunningError:
        pass  # a command changes it and signs it anew itself
    except BedsideError as error:
        log.warning("the repository is not signed anew", extra={"code": error.code})


def _advance(rollouts: "Rollouts") -> None:
    try:
        if changed := rollouts.advance_all():
            log.info("rollouts went on", extra={"rounds": changed})
    except BedsideError as error:  # looked at again in a minute
        log.warning("a rollout does not go on", extra={"code": error.code})


class JsonFormatter(logging.Formatter):
    """Constant message and listed fields; never arguments, never locals."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        line = {"at": int(record.created), "level": record.levelname.lower(), "event": record.msg}
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line)
