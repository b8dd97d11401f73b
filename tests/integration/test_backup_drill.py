"""Backups for the hospital's recipient, and drills that find out whether one brings a box back."""

import json
import shutil

import pytest
from click.testing import CliRunner

from bedside_core.errors import InvalidBackupError, InvalidInputError
from bedside_core.evidence.entry import Kind
from bedside_edge.cli import cli
from bedside_edge.services.drills import DrillWatch
from bedside_edge.store import drills
from bedside_edge.store.drills import DrillReport, Drills
from bedside_edge.system import age_files, backup_age, key_export
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.erasing import fill, opened, search, secrets_of
from support.fake_clock import FakeClock

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("box") / "state"
    with opened(folder) as state:
        ids = fill(state), fill(state, "PATIENT-2", "1.2.840.66666")
    return folder, ids


@pytest.fixture
def box(filled, tmp_path):
    shutil.copytree(filled[0], tmp_path / "state")
    return tmp_path / "state", filled[1]


@pytest.fixture
def age(tmp_path):
    secret, recipient = age_files.make_identity()
    path = tmp_path / "recovery.txt"
    path.write_text(f"# created: today\n# public key: {recipient}\n{secret}\n")
    return path, recipient


def run(*words, code=0):
    answer = CliRunner().invoke(cli, [str(word) for word in words])
    if code == 0 and answer.exception and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer


def newest(folder, kind=Kind.REPORT):
    with opened(folder) as state:
        return [kept.entry.refs for kept in state.evidence.newest(limit=5, kinds=[kind])]


def test_a_backup_for_a_recipient_shows_nothing_and_comes_back(box, age, tmp_path):
    folder, (one, two) = box
    identity, recipient = age
    copy, export, new = tmp_path / "copies" / "box.age", tmp_path / "box.keys", tmp_path / "new"
    copy.parent.mkdir()
    run("backup", "create", copy, "--recipient", recipient, "--state", folder)
    run("backup", "keys", export, "--recipient", recipient, "--state", folder)
    assert [path.name for path in copy.parent.iterdir()] == ["box.age"]
    with opened(folder) as state:
        secrets = secrets_of(state, folder, one)
    assert search(copy.parent, secrets) == set()
    assert b"objects" not in copy.read_bytes()
    new.mkdir()
    words = ("--keys", export, "--state", new)
    refused = run("backup", "restore", copy, *words, code=4)
    assert isinstance(refused.exception, InvalidInputError)
    run("backup", "restore", copy, "--identity", identity, *words)
    with opened(new) as state:
        assert len(state.studies.instances(one)) == len(state.studies.instances(two)) == 2
    assert not list(new.glob(".backup-*"))


def test_changed_cut_and_foreign_files_are_refused_and_leave_nothing(box, age, tmp_path):
    folder, _ = box
    (path, recipient) = age
    source = tmp_path / "plain"
    source.mkdir()
    (source / "big").write_bytes(bytes(300_000))
    target = tmp_path / "x.age"
    backup_age.pack(source, target, recipient)
    identity = age_files.read_identity(path)
    backup_age.unpack(target, tmp_path / "good", identity)
    assert (tmp_path / "good" / "big").read_bytes() == bytes(300_000)
    data = target.read_bytes()
    flipped = bytearray(data)
    flipped[150_000] ^= 1
    for number, wrong in enumerate((data[:200_000], bytes(flipped), b"", data + b"x")):
        target.write_bytes(wrong)
        with pytest.raises(InvalidBackupError):
            backup_age.unpack(target, tmp_path / f"bad-{number}", identity)
        assert list((tmp_path / f"bad-{number}").iterdir()) == []
    target.write_bytes(data)
    with pytest.raises(InvalidBackupError):
        backup_age.unpack(target, tmp_path / "foreign", age_files.make_identity()[0])
    with pytest.raises(InvalidBackupError, match="exists"):
        backup_age.pack(source, target, recipient)
    with pytest.raises(InvalidInputError):
        backup_age.pack(source, tmp_path / "y.age", "age1nobody")
    with pytest.raises(InvalidInputError):
        key_export.export_for(folder / "keys", "age1nobody")


