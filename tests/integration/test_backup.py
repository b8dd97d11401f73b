"""Backups: whole, without keys, checked, restored, and never a way back for what was erased."""

import json
import shutil

import pytest
from click.testing import CliRunner

from bedside_core.errors import InvalidBackupError, InvalidInputError, NotFoundError
from bedside_edge.cli import cli
from bedside_edge.ports.erasure import ErasureState
from bedside_edge.ports.sync import Caps
from bedside_edge.store import backup
from bedside_edge.system import key_export
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.erasing import fill, opened, search, secrets_of
from support.state_houses import T0

PASSPHRASE = "correct horse battery staple"  # noqa: S105


@pytest.fixture
def box(tmp_path):
    """A state folder with two studies; their ids."""
    with opened(tmp_path / "state") as state:
        ids = fill(state), fill(state, "PATIENT-2", "1.2.840.66666")
    return tmp_path / "state", ids


def keys_of(folder):
    return open_box_keys(folder / "keys", OsRandom(), create=False)


def run(*words, code=0, **more):
    answer = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False, **more)
    assert answer.exit_code == code, answer.output
    return answer.output


def test_a_backup_made_while_the_box_runs_is_whole_and_holds_no_key(box, tmp_path):
    folder, (study, _) = box
    target = tmp_path / "copy"
    with opened(folder) as state:
        secrets = secrets_of(state, folder, study)
        made = backup.create(folder, target, keys_of(folder), T0)
        fill(state, "PATIENT-3", "1.2.840.77777")  # goes on meanwhile
    assert (made.objects, made.gone) == (6, 0)
    assert backup.verify(target, keys_of(folder)) == made
    assert backup.verify(target) == made
    assert {p.name for p in target.iterdir()} == {
        "bedside.db",
        "manifest.json",
        "objects",
        "slots.journal",
    }
    plain = {w: v for w, v in secrets.items() if "wrapped" not in w and not w.startswith("header")}
    plain = {w: v for w, v in plain.items() if w != "result" and not w.startswith("uid hash")}
    assert search(target, plain) == set()


def test_a_backup_goes_into_an_empty_folder_outside_the_state(box, tmp_path):
    folder, _ = box
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for target in (tmp_path / "full", folder / "copy"):
        with pytest.raises(InvalidBackupError):
            backup.create(folder, target, keys_of(folder), T0)


