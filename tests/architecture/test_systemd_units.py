"""The shipped units: systemd reads them without a word, and rates them as hardened."""

import re
import shutil
import subprocess

import pytest

from support.repository import ROOT

UNITS = ROOT / "firmware_scripts" / "systemd"
SERVICES = ("bedside.service", "bedside-hub.service")
MOST_EXPOSED = 2.5


def tool(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"not installed: {name} (Debian package systemd)")
    return found


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", SERVICES)
def test_systemd_reads_the_unit_without_a_warning(name, tmp_path):
    """The programs are not installed here, so a copy names one that is."""
    text = (UNITS / name).read_text()
    copy = tmp_path / name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M))
    done = run(tool("systemd-analyze"), "verify", str(copy))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    copy.write_text(copy.read_text().replace("[Service]", "[Service]\nNoSuchSetting=1"))
    assert "NoSuchSetting" in run(tool("systemd-analyze"), "verify", str(copy)).stderr


@pytest.mark.parametrize("name", SERVICES)
def test_the_unit_is_hardened_as_systemd_rates_it(name):
    done = run(tool("systemd-analyze"), "security", "--offline=true", str(UNITS / name))
    rated = float(re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)[1])
    assert rated <= MOST_EXPOSED


def test_the_box_is_watched_and_cannot_flood_or_dump():
    text = (UNITS / "bedside.service").read_text()
    wanted = (
        "Type=notify NotifyAccess=main WatchdogSec=30 Restart=on-failure StartLimitBurst=5 "
        "TimeoutStartSec=300 ProtectSystem=strict ProtectClock=yes DevicePolicy=closed "
        "LimitCORE=0 UMask=0077 OOMPolicy=stop StateDirectory=bedside"
    )
    for line in wanted.split():
        assert f"\n{line}\n" in text
    assert "\nMemoryDenyWriteExecute" not in text  # OpenVINO's CPU engine cannot compile under it


def test_users_and_folders_are_made_closed(tmp_path):
    for folder in ("etc", "var/lib"):
        (tmp_path / folder).mkdir(parents=True)
    done = run(
        tool("systemd-sysusers"), f"--root={tmp_path}", str(UNITS / "sysusers.d" / "bedside.conf")
    )
    assert done.returncode == 0, done.stderr
    users = (tmp_path / "etc" / "passwd").read_text()
    assert re.search(r"^bedside:x:\d+:\d+:.*:/usr/sbin/nologin$", users, re.M)
    assert re.search(r"^tss:x:\d+:bedside$", (tmp_path / "etc" / "group").read_text(), re.M)
