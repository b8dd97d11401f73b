"""The only place that chooses adapters: settings in, a working box out."""

import dataclasses
import hashlib
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from bedside_core.errors import (
    AcceptanceFailedError,
    BedsideError,
    InvalidConfigError,
    InvalidGradingError,
    InvalidKeyError,
    InvalidPackageError,
    InvalidProfileError,
    InvalidRulesError,
    NotFoundError,
)
from bedside_core.evidence.note import parse_verifier_key
from bedside_core.evidence.policy_text import WitnessPolicy, parse_policy_text
from bedside_core.grading import Grading, parse_grading
from bedside_core.hardware.acceptance import AcceptanceRecord
from bedside_core.hardware.board import Board
from bedside_core.hardware.matching import choose
from bedside_core.hardware.profile import (
    PROFILE_LIMIT,
    EngineChoice,
    LoadedProfile,
    parse_profile,
)
from bedside_core.manifest import MANIFEST_NAME, Manifest, parse_manifest
from bedside_core.routing import Rules, default_rules, parse_rules
from bedside_edge.config import Evidence as EvidenceSettings
from bedside_edge.config import Model as ModelSettings
from bedside_edge.config import Oidc as OidcSettings
from bedside_edge.config import Policy as PolicySettings
from bedside_edge.config import Routing as RoutingSettings
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.engine.acceptance import run_cases, subject_of
from bedside_edge.engine.conditions import surroundings, temperature_c
from bedside_edge.engine.opening import Opened, load_profiles, open_engine
from bedside_edge.engine.package import Package, open_package
from bedside_edge.engine.probe import probe
from bedside_edge.ports import Clock, RandomBytes
from bedside_edge.ports.oidc import SubjectLinks
from bedside_edge.ports.policy import PolicyStore
from bedside_edge.services.access import AccessService
from bedside_edge.services.analysis import AnalysisService, Model
from bedside_edge.services.gate import Gate
from bedside_edge.services.hardware import Candidate, HardwareService, Measured, Serving
from bedside_edge.services.heat import Heat
from bedside_edge.services.learning import CaseReader, LearningService
from bedside_edge.services.lending import PackageLender
from bedside_edge.services.models import ModelId, ModelService
from bedside_edge.services.oidc import OidcSettings as SignOnSettings
from bedside_edge.services.oidc import SingleSignOn, role_table
from bedside_edge.services.policies import PolicyService
from bedside_edge.services.witnessing import Witness
from bedside_edge.store.state import State
from bedside_edge.system.oidc_http import HttpProvider
from bedside_edge.system.picture_pillow import PillowPicture
from bedside_edge.system.policy_cedar import CedarPolicy, shipped_document, shipped_grading
from bedside_edge.system.policy_keys import FOLDER as KEY_FOLDER
from bedside_edge.system.policy_keys import trusted_keys
from bedside_edge.system.witness_http import HttpWitness

log = logging.getLogger(__name__)

