"""How a box tries each sort of thing that is flashed, and puts it to use.

A model is compiled and tested in a process of its own, then read studies with as the rollout has
it. A profile is tried likewise and in force from the next start. A policy goes the way of every
policy: enough of the site's own keys must have signed it. Software is tried by the launcher.
"""

import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside_core.errors import (
    BedsideError,
    CandidateRefusedError,
    InvalidPackageError,
    InvalidProfileError,
    NotFoundError,
    PolicyRollbackError,
    StoreUnavailableError,
    WrongStateError,
)
from bedside_core.hardware.profile import PROFILE_LIMIT, parse_profile
from bedside_core.result import Json
from bedside_core.slots import SlotState
from bedside_edge.config import Config
from bedside_edge.config import Model as ModelSettings
from bedside_edge.ports import Clock
from bedside_edge.ports.flashing import Candidate, Gate, Way
from bedside_edge.services.flashing import FlashingService
from bedside_edge.services.models import ModelId, ModelService
from bedside_edge.services.policies import PolicyService
from bedside_edge.services.rollout import RolloutService
from bedside_edge.store.database import Database, opens_from
from bedside_edge.store.evidence_check import check_log
from bedside_edge.store.evidence_open import check_at_start
from bedside_edge.store.evidence_rows import ORIGIN, known_keys, meta
from bedside_edge.store.evidence_tail import check_tail
from bedside_edge.store.ledger_rows import check as check_ledger
from bedside_edge.store.slot_folders import FOLDER, FlashFolders
from bedside_edge.store.state import DATABASE, State
from bedside_edge.system.trial_process import ProcessGate
from bedside_edge.wiring import Loaded, known_packages, load_model
from bedside_sync.distribution.chunks import ChunkStore

ACTOR: Final = "service:flash"
CHUNKS: Final = "chunks"
POLICY_FILE: Final = "policy.json"
_TRIAL: Final = "trial"
_POLICY_LIMIT: Final = 1 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """Who acts on what serves. None in a command on a stopped box: the next start acts."""

    models: ModelService
    rollout: RolloutService
    policies: PolicyService


def slots_folder(state: Path) -> Path:
    """Return where the slots lie; absolute, for a trial runs in a folder of its own."""
    return state.absolute() / FOLDER


def chunk_store(config: Config, state: Path) -> ChunkStore:
    """Return the box's chunks."""
    return ChunkStore(slots_folder(state) / CHUNKS, quota=config.update.chunks_mib << 20)


def flashing_service(
    config: Config,
    state: State,
    clock: Clock,
    uses: Uses | None,
    policies: Callable[[], PolicyService],
    *,
    profile: str = "",
) -> FlashingService:
    """Return the service over an open folder.

    Args:
        config: the settings.
        state: the open folder.
        clock: deadlines.
        uses: the running box's services.
        policies: for the gate of policies.
        profile: id of the hardware profile in force.
    """
    folder = slots_folder(state.path)
    serving = _ServingProfile(state)
    scratch = folder / _TRIAL

    def model_settings(candidate: Candidate) -> Json:
        changed = {"package": str(candidate.folder), "profile": config.model.profile or serving()}
        return _settings(config.model, changed)

    def profile_settings(candidate: Candidate) -> Json:
        return _settings(config.model, {"profile": str(profile_file(candidate))})

    ways = {
        "model": Way(
            gate=_NamedPackage(ProcessGate(scratch, model_settings)),
            apply=_ModelUse(config, uses),
            in_use=_ModelUse(config, uses).holds,
        ),
        "profile": Way(gate=_NamedProfile(ProcessGate(scratch, profile_settings)), apply=None),
        "policy": Way(gate=_PolicyGate(policies), apply=_PolicyUse(uses)),
        "app": Way(gate=None, apply=None),
    }
    return FlashingService(
        state.flashing,
        FlashFolders(folder, chunk_store(config, state.path)),
        ways,
        lambda: check_box(state),
        clock,
        trial_s=config.update.trial_s,
        profile=profile,
        room=config.update.slot_mib << 20,
    )


def check_successor(config: Config, folder: Path) -> Json:
    """Try this very software on a copy of the box's database, before it touches the real one.

    The copy is brought to this version's schema and checked whole; then a box of this version
    reads a made-up study, in a process and a folder of its own.

    Raises:
        CandidateRefusedError: what it would replace could not open the database any more.
        BedsideError: why this software must not serve here.
    """
    scratch = slots_folder(folder) / _TRIAL
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)  # a trial before may still write there
    try:
        source = sqlite3.connect(folder / DATABASE)
        copy = sqlite3.connect(scratch / DATABASE)
        with closing(source), closing(copy):
            source.backup(copy)
            before: int = copy.execute("PRAGMA user_version").fetchone()[0]
        database = Database(scratch / DATABASE)
        try:
            if database.read(opens_from) > before:
                raise CandidateRefusedError(
                    "the software it replaces could not open the database any more"
                )
            checked = database.read(lambda c: check_log(c, meta(c, ORIGIN), known_keys(c)))
            database.read(check_ledger)
        finally:
            database.close()
    except sqlite3.Error as cause:
        raise StoreUnavailableError("the database cannot be copied") from cause
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = flashed_profiles(folder)
    profile = config.model.profile or (str(found[0]) if found else "")
    settings = _settings(config.model, {"profile": profile})
    gate = ProcessGate(scratch, lambda candidate: settings)
    return gate.run(settings, float(config.update.trial_s)) | {"entries": checked.entries}


