"""The installer, for real: a release folder becomes a program that serves, again and away."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time

import httpx
import pytest

from support.repository import ROOT

pytestmark = pytest.mark.slow

LIBRARIES = sysconfig.get_path("purelib")
READY_S = 60.0
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "BEDSIDE", "VIRTUAL_ENV"))
}


def run(*words, code=0, env=CLEAN):
    done = subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    (wheel,) = folder.glob("*.whl")
    flash = (sys.executable, "-c", "from bedside_flash.cli import main; main()")
    run(*flash, "release", folder / "out", "--wheel", wheel)
    return folder / "out"


@pytest.fixture(scope="module")
def installed(release, tmp_path_factory):
    root = tmp_path_factory.mktemp("machine")
    told = install(release, root)
    assert "start it with" in told
    return root


def install(release, root, *words, code=0):
    python = {"PYTHON": sys.executable}
    options = ("--root", root, "--libraries", LIBRARIES, *words)
    return run(release / "install.sh", *options, code=code, env=CLEAN | python)


def tree(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def test_the_release_holds_what_an_install_needs_and_no_test_tool(release):
    names = {path.name for path in release.iterdir()}
    assert {"SHA256SUMS", "install.sh", "requirements.txt", "bedside.cdx.json", "systemd"} < names
    lock = (release / "requirements.txt").read_text()
    assert "\nnumpy==" in lock
    assert "--hash=sha256:" in lock
    assert not {"pytest==", "hypothesis==", "mypy=="} & set(lock.replace("==", "==\n").split())


def test_a_dry_run_says_every_step_and_changes_nothing(release, tmp_path):
    told = install(release, tmp_path / "dry", "--dry-run")
    assert "would run:" in told
    assert "-m venv" in told
    assert tree(tmp_path / "dry") == set()


def test_the_installed_program_serves(installed):
    program = installed / "opt" / "bedside" / "current" / "bin" / "bedside-edge"
    ready = installed / "ready.json"
    words = ("serve", "--config", installed / "etc" / "bedside" / "bedside.toml")
    words += ("--state", installed / "var" / "lib" / "bedside", "--ready-file", ready)
    words += ("--http-port", "0", "--dicom-port", "0")
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            [str(word) for word in (program, *words)],
            cwd=installed,
            env=CLEAN,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait, 30)
        stack.callback(process.kill)
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        told = json.loads(ready.read_text())
        assert httpx.get(f"{told['http']}/readyz").status_code == 200
        assert "/setup?link=" in told["setup"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_second_run_changes_nothing_and_keeps_the_settings(release, installed):
    settings = installed / "etc" / "bedside" / "bedside.toml"
    settings.write_text(settings.read_text() + "\n[log]\nlevel = 'warning'\n")
    before = {p: p.stat().st_mtime_ns for p in (installed / "opt").rglob("*") if p.is_file()}
    assert "is installed already" in install(release, installed)
    after = {p: p.stat().st_mtime_ns for p in (installed / "opt").rglob("*") if p.is_file()}
    assert {p for p in before if before[p] != after.get(p)} == set()
    assert "warning" in settings.read_text()
    assert (installed / "etc" / "systemd" / "system" / "bedside.service").is_file()


def test_an_interrupted_run_is_done_again(release, installed):
    (folder,) = (installed / "opt" / "bedside" / "releases").iterdir()
    (folder / ".complete").unlink()
    shutil.rmtree(folder / "bin")
    told = install(release, installed)
    assert "is installed already" not in told
    assert (installed / "opt" / "bedside" / "current" / "bin" / "bedside-hub").exists()


def test_a_damaged_release_and_libraries_that_are_not_locked_are_refused(release, tmp_path):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(release, spoilt)
    lock = spoilt / "requirements.txt"
    lock.write_text(lock.read_text().replace("pynng==0.9.0", "pynng==0.8.0"))
    assert "damaged" in install(spoilt, tmp_path / "a", code=1)
    assert tree(tmp_path / "a") == set()
    sums = spoilt / "SHA256SUMS"
    digest = run("sha256sum", lock).split()[0]
    lines = [line for line in sums.read_text().splitlines() if "requirements.txt" not in line]
    sums.write_text("\n".join([*lines, f"{digest}  requirements.txt", ""]))
    assert "pynng 0.9.0 is installed" in install(spoilt, tmp_path / "b", code=4)
    assert not (tmp_path / "b" / "opt" / "bedside" / "current").exists()


def test_uninstalling_leaves_settings_and_state(release, installed):
    kept = installed / "var" / "lib" / "bedside" / "kept"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("patients")
    assert "stay" in install(release, installed, "--uninstall")
    assert not (installed / "opt" / "bedside").exists()
    assert not (installed / "etc" / "systemd" / "system" / "bedside.service").exists()
    assert kept.read_text() == "patients"
    assert (installed / "etc" / "bedside" / "bedside.toml").exists()
