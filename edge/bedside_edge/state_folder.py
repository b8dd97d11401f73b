"""The state folder as the settings want it: for the box, and for commands while no box runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

from bedside_core.errors import (
    EvidenceDamagedError,
    NotFoundError,
    NotReadyError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind
from bedside_core.incident import parse_duties
from bedside_core.retention import RetentionRules
from bedside_core.uses import Asker, Incident
from bedside_edge.config import Config
from bedside_edge.ports import Clock, Priority, RandomBytes, StoredResult
from bedside_edge.ports.evidence import BOX, Event
from bedside_edge.ports.incidents import Check
from bedside_edge.ports.key_protection import Protection
from bedside_edge.ports.review import ReviewRecord
from bedside_edge.ports.sync import Materials
from bedside_edge.services.access import AccessService
from bedside_edge.services.budget import BudgetService
from bedside_edge.services.consent import ConsentService
from bedside_edge.services.gate import Gate
from bedside_edge.services.incident import IncidentService
from bedside_edge.services.keeping import Keeping, sweep_permitted
from bedside_edge.services.local_answer import LocalAnswerService
from bedside_edge.services.nights import NightlyReleases
from bedside_edge.services.privacy import PrivacyServices
from bedside_edge.services.privacy_desk import PrivacyDesk
from bedside_edge.services.release import Origin, ReleaseService
from bedside_edge.services.retention import RetentionService
from bedside_edge.services.rights import RightsService, Sources, parse_terms
from bedside_edge.services.slots import SlotRule, Slots
from bedside_edge.services.sync import SyncService
from bedside_edge.services.witness import WitnessService, witness_name
from bedside_edge.store.evidence_open import LogSettings, check_at_start, next_name
from bedside_edge.store.objects import DiskLimits
from bedside_edge.store.rules import CompletionRules, RetryRules
from bedside_edge.store.state import DATABASE, State, open_state
from bedside_edge.store.witnessed import go_on
from bedside_edge.system.accounting_lazy import LazyAccounting
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.hub_nng import dial_hub
from bedside_edge.system.key_files import require_protection, sealer_for
from bedside_edge.system.key_migration import prepare
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.log_keys import open_log_keys
from bedside_edge.system.noise_lazy import LazyNoise
from bedside_edge.system.passwords_argon2 import Argon2Passwords
from bedside_edge.system.policy_keys import FOLDER as POLICY_KEYS
from bedside_edge.system.policy_keys import trusted_keys
from bedside_edge.system.random_os import OsRandom
from bedside_edge.system.sync_keys import MemberKeys
from bedside_edge.system.witness_keys import open_witness_keys
from bedside_sync.system.random_os import random_long_words
from bedside_sync.task_code import task_code

PRIVACY_COUNTER = "privacy.counter"


def privacy_counter(config: Config, folder: Path) -> Path:
    """Return where the box says how far its privacy ledger had come."""
    return Path(config.privacy.counter_file or folder / PRIVACY_COUNTER)


def open_folder(config: Config, folder: Path, clock: Clock, random: RandomBytes) -> State:
    """Open the state folder.

    Raises:
        StoreUnavailableError: a box has it open, or it cannot be used.
        InvalidConfigError: the keys are kept otherwise than the settings want.
        BedsideError: other reasons not to open it; see `open_state`.
    """
    _prepare_keys(config, folder, random)
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
        privacy_counter=privacy_counter(config, folder),
    )


def _prepare_keys(config: Config, folder: Path, random: RandomBytes) -> None:
    """Let the keys of a new box be sealed from the first; refuse one that is kept otherwise."""
    wanted, keys = config.keys.protection, folder / "keys"
    if wanted in ("passphrase", "tpm") and not keys.exists():
        sealer = sealer_for(Protection(wanted))
        prepare(keys, sealer, config.keys.recovery_recipient, random)
    require_protection(keys, wanted)


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
            remind=state.holds.remind,
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
        checks: what has to be green before a sealed box opens, beside the evidence log and the
            privacy ledger.
    """

    def evidence() -> bool:
        try:
            check_at_start(state.database, state.evidence.origin)
        except EvidenceDamagedError:
            return False
        return True

    def ledger() -> bool:
        try:
            state.ledger.verify()
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
        checks={"evidence": evidence, "ledger": ledger} | dict(checks or {}),
        changed=changed,
    )


