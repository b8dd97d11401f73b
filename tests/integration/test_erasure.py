"""Erased means erased: nothing plain, no key, not in the folder and not in backups from before."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bedside_core.erasure import check_entry, list_digest, parse_certificate
from bedside_core.errors import (
    BedsideError,
    LegalHoldError,
    NotFoundError,
    NotPermittedError,
    StoreUnavailableError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind
from bedside_core.evidence.proof import parse_proof
from bedside_core.uses import Incident
from bedside_edge.cli import cli
from bedside_edge.ports import JobState, Outcome
from bedside_edge.ports.erasure import ErasureState
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.erasing import fill, opened, search, secrets_of
from support.ram import ram_folder
from support.state_houses import T0, arrival

STEPS = ("intend", "destroy", "fingerprint", "remove", "files", "scrub", "end")
DAY = 86_400_000


PLAIN = ("name", "patient", "uid", "pixels", "probability")


@pytest.fixture
def folder() -> Iterator[Path]:
    with ram_folder() as ram:  # what a power cut leaves is not asked here
        yield ram / "state"


def test_after_an_erasure_a_search_of_the_whole_folder_finds_nothing(folder):
    with opened(folder) as state:
        study_id = fill(state)
        kept = fill(state, "PATIENT-2", "1.2.840.66666")
        secrets = secrets_of(state, folder, study_id)
        assert not search(folder, {what: secrets[what] for what in PLAIN})
        assert search(folder, {"wrapped": secrets["wrapped data key"], "slot": secrets["slot"]})
        names = {i.object_name for i in state.studies.instances(study_id)}
        done = state.erasure.erase(
            state.erasure.plan_study(study_id), reason="request", actor="t:1"
        )
        assert done.state is ErasureState.DONE
        assert names <= {o.name for o in done.objects}
        assert len(done.objects) == 3
        assert search(folder, secrets) == set()
        with pytest.raises(NotFoundError):
            state.studies.instances(study_id)
        assert len(state.studies.instances(kept)) == 2
    assert search(folder, secrets) == set()
    with opened(folder) as state:
        assert len(state.studies.instances(kept)) == 2
        assert state.erasure.recover() == 0


def test_a_backup_from_before_does_not_open_with_the_living_keys(folder, tmp_path):
    with opened(folder) as state:
        study_id = fill(state)
        secrets = secrets_of(state, folder, study_id)
        backup = tmp_path / "backup"
        shutil.copytree(folder, backup, ignore=shutil.ignore_patterns("slots*"))
        state.database.copy_to(backup / "copy.db")
        keys = {what: value for what, value in secrets.items() if what in ("slot", "data key")}
        assert search(folder, keys) == {("slot", "slots")}
        subject = state.subjects.subject_of(study_id)
        state.erasure.erase(state.erasure.plan_subject(subject), reason="request", actor="t:1")
    unwrapped = {w: v for w, v in secrets.items() if "wrapped" not in w and w in (*PLAIN, *keys)}
    unwrapped |= {w: v for w, v in secrets.items() if w.startswith("object key")}
    assert search(backup, unwrapped) == set()
    # all there is: the old database and objects, the box key, and today's slots
    box_keys = open_box_keys(backup / "keys", OsRandom(), create=False)
    with sqlite3.connect(backup / "copy.db") as c:
        slot, wrapped = c.execute("SELECT slot, data_key FROM studies").fetchone()
    context = b"study " + study_id.encode()
    today = (folder / "keys" / "slots").read_bytes()
    assert today[slot * 32 : slot * 32 + 32] == bytes(32)
    for secret in {today[n : n + 32] for n in range(0, len(today), 32)}:
        with pytest.raises(BedsideError):
            box_keys.unwrap_with(secret, wrapped, b"slot %d " % slot + context)
    with pytest.raises(BedsideError):
        box_keys.unwrap(wrapped, context)


@pytest.mark.parametrize("scope", ["study", "subject"])
def test_a_restored_backup_is_erased_again_before_the_box_serves(folder, tmp_path, scope):
    with opened(folder) as state:
        study_id = fill(state)
        other = fill(state, "PATIENT-2", "1.2.840.66666")
        subject = state.subjects.subject_of(study_id)
        secrets = secrets_of(state, folder, study_id)
    backup = tmp_path / "backup"
    shutil.copytree(folder, backup)
    with opened(folder) as state:
        service = state.erasure
        plan = service.plan_study(study_id) if scope == "study" else service.plan_subject(subject)
        service.erase(plan, reason="request", actor="t:1")
    for name in ("slots", "slots.journal"):  # the living keys stay, everything else goes back
        shutil.copy(folder / "keys" / name, backup / "keys" / name)
    with opened(backup) as state:
        with pytest.raises(NotFoundError):
            state.studies.instances(study_id)
        assert len(state.studies.instances(other)) == 2
        (again,) = state.erasure.erasures()
        assert (again.reason, again.state) == ("restored", ErasureState.DONE)
        assert state.evidence.entry(again.entry).entry.kind is Kind.ERASURE
        assert search(backup, secrets) == set()
        if scope == "subject":
            with pytest.raises(NotFoundError):
                state.subjects.subject(subject)
        assert state.erasure.recover() == 0


def test_an_older_copy_of_the_slots_brings_nothing_back(folder, tmp_path):
    with opened(folder) as state:
        study_id = fill(state)
        kept = fill(state, "PATIENT-2", "1.2.840.66666")
        secrets = secrets_of(state, folder, study_id)
    shutil.copytree(folder / "keys", tmp_path / "keys")
    with opened(folder) as state:
        plan = state.erasure.plan_study(study_id)
        state.erasure.erase(plan, reason="request", actor="t:1")
    for name in ("slots", "slots.journal"):
        shutil.copy(tmp_path / "keys" / name, folder / "keys" / name)
    assert search(folder, {"slot": secrets["slot"]})
    with opened(folder) as state:
        assert search(folder, secrets) == set()
        assert len(state.studies.instances(kept)) == 2


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from support.erasing import open_at
state = open_at(Path({folder!r}))
def step(name):
    if name == {at!r}:
        os.kill(os.getpid(), signal.SIGKILL)
state.erasure._step = step
state.erasure.erase(state.erasure.plan_study({study!r}), reason="request", actor="t:1")
raise SystemExit("not killed")
"""


