"""Business rows and their entries in one transaction; a log that was changed is seen."""

import json
import sqlite3
from contextlib import closing

import pytest

from bedside_core.errors import (
    DiskFullError,
    EvidenceDamagedError,
    InvalidConfigError,
    StoreUnavailableError,
)
from bedside_core.evidence.entry import Kind, commits_to
from bedside_core.evidence.proof import verify_proof
from bedside_core.rollout import Deployment
from bedside_edge.ports import InstanceState, JobState, Outcome, Priority
from bedside_edge.ports.evidence import Event
from bedside_edge.services.outputs import Kind as ObjectKind
from bedside_edge.services.outputs import NewOutput, Occasion, Routes
from bedside_edge.services.rollout import Change
from bedside_edge.store.evidence_check import check_log
from bedside_edge.store.evidence_open import LogSettings
from bedside_edge.store.rules import CompletionRules, RetryRules
from bedside_edge.store.state import open_state
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.log_keys import LOG_KEY_FILE, open_log_keys
from bedside_edge.system.random_os import OsRandom
from support.fake_clock import FakeClock
from support.state_houses import ANY_DISK, T0, arrival, sealed


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


def opened(folder, **settings):
    return open_state(
        folder,
        FakeClock(T0),
        OsRandom(),
        open_box_keys,
        completion=CompletionRules(quiet_ms=0, max_wait_ms=0),
        retries=RetryRules(attempts=1),
        disk=ANY_DISK,
        evidence=LogSettings(**{"open_keys": open_log_keys} | settings),
    )


@pytest.fixture
def state(folder):
    with closing(opened(folder)) as state:
        yield state


def told(state, since: int = 0) -> list[tuple[str, str]]:
    """Kind and word of every entry from `since` on."""
    return [
        (one.entry.kind.value, str(one.entry.refs.get("what", one.entry.refs.get("outcome", ""))))
        for one in state.evidence.entries(since, 1000)
    ]


def file(state, uid="1.2.3.1", **changes):
    return state.studies.file([arrival(state, uid, **changes)])[0]


def finished(state, outcome=None):
    file(state)
    job = state.jobs.lease(T0)
    outcome = outcome or Outcome(refused=False, reason="", body=b"{}", refs={"model": "cxr@1.0.0"})
    return job, state.jobs.finish(job, outcome, T0)


def made(state, uid="2.25.1"):
    return NewOutput(
        kind=ObjectKind.SR,
        occasion=Occasion.RESULT,
        sealed=sealed(state, b"a report"),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
        sop_instance_uid=uid,
    )


TO_PACS = Routes(everywhere=True, kinds={"pacs": frozenset({ObjectKind.SR})})


# --- what is told ----------------------------------------------------------------------------


def test_an_arrival_commits_to_the_digests_under_the_patient_and_names_nobody(state):
    filed = file(state)
    kept = state.evidence.entry(0)
    assert told(state) == [("raw_digest", "received")]
    assert dict(kept.entry.refs) == {"what": "received", "way": "dimse"}
    payload = json.loads(kept.payload)
    assert payload["study"] == filed.study_id
    assert payload["instances"][0][0] == filed.instance_id
    assert commits_to(kept.entry, kept.salt, kept.payload)
    assert kept.entry.subject is not None
    assert state.evidence.about(study_id=filed.study_id) == [0]
    assert state.evidence.about(subject_id=kept.subject_id) == [0]


def test_one_filing_is_one_entry_a_study_and_a_duplicate_is_none(state):
    batch = [arrival(state, f"1.2.{n}", study=f"1.2.{n % 2}") for n in range(4)]
    state.studies.file(batch)
    assert told(state) == [("raw_digest", "received")] * 2
    state.studies.file([arrival(state, "1.2.0", study="1.2.0")])
    assert state.evidence.size() == 2


def test_a_result_and_a_refusal_are_entries_with_the_model_in_plain(state):
    job, result_id = finished(state)
    kept = state.evidence.entry(1)
    assert dict(kept.entry.refs) == {"outcome": "analysed", "model": "cxr@1.0.0"}
    assert json.loads(kept.payload)["result"] == result_id
    assert job.study_id == kept.study_id
    file(state, "1.2.3.2")
    again = state.jobs.lease(T0)
    state.jobs.finish(again, Outcome(refused=True, reason="wrong-view", body=b"{}"), T0)
    refused = state.evidence.entry(3)
    assert dict(refused.entry.refs) == {"outcome": "refused"}
    assert json.loads(refused.payload)["reason"] == "wrong-view"


