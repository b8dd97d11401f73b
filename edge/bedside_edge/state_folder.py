"""The state folder as the settings want it: for the box, and for commands while no box runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bedside_edge.config import Config
from bedside_edge.ports import Clock, Priority, RandomBytes
from bedside_edge.services.access import AccessService
from bedside_edge.store.evidence_open import LogSettings
from bedside_edge.store.objects import DiskLimits
from bedside_edge.store.rules import CompletionRules, RetryRules
from bedside_edge.store.state import State, open_state
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.log_keys import open_log_keys
from bedside_edge.system.passwords_argon2 import Argon2Passwords
from bedside_edge.system.random_os import OsRandom


def open_folder(config: Config, folder: Path, clock: Clock, random: RandomBytes) -> State:
    """Open the state folder.

    Raises:
        StoreUnavailableError: a box has it open, or it cannot be used.
        BedsideError: other reasons not to open it; see `open_state`.
    """
    rules, sources = config.completion, config.completion.per_source
    backoff = tuple(int(config.jobs.backoff_s * 1000 * 2**n) for n in range(config.jobs.attempts))
    return open_state(
        folder,
        clock,
        random,
        open_box_keys,
        completion=CompletionRules(
            quiet_ms=int(rules.quiet_s * 1000),
            quiet_ms_by_source={
                ae: int(source.quiet_s * 1000)
                for ae, source in sources.items()
                if source.quiet_s is not None
            },
            max_wait_ms=int(rules.max_wait_s * 1000),
            priority_by_source={
                ae: Priority[source.priority.upper()] for ae, source in sources.items()
            },
        ),
        retries=RetryRules(attempts=config.jobs.attempts, backoff_ms=backoff),
        disk=DiskLimits(
            high_watermark=config.disk.high_watermark, min_free_bytes=config.disk.min_free_bytes
        ),
        evidence=LogSettings(
            open_keys=open_log_keys,
            origin=config.evidence.origin,
            nightly_quota=config.evidence.nightly_quota,
        ),
        minor_years=config.policy.minor_years,
    )


def access_service(
    config: Config, state: State, clock: Clock, random: RandomBytes
) -> AccessService:
    """Return the service over the accounts of an open folder."""
    return AccessService(
        state.access,
        Argon2Passwords(),
        clock,
        random,
        idle_s=config.access.session_idle_s,
        longest_s=config.access.session_s,
    )


@contextmanager
def offline_access(config: Config, folder: Path) -> Iterator[AccessService]:
    """Lend the accounts of a folder that no box has open; made when it does not exist yet.

    Raises:
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    clock, random = SystemClock(), OsRandom()
    state = open_folder(config, folder, clock, random)
    try:
        yield access_service(config, state, clock, random)
    finally:
        state.close()
