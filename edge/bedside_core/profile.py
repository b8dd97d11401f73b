"""Hardware profiles: which engine runs on which machine, at which precision, with which threads.

A profile is data a vendor writes (TOML). This module parses one, finds the profile that fits a
board, says for every other why it does not, turns it into exact numbers for that board, and
compares what a compiled engine reads back with what was pinned. It probes nothing and compiles
nothing; nothing here falls back in silence.
"""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bedside_core.errors import InvalidProfileError, ProfileMismatchError
from bedside_core.manifest import EngineName, Precision

_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
Level = Literal["x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4"]
Count = Annotated[int, Field(ge=1, le=256)] | Literal["cores"]

# System V psABI for x86-64, section 3.1.1, in the words of Linux's /proc/cpuinfo: pni is SSE3,
# abm is LZCNT, and OSXSAVE shows as xsave.
_LEVELS: dict[str, frozenset[str]] = {
    "x86_64": frozenset({"cmov", "cx8", "fpu", "fxsr", "mmx", "syscall", "sse", "sse2"}),
    "x86_64_v2": frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    "x86_64_v3": frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    "x86_64_v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}

# Without VNNI, products of unsigned and signed bytes are summed in 16 bits and saturate. Measured:
# one package moved by 0.3 logits on AVX-512 alone (OpenVINO 2026.4.1), by 1.3 on an emulated
# Haswell (onnxruntime 1.32.0).
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What a probe found.

    Attributes:
        arch: machine name of the kernel (x86_64, aarch64).
        cpu_flags: feature flags in Linux's words.
        cores: CPUs this process may use, a container's quota included.
        memory_mib: memory this process may use.
        product: the board's name from its firmware, empty when there is none.
    """

    arch: str
    cpu_vendor: str = ""
    cpu_flags: frozenset[str] = frozenset()
    cores: int
    memory_mib: int
    product: str = ""

    @property
    def level(self) -> str:
        """Return the highest psABI level all of whose flags are present; empty if none is."""
        reached = ""
        if self.arch == "x86_64":
            for level, flags in _LEVELS.items():
                if not flags <= self.cpu_flags:
                    break
                reached = level
        return reached

    def missing(self, level: str) -> list[str]:
        """Return the flags this board lacks for a psABI level, lower levels included."""
        names = list(_LEVELS)
        lower = names[: names.index(level) + 1]
        return sorted({flag for name in lower for flag in _LEVELS[name]} - self.cpu_flags)


class _Part(BaseModel):
    # TOML knows nan and inf: a timeout of infinity is no timeout, a tolerance of infinity no check.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CpuMatch(_Part):
    """What the processor must offer."""

    vendor: str = Field(default="", description="exact vendor_id of /proc/cpuinfo; empty: any")
    level: Level | None = Field(default=None, description="least x86-64 psABI level")
    flags: list[str] = Field(default=[], description="further flags in Linux's words")
    min_cores: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="least CPUs the process may use"
    )


class Match(_Part):
    """Every condition must hold."""

    arch: Literal["x86_64", "aarch64"] = Field(description="machine name of the kernel")
    product: str = Field(default="", description="exact DMI product name; empty: any board")
    min_mem_mib: Annotated[int, Field(ge=256)] = Field(
        default=256, description="least memory in MiB the process may use"
    )
    cpu: CpuMatch = Field(default=CpuMatch(), description="what the processor must offer")

    @model_validator(mode="after")
    def _possible(self) -> "Match":
        if self.cpu.level is not None and self.arch != "x86_64":
            raise ValueError("psABI levels exist on x86_64 only")
        return self


class EngineChoice(_Part):
    """One engine, pinned: nothing in it is left to a library's default."""

    kind: EngineName = Field(description="the runtime")
    device: Literal["CPU"] = Field(description="exact device; AUTO, HETERO and MULTI are refused")
    precision: Precision = Field(description="precision of convolutions, read back when compiled")
    streams: Count = Field(description='inferences at the same time; "cores": one per CPU')
    threads: Count = Field(default=1, description="threads of each stream")
    latency_threads: Annotated[int, Field(ge=0, le=256)] = Field(
        default=0,
        description="threads of a second compiled copy that serves a call arriving at an idle "
        "engine, at most one per CPU; 0, or not more than `threads`: no such copy",
    )


class Limits(_Part):
    """What the service may take on; the stricter of this and the box's settings holds."""

    max_waiting: Annotated[int, Field(ge=1, le=4096)] = Field(
        description="inference requests that may wait; beyond it 429"
    )
    job_timeout_s: Annotated[float, Field(gt=0, le=86_400, strict=False)] = Field(
        description="seconds one attempt of a study job may run"
    )


class DicomLimits(_Part):
    """Limits of the C-STORE receiver; the stricter of this and the box's settings holds."""

    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1 << 24)] = Field(
        description="largest PDU we ask senders to use"
    )
    max_associations: Annotated[int, Field(ge=1, le=1024)] = Field(
        description="associations at the same time; beyond it rejected as transient"
    )
    acse_timeout_s: Annotated[float, Field(gt=0, le=3600, strict=False)] = Field(
        description="seconds an association may take to be set up (ARTIM)"
    )
    network_timeout_s: Annotated[float, Field(gt=0, le=3600, strict=False)] = Field(
        description="seconds of silence before an association is given up"
    )