def test_alarms_comparisons_and_dead_jobs_are_entries(state):
    file(state)
    second = file(state, data=b"other pixels")
    state.studies.settle(second.instance_id, InstanceState.CONFLICT, T0)
    state.studies.settle(second.instance_id, InstanceState.CONFLICT, T0)
    job = state.jobs.lease(T0)
    assert state.jobs.fail(job, "engine-failed", T0) is JobState.DEAD
    assert told(state, 2) == [("raw_digest", "compared"), ("alarm", ""), ("alarm", "")]
    codes = [one.entry.refs["code"] for one in state.evidence.newest(kinds=[Kind.ALARM])]
    assert codes == ["job-dead", "conflicting-instance"]
    file(state, study="9.9", patient="P2")
    (last,) = state.evidence.newest(limit=1, kinds=[Kind.ALARM])
    assert last.entry.refs["code"] == "instance-in-two-studies"


def test_changes_of_jobs_name_who_made_them(state):
    file(state)
    job = state.jobs.lease(T0)
    state.jobs.prioritise(job.job_id, Priority.STAT, T0, "person:1")
    state.jobs.fail(job, "engine-failed", T0)
    state.jobs.replay(job.job_id, T0, "token:2")
    state.jobs.cancel(job.job_id, T0, "Dr. Who")
    assert told(state, 1) == [
        ("admin", "job-prioritised"),
        ("alarm", ""),
        ("admin", "job-replayed"),
        ("admin", "job-cancelled"),
    ]
    actors = [one.entry.actor for one in state.evidence.newest(kinds=[Kind.ADMIN])]
    assert actors[1:] == ["token:2", "person:1"]
    assert actors[0].startswith("other:")


def test_objects_made_delivered_given_up_and_sent_again_are_entries(state):
    _, result_id = finished(state)
    first = state.evidence.size()
    state.outputs.published(result_id, [made(state)], TO_PACS, T0)
    (delivery,) = state.outputs.deliveries()
    state.outputs.failed(delivery.delivery_id, "x", T0, T0 + 1)  # a try is no event
    state.outputs.failed(delivery.delivery_id, "delivery-refused", T0, None)
    state.outputs.replay(delivery.delivery_id, T0, "person:1")
    state.outputs.delivered(delivery.delivery_id, T0)
    state.outputs.delivered(delivery.delivery_id, T0)
    assert told(state, first) == [
        ("raw_digest", "made"),
        ("alarm", "delivery-dead"),
        ("access", "delivery-replayed"),
        ("access", "delivered"),
    ]
    assert state.evidence.entry(first + 3).entry.refs["destination"] == "pacs"


def test_what_waited_too_long_is_an_entry_for_each_delivery(state):
    _, result_id = finished(state)
    state.outputs.published(result_id, [made(state), made(state, "2.25.2")], TO_PACS, T0)
    first = state.evidence.size()
    assert state.outputs.expire("pacs", T0 + 1, "given-up", T0) == 2
    assert told(state, first) == [("alarm", "delivery-dead")] * 2


def test_a_model_put_in_force_is_an_entry_of_who_did_it(state):
    new = Deployment(name="cxr", active="1.0.0").activate("1.1.0")
    state.deployments.save(new, Change(revision=1, what="activate", actor="person:7", at=T0))
    kept = state.evidence.entry(0)
    assert (kept.entry.kind, kept.entry.actor) == (Kind.MODEL_PARAMS, "person:7")
    assert dict(kept.entry.refs) == {"what": "activate", "model": "cxr", "revision": 1}
    assert json.loads(kept.payload)["deployment"]["active"] == "1.1.0"


# --- one transaction -------------------------------------------------------------------------


def counts(state) -> tuple[int, int, int]:
    def look(c):
        asked = ("instances", "entry", "entry_about")
        return tuple(
            c.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608
            for name in asked
        )

    return state.database.read(look)


def test_a_failing_entry_takes_its_business_row_back(state, monkeypatch):
    file(state)
    before = counts(state)

    def refuse(c, event):
        raise RuntimeError("the log is broken")

    monkeypatch.setattr(state.studies, "_record", refuse)
    with pytest.raises(RuntimeError):
        file(state, "1.2.3.2")
    assert counts(state) == before


def test_a_failing_write_takes_its_entry_back_and_the_next_one_has_its_place(state):
    event = Event(kind=Kind.ADMIN, actor="service:box", refs={"what": "never"})

    def both(c):
        for _ in range(3):
            state.record(c, event)
        raise RuntimeError("and then the power went")

    file(state)
    with pytest.raises(RuntimeError):
        state.database.write(both)
    assert state.evidence.size() == 1
    file(state, "1.2.3.2")
    assert told(state) == [("raw_digest", "received")] * 2
    proven = verify_proof(state.evidence.proof(1), state.evidence.origin, state.evidence.keys)
    assert proven.index == 1


