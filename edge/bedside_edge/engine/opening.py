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
from bedside_core.hardware.board import Board
from bedside_core.hardware.matching import EnginePlan, check_readback, plan
from bedside_core.hardware.profile import (
    PROFILE_LIMIT,
    EngineChoice,
    LoadedProfile,
    parse_profile,
)
from bedside_core.manifest import EngineName, Variant
from bedside_edge.engine.package import Package
from bedside_edge.engine.selftest import SelfTest, prepare_cases, self_test
from bedside_edge.engine.tensor import Build, Compiled
from bedside_edge.ports import EngineInfo, Outputs

log = logging.getLogger(__name__)

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
        self.readback: Mapping[str, str] = narrow.readback

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
    choice: EngineChoice
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
    passed_over: Sequence[tuple[EngineChoice, BedsideError]] = (),
) -> Opened:
    """Compile the first engine of the profile that reads back as pinned and passes the self-test.

    Args:
        package: the opened package.
        profile: the profile that fits the board.
        board: what the probe found.
        runtimes: how each kind is compiled.
        passed_over: engines that opened before and were refused then, each with the reason.

    Raises:
        BedsideError: the refusal of the only engine the profile names, or of all for one reason:
            ProfileMismatchError, GoldenMismatchError, InvalidPackageError or EngineFailedError.
        ProfileMismatchError: each engine was refused, for different reasons; says why.
    """
    refusals = list(passed_over)
    tried = [choice for choice, _ in passed_over]
    choices = profile.profile.engines
    for choice in choices:
        if choice in tried:
            continue
        try:
            opened = _open_one(package, profile, choice, board, runtimes)
        except BedsideError as why:
            fields = {"engine": choice.kind, "precision": choice.precision, "reason": why.code}
            log.warning("engine refused", extra=fields)
            refusals.append((choice, why))
        else:
            return replace(opened, refused=tuple(_told(refusals)))
    if len(choices) == 1:
        raise refusals[0][1]
    told = " | ".join(f"{name}: {why}" for name, why in _told(refusals))
    codes = {type(why) for _, why in refusals}
    kind = codes.pop() if len(codes) == 1 else ProfileMismatchError
    raise kind(f"no engine of {profile.label} may serve: {told}")


def _told(refusals: Sequence[tuple[EngineChoice, BedsideError]]) -> list[tuple[str, str]]:
    return [(f"{choice.kind} {choice.precision}", str(why)) for choice, why in refusals]


def _open_one(
    package: Package,
    profile: LoadedProfile,
    choice: EngineChoice,
    board: Board,
    runtimes: Mapping[EngineName, Compile],
) -> Opened:
    pinned = plan(choice, board)
    variant = package.manifest.variant(choice.kind, choice.precision)
    if (batch := package.manifest.io.input.shape[0]) > choice.max_batch:
        raise ProfileMismatchError(f"the model takes {batch} images, {choice.max_batch} allowed")
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
            device=pinned.device,
            properties=pinned.properties,
            readback=tuple(pinned.readback),
        )
        engine = runtimes[choice.kind](build)
        engines.append(engine)
        check_readback(pinned, threads, engine.info, engine.readback)
        limit = profile.profile.logit_limit(choice.precision)
        tests.append(self_test(package, cases, engine, variant, limit))
    if any(test.logits != tests[0].logits for test in tests):
        # A result must not depend on how busy the box was when it was computed.
        raise GoldenMismatchError(f"{choice.kind} answers differently with other thread counts")
    served = engines[0] if len(engines) == 1 else ElasticEngine(*engines)
    return Opened(
        engine=served, choice=choice, plan=pinned, variant=variant, test=tests[0], refused=()
    )


def load_profiles(folder: Path, *, built_in: bool = False) -> Sequence[LoadedProfile]:
    """Read every `<vendor>/<board>.toml` below the folder.

    Raises:
        InvalidProfileError: one cannot be read, or names another vendor than its folder. A file
            that is quietly skipped would be a board quietly served by a lesser profile.
    """
    loaded = []
    for path in sorted(folder.glob("*/*.toml")):
        try:
            with path.open("rb") as file:
                data = file.read(PROFILE_LIMIT + 1)
        except OSError as cause:
            raise InvalidProfileError(f"hardware profile {path.stem} cannot be read") from cause
        profile = parse_profile(data, built_in=built_in)
        if profile.profile.vendor != path.parent.name:
            raise InvalidProfileError(f"hardware profile {path.stem} is in another vendor's folder")
        loaded.append(profile)
    return loaded