def test_a_drill_restores_checks_removes_and_is_in_the_log(box, age, tmp_path):
    folder, (one, _) = box
    identity, recipient = age
    copy, export = tmp_path / "box.age", tmp_path / "box.keys"
    run("backup", "create", copy, "--recipient", recipient, "--state", folder)
    run("backup", "keys", export, "--recipient", recipient, "--state", folder)
    before = {path.name for path in folder.iterdir()}
    words = ("--keys", export, "--identity", identity, "--state", folder)
    told = json.loads(run("backup", "drill", copy, *words, "--json").output)
    assert (told["outcome"], told["keys"], told["recorded"]) == ("passed", "export", True)
    assert told["objects"] == 6
    assert told["opened"] == 4
    assert told["entries"] > 0
    made = {path.name for path in folder.iterdir()} - before
    assert {name for name in made if not name.startswith("privacy.counter")} == {"drills"}
    assert list((folder / "drills").iterdir()) == []
    (refs,) = newest(folder)
    assert (refs["what"], refs["outcome"], refs["objects"]) == ("restore-drill", "passed", 6)

    run("erase", "study", one, "--yes", "--state", folder)
    again = run("backup", "drill", copy, "--identity", identity, "--state", folder, "--json")
    told = json.loads(again.output)
    assert (told["outcome"], told["keys"], told["erasures"]) == ("passed", "box", 1)


def test_a_drill_of_a_damaged_backup_fails_and_that_is_in_the_log(box, tmp_path):
    folder, _ = box
    copy = tmp_path / "copy"
    run("backup", "create", copy, "--state", folder)
    path = next(copy.glob("objects/*/*"))
    content = bytearray(path.read_bytes())
    path.unlink()  # a hard link of the box's own
    content[-1] ^= 1
    path.write_bytes(content)
    done = run("backup", "drill", copy, "--state", folder, code=3)
    assert done.exit_code == 3
    assert "invalid-backup" in done.output
    (refs,) = newest(folder)
    assert (refs["outcome"], refs["objects"]) == ("invalid-backup", 0)


def test_a_running_box_takes_the_report_and_a_forged_one_is_dropped(box, tmp_path):
    folder, _ = box
    report = DrillReport(
        at=1, made=0, outcome="passed", objects=0, opened=0, entries=0, erasures=0, keys="box"
    )
    mac = open_box_keys(folder / "keys", OsRandom(), create=False)
    with opened(folder) as state:  # it runs
        copy = tmp_path / "copy"
        run("backup", "create", copy, "--state", folder)
        done = run("backup", "drill", copy, "--state", folder)
        assert "records it soon" in done.output
        forged = drills.leave(folder, report, mac)
        body = json.loads(forged.read_text()) | {"objects": 1000}
        forged.write_text(json.dumps(body))
        (folder / "drills" / "torn.json").write_text("{")
        watch = DrillWatch(
            Drills(state.database, state.keys, state.record, folder), FakeClock(), days=0
        )
        assert watch.step() is False
        (kept,) = state.evidence.newest(limit=5, kinds=[Kind.REPORT])
        assert kept.entry.refs["outcome"] == "passed"
        assert kept.entry.refs["objects"] == 6
    assert list((folder / "drills").iterdir()) == []


def test_a_missing_drill_is_an_alarm_once_in_the_period(box):
    folder, _ = box
    with opened(folder) as state:
        held = Drills(state.database, state.keys, state.record, folder)
        first = 1_000 * DAY_MS
        assert not held.overdue(first, 90)  # counted from the first look on
        assert not held.overdue(first + 90 * DAY_MS - 1, 90)
        assert held.overdue(first + 90 * DAY_MS, 90)
        assert not held.overdue(first + 91 * DAY_MS, 90)
        assert held.overdue(first + 180 * DAY_MS, 90)
        report = DrillReport(
            at=first + 181 * DAY_MS,
            made=0,
            outcome="passed",
            objects=0,
            opened=0,
            entries=0,
            erasures=0,
            keys="box",
        )
        drills.leave(folder, report, state.keys)
        assert held.take() == 1
        assert not held.overdue(first + 270 * DAY_MS, 90)
        assert held.overdue(first + 271 * DAY_MS, 90)
        alarms = state.evidence.newest(limit=9, kinds=[Kind.ALARM])
        assert [kept.entry.refs["what"] for kept in alarms] == ["drill-overdue"] * 3