_REPOSITORY = Path(__file__).resolve().parents[2]
_MODEL = "cxr-opacity"
_CARD = "card.md"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The model that serves, and how it came to be chosen."""

    model: Model
    package: Package
    profile: LoadedProfile
    passed_over: tuple[tuple[str, str], ...]
    opened: Opened
    board: Board
    record: AcceptanceRecord | None = None  # the verdict it serves under; None: not a box


def shipped(folder: str) -> Path:
    """Return a folder of shipped data: in the repository, else where the wheel puts it."""
    places = {"hw_profiles": "share/bedside/hw_profiles", "models/packages": "share/bedside/models"}
    in_repository = _REPOSITORY / folder
    return in_repository if in_repository.is_dir() else Path(sys.prefix) / places[folder]


def shipped_package() -> Path:
    """Return the newest version of the reference model shipped with the box.

    Raises:
        InvalidPackageError: none is shipped.
    """
    versions = [
        path for path in (shipped("models/packages") / _MODEL).glob("*.*.*") if path.is_dir()
    ]
    if not versions:
        raise InvalidPackageError("no model package is shipped; name one in [model] package")

    def order(path: Path) -> tuple[int, ...]:
        return tuple(int(part) if part.isdecimal() else -1 for part in path.name.split("."))

    return max(versions, key=order)


def known_packages(settings: ModelSettings) -> dict[ModelId, Path]:
    """Return the folder of every package on this box: shipped, in the repository, configured.

    Folders are named `<name>/<version>`; what is in them is checked when one is loaded.
    """
    roots = [shipped("models/packages")]
    if settings.repository:
        roots.append(Path(settings.repository))
    found = {
        ModelId(folder.parent.name, folder.name): folder
        for root in roots
        for folder in sorted(root.glob("*/*.*.*"))
        if folder.is_dir()
    }
    if settings.package:
        folder = Path(settings.package).absolute()
        found[ModelId(folder.parent.name, folder.name)] = folder
    return found


def load_model(
    settings: ModelSettings, not_accepted: Sequence[tuple[EngineChoice, BedsideError]] = ()
) -> Loaded:
    """Open the package, choose the profile, compile, read back, run the golden cases.

    Args:
        settings: which package, profile and engine.
        not_accepted: engines of the profile that are passed over, each with the reason.

    Raises:
        RefusedError: ProfileMismatchError or GoldenMismatchError; the box must not serve.
        InvalidInputError: InvalidPackageError or InvalidProfileError.
    """
    package = open_package(Path(settings.package) if settings.package else shipped_package())
    board = probe()
    chosen = choose(profiles_of(settings), board)
    profile = _overridden(chosen.loaded, settings)
    opened = open_engine(package, profile, board, passed_over=not_accepted)
    model = Model(
        manifest=package.manifest,
        familiar=package.familiar,
        package_digest=package.digest,
        card=package.read(_CARD) if _CARD in package.manifest.files else b"",
        engine=opened.engine,
        profile_name=profile.label + ("" if profile is chosen.loaded else "+settings"),
        profile_digest=profile.digest,
    )
    info = opened.engine.info
    log.info(
        "model ready",
        extra={
            "package": package.label,
            "profile": profile.label,
            "engine": info.engine,
            "precision": info.precision,
        },
    )
    return Loaded(
        model=model,
        package=package,
        profile=profile,
        passed_over=chosen.passed_over,
        opened=opened,
        board=board,
    )


def profiles_of(settings: ModelSettings) -> list[LoadedProfile]:
    """Return the profiles to choose from: the one the settings name, else those shipped.

    Raises:
        InvalidProfileError: one cannot be read.
    """
    if settings.profile:
        return [_read_profile(Path(settings.profile))]
    return list(load_profiles(shipped("hw_profiles"), built_in=True))


def load_accepted(
    settings: ModelSettings,
    hardware: HardwareService,
    state: Path,
    ready: Loaded | None = None,
) -> Loaded:
    """Load a model whose engine is accepted on this unit, measuring it when it never was.

    An engine that is not accepted gives way to the profile's next one.

    Args:
        settings: which package, profile and engine.
        hardware: keeps the verdicts.
        state: the state folder, whose disk is tried.
        ready: what these settings load, if it is loaded already.

    Raises:
        BedsideError: as `load_model`; AcceptanceFailedError, RollbackRefusedError.
    """
    refused: list[tuple[EngineChoice, BedsideError]] = []
    while True:
        loaded = ready or load_model(settings, refused)
        ready = None
        try:
            record = hardware.ensure(candidate(loaded, state))
        except AcceptanceFailedError as why:
            loaded.model.engine.close()
            refused.append((loaded.opened.choice, why))
        except BaseException:
            loaded.model.engine.close()
            raise
        else:
            return dataclasses.replace(loaded, record=record)


def candidate(loaded: Loaded, state: Path | None, runs: int | None = None) -> Candidate:
    """Return what is to be accepted; `runs` in place of what the profile asks."""

    def measure() -> Measured:
        cases = run_cases(loaded.opened, loaded.package, loaded.profile, runs)
        return cases, surroundings(loaded.profile.profile, state)

    return Candidate(
        profile=loaded.profile,
        board=loaded.board,
        subject=subject_of(loaded.opened, loaded.package, loaded.profile, loaded.board),
        tolerance=loaded.opened.variant.tolerance.golden_logit,
        measure=measure,
    )


def heat_watch(loaded: Loaded) -> Heat:
    """Return who watches the temperature under the limits of the profile in force."""
    limits = loaded.profile.profile.limits
    read = partial(temperature_c, limits.thermal_zones)
    return Heat(read, limits.temp_warn_c, limits.temp_stop_c)


def serving(loaded: Loaded) -> Serving | None:
    """Return what is told of a model that was accepted."""
    if loaded.record is None:
        return None
    return Serving(
        profile=loaded.profile,
        board=loaded.board,
        record=loaded.record,
        passed_over=loaded.passed_over,
        refused=loaded.opened.refused,
    )


def analysis_service(loaded: Loaded) -> AnalysisService:
    """Return the service that reads images with a loaded model."""
    return AnalysisService(loaded.model, PydicomReader(), PillowPicture())


def model_service(
    settings: ModelSettings,
    first: AnalysisService,
    *,
    load: Callable[[ModelSettings], Loaded] = load_model,
    flashed: Callable[[], Mapping[ModelId, Path]] = dict,
    offered: Callable[[frozenset[str]], Collection[ModelId]] = lambda names: (),
) -> ModelService:
    """Return the service that loads further packages beside the first.

    Args:
        settings: where packages lie.
        first: the model that reads the box's studies.
        load: how a package is opened; a box accepts its engine first.
        flashed: packages in slots; one that lies elsewhere as well is taken from there.
        offered: of those the ones a bare name never means, given the names found elsewhere.
    """

    def known() -> Mapping[ModelId, Path]:
        return {**flashed(), **known_packages(settings)}

    def open_model(wanted: ModelId) -> AnalysisService:
        folder = known().get(wanted)
        if folder is None:
            raise NotFoundError("the box holds no such model package")
        chosen = settings.model_copy(update={"package": str(folder)})
        return analysis_service(load(chosen))

    return ModelService(
        first,
        open_model=open_model,
        known=lambda: list(known()),
        most=settings.max_loaded,
        offered=lambda: offered(frozenset(one.name for one in known_packages(settings))),
    )


def learning_service(
    settings: ModelSettings,
    state: State,
    gate: Callable[[], Gate],
    models: Callable[[], ModelService],
    clock: Clock,
    random: RandomBytes,
) -> LearningService:
    """Return what rounds and people ask of the box's own cases; `models` is what is loaded."""

    def open_digest(digest: str) -> AnalysisService:
        for folder in known_packages(settings).values():
            try:
                manifest = (folder / MANIFEST_NAME).read_bytes()
            except OSError:
                continue
            if hashlib.sha256(manifest).hexdigest() == digest:
                chosen = settings.model_copy(update={"package": str(folder)})
                return analysis_service(load_model(chosen))
        raise NotFoundError("the box holds no package of that digest")

    lender = PackageLender(models, open_digest)
    return LearningService(
        state.learning,
        state.subjects,
        gate,
        CaseReader(state.learning, state.studies, state.objects, lender.lend),
        clock,
        random,
        lend_served=lender.served,
        close=lender.close,
    )


