"""The state folder as the settings want it: for the box, and for commands while no box runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from bedside_core.errors import EvidenceDamagedError, NotFoundError
from bedside_core.incident import parse_duties
from bedside_core.retention import RetentionRules
from bedside_core.uses import Incident
from bedside_edge.config import Config
from bedside_edge.ports import Clock, Priority, RandomBytes
from bedside_edge.ports.incidents import Check
from bedside_edge.services.access import AccessService
from bedside_edge.services.incident import IncidentService
from bedside_edge.services.keeping import Keeping
from bedside_edge.services.retention import RetentionService
from bedside_edge.store.evidence_open import LogSettings, check_at_start
from bedside_edge.store.objects import DiskLimits
from bedside_edge.store.rules import CompletionRules, RetryRules
from bedside_edge.store.state import DATABASE, State, open_state
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.log_keys import open_log_keys
from bedside_edge.system.passwords_argon2 import Argon2Passwords
from bedside_edge.system.random_os import OsRandom

PRIVACY_COUNTER = "privacy.counter"


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
        privacy_counter=Path(config.privacy.counter_file or folder / PRIVACY_COUNTER),
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


def keeping_service(
    config: Config, state: State, clock: Clock, permit: Callable[[str], bool]
) -> Keeping:
    """Return the services that keep and erase, over an open folder.

    Args:
        config: the settings.
        state: the open folder.
        clock: ages of studies.
        permit: whether a study may go whose time is up.
    """
    rules = config.retention
    return Keeping(
        erasure=state.erasure,
        holds=state.holds,
        retention=RetentionService(
            state.retention,
            state.erasure,
            state.objects,
            clock,
            RetentionRules(
                received_days=rules.received_days,
                results_days=rules.results_days,
                reviews_days=rules.reviews_days,
                at_most_days=rules.at_most_days,
                keep_unsigned=rules.keep_unsigned,
                low_watermark=rules.low_watermark,
            ),
            permit=permit,
            every_s=rules.every_s,
        ),
        subjects=state.subjects,
    )


def incident_service(
    config: Config,
    state: State,
    clock: Clock,
    *,
    changed: Callable[[Incident], None] = lambda _: None,
    checks: Mapping[str, Check] | None = None,
) -> IncidentService:
    """Return the service that seals the box, over an open folder.

    Args:
        config: the settings.
        state: the open folder.
        clock: for the clocks of incidents.
        changed: told every new state of the box.
        checks: what has to be green before a sealed box opens, beside the evidence log.
    """

    def evidence() -> bool:
        try:
            check_at_start(state.database, state.evidence.origin)
        except EvidenceDamagedError:
            return False
        return True

    data = (files("bedside_edge.system") / "regimes" / "incidents.toml").read_bytes()
    return IncidentService(
        state.incidents,
        parse_duties(data),
        clock,
        region=config.site.region,
        operator=config.site.operator,
        contact=config.site.contact,
        checks={"evidence": evidence} | dict(checks or {}),
        changed=changed,
    )


@contextmanager
def offline_incidents(
    config: Config, folder: Path
) -> Iterator[tuple[IncidentService, AccessService]]:
    """Lend incidents and accounts of a folder that no box has open.

    Raises:
        NotFoundError: there is no box in the folder.
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    if not (folder / DATABASE).is_file():
        raise NotFoundError(f"there is no {DATABASE} in {folder}")
    clock, random = SystemClock(), OsRandom()
    state = open_folder(config, folder, clock, random)
    try:
        yield incident_service(config, state, clock), access_service(config, state, clock, random)
    finally:
        state.close()


@contextmanager
def offline_keeping(config: Config, folder: Path) -> Iterator[tuple[Keeping, Clock]]:
    """Lend what keeps and erases of a folder that no box has open.

    Raises:
        NotFoundError: there is no box in the folder: none is made by asking about one.
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    if not (folder / DATABASE).is_file():
        raise NotFoundError(f"there is no {DATABASE} in {folder}")
    clock = SystemClock()
    state = open_folder(config, folder, clock, OsRandom())
    try:
        yield keeping_service(config, state, clock, lambda _: True), clock
    finally:
        state.close()


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
