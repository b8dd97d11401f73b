"""A seal or a withdrawal while a job runs: it leaves no result, whoever is faster."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bedside_core.errors import SealedError, StoreUnavailableError, WrongStateError
from bedside_core.uses import Incident
from bedside_edge.ports import Outcome
from support.state_houses import T0, FolderHouse, arrival, opened

OUTCOME = Outcome(refused=False, reason="", body=b"{}")
LATER = T0 + 10**9
# Tables a sealed box may write, and why
FREE = {
    # the evidence goes on, and so do the box's own clocks, alarms and marks
    "entry", "entry_about", "cp", "cp_out", "cosig", "gaps", "past_logs", "seen", "meta", "alarms",
    "events", "requests", "refused_checkpoints", "watched_logs", "witness_standings",
    # people log in to look and to unseal
    "accounts", "account_links", "sessions", "tokens", "login_tries", "access_clock",
    "oidc_subjects", "sqlite_sequence",
    # rules that are stricter may come into force; holds and withdrawals stop uses
    "policies", "gradings", "deidentifications", "lowerings", "holds", "notices", "consents",
    "withdrawals", "rights_requests", "privacy_policies",
    # the ledger may void what was reserved; it grants nothing without a row in privacy_releases
    "privacy_entries", "privacy_scopes", "privacy_used", "privacy_marks", "local_spent",
    # the incident itself
    "incidents", "box_states", "incident_clocks", "incident_time", "unseal_asks",
    # rows that only come with rows that are under the seal, or only say which state they are in
    "subjects", "publications", "deployments", "shadow_tallies", "privacy_grades", "sync_rounds",
    # who the box is in its consortium, what others published, and what became of nights; an
    # agreement that ends stops uses
    "sync_member", "sync_roster", "sync_records", "sync_events", "sync_marks", "sync_agreements",
    # a sealed box still starts, and an emergency update may be what it waits for
    "hardware_acceptances", "hardware_floors", "tuf_md", "tuf_floors", "tuf_seen", "tuf_items",
    "flash_pairs", "flash_slots", "flash_steps",
}  # fmt: skip


@pytest.fixture
def state(tmp_path):
    with opened(FolderHouse(tmp_path)) as held:
        (filed,) = held.studies.file([arrival(held)])
        held.jobs.complete(filed.study_id, T0)
        yield held


def seal(state, to=Incident.SEALED, before=Incident.NORMAL, second="", actor="person:a"):
    state.incidents.move(before, to, incident_id="", actor=actor, second=second, at=T0)


def test_a_running_job_of_a_sealed_box_ends_without_a_result_and_runs_again_after(state):
    job = state.jobs.lease(LATER)
    seal(state)
    with pytest.raises(WrongStateError):
        state.jobs.finish(job, OUTCOME, LATER)
    assert state.jobs.lease(LATER) is None
    assert state.jobs.next_due() is None
    seal(state, Incident.NORMAL, Incident.SEALED, second="person:b")
    again = state.jobs.lease(LATER)
    assert (again.job_id, again.attempts) == (job.job_id, 1)
    assert state.jobs.finish(again, OUTCOME, LATER)


def test_what_the_store_is_told_to_write_while_sealed_is_refused_with_the_code(state):
    late = arrival(state, "1.2.3.2")
    seal(state)
    with pytest.raises(SealedError):
        state.studies.file([late])


@pytest.mark.parametrize("second", ["", "person:a", "token:b"])
def test_the_database_itself_wants_two_different_persons(state, second):
    seal(state)
    with pytest.raises(StoreUnavailableError):
        seal(state, Incident.NORMAL, Incident.SEALED, second=second)
    assert state.incidents.now() is Incident.SEALED


def test_a_withdrawal_while_a_job_runs_leaves_no_result(state):
    job = state.jobs.lease(LATER)
    subject = state.subjects.subject_of(job.study_id)
    assert state.rights.withdraw(subject, "all", "person:a", T0).stopped == 1
    with pytest.raises(WrongStateError):
        state.jobs.finish(job, OUTCOME, LATER)
    assert state.rights.wills([subject], T0)[subject].withdrawn


def test_every_table_of_data_is_under_the_seal(state):
    """A new table is put under the seal, or it is said here why a sealed box may write it."""

    def look(c):
        tables = {row[0] for row in c.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
        under = {
            row[0]
            for row in c.execute(
                "SELECT tbl_name FROM sqlite_schema WHERE type='trigger' AND name LIKE 'sealed_%'"
            )
        }
        return tables, under

    tables, under = state.database.read(look)
    assert tables - under - FREE == set(), "put it under the seal, or say why not"
    assert not under & FREE


def test_a_box_with_a_full_disk_can_be_sealed(tmp_path):
    """On a real disk of 16 MB with no byte left; the room kept for it is enough."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare on this machine: no small disk can be mounted")
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-m", "support.full_disk_child", str(tmp_path)],  # noqa: S607
        cwd=tests,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = json.loads(done.stdout) if done.stdout else {"mounted": False}
    if not found["mounted"]:
        pytest.skip(f"no disk can be mounted here: {done.stderr[-200:]}")
    assert found == {"mounted": True, "refused": True, "state": "sealed", "kind": "seal"}


def test_a_sealed_box_charges_nobody_and_keeps_no_report_but_a_veto(state):
    def fact(name):
        row = ("box", "round-1", name, b"d", 0, b"x", "", T0)
        return lambda c: c.execute("INSERT INTO sync_facts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def charge(c):
        c.execute("INSERT INTO sync_rounds VALUES ('round-1', 1, 1, 1, 0)")
        c.execute("INSERT INTO sync_charges VALUES ('round-1', 'someone')")

    seal(state)
    for write in (charge, fact("report")):
        with pytest.raises(SealedError):
            state.database.write(write)
    state.database.write(fact("veto"))
    found = state.database.read(
        lambda c: [row[0] for row in c.execute("SELECT fact FROM sync_facts")]
    )
    assert found == ["veto"]