def check_box(state: State) -> Sequence[str]:
    """Return the names of the checks that passed: database, privacy ledger, end of the log.

    Raises:
        StoreUnavailableError, EvidenceDamagedError: nothing is confirmed on such a box.
    """
    state.database.write(lambda _: None)
    state.ledger.verify()
    state.database.read(check_tail)
    return ["database", "ledger", "evidence"]


def check_whole(state: State) -> None:
    """Recompute the whole evidence log and the privacy ledger; EvidenceDamagedError."""
    check_at_start(state.database, state.evidence.origin)
    state.ledger.verify()


def member_name(state: State) -> str:
    """Return this box's name on the roster; empty while it is no member."""
    member = state.sync.member()
    return member.box if member is not None and member.welcome else ""


# --- models --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flashed:
    """The models in slots that are good, for whoever lists and opens packages."""

    state: State

    def folders(self) -> Mapping[ModelId, Path]:
        """Return where every good model lies."""
        return {model: place for model, place, _ in self._good()}

    def offered(self, shipped: frozenset[str]) -> frozenset[ModelId]:
        """Return those a bare name never means: a version is chosen by the rollout alone."""
        return frozenset(
            model for model, _, serves in self._good() if not serves or model.name in shipped
        )

    def _good(self) -> list[tuple[ModelId, Path, bool]]:
        store, folders = self.state.flashing, slots_folder(self.state.path)
        found: list[tuple[ModelId, Path, bool]] = []
        for pair in store.pairs():
            first, _, name = pair.kind.partition("/")
            for slot in (pair.a, pair.b):
                if first == "model" and slot.state is SlotState.GOOD:
                    version = store.version(pair.kind, slot.name)
                    place = folders / pair.kind / slot.name
                    found.append((ModelId(name, version), place, slot.name == pair.active))
        return found


class _NamedPackage:
    """The gate of models: and what was tried is what the manifest calls it."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __call__(self, candidate: Candidate, seconds: float) -> Json:
        report = self._gate(candidate, seconds)
        wanted = f"{candidate.manifest.name}/{candidate.manifest.version}"
        if report["model"] != wanted:
            raise InvalidPackageError(f"the package is {report['model']}, signed as {wanted}")
        return report

    def stop(self) -> None:
        """End the trial under way."""
        self._gate.stop()


class _ModelUse:
    """Lets the rollout read studies with a flashed model, under its own rules."""

    def __init__(self, config: Config, uses: Uses | None) -> None:
        self._config, self._uses = config, uses

    def holds(self, candidate: Candidate) -> bool:
        """Whether the rollout needs a version that lies in an idle slot."""
        if self._uses is None:
            return False
        try:
            now = self._uses.rollout.deployment(candidate.manifest.name)
        except NotFoundError:
            return False
        return candidate.manifest.version in (now.active, now.shadow, now.canary)

    def __call__(self, kind: str, candidate: Candidate | None) -> None:
        """Read with it; when nothing serves, with the newest version the box came with."""
        uses, name = self._uses, kind.partition("/")[2]
        if uses is None:
            raise WrongStateError("the box is not running; it reads with it from its next start")
        if candidate is None:
            version = self._came_with(name)
        elif self._config.update.models == "offer":
            return
        else:
            version = candidate.manifest.version
        try:
            active = uses.rollout.deployment(name).active
        except NotFoundError:
            uses.models.load(name, version)  # rules may name it; nothing reads with it yet
            return
        if active != version:
            uses.rollout.activate(name, version, None, ACTOR)

    def _came_with(self, name: str) -> str:
        found = [one for one in known_packages(self._config.model) if one.name == name]
        if not found:
            raise WrongStateError("the box came with no version of this model")
        return max(found, key=lambda one: one.order).version


# --- profiles ------------------------------------------------------------------------------------


class _NamedProfile:
    """The gate of profiles: and what was tried is what its vendor signed it as."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __call__(self, candidate: Candidate, seconds: float) -> Json:
        manifest = candidate.manifest
        try:
            with profile_file(candidate).open("rb") as file:
                profile = parse_profile(file.read(PROFILE_LIMIT + 1)).profile
        except OSError as cause:
            raise InvalidProfileError("the hardware profile cannot be read") from cause
        if (profile.vendor, profile.id) != (manifest.vendor, manifest.name):
            raise InvalidProfileError(
                f"the profile is {profile.vendor}/{profile.id}, "
                f"signed as {manifest.vendor}/{manifest.name}"
            )
        return self._gate(candidate, seconds)

    def stop(self) -> None:
        """End the trial under way."""
        self._gate.stop()


