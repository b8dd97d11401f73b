"""What surrounds an engine: memory, heat, power mode and the disk, read from the system.

Reads only: nothing here sets a mode or a limit.
"""

import os
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from bedside_core.hardware.acceptance import Surroundings
from bedside_core.hardware.profile import Power, Profile
from bedside_edge.engine.probe import thermal_zones

_SYNCS: Final = 9
_TOOL_S: Final = 10.0
_MIB: Final = 1 << 20


def surroundings(profile: Profile, state: Path | None, root: Path = Path("/")) -> Surroundings:
    """Return what is measured beside the runs of the golden cases.

    Args:
        profile: says which zones and which power tool count.
        state: the state folder, whose disk is tried; None: no disk.
        root: where `proc` and `sys` are.
    """
    mode, watts = power_state(profile.power, root)
    return Surroundings(
        rss_mib=resident_mib(),
        sync_ms=None if state is None else sync_ms(state),
        free_mib=None if state is None else shutil.disk_usage(state).free // _MIB,
        power_mode=mode,
        power_watts=watts,
        temperature_c=temperature_c(profile.limits.thermal_zones, root),
    )


def resident_mib() -> int:
    """Return the resident memory of this process in MiB."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") // _MIB


def temperature_c(wanted: Collection[str], root: Path = Path("/")) -> float | None:
    """Return the warmest of the zones in degrees Celsius; None when no such zone can be read."""
    found = []
    for zone in thermal_zones(root):
        try:
            kind, raw = (zone / "type").read_text().strip(), (zone / "temp").read_text()
            if not wanted or kind in wanted:
                found.append(int(raw) / 1000)
        except (OSError, ValueError):  # a zone that went to sleep between two reads
            continue
    return max(found, default=None)


def sync_ms(folder: Path) -> float:
    """Return the median time in ms in which the folder's disk makes 4 KiB durable."""
    path = folder / ".sync-probe"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append((time.perf_counter() - begun) * 1000)
    path.unlink()
    return round(statistics.median(times), 2)


def power_state(power: Power, root: Path = Path("/")) -> tuple[str | None, int | None]:
    """Return the mode and the limit in watts as the profile's tool tells them."""
    if power.tool == "cpufreq":
        governors = {
            path.read_text().strip()
            for path in (root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_governor")
        }
        return ",".join(sorted(governors)) or None, None
    if power.tool == "nvpmodel":
        found = re.search(r"NV Power Mode: (\S+)", _ask("nvpmodel", "-q"))
        return (found[1] if found else None), None
    if power.tool == "nvidia-smi":
        told = _ask("nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits")
        found = re.match(r"\s*([0-9]+)(\.[0-9]+)?\s*$", told.partition("\n")[0])
        return None, int(found[1]) if found else None
    return None, None


def _ask(name: str, *arguments: str) -> str:
    program = shutil.which(name)
    if program is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603  a fixed name and fixed arguments
            [program, *arguments], capture_output=True, text=True, timeout=_TOOL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # it tells nothing: the mode is then unknown
        return ""
    return done.stdout
