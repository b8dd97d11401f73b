"""The unit's system call filter lets a serving box do everything it does, as the kernel saw it."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time

import httpx
import pytest

from bedside_core.access import PERSONS_ONLY, Action
from bedside_edge.config import load_config
from bedside_edge.services.access import CONSOLE
from bedside_edge.state_folder import offline_access
from support.chest import chest
from support.repository import ROOT
from support.running_box import part10

pytestmark = pytest.mark.slow

UNIT = ROOT / "firmware_scripts" / "systemd" / "bedside.service"
# SQLite gives a new file the owner of its database, and only when it runs as root
AS_ROOT_ONLY = {"fchown"}
READY_S = 90.0


def members(name):
    """Return the system calls a filter name stands for, groups opened."""
    done = subprocess.run(
        [shutil.which("systemd-analyze"), "syscall-filter", name],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    found = set()
    for line in done.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= members(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return found


def permitted():
    """Return what the unit's SystemCallFilter lines leave, in their order."""
    allowed = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.M):
        words = line.removeprefix("~").split()
        named = {call for word in words for call in (members(word) if word[0] == "@" else {word})}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def test_a_box_that_serves_and_reads_makes_no_call_that_the_unit_forbids(tmp_path):
    missing = [n for n in ("strace", "systemd-analyze") if shutil.which(n) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    config, state, ready = tmp_path / "bedside.toml", tmp_path / "state", tmp_path / "ready"
    config.write_text("")
    with offline_access(load_config(config)[0], state) as access:
        token = access.create_token("test", set(Action) - PERSONS_ONLY, CONSOLE)[1]
    summary = tmp_path / "calls"
    words = [shutil.which("strace"), "-f", "-c", "-S", "name", "-o", str(summary)]
    words += [sys.executable, "-m", "bedside_edge", "serve", "--config", str(config)]
    words += ["--state", str(state), "--ready-file", str(ready)]
    words += ["--http-port", "0", "--dicom-port", "0"]
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait, 60)
        stack.callback(process.terminate)
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        box = json.loads(ready.read_text())
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/dicom"}
        answer = httpx.post(
            f"{box['http']}/api/v1/studies:analyze",
            content=part10(chest(1)),
            headers=headers | {"Prefer": "wait=60"},
            timeout=90,
        )
        assert answer.status_code == 200, answer.text
        subprocess.run([shutil.which("kill"), "-TERM", str(box["pid"])], check=True)
        process.wait(60)
    used = {line.split()[-1] for line in summary.read_text().splitlines()[2:] if line.strip()}
    used = {name for name in used if re.fullmatch(r"[a-z0-9_]+", name)} - {"total"}
    assert {"openat", "futex", "accept4", "fdatasync"} <= used
    assert used - permitted() <= AS_ROOT_ONLY
    assert "mount" not in permitted()