@pytest.mark.parametrize("at", STEPS)
def test_a_kill_after_any_step_is_made_good_when_the_folder_opens(folder, at):
    with opened(folder) as state:
        study_id = fill(state)
        secrets = secrets_of(state, folder, study_id)
        files = {i.object_name for i in state.studies.instances(study_id)}
    tests = str(Path(__file__).resolve().parents[1])
    code = KILLED.format(tests=tests, folder=str(folder), at=at, study=study_id)
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    with opened(folder) as state:
        (erasure,) = state.erasure.erasures()
        assert erasure.state is ErasureState.DONE
        assert {o.name for o in erasure.objects} >= files
        entries = [n for n in range(state.evidence.size()) if is_erasure(state, n)]
        assert entries == [erasure.entry]
        assert search(folder, secrets) == set()
        assert set(state.objects.names()) == set()


def is_erasure(state, index: int) -> bool:
    return state.evidence.entry(index).entry.kind is Kind.ERASURE


def test_the_certificate_is_bound_to_the_log_and_to_the_files(folder):
    with opened(folder) as state:
        study_id = fill(state)
        before = {
            i.object_name: state.objects.fingerprint(i.object_name)
            for i in state.studies.instances(study_id)
        }
        plan = state.erasure.plan_study(study_id)
        done = state.erasure.erase(plan, reason="withdrawal", actor="person:a")
        data = state.erasure.certificate(done.erasure_id).encode()
        keys = state.evidence.keys
    certificate = parse_certificate(data)
    assert {o.name: (o.sha256, o.size) for o in certificate.objects}.items() >= before.items()
    proof = parse_proof(certificate.proof.encode())
    entry = check_entry(certificate, proof.extra)
    assert entry.refs["destroyed"] == list_digest(certificate.objects)
    assert entry.actor == "person:a"
    assert keys
    for text in (study_id, "PATIENT", "1.2.840.55555"):
        assert text.encode() not in data


def test_a_certificate_waits_until_everything_is_gone(folder, monkeypatch):
    with opened(folder) as state:
        study_id = fill(state)
        with monkeypatch.context() as patch:
            patch.setattr(state.erasure._store, "scrub", lambda: False)
            plan = state.erasure.plan_study(study_id)
            with pytest.raises(StoreUnavailableError):
                state.erasure.erase(plan, reason="request", actor="t:1")
        (begun,) = state.erasure.erasures()
        assert begun.state is ErasureState.REMOVED
        with pytest.raises(WrongStateError):
            state.erasure.certificate(begun.erasure_id)
        assert state.erasure.finish() == 1
        assert parse_certificate(state.erasure.certificate(begun.erasure_id).encode())