def consent_service(
    config: Config, state: State, clock: Clock, changed: Callable[[], None] = lambda: None
) -> ConsentService:
    """Return the service over consents of an open folder."""
    return ConsentService(
        state.rights,
        state.subjects,
        clock,
        minor_years=config.policy.minor_years,
        basis=config.site.diagnosis_basis,
        changed=changed,
    )


def rights_service(
    config: Config,
    state: State,
    clock: Clock,
    consents: ConsentService,
    *,
    reviews: Callable[[str], Sequence[ReviewRecord]],
    erase: Callable[[Gate, Asker, str], str],
) -> RightsService:
    """Return the request desk over an open folder.

    Args:
        config: the settings.
        state: the open folder.
        clock: for deadlines.
        consents: consents on record.
        reviews: what readers said of a result.
        erase: erases a patient if the policy permits it; returns the erasure's id.
    """

    def results(study_id: str) -> list[StoredResult]:
        found = [job.result_id for job in state.jobs.jobs(study_id=study_id) if job.result_id]
        return [state.jobs.result(result_id) for result_id in found]

    data = (files("bedside_edge.system") / "regimes" / "rights.toml").read_bytes()
    sources = Sources(
        results=results,
        instances=state.studies.instances,
        reviews=reviews,
        log=state.evidence,
        erase=erase,
        extras=lambda subject: state.learning.extras([subject]).get(subject, {}),
    )
    return RightsService(
        state.rights,
        state.subjects,
        consents,
        sources,
        parse_terms(data),
        clock,
        region=config.site.region,
    )


def witness_service(
    state: State, clock: Clock, random: RandomBytes, incident: Callable[[str], object]
) -> WitnessService:
    """Return this box as a witness, over an open folder.

    Raises:
        StoreUnavailableError: it cosigned before and its keys are gone, damaged or exposed.
    """
    fresh = not any(log.seen for log in state.witness.watched())
    keys = open_witness_keys(state.path / "keys", random, fresh)
    return WitnessService(
        state.witness,
        keys.signers(witness_name(state.evidence.origin)),
        clock,
        locked=lambda: state.evidence.locked,
        incident=incident,
    )


def continue_log(
    state: State, clock: Clock, random: RandomBytes, actors: Sequence[str], reason: str
) -> str:
    """Let the locked log of an open folder go on under a new name; return it. Close it then.

    What is left of the open epoch of privacy is written off before: what the lost part of the log
    spent is unknown.

    Raises:
        WrongStateError: the log has no gap.
    """
    old = state.evidence
    if state.witnessed.gap() is None:
        raise WrongStateError("the log has no gap: it goes on as it is")
    state.ledger.write_off(actors[0], actors[-1])
    name = next_name(old.origin)
    keys = open_log_keys(state.path / "keys", random, create=False)
    new = old.continued(name, keys.signers(name))
    state.database.write(lambda c: go_on(c, old, new, actors=actors, reason=reason, at=clock.now()))
    return name


def _must_hold_a_box(folder: Path) -> None:
    if not (folder / DATABASE).is_file():
        raise NotFoundError(f"there is no {DATABASE} in {folder}; name the box's with --state")


