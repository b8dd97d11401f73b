"""Which profile fits a board, why every other does not, and exact numbers for that board.

Among the profiles whose every rule holds the most specific is taken: an exact board or accelerator
first, then the CPU's family and model, then its level, then the number of rules; then a vendor's
over one that came with the software. A tie is refused: nobody guesses.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from bedside_core.errors import ProfileMismatchError
from bedside_core.hardware.board import LEVELS, Board, PciDevice
from bedside_core.hardware.profile import (
    CpuMatch,
    EngineChoice,
    LoadedProfile,
    PciMatch,
    Profile,
    Value,
)
from bedside_core.manifest import EngineName, Precision

# Without VNNI, products of unsigned and signed bytes are summed in 16 bits and saturate. Measured:
# one package moved by 0.3 logits on AVX-512 alone (OpenVINO 2026.4.1), by 1.3 on an emulated
# Haswell (onnxruntime 1.32.0).
_VNNI: Final = frozenset({"avx512_vnni", "avx_vnni"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a profile held against a board; `told` says what is wrong, empty if it holds."""

    name: str
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """A choice with every number settled for one board.

    Attributes:
        kind: the runtime.
        device: exact device.
        precision: of convolutions.
        streams: inferences at the same time.
        threads: threads of each.
        latency_threads: threads of the copy for a call on an idle engine; 0: no such copy.
        properties: set as they stand.
        readback: key and text the compiled engine must show; holds the properties too.
    """

    kind: EngineName
    device: str
    precision: Precision
    streams: int
    threads: int
    latency_threads: int
    properties: Mapping[str, Value] = field(default_factory=dict)
    readback: Mapping[str, str] = field(default_factory=dict)


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


def rules_of(profile: Profile, board: Board) -> list[Rule]:
    """Return every rule of the profile, held against the board."""
    match = profile.match
    found = [_rule("arch", match.arch == board.arch, f"is {board.arch}, not {match.arch}")]
    found += _cpu_rules(match.cpu, board)
    found += [_pci_rule(wanted, board.pci) for wanted in match.pci]
    if wanted := match.dt_compatible:
        held = bool(set(wanted) & set(board.dt_compatible))
        found.append(_rule("dt_compatible", held, f"{', '.join(wanted)} absent"))
    for key, value in match.dmi.items():
        seen = board.dmi.get(key, "")
        found.append(_rule(f"dmi.{key}", seen == value, f"is {seen or 'unknown'!r}, not {value!r}"))
    enough = board.memory_mib >= match.min_mem_mib
    told = f"{board.memory_mib} MiB of memory, {match.min_mem_mib} needed"
    found.append(_rule("min_mem_mib", enough, told))
    if match.min_kernel:
        new = _numbers(board.kernel) >= _numbers(match.min_kernel)
        told = f"kernel {board.kernel or 'unknown'}, {match.min_kernel} needed"
        found.append(_rule("min_kernel", new, told))
    return found


def unmet(profile: Profile, board: Board) -> list[str]:
    """Return every rule of the profile that the board does not meet, in words."""
    return [f"{rule.name}: {rule.told}" for rule in rules_of(profile, board) if rule.told]


def _rule(name: str, held: bool, told: str) -> Rule:
    return Rule(name=name, told="" if held else told)


def _cpu_rules(cpu: CpuMatch, board: Board) -> Iterator[Rule]:
    if cpu.vendor:
        told = f"is {board.cpu_vendor or 'unknown'}, not {cpu.vendor}"
        yield _rule("cpu.vendor", board.cpu_vendor == cpu.vendor, told)
    if cpu.family is not None:
        told = f"is {board.cpu_family}, not {cpu.family}"
        yield _rule("cpu.family", board.cpu_family == cpu.family, told)
    if cpu.model:
        told = f"is {board.cpu_model}, none of {', '.join(map(str, cpu.model))}"
        yield _rule("cpu.model", board.cpu_model in cpu.model, told)
    if cpu.implementer:
        told = f"is {board.cpu_implementer or 'unknown'}, not {cpu.implementer}"
        yield _rule("cpu.implementer", board.cpu_implementer == cpu.implementer, told)
    if cpu.part:
        seen = ", ".join(board.cpu_parts) or "unknown"
        told = f"is {seen}, none of {', '.join(cpu.part)}"
        yield _rule("cpu.part", bool(set(cpu.part) & set(board.cpu_parts)), told)
    if cpu.level is not None and cpu.level in LEVELS.get(board.arch, {}):
        missing = board.missing(cpu.level)
        told = f"{cpu.level} needs CPU flags {', '.join(missing)}"
        yield _rule("cpu.level", not missing, told)
    for flag in cpu.flags:
        yield _rule("cpu.flags", flag in board.cpu_flags, f"flag {flag} absent")
    told = f"{board.cores} CPUs usable, {cpu.min_cores} needed"
    yield _rule("cpu.min_cores", board.cores >= cpu.min_cores, told)


