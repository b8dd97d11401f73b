"""The launcher: outside of the slots, with the standard library alone."""

import ast
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from bedside_edge.store.database import Database
from bedside_edge.store.flashing import SqliteFlashing
from bedside_flash import launcher
from bedside_flash.launcher import EX_TEMPFAIL, EX_UNAVAILABLE, Launcher
from support.flash_house import FlashHouse
from support.ram import ram_folder
from support.repository import ROOT

# Stands for the software in a slot: says what it was asked and does as it is told
PROGRAM = """
import json, os, sqlite3, sys, time
state = sys.argv[sys.argv.index("--state") + 1]
with open(os.path.join(state, "said"), "a") as file:
    file.write(json.dumps([NAME, sys.argv[1:3]]) + "\\n")
if sys.argv[1] == "update" and ACT == "confirm":
    db = sqlite3.connect(os.path.join(state, "bedside.db"))
    (name,) = db.execute("SELECT name FROM flash_slots WHERE state = 'trial'").fetchone()
    db.execute("UPDATE flash_slots SET state = 'good', tries = 0 WHERE state = 'trial'")
    db.execute("UPDATE flash_pairs SET active = ? WHERE kind = 'app'", (name,))
    db.commit()
if sys.argv[1] == "update" and ACT == "hang":
    time.sleep(60)
if ACT == "crash":
    os._exit(9)
"""


@pytest.fixture
def house():
    with ram_folder() as folder:
        yield FlashHouse(folder)


def on_trial(house: FlashHouse, counter: int, act: str, seconds: int = 600) -> None:
    """An app in the idle slot, on trial, as the box leaves it before it restarts."""
    house.clock.jump(int(time.time() * 1000) - house.clock.now())
    service = house.open()
    program = f"NAME, ACT = {counter}, {act!r}\n{PROGRAM}".encode()
    files = {"site/bedside_edge/__init__.py": b"", "site/bedside_edge/__main__.py": program}
    manifest = house.package(counter, files, kind="app", name="bedside")
    assert service.install(manifest).state == "restart"
    house.database.write(
        lambda c: (
            c.execute(
                "UPDATE flash_slots SET deadline = ? WHERE state = 'trial'",
                (int(time.time()) + seconds,),
            )
            and None
        )
    )
    house.close()


def launch(house: FlashHouse) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "bedside_flash.launcher", "--state", str(house.folder), "--http"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(house: FlashHouse) -> list:
    path = house.folder / "said"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_it_imports_the_standard_library_only():
    tree = ast.parse((ROOT / "firmware_scripts/bedside_flash/launcher.py").read_text())
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert names <= sys.stdlib_module_names


def test_software_that_confirms_itself_is_started_from_then_on(house):
    on_trial(house, 1, "confirm")
    assert launch(house).returncode == 0
    assert said(house) == [[1, ["update", "confirm"]], [1, ["serve", "--state"]]]
    assert Launcher(house.folder, None).rows().active == "a"
    on_trial(house, 2, "crash")
    launch(house)
    assert said(house)[2:] == [[2, ["update", "confirm"]]] * 3 + [[1, ["serve", "--state"]]]
    house.open()  # the box tells the log what the launcher did
    step = house.store.steps()[0]
    assert (step.what, step.reason, step.actor) == ("bad", "tries-used-up", launcher.ACTOR)
    assert step.entry >= 0
    house.close()


def test_software_that_hangs_falls_back_when_its_time_is_up(house):
    on_trial(house, 1, "hang", seconds=1)
    choosing = Launcher(house.folder, None)
    rows = choosing.settle()
    assert (rows.trial, rows.serving) == (None, None)
    assert choosing.environment(rows.serving).get("PYTHONPATH") == os.environ.get("PYTHONPATH")
    house.open()
    assert house.store.pair("app").a.reason == "not-confirmed-in-time"
    house.close()


def test_a_start_is_charged_before_anything_runs(house, monkeypatch):
    on_trial(house, 1, "crash")
    choosing = Launcher(house.folder, None)
    seen = []
    monkeypatch.setattr(
        choosing, "_try", lambda slot, seconds: seen.append(choosing.rows().trial.tries)
    )
    choosing.settle()
    assert seen == [2, 1, 0]