def load_rules(settings: RoutingSettings, manifest: Manifest) -> Rules:
    """Return the rules of the settings, else the default: the model is asked of every study.

    Raises:
        InvalidRulesError: the file cannot be read, or what is in it.
    """
    if not settings.rules:
        return parse_rules(default_rules(manifest.name).encode())
    try:
        data = Path(settings.rules).expanduser().read_bytes()
    except OSError as cause:
        raise InvalidRulesError("the rules file cannot be read") from cause
    return parse_rules(data)


def load_grading(settings: PolicySettings) -> Grading:
    """Return the grading rules of the settings, else those shipped with the box.

    Raises:
        InvalidGradingError: the file cannot be read, or what is in it.
    """
    if not settings.grading:
        return parse_grading(shipped_grading())
    try:
        data = Path(settings.grading).expanduser().read_bytes()
    except OSError as cause:
        raise InvalidGradingError("the grading rules cannot be read") from cause
    return parse_grading(data)


def policy_keys(settings: PolicySettings, state: Path) -> Path:
    """Return the folder with the public keys that may sign policies."""
    return Path(settings.trusted).expanduser() if settings.trusted else state / KEY_FOLDER


def policy_service(
    settings: PolicySettings,
    state: Path,
    store: PolicyStore,
    clock: Clock,
    *,
    repairing: bool = False,
) -> PolicyService:
    """Return the service over the policies of an open state folder.

    With `repairing` also when what is in force does not pass any more, to replace it.

    Raises:
        InvalidPolicyError, UntrustedSignatureError: what is in force must not decide anything.
    """
    folder = policy_keys(settings, state)
    return PolicyService(
        store,
        CedarPolicy,
        shipped_document(),
        lambda: trusted_keys(folder),
        clock,
        repairing=repairing,
    )