def test_a_full_disk_refuses_row_and_entry_together_and_goes_on_when_there_is_room(state):
    def limit(pages):
        return lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0]

    used = state.database.read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    state.database.write(limit(used + 4))
    done = sum(1 for _ in until_full(state))
    assert 0 < done < 500
    instances, entries, _ = counts(state)
    assert (instances, entries) == (done, done)
    state.database.write(limit(1_000_000))
    file(state, "1.2.9.9")
    assert counts(state)[:2] == (done + 1, done + 1)
    with_keys = state.database.read(lambda c: check(c, state))
    assert with_keys.entries == done + 1


def until_full(state):
    for number in range(500):
        try:
            yield file(state, f"1.2.3.{number}")
        except DiskFullError:
            return


def check(c, state):
    return check_log(c, state.evidence.origin, state.evidence.keys, parse=True)


# --- guards against our own mistakes ------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET data = x'00' WHERE i = 0",
        "DELETE FROM entry WHERE i = 1",
        "INSERT OR REPLACE INTO entry VALUES (0, x'00', zeroblob(32))",
        "INSERT INTO entry VALUES (7, x'00', zeroblob(32))",
        "UPDATE entry SET nodes = zeroblob(32)",
        "INSERT INTO entry VALUES (2, x'00', x'00')",
        "INSERT INTO entry VALUES (2, x'00', zeroblob(2080))",
        "UPDATE cp SET note = x'00'",
        "DELETE FROM cp",
        "INSERT OR REPLACE INTO cp SELECT size, x'00' FROM cp",
    ],
)
def test_the_log_cannot_be_rewritten_by_a_statement(state, statement):
    file(state)
    file(state, "1.2.3.2")
    state.evidence.checkpoint()
    with pytest.raises(StoreUnavailableError):
        state.database.write(lambda c: c.execute(statement))
    assert state.database.read(lambda c: check(c, state)).entries == 2


def test_a_witness_row_never_goes_back(state):
    row = ("INSERT INTO seen VALUES ('a/b/c', 5, zeroblob(32), x'00')",)
    state.database.write(lambda c: c.execute(*row))
    for statement in (
        *row,
        "UPDATE seen SET size = 4",
        "UPDATE seen SET root = randomblob(32)",
        "DELETE FROM seen",
        "INSERT OR REPLACE INTO seen VALUES ('a/b/c', 1, zeroblob(32), x'00')",
    ):
        with pytest.raises(StoreUnavailableError):
            state.database.write(lambda c, s=statement: c.execute(s))
    grow = "UPDATE seen SET size = 6, root = randomblob(32)"
    assert state.database.write(lambda c: c.execute(grow).rowcount) == 1


# --- a log that was changed is seen ---------------------------------------------------------


TAMPERED = {
    "an entry": "UPDATE entry SET data = CAST(replace(CAST(data AS TEXT), 'received', 'deceived')"
    " AS BLOB) WHERE i = 1",
    "a swapped pair": "UPDATE entry SET i = i + 900 WHERE i IN (1, 2);"
    " UPDATE entry SET i = 903 - i WHERE i > 900",
    "a missing entry": "DELETE FROM entry WHERE i = 1",
    "a node": "UPDATE entry SET nodes = zeroblob(64) WHERE i = 1",
    "a missing node": "UPDATE entry SET nodes = substr(nodes, 1, 32) WHERE i = 1",
    "a node too many": "UPDATE entry SET nodes = CAST(nodes || nodes AS BLOB) WHERE i = 2",
    "an entry after a gap": "INSERT INTO entry VALUES (9, x'00', zeroblob(32))",
    "a checkpoint of another size": "UPDATE cp SET size = 2 WHERE size = 3",
    "a checkpoint's bytes": "UPDATE cp SET note = CAST(replace(CAST(note AS TEXT), '3', '2')"
    " AS BLOB)",
    "a checkpoint beyond the log": "DELETE FROM entry WHERE i >= 2",
}


@pytest.mark.parametrize("what", sorted(TAMPERED))
def test_a_changed_log_is_found_and_the_box_does_not_open(folder, what):
    with closing(opened(folder)) as state:
        for number in range(3):
            file(state, f"1.2.3.{number}")
        state.evidence.checkpoint()
        file(state, "1.2.3.9")
    rewrite(folder, TAMPERED[what])
    with pytest.raises(EvidenceDamagedError):
        opened(folder)
    if "checkpoint" not in what:
        rewrite(folder, "DELETE FROM cp")  # even with nothing signed
        with pytest.raises(EvidenceDamagedError):
            opened(folder)