def test_a_running_job_of_an_erased_study_ends_without_a_result(folder):
    with opened(folder) as state:
        sent = arrival(state)
        study_id = state.studies.file([sent])[0].study_id
        state.jobs.complete(study_id, T0)
        job = state.jobs.lease(T0)
        plan = state.erasure.plan_study(study_id)
        assert plan.open_jobs == 1
        state.erasure.erase(plan, reason="request", actor="t:1")
        for end in (
            lambda: state.jobs.finish(job, Outcome(refused=False, reason="", body=b"{}"), T0),
            lambda: state.jobs.fail(job, "engine-failed", T0),
        ):
            with pytest.raises(WrongStateError):
                end()
        assert state.jobs.lease(T0) is None


def test_waiting_deliveries_are_cancelled_and_what_went_out_is_named(folder):
    with opened(folder) as state:
        study_id = fill(state)
        (delivery,) = state.outputs.due("pacs", T0, 10)
        assert state.erasure.plan_study(study_id).elsewhere == ()
        state.outputs.attempt(delivery.delivery_id, T0)
        (sent,) = state.erasure.plan_study(study_id).elsewhere
        assert (sent.destination, sent.count, sent.arrived) == ("pacs", 1, False)
        state.outputs.delivered(delivery.delivery_id, T0)
        plan = state.erasure.plan_study(study_id)
        assert plan.elsewhere[0].arrived
        assert plan.elsewhere[0].objects == ("1.2.840.55555.99",)
        done = state.erasure.erase(plan, reason="request", actor="t:1")
        assert done.elsewhere[0].count == 1
        assert done.elsewhere[0].objects == ()
        assert state.outputs.due("pacs", T0, 10) == []
        assert state.outputs.deliveries() == []


def test_pages_that_were_rebuilt_keep_no_copy_of_what_was_in_them(folder):
    with opened(folder) as state:
        ids = [fill(state, f"PATIENT-{n}", f"1.2.840.{n}") for n in range(150)]
        queries = (
            "SELECT data_key FROM studies WHERE study_id = ?",
            "SELECT lookup FROM studies WHERE study_id = ?",
            "SELECT uid_hash FROM instances WHERE study_id = ?",
            "SELECT header FROM instances WHERE study_id = ?",
            "SELECT body FROM results WHERE study_id = ?",
        )
        gone, found = ids[::2], list[bytes]()
        for study_id in gone:
            for query in queries:
                for (value,) in state.database.read(
                    lambda c, q=query, s=study_id: c.execute(q, (s,)).fetchall()
                ):
                    found.append(value if isinstance(value, bytes) else value.encode())
        for study_id in gone[:5]:
            plan = state.erasure.plan_study(study_id)
            state.erasure.erase(plan, reason="request", actor="t:1")
        state.erasure.erase_batch(gone[5:], reason="administrative", actor="t:1")
        assert state.erasure.compact(always=True)
        held = b"".join(path.read_bytes() for path in folder.glob("bedside.db*"))
        assert len(found) == 75 * 7
        assert sum(value in held for value in found) == 0
        assert len(state.studies.instances(ids[1])) == 2


def test_a_study_that_comes_again_after_its_erasure_is_a_new_study(folder):
    with opened(folder) as state:
        first = fill(state)
        plan = state.erasure.plan_study(first)
        state.erasure.erase(plan, reason="request", actor="t:1")
        again = fill(state)
        assert again != first
        assert len(state.studies.instances(again)) == 2
        assert state.studies.alarms() == []


def test_an_instance_that_arrives_while_its_study_is_erased_is_not_lost(folder):
    with opened(folder) as state:
        first, new = fill(state), []

        def step(name):
            if name in ("intend", "destroy", "remove"):
                sent = arrival(
                    state,
                    "1.2.840.55555.1",
                    study="1.2.840.55555",
                    patient="PATIENT-4711",
                    data=name.encode(),
                )
                new.append(state.studies.file([sent])[0].study_id)

        state.erasure._step = step
        state.erasure.erase(state.erasure.plan_study(first), reason="request", actor="t:1")
        assert first not in new
        assert len(set(new)) == 1
        held = state.studies.instances(new[0])
        assert state.objects.read(held[0].object_name, held[0].object_key) == b"intend"
    with opened(folder) as state:
        assert len(state.studies.instances(new[0])) == 3


