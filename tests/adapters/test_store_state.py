"""The state folder as a whole: one process, one key, nothing plain, and refusal when in doubt."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bedside_core.errors import DamagedObjectError, StoreUnavailableError
from bedside_edge.ports import Outcome
from bedside_edge.store.state import State, open_state
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.state_houses import ANY_DISK, T0, arrival, sealed


def open_at(path: Path) -> State:
    return open_state(path, SystemClock(), OsRandom(), open_box_keys, disk=ANY_DISK)


def abandon(state: State) -> None:
    """Let go of the folder as a killed process does: nothing marked as closed in order."""
    state.objects.flush()
    state.database.close()
    os.close(state.lock)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state with one filed study and one result."""
    state = open_at(tmp_path / "state")
    filed = state.studies.file([arrival(state, data=b"pixels " * 1000)])[0]
    state.jobs.complete(filed.study_id, T0)
    job = state.jobs.lease(T0)
    assert job is not None
    state.jobs.finish(job, Outcome(refused=False, reason="", body=b'{"name":"Ada"}'), T0)
    state.close()
    return tmp_path / "state"


def test_no_identifier_uid_pixel_or_result_is_plain_anywhere_in_the_folder(tmp_path):
    state = open_at(tmp_path / "state")
    secrets = ["PATIENT-4711", "1.2.840.55555.1", "1.2.840.55555", "Muster^Ada", "PIXELPIXEL"]
    sent = arrival(
        state,
        secrets[1],
        study=secrets[2],
        patient=secrets[0],
        data=b"PIXELPIXEL" * 300_000,
    )
    filed = state.studies.file([sent])[0]
    state.jobs.complete(filed.study_id, T0)
    job = state.jobs.lease(T0)
    assert job is not None
    body = b'{"patient":"PATIENT-4711","probability":0.75}'
    state.jobs.finish(job, Outcome(refused=False, reason="", body=body), T0)
    secrets += ["0.75", sent.sealed.digest, sent.sealed.digest.encode().hex()]

    def leaks() -> set[tuple[str, str]]:
        found = set()
        for path in (tmp_path / "state").rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            text = str(path).encode() + content
            for secret in secrets:
                forms = [
                    secret.encode(),
                    secret.encode("utf-16-le"),
                    secret.encode().hex().encode(),
                ]
                if any(form in text for form in forms):
                    found.add((path.name, secret))
        return found

    assert (tmp_path / "state" / "bedside.db-wal").stat().st_size > 0
    assert leaks() == set()
    state.close()
    assert leaks() == set()
    (tmp_path / "state" / "objects" / "note").write_text("Muster^Ada")
    assert leaks() == {("note", "Muster^Ada")}  # the search itself can fail


def test_every_file_and_folder_is_closed_to_everyone_else(tmp_path):
    old = os.umask(0)
    try:
        state = open_at(tmp_path / "state")
        state.studies.file([arrival(state)])
        for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]:
            assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path
        state.close()
    finally:
        os.umask(old)


def test_a_second_process_is_refused_until_the_first_has_closed(tmp_path):
    state = open_at(tmp_path / "state")
    script = (
        "import sys; from pathlib import Path\n"
        "from bedside_edge.store.state import open_state\n"
        "from bedside_edge.system.clock import SystemClock\n"
        "from bedside_edge.system.keys import open_box_keys\n"
        "from bedside_edge.system.random_os import OsRandom\n"
        "open_state(Path(sys.argv[1]), SystemClock(), OsRandom(), open_box_keys).close()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "state")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "StoreUnavailableError: another process has the state folder open" in refused.stderr
    state.close()
    subprocess.run(command, check=True)


def test_a_missing_key_is_never_replaced(folder):
    (folder / "keys" / "box.key").unlink()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="box key is missing"):
            open_at(folder)
    assert not (folder / "keys" / "box.key").exists()
    shutil.rmtree(folder / "keys")
    with pytest.raises(StoreUnavailableError, match="box key is missing"):
        open_at(folder)


def test_the_key_of_another_box_is_refused(folder, tmp_path):
    open_at(tmp_path / "other").close()
    shutil.copy(tmp_path / "other" / "keys" / "box.key", folder / "keys" / "box.key")
    with pytest.raises(StoreUnavailableError, match="does not belong"):
        open_at(folder)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_touch_is_refused(folder, mode):
    (folder / "keys" / "box.key").chmod(mode)
    with pytest.raises(StoreUnavailableError, match="closed to all others"):
        open_at(folder)


