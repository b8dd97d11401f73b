"""Open the evidence log of a state folder: its name, its keys, and the check before anything else.

Name and public keys are kept beside the log once they are made. A log whose key file was replaced,
or whose name was changed in the settings, is refused: its witnesses would see another log.
"""

import base64
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside_core.errors import EvidenceDamagedError, InvalidConfigError
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.evidence import LogKeys, LogSigner
from bedside_edge.store import evidence_rows as rows
from bedside_edge.store.database import Database
from bedside_edge.store.evidence_check import Checked, check_log

log = logging.getLogger(__name__)

OpenLogKeys = Callable[[Path, RandomBytes, bool], LogKeys]
_TELL_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How a box keeps its log.

    Attributes:
        open_keys: `bedside_edge.system.log_keys.open_log_keys`; None opens the log without keys.
        origin: the name asked for; empty mints one once.
        nightly_quota: outgoing sizes are multiples of it; 0 pads nothing.
    """

    open_keys: OpenLogKeys | None = None
    origin: str = ""
    nightly_quota: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the log is."""

    origin: str
    signers: tuple[LogSigner, ...]
    base: int = 0  # entry at which the log under this name starts


def identify(
    database: Database, folder: Path, random: RandomBytes, settings: LogSettings
) -> Identity:
    """Return the log's name and keys, making both on the first start.

    Args:
        database: where they are kept.
        folder: the key folder.
        random: where a minted name and new keys come from.
        settings: what is asked for.

    Raises:
        InvalidConfigError: the log has another name already.
        StoreUnavailableError: the keys are missing, damaged or open to others.
        EvidenceDamagedError: they are not the ones this log signed with.
    """
    kept = database.read(lambda c: (rows.meta(c, rows.ORIGIN), rows.known_keys(c), rows.past(c)))
    origin = kept[0] or settings.origin or _mint(random)
    if settings.origin not in ("", origin, first_name(origin)):
        raise InvalidConfigError(
            f"[evidence] origin: this log is called {origin} and keeps its name"
        )
    signers: tuple[LogSigner, ...] = ()
    if settings.open_keys is not None:
        signers = settings.open_keys(folder, random, not kept[1]).signers(origin)
        if kept[1] and list(kept[1]) != [signer.key for signer in signers]:
            raise EvidenceDamagedError("the evidence log's key is not the one it signed with")
    database.write(lambda c: _keep(c, origin, signers))
    return Identity(origin=origin, signers=signers, base=kept[2][-1].end if kept[2] else 0)


def first_name(origin: str) -> str:
    """Return the name a log had before any gap: `a/b/c#3` was `a/b/c`."""
    return origin.partition("#")[0]


def next_name(origin: str) -> str:
    """Return the name under which a log goes on after a gap: `a/b/c`, `a/b/c#2`, `a/b/c#3`."""
    name, _, number = origin.partition("#")
    return f"{name}#{int(number or 1) + 1}"


def check_at_start(database: Database, origin: str) -> Checked:
    """Recompute the log before the box serves; says how far it is while it takes long.

    The keys it must have been signed with are those the log keeps beside itself.

    Raises:
        EvidenceDamagedError: the box must not serve.
    """
    checked = database.read(lambda c: check_log(c, origin, rows.known_keys(c), _Teller()))
    if checked.seconds > _TELL_EVERY_S:
        log.info(
            "evidence log checked",
            extra={"count": checked.entries, "seconds": round(checked.seconds, 1)},
        )
    return checked


class _Teller:
    """Logs progress every two seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _TELL_EVERY_S

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TELL_EVERY_S
            log.info("checking the evidence log", extra={"count": done, "total": total})


def _mint(random: RandomBytes) -> str:
    """Return a name that says nothing about the hospital: it travels to every witness."""

    def part() -> str:
        return base64.b32encode(random(5)).decode().lower()

    return f"bedside/site-{part()}/box-{part()}"


def _keep(c: sqlite3.Connection, origin: str, signers: Sequence[LogSigner]) -> None:
    lines = "\n".join(signer.key.text for signer in signers)
    for name, value in ((rows.ORIGIN, origin), (rows.KEYS, lines)):
        if value:
            c.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value.encode()))
