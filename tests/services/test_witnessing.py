"""A log and its witness, over real databases: what is sent when, what locks, what does not."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bedside_core.errors import (
    EvidenceGapError,
    InvalidKeyError,
    LedgerLockedError,
    NotFoundError,
    StoreUnavailableError,
    WrongStateError,
)
from bedside_core.evidence.checkpoint import open_checkpoint
from bedside_core.evidence.entry import Kind
from bedside_core.evidence.policy_text import parse_policy_text
from bedside_core.evidence.witness import SIZE_TYPE, Request, judge, parse_request
from bedside_core.ledger.entries import (
    EpochClosed,
    EpochOpened,
    LedgerPolicy,
    PolicySet,
    Scope,
    ScopeKind,
)
from bedside_core.ledger.state import epoch_scope
from bedside_edge.ports.evidence import BOX, Event
from bedside_edge.ports.witness import Answer
from bedside_edge.services.witness import WitnessService, witness_name
from bedside_edge.services.witnessing import Times, Witness, Witnessing, next_night
from bedside_edge.state_folder import continue_log
from bedside_edge.store.evidence_open import LogSettings
from bedside_edge.store.state import State, open_state
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.log_keys import open_log_keys
from bedside_edge.system.witness_keys import open_witness_keys
from support.evidence_log import LOG_ED, LOG_ML, head
from support.fake_clock import FakeClock, SeededBytes
from support.witness_link import DirectWitness

QUOTA = 8
HOUR = 3_600_000
ADMIN = Event(kind=Kind.ADMIN, actor=BOX, refs={"what": "started"})


@dataclass
class Party:
    """A state folder as a box has it open."""

    state: State
    clock: FakeClock

    @property
    def log(self):
        return self.state.witnessed

    def work(self, count: int = 1) -> None:
        for _ in range(count):
            self.state.evidence.append(ADMIN)


@pytest.fixture
def parties(tmp_path):
    """Opens folders by name under one clock; closes them all."""
    clock, opened = FakeClock(), dict[str, State]()

    def party(name: str) -> Party:
        settings = LogSettings(open_keys=open_log_keys, nightly_quota=QUOTA)
        state = open_state(
            tmp_path / name, clock, SeededBytes(name), open_box_keys, evidence=settings
        )
        opened[name] = state  # one that a test closed is replaced by the next
        return Party(state, clock)

    yield party
    for state in opened.values():
        state.close()


class Scene:
    """Box A, a witness, and everything between them."""

    def __init__(self, parties, folder: Path) -> None:
        self.parties, self.folder = parties, folder
        self.w = parties("witness")
        self.told: list[str] = []
        keys = open_witness_keys(self.w.state.path / "keys", SeededBytes("keys"), True)
        self.service = WitnessService(
            self.w.state.witness,
            keys.signers(witness_name(self.w.state.evidence.origin)),
            self.w.clock,
            locked=lambda: self.w.state.evidence.locked,
            incident=self.told.append,
        )
        self.link = DirectWitness(self.service)
        self.a = parties("a")
        self.a.work(3)
        self.enrol(self.a)

    def enrol(self, party: Party) -> None:
        self.service.enrol([key.text for key in party.state.evidence.keys], BOX)

    def client(self, party: Party, **more) -> Witnessing:
        witness = Witness(name="w", keys=self.service.keys, link=self.link)
        return Witnessing(party.log, [witness], party.clock, **more)

    def copy(self, name: str) -> Party:
        """The folder of A as it is on the disk now, opened as another box would."""
        self.a.state.close()
        shutil.copytree(self.folder / "a", self.folder / name)
        self.a = self.parties("a")
        return self.parties(name)


@pytest.fixture
def scene(parties, tmp_path):
    return Scene(parties, tmp_path)


# --- the way of a checkpoint ---------------------------------------------------------------------


def test_a_checkpoint_is_padded_cosigned_and_stands_in_the_proof(scene):
    status = scene.client(scene.a).sync()
    assert (status.sent, status.quorum, status.witnessed, status.gap) == (QUOTA, True, QUOTA, None)
    log = scene.a.state.evidence
    opened = open_checkpoint(log.latest_checkpoint(), log.origin, log.keys, scene.service.keys)
    assert len(opened.signers) == 4
    (watched,) = scene.service.watched()
    assert watched.seen.size == QUOTA
    entry = scene.w.state.evidence.newest(limit=1)[0].entry
    assert (entry.refs["what"], entry.refs["size"]) == ("cosigned", QUOTA)


def test_it_grows_from_night_to_night_and_asks_once_a_night(scene):
    client = scene.client(scene.a, times=Times(hour=1))
    for night in range(1, 4):
        client.step()
        client.step()
        assert scene.a.log.last_outgoing()[0] == night * QUOTA
        scene.a.work()
        scene.a.clock.advance(24 * HOUR)
    assert len(scene.link.asked) == 3
    assert parse_request(scene.link.asked[-1]).old == 2 * QUOTA


def test_what_witnesses_should_see_is_sent_before_the_night(scene):
    client = scene.client(scene.a)
    client.step()
    scene.a.work()
    scene.a.clock.advance(700_000)
    client.step()
    assert scene.a.log.last_outgoing()[0] == QUOTA
    scene.a.state.evidence.append(Event(kind=Kind.INCIDENT, actor=BOX))
    client.step()
    client.step()
    assert scene.a.log.last_outgoing()[0] == 2 * QUOTA
    assert len(scene.link.asked) == 2


def test_the_same_checkpoint_is_tried_again_after_a_pause_that_grows(scene):
    client = scene.client(scene.a)
    scene.link.down = True
    for _ in range(3):
        client.step()
    assert scene.a.log.standings()["w"].failures == 1  # then it rests
    scene.link.down = False
    client.step()
    assert not scene.link.asked
    scene.a.clock.advance(61_000)
    client.step()
    assert client.status().quorum
    assert scene.a.log.last_outgoing()[0] == QUOTA, "a failed night makes no second checkpoint"


def test_a_lost_answer_is_made_good(scene):
    client = scene.client(scene.a)
    scene.link.lose_answers = True
    client.sync()
    assert scene.service.watched()[0].seen.size == QUOTA
    scene.link.lose_answers = False
    scene.a.clock.advance(HOUR)
    scene.client(scene.a).step()  # as after a power cut: nothing is remembered but the disk
    assert client.status().quorum
    assert [parse_request(one).old for one in scene.link.asked] == [0, 0, QUOTA]


def test_no_quorum_for_too_long_is_one_alarm(scene):
    client = scene.client(scene.a, times=Times(hour=1, alarm_h=5))
    scene.link.down = True
    for _ in range(12):
        client.step()
        scene.a.clock.advance(HOUR)
    alarms = scene.a.state.evidence.newest(kinds=[Kind.ALARM])
    assert [one.entry.refs["code"] for one in alarms] == ["quorum-missing"]


def test_the_policy_says_who_is_enough(scene):
    ed = scene.service.keys[0]
    text = f"witness a {ed.text}\nwitness b {LOG_ML.key.text}\ngroup g any a b\nquorum g\n"
    client = scene.client(scene.a, policy=parse_policy_text(text.encode()))
    client._witnesses = (Witness(name="w", keys=(ed,), link=scene.link),)
    assert client.sync().quorum
    assert not scene.client(scene.a).status().quorum, "every key, where nothing else is said"


@pytest.mark.parametrize(("at", "expected"), [(0, HOUR), (HOUR - 1, HOUR), (HOUR, 25 * HOUR)])
def test_nights(at, expected):
    assert next_night(at, 1) == expected


def test_the_privacy_ledger_learns_that_every_charge_was_seen(scene):
    seen: list[int] = []
    client = scene.client(scene.a, seen=seen.append)
    client.step()
    client.step()
    assert seen == [scene.w.clock.now()], "the witness's time, once for a checkpoint"
    scene.a.state.evidence.outgoing_checkpoint()
    scene.a.state.evidence.append(Event(kind=Kind.RELEASE, actor=BOX))  # after what is sent
    client.step()
    assert client.status().quorum
    assert len(seen) == 1, "this charge no witness has seen"
    client.sync()
    assert len(seen) == 2


# --- restored, cloned, rolled back ---------------------------------------------------------------


def gap_of(party: Party):
    assert party.state.evidence.locked
    with pytest.raises(EvidenceGapError):
        party.state.evidence.checkpoint()
    with pytest.raises(EvidenceGapError):
        party.state.evidence.outgoing_checkpoint()
    assert party.state.ledger.locked(), "nor is anything released"
    party.work()  # what happens is still written down
    return party.log.gap()


def test_a_restored_box_learns_it_at_its_start(scene):
    scene.client(scene.a).sync()
    backup = scene.copy("backup")
    scene.a.work()
    scene.client(scene.a).sync()
    opened: list[str] = []
    client = scene.client(backup, incident=lambda reason: opened.append(reason) or "inc1")
    client.step()
    client.step()
    gap = gap_of(backup)
    assert (gap.witnessed.size, gap.incident, len(opened)) == (2 * QUOTA, "inc1", 1)
    assert len(scene.link.asked) == 2, "it sent nothing"


def test_a_clone_that_asked_before_is_caught_when_it_sends(scene):
    scene.client(scene.a).sync()
    clone = scene.copy("clone")
    ours, theirs = scene.client(scene.a), scene.client(clone)
    ours.step()
    theirs.step()
    scene.a.work()
    clone.work(2)
    ours.sync()
    assert theirs.sync().gap is not None
    assert gap_of(clone).witnessed.size == 2 * QUOTA
    (kept,) = scene.service.refused()
    assert (kept.size, kept.last) == (2 * QUOTA, 2 * QUOTA)
    assert len(scene.told) == 1
    assert ours.sync().quorum
    assert scene.w.state.evidence.newest(kinds=[Kind.ALARM])[0].entry.refs["why"] == kept.why


def test_a_restored_box_that_grew_past_what_was_seen_is_caught(scene):
    scene.client(scene.a).sync()
    copy = scene.copy("copy")
    theirs = scene.client(copy)
    theirs.step()
    scene.a.work()
    scene.client(scene.a).sync()
    copy.work(3 * QUOTA)
    theirs.sync()
    assert gap_of(copy).witnessed.size == 2 * QUOTA
    (kept,) = scene.service.refused()
    assert kept.why == "inconsistent"


def test_a_lock_outlives_the_process_and_is_told_once(scene, parties):
    scene.client(scene.a).sync()
    backup = scene.copy("backup")
    scene.a.work()
    scene.client(scene.a).sync()
    scene.client(backup).step()
    first = backup.log.gap()
    backup.state.close()
    backup = parties("backup")
    client = scene.client(backup, incident=lambda reason: "inc7")
    client.step()
    client.step()
    gap = gap_of(backup)
    assert (gap.note, gap.incident) == (first.note, "inc7")
    alarms = backup.state.evidence.newest(kinds=[Kind.ALARM])
    assert [one.entry.refs["code"] for one in alarms] == ["evidence-gap"]


def test_a_log_that_goes_on_writes_the_epoch_of_privacy_off(scene, parties):
    policy = LedgerPolicy(
        version="p", epoch_cap=900, lifetime_cap=1000, requesters={"person:a": 900}, purposes={}
    )
    ledger = scene.a.state.ledger
    entry = PolicySet(at=scene.a.clock.now(), policy=policy, signers=2)
    ledger.keep_policy(entry, b"p", b"", "person:a")
    at = scene.a.clock.now()
    ledger.append(EpochOpened(at=at, dataset="d", number=1, starts=at, ends=at + HOUR), "person:a")
    scene.client(scene.a).sync()
    backup = scene.copy("backup")
    scene.a.work()
    scene.client(scene.a).sync()
    scene.client(backup).step()
    with pytest.raises(LedgerLockedError):
        backup.state.ledger.append(EpochClosed(at=at, dataset="d", number=1))
    continue_log(backup.state, backup.clock, SeededBytes("on"), ["person:a"], "restored")
    backup.state.close()
    backup = parties("backup")
    ledger = backup.state.ledger
    assert not ledger.locked()
    assert ledger.ledger().spent == {epoch_scope("d", 1): 900, Scope(ScopeKind.LIFETIME, "d"): 900}
    assert ledger.burned_until() >= at
    assert ledger.verify() == 3


def test_a_locked_log_goes_on_under_a_new_name(scene, parties):
    scene.client(scene.a).sync()
    backup = scene.copy("backup")
    scene.a.work()
    scene.client(scene.a).sync()
    scene.client(backup).step()
    size, old = backup.state.evidence.size(), backup.state.evidence.origin
    before = backup.state.evidence.proof(1)
    actors = ["person:a", "person:b"]
    name = continue_log(backup.state, backup.clock, SeededBytes("on"), actors, "restored")
    with pytest.raises(WrongStateError):
        continue_log(backup.state, backup.clock, SeededBytes("on"), actors, "twice")
    backup.state.close()
    backup = parties("backup")
    log = backup.state.evidence
    assert (name, log.origin, log.locked, log.base) == (f"{old}#2", name, False, size)
    first = log.entry(size).entry
    assert (first.kind, first.refs["size"], first.refs["second"]) == (Kind.GAP, size, "person:b")
    assert backup.log.root_at(1) is not None
    assert log.proof(1) == before
    client = scene.client(backup)
    client.sync()
    assert client.status().standings[0].said == "not-watched"
    scene.enrol(backup)
    backup.work(QUOTA)
    assert client.sync().quorum
    assert not scene.service.refused()


def test_a_witness_that_cannot_show_it_locks_nobody(scene):
    client = scene.client(scene.a)
    client.sync()
    for status, body in ((409, b"999\n"), (422, b"")):
        scene.link.say = Answer(status=status, content_type=SIZE_TYPE, body=body)
        scene.link.show = b"whatever"
        scene.a.work()
        client.sync()
        assert not scene.a.state.evidence.locked
        assert not client.status().quorum
    forged = Request(old=0, proof=(), checkpoint=b"").encode()
    scene.link.show = forged
    scene.client(scene.a).step()
    assert not scene.a.state.evidence.locked


def test_a_witness_that_forgot_is_an_alarm(scene):
    client = scene.client(scene.a)
    client.sync()
    other = scene.parties("witness2")
    scene.link.service = WitnessService(
        other.state.witness, scene.service._signers, other.clock, incident=scene.told.append
    )
    scene.link.service.enrol([key.text for key in scene.a.state.evidence.keys], BOX)
    scene.a.work()
    assert client.sync().quorum
    alarms = scene.a.state.evidence.newest(kinds=[Kind.ALARM])
    assert alarms[0].entry.refs["code"] == "witness-fell-back"


# --- the witness ---------------------------------------------------------------------------------


def test_a_locked_box_cosigns_nothing(scene):
    scene.client(scene.a).sync()
    locked = WitnessService(
        scene.w.state.witness, scene.service._signers, scene.w.clock, locked=lambda: True
    )
    with pytest.raises(EvidenceGapError):
        locked.add_checkpoint(b"old 0\n\n")


def test_a_log_is_enrolled_with_one_set_of_keys(scene):
    keys = [key.text for key in scene.a.state.evidence.keys]
    assert scene.service.enrol(keys, BOX) == scene.a.state.evidence.origin
    with pytest.raises(WrongStateError):
        scene.service.enrol(keys[:1], BOX)
    with pytest.raises(InvalidKeyError):
        scene.service.enrol([*keys, scene.service.keys[0].text], BOX)
    with pytest.raises(InvalidKeyError):
        scene.service.enrol([], BOX)
    with pytest.raises(NotFoundError):
        scene.service.last_checkpoint("0" * 64)


def test_nothing_is_cosigned_that_is_not_on_the_disk(scene, monkeypatch):
    """The power goes between the look at what was seen and the commit: nothing was said."""
    note = scene.a.log.outgoing_checkpoint()
    request = Request(old=0, proof=(), checkpoint=note).encode()
    database = scene.w.state.database

    def dies(fn):
        def then_dies(c):
            fn(c)
            raise sqlite3.OperationalError("disk I/O error")

        return type(database).write(database, then_dies)

    with monkeypatch.context() as broken:
        broken.setattr(database, "write", dies)
        with pytest.raises((StoreUnavailableError, sqlite3.OperationalError)):
            scene.service.add_checkpoint(request)
    assert scene.service.watched()[0].seen is None
    assert not [
        e for e in scene.w.state.evidence.newest() if e.entry.refs.get("what") == "cosigned"
    ]
    assert scene.service.add_checkpoint(request).status == 200


@pytest.mark.parametrize(("when", "kept"), [("verdict", None), ("commit", QUOTA)])
def test_a_kill_between_check_and_commit_cosigns_nothing(scene, parties, tmp_path, when, kept):
    """A killed process: what it found good is on the disk, or it was never seen at all."""
    request = tmp_path / "request"
    note = scene.a.log.outgoing_checkpoint()
    request.write_bytes(Request(old=0, proof=(), checkpoint=note).encode())
    scene.w.state.close()
    child = [sys.executable, "-m", "support.witness_child"]
    arguments = [str(tmp_path / "witness"), str(request), when]
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    died = subprocess.run(
        [*child, *arguments], capture_output=True, text=True, check=False, env=os.environ | path
    )
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "cosigned\n"), died.stderr
    (log,) = parties("witness").state.witness.watched()
    assert (log.seen and log.seen.size) == kept


def test_two_requests_from_one_size_never_both_go_forward(scene):
    """Judging happens inside the one write transaction, so the second sees the first."""
    first = Request(old=0, proof=(), checkpoint=scene.a.log.outgoing_checkpoint()).encode()
    scene.a.work()
    second = Request(old=0, proof=(), checkpoint=scene.a.log.outgoing_checkpoint()).encode()
    store, seen_inside = scene.w.state.witness, []

    def judged(data):
        def judge_it(keys, seen):
            seen_inside.append(seen(scene.a.state.evidence.origin))
            return judge(data, keys, seen)

        return judge_it

    futures = [scene.w.state.database.submit(lambda c, d=data: None) for data in (first, second)]
    [future.result() for future in futures]
    assert store.decide(judged(second), 1)[0].why.status == 200
    assert store.decide(judged(first), 1)[0].why.status == 409
    assert [one and one.size for one in seen_inside] == [None, 2 * QUOTA]


def test_what_was_seen_never_goes_back_in_the_database(scene):
    scene.client(scene.a).sync()
    for statement in (
        "UPDATE seen SET size = 1",
        "DELETE FROM seen",
        "UPDATE watched_logs SET keys = ''",
        "INSERT OR REPLACE INTO seen SELECT * FROM seen",
    ):
        with pytest.raises((StoreUnavailableError, sqlite3.Error)):
            scene.w.state.database.write(lambda c, s=statement: c.execute(s))


def test_a_stranger_is_refused(scene):
    note = b"".join([head([b"x"]).text.encode(), b"\n", LOG_ED.signs(head([b"x"])).line.encode()])
    answer = scene.service.add_checkpoint(Request(old=0, proof=(), checkpoint=note).encode())
    assert (answer.status, answer.body) == (404, b"unknown-origin\n")