def test_a_legal_hold_stops_processing_and_forbids_erasure(folder):
    with opened(folder) as state:
        study_id = state.studies.file([arrival(state)])[0].study_id
        state.jobs.complete(study_id, T0)
        running = state.jobs.lease(T0)
        hold = state.holds.hold(
            study_id, reason="litigation", actor="person:a", review_at=T0 + 30 * DAY
        )
        with pytest.raises(WrongStateError):
            state.jobs.finish(running, Outcome(refused=False, reason="", body=b"{}"), T0)
        assert state.jobs.lease(T0 + DAY) is None
        assert state.erasure.plan_study(study_id).held == (study_id,)
        with pytest.raises(LegalHoldError):
            state.erasure.erase(state.erasure.plan_study(study_id), reason="request", actor="t:1")
        assert len(state.studies.instances(study_id)) == 1
        assert [h.hold_id for h in state.holds.overdue()] == [hold.hold_id]
        state.holds.release(hold.hold_id, actor="person:b")
        with pytest.raises(WrongStateError):
            state.holds.release(hold.hold_id, actor="person:b")
        assert state.jobs.lease(T0 + DAY).study_id == study_id
        assert [h.released_by for h in state.holds.holds(released=True)] == ["person:b"]
        state.erasure.erase(state.erasure.plan_study(study_id), reason="request", actor="t:1")
        assert state.holds.holds(released=True) == []


def test_erasing_a_patient_takes_all_studies_and_the_key_the_log_commits_with(folder):
    with opened(folder) as state:
        one, two = fill(state), fill(state, study="1.2.840.77777")
        kept = fill(state, "PATIENT-2", "1.2.840.66666")
        subject = state.subjects.subject_of(one)
        state.erasure.erase(state.erasure.plan_subject(subject), reason="request", actor="t:1")
        for gone in (one, two):
            with pytest.raises(NotFoundError):
                state.studies.instances(gone)
        with pytest.raises(NotFoundError):
            state.subjects.commitment_key(subject)
        assert state.evidence.about(subject_id=subject) == []
        assert state.evidence.about(study_id=one) == []
        assert state.evidence.about(study_id=kept)
        assert all(job.study_id == kept for job in state.jobs.jobs())
        assert [j.state for j in state.jobs.jobs()] == [JobState.DONE]


def test_a_patient_without_a_patient_id_goes_with_the_study(folder):
    with opened(folder) as state:
        study_id = fill(state, patient="")
        subject = state.subjects.subject_of(study_id)
        state.erasure.erase(state.erasure.plan_study(study_id), reason="request", actor="t:1")
        with pytest.raises(NotFoundError):
            state.subjects.subject(subject)


def test_a_study_is_erased_once_however_many_ask_and_nothing_holds_it_any_more(folder):
    with opened(folder) as state:
        study_id = fill(state)
        second = state.erasure.plan_study(study_id)
        refused = []

        def meanwhile(step):
            if step not in ("intend", "destroy", "fingerprint"):
                return
            with pytest.raises(WrongStateError, match="under way"):
                state.erasure.erase(second, reason="withdrawal", actor="person:b")
            with pytest.raises(WrongStateError, match="being erased"):
                state.holds.hold(study_id, reason="litigation", actor="person:c", review_at=T0)
            refused.append(step)

        state.erasure._step = meanwhile
        done = state.erasure.erase(second, reason="request", actor="person:a")
        assert refused == ["intend", "destroy", "fingerprint"]
        assert [one.erasure_id for one in state.erasure.erasures()] == [done.erasure_id]
        entries = state.evidence.newest(kinds=[Kind.ERASURE])
        assert [found.index for found in entries] == [done.entry]
        assert state.holds.holds(released=True) == []


def test_a_study_nobody_asked_the_policy_about_is_not_erased_with_its_patient(folder):
    with opened(folder) as state:
        first = fill(state)
        plan = state.erasure.plan_subject(state.subjects.subject_of(first))
        second = fill(state, study="1.2.840.77777")
        with pytest.raises(WrongStateError, match="another study"):
            state.erasure.erase(plan, reason="request", actor="person:a")
        assert len(state.studies.instances(second)) == 2
        assert len(state.studies.instances(first)) == 2


