"""Where a box's updates come from, as its settings and its membership say; and one look at a time.

A look that a person asked for runs in a thread of its own, so that a request does not wait for
gigabytes; `bedside-edge update` watches it.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bedside_core.errors import (
    BedsideError,
    ForbiddenPathError,
    InternalError,
    InvalidConfigError,
    NotReadyError,
    UpdateRunningError,
)
from bedside_core.result import Json
from bedside_edge.config import Config
from bedside_edge.ports import Clock
from bedside_edge.services.updates import Place, UpdateService
from bedside_edge.store.state import State
from bedside_sync.calls import HubCalls
from bedside_sync.distribution.assignment import Running
from bedside_sync.distribution.chunks import ChunkStore
from bedside_sync.distribution.gateway import site_of
from bedside_sync.distribution.inventory import Inventory, sign_inventory
from bedside_sync.distribution.sources import FolderSource, HubSource, Source
from bedside_sync.joining import Welcome
from bedside_sync.secagg.bodies import decode

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from bedside_sync.transport_nng import Client

FOLDER = "updates"
_MAX_ROOT = 512_000  # bytes, as python-tuf limits a root


def update_service(
    config: Config,
    state: State,
    clock: Clock,
    chunks: ChunkStore,
    running: Callable[[], Running],
) -> UpdateService:
    """Return the service over an open folder.

    Args:
        config: the settings.
        state: the open folder.
        clock: the only clock that is asked.
        chunks: where content is kept.
        running: what runs here, and the floors.
    """

    def place() -> Place:
        return Place(root=_root(config), site=_site(config, state), folder=state.path / FOLDER)

    def proven() -> int:
        newest = state.evidence.newest(limit=1)
        return newest[0].entry.ts if newest else 0

    return UpdateService(state.distribution, chunks, place, clock, running=running, proven=proven)


def _root(config: Config) -> bytes:
    if not config.update.root:
        return b""
    try:
        with Path(config.update.root).open("rb") as file:
            data = file.read(_MAX_ROOT + 1)
    except OSError as cause:
        raise InvalidConfigError("the file of [update] root cannot be read") from cause
    if len(data) > _MAX_ROOT:
        raise InvalidConfigError("the file of [update] root is too long for a root")
    return data


def _site(config: Config, state: State) -> str:
    member = state.sync.member()
    if config.update.site or member is None:
        return config.update.site
    identity = Ed25519PrivateKey.from_private_bytes(member.identity).public_key()
    return site_of(identity.public_bytes_raw().hex())


@contextmanager
def hub_source(state: State) -> Iterator[Source]:
    """Lend the hub this box is a member of, as a source; errors as `hub_client`."""
    with hub_client(state) as client:
        yield HubSource(client)


def report_inventory(state: State, inventory: Inventory) -> None:
    """Tell the hub what this box runs, signed with its identity; errors as `hub_client`."""
    member = state.sync.member()
    if member is None:
        raise NotReadyError("this box is no member of a consortium")
    sign = Ed25519PrivateKey.from_private_bytes(member.identity).sign
    with hub_client(state) as client:
        HubCalls(client).inventory(sign_inventory(inventory, sign))


@contextmanager
def hub_client(state: State) -> Iterator["Client"]:
    """Lend a connection to the hub this box is a member of.

    Raises:
        NotReadyError: the box is no member yet. HubUnavailableError: no answer.
    """
    from bedside_sync.transport_nng import Client, Identity

    member = state.sync.member()
    if member is None or not member.welcome:
        raise NotReadyError("this box is no member of a consortium; fetch from a stick, or join")
    welcome = decode(Welcome, member.welcome)
    identity = Identity(
        certificate=welcome.certificate,
        key=member.transport.decode("ascii"),
        authority=welcome.authority,
    )
    with Client(welcome.url, identity, welcome.server_name) as client:
        yield client


@contextmanager
def stick_source(config: Config, folder: Path, *, anywhere: bool = False) -> Iterator[Source]:
    """Lend a stick; ForbiddenPathError when it lies elsewhere than sticks are mounted.

    Args:
        config: names that place.
        folder: of the stick.
        anywhere: for a command on this machine, whose user may read the folder anyway.
    """
    try:
        real = folder.resolve()
    except (ValueError, OSError) as cause:  # a zero byte, a loop of links, a name too long
        raise ForbiddenPathError("no such folder can be") from cause
    if not anywhere and not real.is_relative_to(Path(config.update.media).resolve()):
        raise ForbiddenPathError(f"sticks are read below {config.update.media} only")
    if not (real / "metadata").is_dir():
        raise ForbiddenPathError("the folder holds no repository: no metadata/ in it")
    yield FolderSource(real)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A look that somebody asked for; bytes are of all that is assigned and allowed."""

    running: bool = False
    done: int = 0
    total: int = 0
    code: str = ""
    detail: str = ""