class Acceptance(_Part):
    """When an engine counts as working on this machine."""

    golden_logit: Annotated[float, Field(gt=0, strict=False)] = Field(
        description="largest difference from the known logit of a golden case; the package's own "
        "tolerance holds as well, so a profile can only be stricter"
    )


class Profile(_Part):
    """`hw_profiles/<vendor>/<board>.toml`, schema version 1."""

    schema_version: Literal[1] = Field(description="of this file format")
    id: Annotated[str, Field(pattern=_NAME)] = Field(description="unique name, never reused")
    vendor: Annotated[str, Field(pattern=_NAME)] = Field(description="equals the folder")
    name: str = Field(description="for people")
    seq: Annotated[int, Field(ge=1)] = Field(description="revision, counts up")
    evidence: Literal["measured", "vendor-claimed", "unverified"] = Field(
        description="how far to believe it"
    )
    notes: str = Field(default="", description="for people")
    match: Match
    engines: Annotated[list[EngineChoice], Field(min_length=1)] = Field(
        description="tried in this order; each refusal is logged, none passing refuses to serve"
    )
    limits: Limits
    dicom: DicomLimits
    acceptance: Acceptance


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedProfile:
    """A parsed profile and the digest of the very bytes it was parsed from."""

    profile: Profile
    digest: str

    @property
    def label(self) -> str:
        """Return `id#seq`, as results and logs show it."""
        return f"{self.profile.id}#{self.profile.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """A choice with every number settled for one board."""

    kind: EngineName
    device: str
    precision: Precision
    streams: int
    threads: int
    latency_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The profile that fits, and why each of the others was not taken."""

    loaded: LoadedProfile
    passed_over: tuple[tuple[str, str], ...]


class ReadBack(Protocol):
    """What a compiled engine says of itself; `bedside_edge.ports.EngineInfo` is one."""

    @property
    def engine(self) -> str:
        """Name of the runtime."""
        ...

    @property
    def device(self) -> str:
        """Device it executes on."""
        ...

    @property
    def precision(self) -> str:
        """Precision its convolutions run in."""
        ...

    @property
    def threads(self) -> int:
        """Threads one call may use."""
        ...