def test_what_is_gone_cannot_be_erased_and_a_reason_must_be_known(folder):
    with opened(folder) as state:
        study_id = fill(state)
        plan = state.erasure.plan_study(study_id)
        with pytest.raises(BedsideError):
            state.erasure.erase(plan, reason="Muster, Ada", actor="t:1")
        assert len(state.studies.instances(study_id)) == 2
        state.erasure.erase(plan, reason="request", actor="t:1")
        with pytest.raises(NotFoundError):
            state.erasure.erase(plan, reason="request", actor="t:1")
        with pytest.raises(NotFoundError):
            state.erasure.plan_study(study_id)
        with pytest.raises(NotFoundError):
            state.erasure.certificate("nothing")


def test_a_command_on_a_stopped_box_asks_the_policy_and_a_sealed_box_erases_nothing(folder):
    def told(state):
        entries = state.evidence.newest(kinds=[Kind.DECISION])
        return [(e.entry.actor, e.entry.refs["use"], e.entry.refs["outcome"]) for e in entries]

    with opened(folder) as state:
        one, two = fill(state), fill(state, "PATIENT-2", "1.2.840.66666")
    command = ["erase", "study", one, "--yes", "--state", str(folder)]
    assert CliRunner().invoke(cli, command, catch_exceptions=False).exit_code == 0
    with opened(folder) as state:
        assert told(state) == [("system:console", "erase", "permitted")]
        move = {"incident_id": "", "actor": "person:a", "reason": "drill", "at": T0}
        state.incidents.move(Incident.NORMAL, Incident.SEALED, **move)
    command[2] = two
    assert isinstance(CliRunner().invoke(cli, command).exception, NotPermittedError)
    with opened(folder) as state:
        assert len(state.studies.instances(two)) == 2
        assert told(state)[0] == ("system:console", "erase", "denied")


def test_a_patient_without_studies_left_is_not_erased_unasked(folder):
    with opened(folder) as state:
        studies = fill(state), fill(state, "PATIENT-2", "1.2.840.66666")
        one, two = map(state.subjects.subject_of, studies)
        for study in studies:
            state.erasure.erase(state.erasure.plan_study(study), reason="request", actor="t:1")
    command = ["erase", "subject", one, "--yes", "--state", str(folder)]
    assert CliRunner().invoke(cli, command, catch_exceptions=False).exit_code == 0
    with opened(folder) as state:
        with pytest.raises(NotFoundError):
            state.subjects.subject(one)
        (asked,) = state.evidence.newest(kinds=[Kind.DECISION])
        assert asked.entry.refs["use"] == "erase"
        move = {"incident_id": "", "actor": "person:a", "reason": "drill", "at": T0}
        state.incidents.move(Incident.NORMAL, Incident.SEALED, **move)
    command[2] = two
    assert isinstance(CliRunner().invoke(cli, command).exception, NotPermittedError)
    with opened(folder) as state:
        assert len(state.subjects.commitment_key(two)) == 32


def test_nothing_of_a_request_under_an_idempotency_key_outlives_its_study(folder):
    with opened(folder) as state:
        one, two = fill(state), fill(state, "PATIENT-2", "1.2.840.66666")
        for study in (one, two):
            (job,) = [j for j in state.jobs.jobs() if j.study_id == study]
            assert state.requests.begin("token:1", "analyze", study, b"digests of images", T0) == ""
            state.requests.finish("token:1", "analyze", study, job.job_id)
        query = "SELECT digest FROM requests"
        ((digest,), _) = state.database.read(lambda c: c.execute(query).fetchall())
        state.erasure.erase(state.erasure.plan_study(one), reason="request", actor="t:1")
        assert len(state.database.read(lambda c: c.execute(query).fetchall())) == 1
        again = state.requests.begin("token:1", "analyze", one, b"digests of images", T0)
        assert again == "", "the same request makes a new study"
        state.erasure.erase(state.erasure.plan_study(two), reason="request", actor="t:1")
        state.requests.forget("token:1", "analyze", one)
        state.erasure.compact(always=True)
        assert search(folder, {"digest": digest.encode()}) == set()
