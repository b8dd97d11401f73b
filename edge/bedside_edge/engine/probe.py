"""What this machine is: the facts a hardware profile is matched against."""

import os
import platform
from pathlib import Path

from bedside_core.profile import Board

_MIB = 1 << 20


def probe(root: Path = Path("/")) -> Board:
    """Return the board as Linux describes it under `root` (another folder in tests).

    Limits of a container count: a quota of one CPU is one core, whatever the machine has.
    """
    vendor, flags = _cpu(_text(root / "proc/cpuinfo"))
    return Board(
        arch=platform.machine(),
        cpu_vendor=vendor,
        cpu_flags=flags,
        cores=_cores(_text(root / "sys/fs/cgroup/cpu.max")),
        memory_mib=_memory(_text(root / "proc/meminfo"), _text(root / "sys/fs/cgroup/memory.max")),
        product=_text(root / "sys/class/dmi/id/product_name").strip(),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # a file this kernel or container does not show: that fact is unknown
        return ""


def _cpu(cpuinfo: str) -> tuple[str, frozenset[str]]:
    vendor, flags = "", None
    for line in cpuinfo.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "vendor_id" and not vendor:
            vendor = value
        if key in ("flags", "Features"):
            # Cores may differ (big and little): only what all of them have can be relied on.
            these = frozenset(value.split())
            flags = these if flags is None else flags & these
    return vendor, flags or frozenset()


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