def parse_profile(data: bytes) -> LoadedProfile:
    """Return the profile in `data`.

    Raises:
        InvalidProfileError: not TOML in UTF-8, an unknown or missing key, a value out of range.
    """
    try:
        profile = Profile.model_validate(tomllib.loads(data.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError, RecursionError) as cause:
        raise InvalidProfileError(f"hardware profile: {cause}") from cause
    return LoadedProfile(profile=profile, digest="sha256:" + hashlib.sha256(data).hexdigest())


def unmet(profile: Profile, board: Board) -> list[str]:
    """Return every condition of the profile that the board does not meet, in words."""
    match, cpu = profile.match, profile.match.cpu
    reasons: list[str] = []
    if match.arch != board.arch:
        reasons.append(f"architecture is {board.arch}, not {match.arch}")
    if cpu.vendor and cpu.vendor != board.cpu_vendor:
        reasons.append(f"CPU vendor is {board.cpu_vendor or 'unknown'}, not {cpu.vendor}")
    if cpu.level is not None and (missing := board.missing(cpu.level)):
        reasons.append(f"level {cpu.level} needs CPU flags {', '.join(missing)}")
    if lacking := sorted(set(cpu.flags) - board.cpu_flags):
        reasons.append(f"CPU flags absent: {', '.join(lacking)}")
    if board.cores < cpu.min_cores:
        reasons.append(f"{board.cores} CPUs usable, {cpu.min_cores} needed")
    if board.memory_mib < match.min_mem_mib:
        reasons.append(f"{board.memory_mib} MiB of memory, {match.min_mem_mib} needed")
    if match.product and match.product != board.product:
        reasons.append("another board")
    return reasons


def _rank(profile: Profile) -> tuple[int, int, int, int, int]:
    # Board, CPU vendor, level: counting conditions alone would pick v3 on a v4 host.
    match, cpu = profile.match, profile.match.cpu
    level = list(_LEVELS).index(cpu.level) + 1 if cpu.level else 0
    return (
        int(bool(match.product)),
        int(bool(cpu.vendor)),
        level,
        len(cpu.flags),
        int(profile.vendor != "generic"),
    )


def choose(profiles: Sequence[LoadedProfile], board: Board) -> Chosen:
    """Return the most specific profile whose every condition holds.

    Raises:
        ProfileMismatchError: none fits (the message says for each why not), or two fit equally
            well and nothing but chance could pick one.
    """
    fitting: list[LoadedProfile] = []
    passed_over: list[tuple[str, str]] = []
    for loaded in profiles:
        if reasons := unmet(loaded.profile, board):
            passed_over.append((loaded.label, "; ".join(reasons)))
        else:
            fitting.append(loaded)
    if not fitting:
        told = " | ".join(f"{label}: {why}" for label, why in passed_over) or "there are none"
        raise ProfileMismatchError(f"no hardware profile fits this machine: {told}")
    fitting.sort(key=lambda loaded: (_rank(loaded.profile), loaded.profile.seq), reverse=True)
    best = fitting[0]
    for other in fitting[1:]:
        newer_wins = other.profile.id == best.profile.id and other.profile.seq < best.profile.seq
        if _rank(other.profile) == _rank(best.profile) and not newer_wins:
            raise ProfileMismatchError(f"{best.label} and {other.label} fit equally well")
        passed_over.append((other.label, f"{best.label} is more specific"))
    return Chosen(loaded=best, passed_over=tuple(passed_over))


def plan(choice: EngineChoice, board: Board) -> EnginePlan:
    """Settle the numbers of a choice for a board.

    Raises:
        ProfileMismatchError: it pins more threads than the board has CPUs (a runtime would clamp
            them without a word), or int8 on an x86-64 CPU without VNNI.
    """
    if choice.precision == "int8" and board.arch == "x86_64" and not board.cpu_flags & _VNNI:
        raise ProfileMismatchError(f"int8 needs one of the CPU flags {', '.join(sorted(_VNNI))}")

    def settle(count: int | str) -> int:
        return board.cores if count == "cores" else int(count)

    made = EnginePlan(
        kind=choice.kind,
        device=choice.device,
        precision=choice.precision,
        streams=settle(choice.streams),
        threads=settle(choice.threads),
        latency_threads=min(choice.latency_threads, board.cores),
    )
    if made.streams * made.threads > board.cores:
        raise ProfileMismatchError(
            f"{made.streams * made.threads} threads pinned, {board.cores} CPUs usable"
        )
    return made


def check_readback(pinned: EnginePlan, threads: int, seen: ReadBack) -> None:
    """Compare a compiled engine with what was pinned; `threads` is what one call may use.

    Raises:
        ProfileMismatchError: names every value that differs.
    """
    pairs = (
        ("engine", pinned.kind, seen.engine),
        ("device", pinned.device, seen.device),
        ("precision", pinned.precision, seen.precision),
        ("threads", threads, seen.threads),
    )
    if wrong := [f"{name} {got} instead of {want}" for name, want, got in pairs if want != got]:
        raise ProfileMismatchError(f"{pinned.kind} reads back {', '.join(wrong)}")


def profile_schema() -> dict[str, Any]:
    """Return the JSON schema of a profile, as kept in hw_profiles/schema.json."""
    return Profile.model_json_schema()


def profile_schema_text() -> str:
    """Return the schema as the file holds it: sorted keys, two spaces, a final newline."""
    return json.dumps(profile_schema(), indent=2, sort_keys=True) + "\n"
