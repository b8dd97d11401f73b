"""What this machine is: the facts a hardware profile is matched against."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from bedside_core.hardware.board import Board, EngineFact, PciDevice

_MIB = 1 << 20
_RUNTIMES: Final = ("onnxruntime", "openvino")
# Never a serial number or a UUID: facts of a kind of board, not of one unit.
_DMI: Final = ("sys_vendor", "product_name", "product_version", "board_vendor", "board_name")


def probe(root: Path = Path("/"), *, ask_engines: bool = False) -> Board:
    """Return the board as Linux describes it under `root` (another folder in tests).

    Limits of a container count: a quota of one CPU is one core, whatever the machine has.

    Args:
        root: where `proc` and `sys` are.
        ask_engines: import the runtimes and ask for their devices; costs 100 MB and a second.
    """
    return Board(
        **_cpu(_text(root / "proc/cpuinfo")),
        arch=platform.machine(),
        cores=_cores(_text(root / "sys/fs/cgroup/cpu.max")),
        memory_mib=_memory(_text(root / "proc/meminfo"), _text(root / "sys/fs/cgroup/memory.max")),
        pci=_pci(root),
        dt_compatible=_devicetree(root / "proc/device-tree/compatible"),
        dmi=_dmi(root / "sys/class/dmi/id"),
        kernel=_text(root / "proc/sys/kernel/osrelease").strip(),
        thermal_zones=tuple(
            sorted({_text(zone / "type").strip() for zone in thermal_zones(root)} - {""})
        ),
        engines=_engines(ask=ask_engines),
    )


def thermal_zones(root: Path = Path("/")) -> list[Path]:
    """Return the folder of every thermal zone that shows a temperature."""
    zones = (root / "sys/class/thermal").glob("thermal_zone*")
    return sorted(zone for zone in zones if _text(zone / "temp").strip().lstrip("-").isdigit())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # a file this kernel or container does not show: that fact is unknown
        return ""


def _cpu(cpuinfo: str) -> dict[str, Any]:
    first: dict[str, str] = {}
    parts: list[str] = []
    sockets: set[str] = set()
    flags: frozenset[str] | None = None
    for line in cpuinfo.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        first.setdefault(key, value)
        if key in ("flags", "Features"):
            # Cores may differ (big and little): only what all of them have can be relied on.
            these = frozenset(value.split())
            flags = these if flags is None else flags & these
        elif key == "CPU part" and value not in parts:
            parts.append(value)
        elif key == "physical id":
            sockets.add(value)
    return {
        "cpu_vendor": first.get("vendor_id", ""),
        "cpu_family": _number(first.get("cpu family", "")),
        "cpu_model": _number(first.get("model", "")),
        "cpu_implementer": first.get("CPU implementer", ""),
        "cpu_parts": tuple(parts),
        "cpu_flags": flags or frozenset(),
        "sockets": max(1, len(sockets)),
    }


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _cores(cpu_max: str) -> int:
    usable = len(os.sched_getaffinity(0))
    quota, _, period = cpu_max.strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        usable = min(usable, max(1, int(quota) // int(period)))
    return usable


def _memory(meminfo: str, memory_max: str) -> int:
    total = 0
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) // 1024
    if memory_max.strip().isdigit():
        limit = int(memory_max) // _MIB
        total = min(total, limit) if total else limit
    return total


def _pci(root: Path) -> tuple[PciDevice, ...]:
    found = []
    for folder in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor, device = (
            _text(folder / name).strip().removeprefix("0x") for name in ("vendor", "device")
        )
        if len(vendor) != 4 or len(device) != 4:
            continue
        link = folder / "driver"
        driver = link.readlink().name if link.is_symlink() else ""
        version = _text(root / "sys/module" / driver / "version").strip() if driver else ""
        found.append(PciDevice(vendor=vendor, device=device, driver=driver, driver_version=version))
    return tuple(found)


def _devicetree(path: Path) -> tuple[str, ...]:
    return tuple(name for name in _text(path).split("\0") if name)


def _dmi(folder: Path) -> dict[str, str]:
    found = {name: _text(folder / name).strip() for name in _DMI}
    return {name: value for name, value in found.items() if value}


def _engines(*, ask: bool) -> tuple[EngineFact, ...]:
    found = []
    for kind in _RUNTIMES:
        try:
            version = metadata.version(kind)
        except metadata.PackageNotFoundError:
            continue
        devices = _devices(kind) if ask else None
        found.append(EngineFact(kind=kind, version=version, devices=devices))
    return tuple(found)


def _devices(kind: str) -> tuple[str, ...]:
    if kind == "onnxruntime":
        import onnxruntime  # a runtime costs 40 MB: only when somebody asks

        return tuple(onnxruntime.get_available_providers())
    from bedside_edge.engine.openvino import available_devices  # as above

    return available_devices()