def test_what_is_no_longer_permitted_is_not_started(house):
    service = house.open()
    assert service.pairs() == []
    house.database.write(
        lambda c: c.execute("INSERT INTO flash_pairs (kind, lowest) VALUES ('app', 4)") and None
    )
    house.close()
    done = launch(house)
    assert done.returncode == EX_UNAVAILABLE
    assert "may still serve" in done.stderr


def test_a_box_that_was_never_flashed_is_what_it_came_with(tmp_path):
    assert Launcher(tmp_path, None).settle().serving is None
    (tmp_path / "bedside.db").write_bytes(b"no database" * 100)
    assert Launcher(tmp_path, None).rows().slots == {}


def test_a_folder_in_use_is_left_alone(house):
    import fcntl

    (house.folder / "lock").touch()
    with (house.folder / "lock").open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert launch(house).returncode == EX_TEMPFAIL


def test_launcher_and_store_write_the_same_rows(house):
    on_trial(house, 3, "crash")
    choosing = Launcher(house.folder, None)
    slot = choosing.rows().trial
    choosing.charge(slot)
    choosing.give_up(slot, "tries-used-up", 1_900_000_000)
    database = Database(house.folder / "bedside.db")
    pair = SqliteFlashing(database, house.record).pair("app")
    assert (pair.a.state, pair.a.tries, pair.a.deadline) == ("bad", 0, 0)
    database.close()
    with closing(sqlite3.connect(house.folder / "bedside.db")) as db:
        assert db.execute("SELECT count(*) FROM flash_steps WHERE entry IS NULL").fetchone() == (1,)


def test_the_dry_run_changes_nothing(house, capsys):
    on_trial(house, 1, "crash")
    before = Path(house.folder / "bedside.db").read_bytes()
    assert launcher.main(["--state", str(house.folder), "--dry-run"]) == 0
    assert "trial a, serves what the box came with" in capsys.readouterr().err
    assert Path(house.folder / "bedside.db").read_bytes() == before


def test_a_start_that_cannot_be_charged_is_not_given_and_the_box_starts(house, monkeypatch):
    """A full disk, a folder mounted read-only: what served before serves."""
    on_trial(house, 1, "confirm")
    opened = Launcher._open

    def read_only(self) -> sqlite3.Connection:
        db = opened(self)
        db.execute("PRAGMA query_only = ON")
        return db

    monkeypatch.setattr(Launcher, "_open", read_only)
    for deadline in (int(time.time()) + 600, 1):  # to be charged; to be given up
        with closing(sqlite3.connect(house.folder / "bedside.db")) as db, db:
            db.execute("UPDATE flash_slots SET deadline = ? WHERE state = 'trial'", (deadline,))
        rows = Launcher(house.folder, None).settle()
        assert (rows.trial.name, rows.trial.tries, rows.serving) == ("a", 3, None)
    assert said(house) == []


def test_rows_that_cannot_be_read_now_start_nothing(house, monkeypatch):
    """Else a box whose older software is forbidden would start just that."""
    house.open()
    house.close()
    monkeypatch.setattr(sqlite3, "connect", _impatient(sqlite3.connect))
    with closing(sqlite3.connect(house.folder / "bedside.db", isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN EXCLUSIVE")
        assert launcher.main(["--state", str(house.folder)]) == EX_TEMPFAIL


def _impatient(connect):
    return lambda *words, **named: connect(*words, **named | {"timeout": 0.1})


def test_a_clock_set_back_makes_no_trial_longer(house, monkeypatch):
    on_trial(house, 1, "hang")
    choosing, seen = Launcher(house.folder, None), []
    monkeypatch.setattr(choosing, "_try", lambda slot, seconds: seen.append(seconds))
    now = time.time() - 366 * 86_400
    monkeypatch.setattr(launcher.time, "time", lambda: now)
    choosing.settle()
    assert len(seen) == 3
    assert max(seen) <= 601