def profile_file(candidate: Candidate) -> Path:
    """Return the one TOML file of a profile's package; InvalidProfileError."""
    found = [one.path for one in candidate.manifest.files if one.path.endswith(".toml")]
    if len(found) != 1:
        raise InvalidProfileError("the package of a profile has exactly one TOML file")
    return candidate.folder / found[0]


class _ServingProfile:
    def __init__(self, state: State) -> None:
        self._state = state

    def __call__(self) -> str:
        found = flashed_profiles(self._state.path)
        return str(found[0]) if found else ""


def flashed_profiles(folder: Path) -> list[Path]:
    """Return the profile in force and the one before it, as files: before the folder is opened.

    The box chooses its engine before it opens its folder; reading a row changes nothing.
    """
    database = folder / DATABASE
    if not database.is_file():
        return []
    query = """
      SELECT s.name FROM flash_pairs p JOIN flash_slots s USING (kind)
      WHERE kind = 'profile' AND p.active <> '' AND s.state = 'good'
        AND s.release_counter >= p.lowest ORDER BY s.name <> p.active"""
    try:
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        try:
            names = [name for (name,) in connection.execute(query)]
        finally:
            connection.close()
    except sqlite3.Error:  # an older box, or damaged: whoever opens the folder says so
        return []
    found = [_toml_files(slots_folder(folder) / "profile" / name) for name in names]
    return [files[0] for files in found if files]


def _toml_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.toml") if path.is_file())


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The model that serves, the settings it was opened with, and profiles that would not do."""

    loaded: Loaded
    settings: ModelSettings
    failed: tuple[BedsideError, ...] = ()


def load_flashed(
    settings: ModelSettings, folder: Path, load: Callable[[ModelSettings], Loaded] = load_model
) -> Chosen:
    """Open the model under the flashed profile, else under the one before it, else the shipped.

    A profile file of the settings goes before all of them. `load` opens it; a box that serves
    accepts the engine on the way.

    Raises:
        BedsideError: none may serve; why the one in force does not.
    """
    flashed = [] if settings.profile else flashed_profiles(folder)
    failed: list[BedsideError] = []
    for profile in [*map(str, flashed), settings.profile]:
        chosen = settings.model_copy(update={"profile": profile})
        try:
            return Chosen(loaded=load(chosen), settings=chosen, failed=tuple(failed))
        except BedsideError as why:
            failed.append(why)
    raise failed[0]


# --- policies ------------------------------------------------------------------------------------


class _PolicyGate:
    """A policy passes when it could be put in force now, signatures of the site included."""

    def __init__(self, policies: Callable[[], PolicyService]) -> None:
        self._policies = policies

    def __call__(self, candidate: Candidate, seconds: float) -> Json:
        found = self._policies().open(_envelope(candidate))
        return {
            "policy": found.policy.document.name,
            "policy_digest": found.policy.document.digest,
            "looser": list(found.looser),
            "signers": list(found.signers),
            "needed": found.needed,
        }

    def stop(self) -> None:
        """It takes no time: there is nothing to end."""


class _PolicyUse:
    """Puts a policy in force as a person would: the same checks, the same signatures."""

    def __init__(self, uses: Uses | None) -> None:
        self._uses = uses

    def __call__(self, kind: str, candidate: Candidate | None) -> None:
        if self._uses is None:
            raise WrongStateError("the box is not running; the policy is in force from its start")
        if candidate is None:
            return  # a policy is taken back by another policy with a higher version, never here
        policies = self._uses.policies
        try:
            policies.activate(_envelope(candidate), policies.stored.revision, ACTOR)
        except PolicyRollbackError:
            return  # this one, or a newer one somebody signed meanwhile, is in force


def _envelope(candidate: Candidate) -> bytes:
    try:
        with (candidate.folder / POLICY_FILE).open("rb") as file:
            return file.read(_POLICY_LIMIT + 1)
    except OSError as cause:
        raise NotFoundError(f"the package of a policy holds {POLICY_FILE}") from cause


def _settings(settings: ModelSettings, changed: Json) -> Json:
    made: Json = settings.model_copy(update=changed).model_dump(mode="json")
    for field in ("package", "repository", "profile"):
        if made[field]:  # a trial runs in a folder of its own
            made[field] = str(Path(made[field]).absolute())
    return made