def test_a_key_folder_that_others_may_enter_is_refused(folder):
    (folder / "keys").chmod(0o750)
    with pytest.raises(StoreUnavailableError, match="closed to all others"):
        open_at(folder)


def test_a_key_behind_a_link_is_refused(folder):
    key = folder / "keys" / "box.key"
    key.rename(folder / "elsewhere")
    key.symlink_to(folder / "elsewhere")
    with pytest.raises(StoreUnavailableError):
        open_at(folder)


def test_a_damaged_key_is_refused(folder):
    key = folder / "keys" / "box.key"
    whole = key.read_bytes()
    flipped = bytes([whole[20] ^ 1])  # of random bytes one in 256 is any given letter already
    for damaged in (b"", whole[:-1], whole + b"x", whole[:20] + flipped + whole[21:]):
        key.write_bytes(damaged)
        with pytest.raises(StoreUnavailableError, match="damaged"):
            open_at(folder)
    key.write_bytes(whole)
    open_at(folder).close()


def test_a_lost_database_does_not_cost_the_objects(folder):
    for path in folder.glob("bedside.db*"):
        path.unlink()
    before = sorted((folder / "objects").rglob("*"))
    with pytest.raises(StoreUnavailableError, match="restore the database"):
        open_at(folder)
    assert sorted((folder / "objects").rglob("*")) == before


def test_a_refused_folder_can_be_opened_once_it_is_right_again(folder):
    (folder / "keys").chmod(0o750)
    with pytest.raises(StoreUnavailableError):
        open_at(folder)
    (folder / "keys").chmod(0o700)
    open_at(folder).close()


def test_a_crash_leaves_nothing_that_no_row_names(folder):
    state = open_at(folder)
    assert state.swept == 0
    filed = state.studies.file([arrival(state, "1.2.3.7", data=b"kept")])[0]
    sealed(state, b"sealed, never filed")
    state.objects.create().write(b"x" * 2_000_000)
    abandon(state)
    state = open_at(folder)
    assert state.swept == 2
    assert set(state.objects.names()) == state.studies.object_names()
    assert list((folder / "objects" / "tmp").iterdir()) == []
    held = state.studies.instances(filed.study_id)[-1]
    assert state.objects.read(held.object_name, held.object_key) == b"kept"
    state.close()
    state = open_at(folder)
    assert state.swept == 0
    state.close()


def test_an_interrupted_job_is_put_back_when_the_folder_is_opened(folder):
    state = open_at(folder)
    filed = state.studies.file([arrival(state, "9.1", study="9")])[0]
    state.jobs.complete(filed.study_id, T0)
    assert state.jobs.lease(T0) is not None
    abandon(state)
    state = open_at(folder)
    assert state.recovered == 1
    state.close()


def test_a_wrapped_key_moved_to_another_study_opens_nothing(folder):
    state = open_at(folder)
    other = state.studies.file([arrival(state, "9.1", study="9")])[0]
    state.close()
    state = open_at(folder)  # nothing is held unwrapped any more
    state.database.write(
        lambda c: c.execute(
            "UPDATE studies SET data_key = (SELECT data_key FROM studies WHERE study_id <> ?1)"
            " WHERE study_id = ?1",
            (other.study_id,),
        )
    )
    with pytest.raises(DamagedObjectError):
        state.studies.instances(other.study_id)
    state.close()


def test_erasing_a_study_key_erases_the_study_and_nothing_else(folder):
    state = open_at(folder)
    (job,) = state.jobs.jobs()
    other = state.studies.file([arrival(state, "9.1", study="9", data=b"stays")])[0]
    state.close()
    state = open_at(folder)
    state.database.write(
        lambda c: c.execute("UPDATE studies SET data_key = x'' WHERE study_id = ?", (job.study_id,))
    )
    for gone in (
        lambda: state.studies.instances(job.study_id),
        lambda: state.jobs.result(job.result_id),
    ):
        with pytest.raises(DamagedObjectError):
            gone()
    (held,) = state.studies.instances(other.study_id)
    assert state.objects.read(held.object_name, held.object_key) == b"stays"
    state.close()
