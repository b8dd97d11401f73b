"""From a package and a hardware profile to an engine that may serve, or the reason why not."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import (
    BedsideError,
    GoldenMismatchError,
    InvalidProfileError,
    ProfileMismatchError,
)
from bedside_core.manifest import EngineName, Variant
from bedside_core.profile import (
    Board,
    EngineChoice,
    EnginePlan,
    LoadedProfile,
    check_readback,
    parse_profile,
    plan,
)
from bedside_edge.engine.package import Package
from bedside_edge.engine.selftest import SelfTest, prepare_cases, self_test
from bedside_edge.engine.tensor import Build, Compiled
from bedside_edge.ports import EngineInfo, Outputs

log = logging.getLogger(__name__)

_PROFILE_LIMIT = 1 << 20  # bytes
Compile = Callable[[Build], Compiled]


def _compile_onnxruntime(build: Build) -> Compiled:
    from bedside_edge.engine.onnx import OnnxEngine  # a runtime costs 40 MB: only the one chosen

    return OnnxEngine(build)


def _compile_openvino(build: Build) -> Compiled:
    from bedside_edge.engine.openvino import OpenvinoEngine  # as above

    return OpenvinoEngine(build)


RUNTIMES: Mapping[EngineName, Compile] = {
    "onnxruntime": _compile_onnxruntime,
    "openvino": _compile_openvino,
}


class ElasticEngine:
    """Two compiled copies of one model: a call on an idle engine gets all cores.

    One call at a time runs on the wide copy (all threads, least latency); calls that overlap it
    run on the narrow one (a thread each, most throughput). Both passed the self-test.
    """

    def __init__(self, narrow: Compiled, wide: Compiled) -> None:
        self._narrow, self._wide = narrow, wide
        self._lock = threading.Lock()
        self._running = 0
        self.info: EngineInfo = narrow.info
        self.census: Mapping[str, int] = narrow.census

    def run(self, tensor: NDArray[np.float32]) -> Outputs:
        """Infer one image; see `Engine.run`."""
        with self._lock:
            engine = self._narrow if self._running else self._wide
            self._running += 1
        try:
            return engine.run(tensor)
        finally:
            with self._lock:
                self._running -= 1

    def close(self) -> None:
        """Close both copies."""
        self._narrow.close()
        self._wide.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An engine that may serve, with what is recorded of it in every result."""

    engine: Compiled
    plan: EnginePlan
    variant: Variant
    test: SelfTest
    refused: tuple[tuple[str, str], ...]


def open_engine(
    package: Package,
    profile: LoadedProfile,
    board: Board,
    *,
    runtimes: Mapping[EngineName, Compile] = RUNTIMES,
) -> Opened:
    """Compile the first engine of the profile that reads back as pinned and passes the self-test.

    Raises:
        BedsideError: the refusal of the only engine the profile names: ProfileMismatchError,
            GoldenMismatchError, InvalidPackageError or EngineFailedError.
        ProfileMismatchError: the profile names several and each was refused; says why.
    """
    refused: list[tuple[str, str]] = []
    choices = profile.profile.engines
    for choice in choices:
        try:
            opened = _open_one(package, profile, choice, board, runtimes)
        except BedsideError as why:
            fields = {"engine": choice.kind, "precision": choice.precision, "reason": why.code}
            log.warning("engine refused", extra=fields)
            if len(choices) == 1:
                raise
            refused.append((f"{choice.kind} {choice.precision}", str(why)))
        else:
            return replace(opened, refused=tuple(refused))
    told = " | ".join(f"{name}: {why}" for name, why in refused)
    raise ProfileMismatchError(f"no engine of {profile.label} may serve: {told}")


def _open_one(
    package: Package,
    profile: LoadedProfile,
    choice: EngineChoice,
    board: Board,
    runtimes: Mapping[EngineName, Compile],
) -> Opened:
    pinned = plan(choice, board)
    variant = package.manifest.variant(choice.kind, choice.precision)
    copies = [(pinned.streams, pinned.threads)]
    if pinned.latency_threads > pinned.threads:
        copies.append((1, pinned.latency_threads))
    model = package.read(variant.path)
    companions = tuple(package.read(path) for path in variant.companions)
    cases = prepare_cases(package)
    engines: list[Compiled] = []
    tests: list[SelfTest] = []
    for streams, threads in copies:
        build = Build(
            model=model,
            companions=companions,
            io=package.manifest.io,
            precision=choice.precision,
            streams=streams,
            threads=threads,
        )
        engine = runtimes[choice.kind](build)
        check_readback(pinned, threads, engine.info)
        limit = profile.profile.acceptance.golden_logit
        tests.append(self_test(package, cases, engine, variant, limit))
        engines.append(engine)
    if any(test.logits != tests[0].logits for test in tests):
        # A result must not depend on how busy the box was when it was computed.
        raise GoldenMismatchError(f"{choice.kind} answers differently with other thread counts")
    served = engines[0] if len(engines) == 1 else ElasticEngine(*engines)
    return Opened(engine=served, plan=pinned, variant=variant, test=tests[0], refused=())


def load_profiles(folder: Path) -> Sequence[LoadedProfile]:
    """Read every `<vendor>/<board>.toml` below the folder.

    Raises:
        InvalidProfileError: one cannot be read, or names another vendor than its folder. A file
            that is quietly skipped would be a board quietly served by a lesser profile.
    """
    loaded = []
    for path in sorted(folder.glob("*/*.toml")):
        try:
            data = path.read_bytes()
        except OSError as cause:
            raise InvalidProfileError(f"hardware profile {path.stem} cannot be read") from cause
        if len(data) > _PROFILE_LIMIT:
            raise InvalidProfileError(f"hardware profile {path.stem} is too large")
        profile = parse_profile(data)
        if profile.profile.vendor != path.parent.name:
            raise InvalidProfileError(f"hardware profile {path.stem} is in another vendor's folder")
        loaded.append(profile)
    return loaded