@pytest.mark.parametrize("harm", ["object", "lost", "more", "database", "journal", "manifest"])
def test_every_change_of_a_backup_is_found(box, tmp_path, harm):
    folder, _ = box
    target = tmp_path / "copy"
    shutil.copytree(folder, tmp_path / "other")  # so that no hard link is changed
    backup.create(tmp_path / "other", target, keys_of(folder), T0)
    one = next(target.glob("objects/*/*"))
    if harm == "object":
        content = bytearray(one.read_bytes())
        content[-1] ^= 1
        one.write_bytes(content)
    elif harm == "lost":
        one.unlink()
    elif harm == "more":
        (one.parent / ("f" * 64)).touch()
    elif harm == "database":
        with (target / "bedside.db").open("ab") as file:
            file.write(b"x")
    elif harm == "journal":
        (target / "slots.journal").write_bytes(b"x")
    else:
        document = json.loads((target / "manifest.json").read_text())
        document["created"] += 1
        (target / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(InvalidBackupError):
        backup.verify(target, keys_of(folder))


def test_a_folder_without_a_manifest_is_no_backup(tmp_path):
    with pytest.raises(InvalidBackupError):
        backup.verify(tmp_path)


def test_an_export_of_keys_opens_with_its_passphrase_and_no_other(box):
    folder, _ = box
    data = key_export.export_keys(folder / "keys", PASSPHRASE, OsRandom())
    files = key_export.open_export(data, PASSPHRASE)
    assert files == {p.name: p.read_bytes() for p in (folder / "keys").iterdir()}
    assert not any(content in data for content in files.values() if content)
    wrong = [data[:-1], data + b"x", b"x" + data, b"", data.replace(b'"lanes": 4', b'"lanes": 5')]
    wrong.append(data.replace(b'"memory": 65536', b'"memory": 99999999'))
    for changed in wrong:
        with pytest.raises(InvalidBackupError):
            key_export.open_export(changed, PASSPHRASE)
    with pytest.raises(InvalidBackupError):
        key_export.open_export(data, PASSPHRASE + "x")
    with pytest.raises(InvalidInputError):
        key_export.export_keys(folder / "keys", "too short", OsRandom())
    with pytest.raises(InvalidBackupError):
        key_export.put_keys(folder / "keys", files | {"box.key": bytes(32)})


def test_drill_the_machine_is_lost_and_comes_back_from_backup_and_keys(box, tmp_path):
    folder, (one, two) = box
    phrase = tmp_path / "phrase"
    phrase.write_text(PASSPHRASE + "\n")
    copy, export, new = tmp_path / "copy", tmp_path / "box.keys", tmp_path / "new"
    run("backup", "create", copy, "--state", folder, "--json")
    run("backup", "keys", export, "--passphrase-file", phrase, "--state", folder)
    assert export.stat().st_mode & 0o077 == 0
    shutil.rmtree(folder)
    assert "whole" in run("backup", "verify", copy, "--state", new)
    words = ("--keys", export, "--passphrase-file", phrase, "--state", new)
    assert "6 objects restored, 0 erasures" in run("backup", "restore", copy, *words)
    with opened(new) as state:
        for study in (one, two):
            held = state.studies.instances(study)
            assert len(held) == 2
            assert state.objects.read(held[0].object_name, held[0].object_key)


@pytest.mark.parametrize("moved", [False, True])
def test_a_restored_box_spends_no_privacy_until_people_unlock_it(box, tmp_path, moved):
    """Nobody knows what was spent since the backup, except a counter that came along."""
    folder, _ = box
    copy, new = tmp_path / "copy", tmp_path / "new"
    run("backup", "create", copy, "--state", folder)
    new.mkdir(mode=0o700)
    shutil.copytree(folder / "keys", new / "keys")
    counters = ("privacy.counter", "privacy.counter.sync")
    for name in counters if moved else ():
        (new / name).write_bytes(b"")  # a counter of a box that has spent nothing
    said = run("backup", "restore", copy, "--state", new)
    assert ("privacy unlock" in said) is not moved
    with opened(new, privacy_counter=new / counters[0]) as state:
        assert state.ledger.locked() is not moved
        assert state.sync.set_back() is not moved
        if not moved:
            state.ledger.unlock("", "person:ada", "person:bert")
            state.sync.recover("person:ada", "person:bert", Caps(lifetime=10, day=6))
        assert not state.ledger.locked()
        assert not state.sync.set_back()


@pytest.mark.parametrize("survives", ["keys folder", "journal"])
def test_drill_an_erasure_between_backup_and_restore_is_applied_again(box, tmp_path, survives):
    folder, (one, two) = box
    phrase = tmp_path / "phrase"
    phrase.write_text(PASSPHRASE)
    copy, export, new = tmp_path / "copy", tmp_path / "box.keys", tmp_path / "new"
    with opened(folder) as state:
        secrets = secrets_of(state, folder, one)
    run("backup", "create", copy, "--state", folder)
    run("backup", "keys", export, "--passphrase-file", phrase, "--state", folder)
    run("erase", "study", one, "--yes", "--state", folder)
    if survives == "keys folder":  # the disk with database and objects is lost, the keys are not
        new.mkdir(mode=0o700)
        shutil.copytree(folder / "keys", new / "keys")
        words = ()
    else:  # all is lost but a copy of the journal
        journal = tmp_path / "journal"
        shutil.copy(folder / "keys" / "slots.journal", journal)
        words = ("--keys", export, "--passphrase-file", phrase, "--journal", journal)
    shutil.rmtree(folder)
    answer = run("backup", "restore", copy, *words, "--state", new, "--json")
    assert json.loads(answer) == {"objects": 6, "erased_again": 1, "budgets_locked": True}
    assert search(new, secrets) == set()
    with opened(new) as state:
        with pytest.raises(NotFoundError):
            state.studies.instances(one)
        assert len(state.studies.instances(two)) == 2
        (again,) = state.erasure.erasures()
        assert again.state is ErasureState.DONE


def test_nothing_is_restored_over_what_is_there_or_with_keys_of_another_box(box, tmp_path):
    folder, _ = box
    copy = tmp_path / "copy"
    backup.create(folder, copy, keys_of(folder), T0)
    with pytest.raises(InvalidBackupError, match="not empty"):
        backup.restore(copy, folder, keys_of(folder))
    with opened(tmp_path / "other") as state:
        fill(state)
    other = tmp_path / "bare"
    other.mkdir()
    shutil.copytree(tmp_path / "other" / "keys", other / "keys")
    with pytest.raises(InvalidBackupError):
        backup.restore(copy, other, keys_of(other))
    assert not (other / "bedside.db").exists()


def test_a_journal_of_other_slots_is_refused(box):
    folder, _ = box
    (folder / "keys" / "slots.journal").write_bytes(b"abc")
    with pytest.raises(InvalidBackupError):
        backup.take_journal(folder / "keys", b"abd")
    assert not backup.take_journal(folder / "keys", b"ab")
    assert backup.take_journal(folder / "keys", b"abcd")


def test_a_restore_may_be_tried_again_with_the_same_keys_and_no_others(tmp_path):
    files = {"box.key": b"one", "log.key": b"two"}
    key_export.put_keys(tmp_path / "keys", files)
    key_export.put_keys(tmp_path / "keys", files)  # the first copy was cut off; the second is whole
    for others in (files | {"box.key": b"other"}, files | {"more": b""}, {"box.key": b"one"}):
        with pytest.raises(InvalidBackupError, match="never replaced"):
            key_export.put_keys(tmp_path / "keys", others)
    assert {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()} == files
