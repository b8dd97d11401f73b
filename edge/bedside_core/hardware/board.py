"""What a probe found on a machine: one value, kept and compared as JSON.

Facts of a board that is not at hand are a file like any other, so a profile can be tried against
a recording. Nothing here looks at a machine.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer

from bedside_core.errors import InvalidProfileError

PROBE_LIMIT: Final = 1 << 20  # bytes of a probe file

# System V psABI for x86-64, section 3.1.1, in the words of Linux's /proc/cpuinfo: pni is SSE3,
# abm is LZCNT, and OSXSAVE shows as xsave. Arm: what a 64-bit kernel needs, then Arm ARM A2.2.3.
LEVELS: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "x86_64": {
        "x86_64": frozenset({"cmov", "cx8", "fpu", "fxsr", "mmx", "syscall", "sse", "sse2"}),
        "x86_64_v2": frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
        "x86_64_v3": frozenset(
            {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
        ),
        "x86_64_v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    },
    "aarch64": {
        "aarch64": frozenset({"fp", "asimd"}),
        "armv8.2a": frozenset({"crc32", "atomics", "asimdrdm", "dcpop"}),
    },
}


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PciDevice(_Fact):
    """One device on the PCI bus; ids are four lower hex digits."""

    vendor: Annotated[str, Field(pattern=r"^[0-9a-f]{4}$")]
    device: Annotated[str, Field(pattern=r"^[0-9a-f]{4}$")]
    driver: str = ""  # the kernel driver bound to it; empty when none is
    driver_version: str = ""


class EngineFact(_Fact):
    """A runtime that is installed; `devices` is None when it was not asked."""

    kind: str
    version: str
    devices: tuple[str, ...] | None = None


class Board(_Fact):
    """What a probe found.

    Attributes:
        arch: machine name of the kernel (x86_64, aarch64).
        cpu_vendor: vendor_id of /proc/cpuinfo (x86-64).
        cpu_family: CPU family in decimal (x86-64); None when unknown.
        cpu_model: model number in decimal (x86-64); None when unknown.
        cpu_implementer: CPU implementer as 0x41 (Arm).
        cpu_parts: CPU parts as 0xd0b, one for each kind of core (Arm).
        cpu_flags: features that every core has, in Linux's words.
        sockets: processor packages.
        cores: CPUs this process may use, a container's quota included.
        memory_mib: memory this process may use.
        pci: devices on the PCI bus.
        dt_compatible: names in the devicetree's root, most exact first.
        dmi: facts of the firmware; never a serial number.
        kernel: its release.
        thermal_zones: types of the zones with a readable temperature.
        engines: runtimes that are installed.
    """

    format: Literal["bedside-probe/1"] = "bedside-probe/1"
    arch: str
    cpu_vendor: str = ""
    cpu_family: int | None = None
    cpu_model: int | None = None
    cpu_implementer: str = ""
    cpu_parts: tuple[str, ...] = ()
    cpu_flags: frozenset[str] = frozenset()
    sockets: Annotated[int, Field(ge=1)] = 1
    cores: Annotated[int, Field(ge=1)]
    memory_mib: Annotated[int, Field(ge=0)]
    pci: tuple[PciDevice, ...] = ()
    dt_compatible: tuple[str, ...] = ()
    dmi: dict[str, str] = {}
    kernel: str = ""
    thermal_zones: tuple[str, ...] = ()
    engines: tuple[EngineFact, ...] = ()

    @field_serializer("cpu_flags")
    def _in_order(self, flags: frozenset[str]) -> list[str]:
        return sorted(flags)

    @property
    def level(self) -> str:
        """Return the highest level all of whose flags are present; empty if none is."""
        reached = ""
        for level, flags in LEVELS.get(self.arch, {}).items():
            if not flags <= self.cpu_flags:
                break
            reached = level
        return reached

    def missing(self, level: str) -> list[str]:
        """Return the flags this board lacks for a level of its own architecture."""
        levels = LEVELS[self.arch]
        names = list(levels)
        lower = names[: names.index(level) + 1]
        return sorted({flag for name in lower for flag in levels[name]} - self.cpu_flags)

    def text(self) -> str:
        """Return the facts as a file holds them: JSON, sorted keys, a final newline."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the facts' canonical JSON, as `sha256:...`."""
        facts = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(facts.encode()).hexdigest()


def parse_board(data: bytes) -> Board:
    """Return the board that a probe file describes.

    Raises:
        InvalidProfileError: not a probe file of this format, or more than 1 MiB.
    """
    if len(data) > PROBE_LIMIT:
        raise InvalidProfileError("the probe file is too large")
    try:
        return Board.model_validate_json(data)
    except ValidationError as cause:
        raise InvalidProfileError(f"probe file: {cause}") from cause