def rewrite(folder, script):
    """Do what root on the box can: drop the triggers, change rows."""
    with closing(sqlite3.connect(folder / "bedside.db")) as c:
        names = c.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            if name.split("_")[0] in ("entry", "cp"):
                c.execute(f"DROP TRIGGER {name}")
        c.execute("PRAGMA foreign_keys = OFF")
        c.executescript(script)


def test_a_log_recomputed_by_whoever_lacks_its_key_is_found(folder):
    """Entries, nodes, everything derived anew; only the signature cannot be made."""
    with closing(opened(folder)) as state:
        file(state)
        file(state, "1.2.3.2")
        state.evidence.checkpoint()
    with closing(opened(folder.with_name("other"))) as forger:
        for number in (3, 4):
            file(forger, f"1.2.3.{number}")
        rows = forger.database.read(lambda c: c.execute("SELECT * FROM entry").fetchall())
    rewrite(folder, "DELETE FROM entry_about; DELETE FROM entry")
    with closing(sqlite3.connect(folder / "bedside.db")) as c:
        c.executemany("INSERT INTO entry VALUES (?, ?, ?)", rows)
        c.commit()
    with pytest.raises(EvidenceDamagedError, match="checkpoint of size 2"):
        opened(folder)


def test_an_entry_out_of_time_or_unreadable_is_found_when_each_is_read(folder):
    with closing(opened(folder)) as state:
        for number in range(3):
            file(state, f"1.2.3.{number}")
        entry = state.evidence.entry(1)

        def look(c):
            return check(c, state)

        assert state.database.read(look).entries == 3
    early = entry.data.replace(b'"ts":17', b'"ts":16')
    for data, why in ((early, "falls behind"), (b"{}", "is no entry")):
        with closing(sqlite3.connect(folder / "bedside.db")) as c:
            c.execute("DROP TRIGGER IF EXISTS entry_stays")
            c.execute("UPDATE entry SET data = ? WHERE i = 1", (data,))
            with pytest.raises(EvidenceDamagedError, match=why):
                check_log(c, "x", [], parse=True)


# --- name and keys --------------------------------------------------------------------------


def test_name_and_keys_are_made_once_and_kept(folder):
    with closing(opened(folder)) as state:
        origin, keys = state.evidence.origin, state.evidence.keys
        assert origin.count("/") == 2
        assert origin.startswith("bedside/")
        assert [key.name for key in keys] == [origin, origin]
    with closing(opened(folder)) as state:
        assert (state.evidence.origin, state.evidence.keys) == (origin, keys)
    mode = (folder / "keys" / LOG_KEY_FILE).stat().st_mode & 0o777
    assert mode == 0o600


def test_a_name_in_the_settings_is_taken_at_first_and_never_changed(folder):
    opened(folder, origin="clinic/site-a/box-1").close()
    with closing(opened(folder)) as state:
        assert state.evidence.origin == "clinic/site-a/box-1"
    with pytest.raises(InvalidConfigError, match="keeps its name"):
        opened(folder, origin="clinic/site-a/box-2")


def test_a_lost_exposed_damaged_or_replaced_key_is_refused(folder, tmp_path):
    opened(folder).close()
    path = folder / "keys" / LOG_KEY_FILE
    whole = path.read_bytes()
    path.chmod(0o640)
    with pytest.raises(StoreUnavailableError, match="closed to all others"):
        opened(folder)
    path.chmod(0o600)
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreUnavailableError, match="damaged"):
        opened(folder)
    path.unlink()
    with pytest.raises(StoreUnavailableError, match="missing"):
        opened(folder)
    open_log_keys(folder / "keys", OsRandom(), True)
    with pytest.raises(EvidenceDamagedError, match="not the one"):
        opened(folder)
    target = tmp_path / "elsewhere"
    target.write_bytes(whole)
    path.unlink()
    path.symlink_to(target)
    with pytest.raises(StoreUnavailableError):
        opened(folder)
    path.unlink()
    path.write_bytes(whole)
    path.chmod(0o600)
    opened(folder).close()


def test_payloads_and_salts_do_not_stand_in_plain(folder):
    with closing(opened(folder)) as state:
        filed = file(state)
        state.evidence.append(
            Event(kind=Kind.ADMIN, actor="service:box", payload=b"zebra words of the box")
        )
        state.evidence.append(
            Event(
                kind=Kind.CONSENT,
                actor="person:1",
                subject_id=state.subjects.subject_of(filed.study_id),
                payload=b"zebra words of the patient",
            )
        )
        assert [state.evidence.entry(i).payload for i in (1, 2)] == [
            b"zebra words of the box",
            b"zebra words of the patient",
        ]
        data = b"".join(path.read_bytes() for path in folder.glob("bedside.db*"))
    assert b"zebra" not in data