def _pci_rule(wanted: PciMatch, devices: Sequence[PciDevice]) -> Rule:
    names = ", ".join(f"{wanted.vendor}:{device}" for device in wanted.device)
    there = [d for d in devices if d.vendor == wanted.vendor and d.device in wanted.device]
    bound = [d for d in there if not wanted.driver or d.driver in wanted.driver]
    if len(bound) >= wanted.min_count:
        return Rule(name="pci")
    if not there:
        return Rule(name="pci", told=f"{names} absent")
    if len(there) < wanted.min_count:
        return Rule(name="pci", told=f"{names}: {len(there)} there, {wanted.min_count} needed")
    drivers = ", ".join(wanted.driver)
    seen = ", ".join(sorted({d.driver or "none" for d in there}))
    told = f"{names} present but driver {drivers} not bound (bound: {seen})"
    return Rule(name="pci", told=told)


def _numbers(release: str) -> tuple[int, ...]:
    found = []
    for part in release.split("-")[0].split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)


def _rank(loaded: LoadedProfile) -> tuple[int, int, int, int, int]:
    # Counting rules alone would tie both generic profiles on a v4 host, or take v3.
    match, cpu = loaded.profile.match, loaded.profile.match.cpu
    exact = bool(match.dt_compatible or match.pci or match.dmi)
    model = bool(cpu.family is not None or cpu.model or cpu.implementer or cpu.part)
    level = list(LEVELS[match.arch]).index(cpu.level) + 1 if cpu.level else 0
    rules = (
        bool(cpu.vendor)
        + (cpu.family is not None)
        + bool(cpu.model)
        + bool(cpu.implementer)
        + bool(cpu.part)
        + len(cpu.flags)
        + len(match.pci)
        + bool(match.dt_compatible)
        + len(match.dmi)
        + bool(match.min_kernel)
    )
    return int(exact), int(model), level, rules, int(not loaded.built_in)


def choose(profiles: Sequence[LoadedProfile], board: Board) -> Chosen:
    """Return the most specific profile whose every rule holds.

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
    fitting.sort(key=lambda loaded: (_rank(loaded), loaded.profile.seq), reverse=True)
    best = fitting[0]
    for other in fitting[1:]:
        newer_wins = other.profile.id == best.profile.id and other.profile.seq < best.profile.seq
        if _rank(other) == _rank(best) and not newer_wins:
            raise ProfileMismatchError(f"{best.label} and {other.label} fit equally well")
        passed_over.append((other.label, f"{best.label} is more specific"))
    return Chosen(loaded=best, passed_over=tuple(passed_over))


def plan(choice: EngineChoice, board: Board) -> EnginePlan:
    """Settle the numbers of a choice for a board.

    Raises:
        ProfileMismatchError: it pins more threads than the board has CPUs (a runtime would clamp
            them without a word), or int8 on an x86-64 CPU without VNNI.
    """
    on_cpu = choice.device == "CPU"
    saturates = on_cpu and board.arch == "x86_64" and not board.cpu_flags & _VNNI
    if choice.precision == "int8" and saturates:
        raise ProfileMismatchError(f"int8 needs one of the CPU flags {', '.join(sorted(_VNNI))}")
    counts = {"cores": board.cores, "sockets": board.sockets}
    streams = counts[choice.streams] if isinstance(choice.streams, str) else choice.streams
    shared = max(1, board.cores // streams)
    made = EnginePlan(
        kind=choice.kind,
        device=choice.device,
        precision=choice.precision,
        streams=streams,
        threads=shared if isinstance(choice.threads, str) else choice.threads,
        latency_threads=min(choice.latency_threads, board.cores),
        properties=choice.properties,
        readback={key: as_text(v) for key, v in (choice.properties | choice.readback).items()},
    )
    if on_cpu and made.streams * made.threads > board.cores:
        raise ProfileMismatchError(
            f"{made.streams * made.threads} threads pinned, {board.cores} CPUs usable"
        )
    return made


def as_text(value: object) -> str:
    """Return a property as both sides are compared: `true`, `2`, `LATENCY`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_readback(
    pinned: EnginePlan, threads: int, seen: ReadBack, told: Mapping[str, str]
) -> None:
    """Compare a compiled engine with what was pinned.

    Args:
        pinned: what the profile asked for.
        threads: what one call may use.
        seen: what the compiled engine says of itself.
        told: the further keys it was asked for, as text.

    Raises:
        ProfileMismatchError: names every value that differs, or that it does not tell.
    """
    pairs = [
        ("engine", pinned.kind, seen.engine),
        ("device", pinned.device, seen.device),
        ("precision", pinned.precision, seen.precision),
        ("threads", str(threads), str(seen.threads)),
    ]
    pairs += [(key, want, told.get(key, "nothing")) for key, want in pinned.readback.items()]
    if wrong := [f"{name} {got} instead of {want}" for name, want, got in pairs if want != got]:
        raise ProfileMismatchError(f"{pinned.kind} reads back {', '.join(wrong)}")