def served_manifest(settings: ModelSettings) -> Manifest:
    """Return the manifest of the package that reads the box's studies, without its files.

    Raises:
        InvalidPackageError: it cannot be read.
    """
    folder = Path(settings.package) if settings.package else shipped_package()
    try:
        return parse_manifest((folder / MANIFEST_NAME).read_bytes())
    except OSError as cause:
        raise InvalidPackageError("the package has no readable manifest") from cause


def load_sign_on(
    settings: OidcSettings,
    links: SubjectLinks,
    access: AccessService,
    clock: Clock,
    random: RandomBytes,
) -> SingleSignOn | None:
    """Return the way in through the identity provider; None where none is configured.

    The provider is not called: a box starts without it.

    Raises:
        InvalidConfigError: a file of the settings cannot be read.
    """
    if not settings.issuer:
        return None
    value = SignOnSettings(
        issuer=settings.issuer,
        client_id=settings.client_id,
        public_url=settings.public_url,
        scopes=tuple(settings.scopes),
        algorithms=tuple(settings.algorithms),
        roles_claim=settings.roles_claim,
        roles=role_table(settings.roles.items()),
    )
    provider = HttpProvider(settings.client_id, settings.client_secret_file, settings.ca_file)
    return SingleSignOn(value, provider, links, access, clock, random)


def load_witnesses(settings: EvidenceSettings) -> tuple[list[Witness], WitnessPolicy | None]:
    """Return who cosigns this box's log, and who of them is enough (None: all).

    Raises:
        InvalidConfigError: a key or a file of the settings cannot be used.
        InvalidWitnessPolicyError: the policy's text is none.
    """
    found = []
    for name, one in settings.witnesses.items():
        try:
            keys = tuple(parse_verifier_key(text) for text in one.keys)
        except InvalidKeyError as cause:
            raise InvalidConfigError(f"evidence.witnesses.{name}.keys: {cause}") from cause
        link = HttpWitness(
            one.url,
            token_file=one.token_file,
            ca_file=one.ca_file,
            certificate_file=one.certificate_file,
            key_file=one.key_file,
        )
        found.append(Witness(name=name, keys=keys, link=link))
    if not settings.witness_policy:
        return found, None
    try:
        text = Path(settings.witness_policy).expanduser().read_bytes()
    except OSError as cause:
        raise InvalidConfigError("evidence.witness_policy: the file cannot be read") from cause
    return found, parse_policy_text(text)


def known_manifests(settings: ModelSettings) -> dict[str, Manifest]:
    """Return the manifest of the newest version of every package on this box, by name.

    Raises:
        InvalidPackageError: one cannot be read.
    """
    found: dict[str, Manifest] = {}
    for model, folder in sorted(
        known_packages(settings).items(), key=lambda item: (item[0].name, item[0].order)
    ):
        try:
            found[model.name] = parse_manifest((folder / MANIFEST_NAME).read_bytes())
        except OSError as cause:
            raise InvalidPackageError(f"package {model} has no readable manifest") from cause
    return found


def _read_profile(path: Path) -> LoadedProfile:
    try:
        with path.open("rb") as file:
            return parse_profile(file.read(PROFILE_LIMIT + 1))
    except OSError as cause:
        raise InvalidProfileError("the hardware profile cannot be read") from cause


def _overridden(loaded: LoadedProfile, settings: ModelSettings) -> LoadedProfile:
    """Put the engine or precision of the settings in place of the profile's own choice."""
    if not settings.engine and not settings.precision:
        return loaded
    choices = loaded.profile.engines

    def wanted(choice: EngineChoice) -> bool:
        return settings.engine in ("", choice.kind) and settings.precision in ("", choice.precision)

    kept = [choice for choice in choices if wanted(choice)]
    if not kept:
        update = {"kind": settings.engine, "precision": settings.precision}
        changed: dict[str, object] = {key: v for key, v in update.items() if v}
        if settings.precision:  # the hint of another precision is not what this one reads back
            told = choices[0].readback.items()
            changed["readback"] = {k: v for k, v in told if k != "INFERENCE_PRECISION_HINT"}
        if settings.engine not in ("", choices[0].kind):
            changed |= {"device": "CPU", "properties": {}, "readback": {}}  # words of the other one
        kept = [EngineChoice.model_validate(choices[0].model_dump() | changed)]
    profile = loaded.profile.model_copy(update={"engines": kept})
    return dataclasses.replace(loaded, profile=profile)