@contextmanager
def offline_incidents(
    config: Config, folder: Path
) -> Iterator[tuple[IncidentService, AccessService]]:
    """Lend incidents and accounts of a folder that no box has open.

    Raises:
        NotFoundError: there is no box in the folder.
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    _must_hold_a_box(folder)
    clock, random = SystemClock(), OsRandom()
    state = open_folder(config, folder, clock, random)
    try:
        yield incident_service(config, state, clock), access_service(config, state, clock, random)
    finally:
        state.close()


@contextmanager
def offline_keeping(
    config: Config, folder: Path, gate_of: Callable[[State, Clock], Gate]
) -> Iterator[tuple[Keeping, Callable[[], Gate], Clock]]:
    """Lend what keeps and erases of a folder that no box has open.

    Args:
        config: the settings.
        folder: the state folder.
        gate_of: the gate over the open folder, made when the first question is asked: holds can
            be listed although nobody vouches for the policy in force.

    Raises:
        NotFoundError: there is no box in the folder: none is made by asking about one.
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    _must_hold_a_box(folder)
    clock = SystemClock()
    state = open_folder(config, folder, clock, OsRandom())
    try:
        gate = cache(lambda: gate_of(state, clock))

        def permit(study_id: str) -> bool:
            return sweep_permitted(gate(), study_id)

        yield keeping_service(config, state, clock, permit), gate, clock
    finally:
        state.close()


@contextmanager
def offline_access(config: Config, folder: Path, *, create: bool = True) -> Iterator[AccessService]:
    """Lend the accounts of a folder that no box has open.

    Args:
        config: the settings.
        folder: the state folder.
        create: whether one is made that does not exist yet.

    Raises:
        NotFoundError: there is no box in the folder, and none is to be made by asking about one.
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    if not create:
        _must_hold_a_box(folder)
    clock, random = SystemClock(), OsRandom()
    state = open_folder(config, folder, clock, random)
    try:
        yield access_service(config, state, clock, random)
    finally:
        state.close()


def sync_service(
    config: Config,
    state: State,
    gate: Gate,
    materials: Materials,
    clock: Clock,
    random: RandomBytes,
) -> SyncService:
    """Return the box's part in its consortium, over an open folder."""
    return SyncService(
        state.sync,
        materials,
        gate,
        clock,
        keys=MemberKeys(random),
        wrapping=state.keys,
        random=random,
        words=random_long_words,
        dial=dial_hub,
        settings=config.sync,
        code=task_code(),
        checkpoint=state.evidence.checkpoint if state.device else lambda: None,
    )


def privacy_services(
    config: Config, folder: Path, state: State, gate: Gate, shares: Mapping[int, int]
) -> PrivacyServices:
    """Return the services that release statistics, over an open folder.

    `shares` is the rho of each grade of data, as the grading rules have it.

    Raises:
        NotReadyError: the folder was opened without the log's keys, which sign releases.
    """
    if state.device is None:
        raise NotReadyError("releases are signed with the log's key, which is not open")
    rules, clock, noise = config.privacy, SystemClock(), LazyNoise()
    trusted = Path(config.policy.trusted or folder / POLICY_KEYS)
    state.ledger.witness_ready = lambda: rules.unwitnessed == "allowed"
    keys = partial(trusted_keys, trusted)
    budget = BudgetService(state.ledger, state.snapshots, keys, clock, shares)
    state.snapshots.standing = lambda ids: gate.standing(ids)
    state.snapshots.age_bands = budget.age_bands
    origin = Origin(name=state.evidence.origin, proof=state.evidence.proof)
    releases = ReleaseService(
        state.ledger,
        state.snapshots,
        noise,
        state.device,
        gate,
        origin,
        clock,
        night_minute=rules.night_minute,
    )

    def overrun(seconds: float) -> None:
        refs: dict[str, int | str] = {"what": "slot-overrun", "ms": int(seconds * 1000)}
        state.evidence.append(Event(kind=Kind.ALARM, actor=BOX, refs=refs))

    local = LocalAnswerService(state.local_answers, noise, state.device, gate, budget)
    slots = Slots(
        clock,
        SlotRule(step_s=rules.slot_ms / 1000, budget_s=rules.slot_budget_ms / 1000),
        overrun=overrun,
    )
    return PrivacyServices(
        budget=budget,
        releases=releases,
        local=local,
        nights=NightlyReleases(releases, budget, rules.snapshot_hours),
        slots=slots,
        desk=PrivacyDesk(
            budgets=budget,
            releases=releases,
            ledger=state.ledger,
            snapshots=state.snapshots,
            slots=slots,
            local=local,
            accountant=LazyAccounting(),
            device=state.device,
            origin=origin,
        ),
    )