class Updating:
    """Runs looks in the background, one at a time; `stop` ends it."""

    def __init__(self, service: UpdateService, config: Config, state: State) -> None:
        self.service, self._config, self._state = service, config, state
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._look = Look()

    def look(self) -> Look:
        """Return how the newest look goes, or went."""
        return self._look

    def source(
        self, stick: Path | None, *, anywhere: bool = False
    ) -> AbstractContextManager[Source]:
        """Lend the hub, or a stick when one is named; errors as in `hub_source`, `stick_source`."""
        if stick is not None:
            return stick_source(self._config, stick, anywhere=anywhere)
        return hub_source(self._state)

    def told(self) -> Json:
        """Return what this site is to run and how looking for it goes, as the API has it."""
        seen, look = self.service.looked(), self._look
        items = [
            {
                "path": item.path,
                "manifest": item.sha256,
                "kind": item.manifest.slot if item.manifest else "",
                "version": item.manifest.version if item.manifest else "",
                "release_counter": item.manifest.release_counter if item.manifest else 0,
                "size": item.manifest.size if item.manifest else 0,
                "code": item.code,
                "reason": item.reason,
                "here": self.service.here(item),
            }
            for item in seen.items
        ]
        return {
            "checked_at": seen.checked_at,
            "tried_at": seen.tried_at,
            "code": seen.code,
            "site": seen.assignment.site if seen.assignment else "",
            "serial": seen.assignment.serial if seen.assignment else 0,
            "items": items,
            "running": look.running,
            "done": look.done,
            "total": look.total,
            "ended": look.code,
            "detail": look.detail,
        }

    def begin(self, stick: Path | None, actor: str, fetch: bool) -> None:
        """Start a look.

        Args:
            stick: folder of a stick; None asks the hub.
            actor: who asks.
            fetch: whether content is fetched too.

        Raises:
            UpdateRunningError: another one runs. NotReadyError: the box stops.
        """
        with self._lock:
            if self._look.running:
                raise UpdateRunningError("a look for updates is under way")
            if self._stopping.is_set():
                raise NotReadyError("the box stops")
            self._look = Look(running=True)
            self._thread = threading.Thread(
                target=self._run, args=(stick, actor, fetch), name="updating", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End a look after the piece under way; what came is kept."""
        with self._lock:
            self._stopping.set()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self, stick: Path | None, actor: str, fetch: bool) -> None:
        done, total = 0, 0

        def tell(now: int, of: int) -> None:
            nonlocal done, total
            done, total = now, of
            self._look = Look(running=True, done=now, total=of)
            if self._stopping.is_set():
                raise NotReadyError("the box stops; what came is kept")

        code = detail = ""
        try:
            with self.source(stick) as source:
                if fetch:
                    self.service.fetch(source, actor, tell)
                else:
                    self.service.check(source, actor)
        except BedsideError as error:
            code, detail = error.code, str(error)
        except Exception as error:  # the boundary of the thread: somebody polls for the end
            log.exception("unforeseen error while updating", exc_info=error)
            code, detail = InternalError.code, "the box failed; its log says how"
        self._look = Look(done=done, total=total, code=code, detail=detail)
