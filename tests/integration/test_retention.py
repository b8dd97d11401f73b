"""Sweeps over a real state folder, and a disk that is really filled."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bedside_core.errors import DiskFullError, NotFoundError, WrongStateError
from bedside_core.evidence.entry import Kind
from bedside_core.retention import DAY_MS, Go, RetentionRules, Stay
from bedside_edge.ports import Outcome
from bedside_edge.services.retention import RetentionService
from bedside_edge.store.objects import DiskLimits
from bedside_edge.store.state import State, open_state
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.fake_clock import FakeClock
from support.ram import ram_folder
from support.state_houses import ANY_DISK, T0, arrival

RULES = RetentionRules(
    received_days=30, results_days=30, reviews_days=30, keep_unsigned=False, low_watermark=0.5
)


class FakeSpace:
    """A disk of 1,000 bytes of which so many are used."""

    def __init__(self, used: int) -> None:
        self.used = used

    def space(self) -> tuple[int, int]:
        return self.used, 1000


@contextmanager
def opened(folder: Path, clock: FakeClock, disk: DiskLimits = ANY_DISK) -> Iterator[State]:
    state = open_state(folder, clock, OsRandom(), open_box_keys, disk=disk)
    try:
        yield state
    finally:
        state.close()


@pytest.fixture
def clock():
    return FakeClock(T0 + 100 * DAY_MS)


@pytest.fixture
def state(clock):
    with ram_folder() as ram, opened(ram / "state", clock) as state:
        yield state


def filed(state: State, number: int, *, at: int = T0, ended: bool = True, size: int = 100) -> str:
    """File a study, with a result unless its job is to stay open."""
    uid = f"1.2.{number}"
    sent = arrival(state, f"{uid}.1", study=uid, data=os.urandom(size), at=at)
    study_id = state.studies.file([sent])[0].study_id
    if ended:
        state.jobs.complete(study_id, at)
        job = state.jobs.lease(at)
        state.jobs.finish(job, Outcome(refused=False, reason="", body=b"{}"), at)
    return study_id


def service(state, clock, *, used=0, rules=RULES, **more) -> RetentionService:
    return RetentionService(state.retention, state.erasure, FakeSpace(used), clock, rules, **more)


def reasons(plan):
    return {verdict.study.study_id: verdict.reason for verdict in plan.verdicts}


def test_a_plan_names_every_study_and_deletes_none(state, clock):
    old, young = filed(state, 1), filed(state, 2, at=clock.now() - DAY_MS)
    busy = filed(state, 3, at=T0 + 1, ended=False)
    held = filed(state, 4, at=T0 + 2)
    state.holds.hold(held, reason="litigation", actor="person:a", review_at=clock.now())
    plan = service(state, clock, used=900).plan()
    assert reasons(plan) == {
        old: Go.ROOM,
        young: Stay.YOUNG,
        busy: Stay.IN_JOB,
        held: Stay.HELD,
    }
    assert plan.needed == 400
    assert plan.freed == plan.verdicts[0].study.size == 100
    assert len(state.studies.instances(old)) == 1


def test_a_sweep_erases_the_oldest_until_there_is_room_under_one_entry_a_batch(state, clock):
    studies = [filed(state, n, at=T0 + n) for n in range(5)]
    size = state.retention.facts()[0].size
    rules = RULES
    sweep = service(state, clock, used=500 + 2 * size, rules=rules)
    assert sweep.run() == 2
    for study in studies[:2]:
        with pytest.raises(NotFoundError):
            state.studies.instances(study)
    for study in studies[2:]:
        assert len(state.studies.instances(study)) == 1
    (erasure,) = state.erasure.erasures()
    assert (erasure.reason, len(erasure.studies)) == ("retention", 2)
    entry = state.evidence.entry(erasure.entry).entry
    assert (entry.kind, entry.actor) == (Kind.ERASURE, "service:retention")
    assert entry.refs["studies"] == 2


def test_with_room_nothing_goes_until_the_maximum_age(state, clock):
    study = filed(state, 1)
    assert service(state, clock, used=100).run() == 0
    rules = RetentionRules(
        received_days=30, results_days=30, reviews_days=30, keep_unsigned=False, at_most_days=99
    )
    assert service(state, clock, used=100, rules=rules).run() == 1
    with pytest.raises(NotFoundError):
        state.studies.instances(study)


def test_what_is_undelivered_unpublished_or_unsigned_never_goes(state, clock):
    state.outputs.publish_results(wanted=True)
    unpublished = filed(state, 1)
    state.outputs.publish_results(wanted=False)
    unsigned = filed(state, 2, at=T0 + 1)
    rules = RetentionRules(
        received_days=0, results_days=0, reviews_days=0, at_most_days=1, low_watermark=0.1
    )
    sweep = service(state, clock, used=1000, rules=rules)
    assert reasons(sweep.plan()) == {unpublished: Stay.UNDELIVERED, unsigned: Stay.UNSIGNED}
    assert sweep.run() == 0


def test_a_failed_job_keeps_its_study_until_a_person_has_looked(state, clock):
    study = filed(state, 1, ended=False)
    state.jobs.complete(study, T0)
    now = T0
    while job := state.jobs.lease(now):
        state.jobs.fail(job, "engine-failed", now)
        now += 60_000
    sweep = service(state, clock, used=1000)
    assert reasons(sweep.plan()) == {study: Stay.FAILED}
    state.jobs.cancel(state.jobs.jobs()[0].job_id, now)
    assert reasons(sweep.plan()) == {study: Go.ROOM}


def test_a_study_that_changes_between_look_and_erasure_stays(state, clock):
    study = filed(state, 1)

    def late(_):
        sent = arrival(state, "1.2.1.2", study="1.2.1", data=b"late", at=clock.now())
        assert state.studies.file([sent])[0].study_id == study
        return True

    assert service(state, clock, used=1000, permit=late).run() == 0
    assert len(state.studies.instances(study)) == 2
    with pytest.raises(WrongStateError):
        state.erasure.erase_batch([study], reason="retention", actor="service:retention")


def test_a_study_that_got_an_image_and_its_result_since_the_look_is_young_again(state, clock):
    study = filed(state, 1)

    def late(_):
        sent = arrival(state, "1.2.1.2", study="1.2.1", data=b"late", at=clock.now())
        state.studies.file([sent])
        state.jobs.complete(study, clock.now())
        outcome = Outcome(refused=False, reason="", body=b"{}")
        state.jobs.finish(state.jobs.lease(clock.now()), outcome, clock.now())
        return True

    assert service(state, clock, used=1000, permit=late).run() == 0
    assert len(state.studies.instances(study)) == 2


def test_a_hold_put_while_a_sweep_runs_keeps_its_batch_and_ends_no_sweep(state, clock, monkeypatch):
    monkeypatch.setattr("bedside_edge.services.retention._BATCH", 1)
    held, gone = filed(state, 1), filed(state, 2)

    def put(study):
        if study == held:
            state.holds.hold(held, reason="litigation", actor="person:a", review_at=clock.now())
        return True

    assert service(state, clock, used=1000, permit=put).run() == 1
    assert len(state.studies.instances(held)) == 1
    with pytest.raises(NotFoundError):
        state.studies.instances(gone)


def test_two_sweeps_at_once_erase_every_study_once(state, clock):
    studies = [filed(state, n, at=T0 + n) for n in range(30)]
    first, counts = threading.Event(), []

    def slow(_):
        first.set()
        return True

    sweep = service(state, clock, used=10**6, permit=slow)
    racing = threading.Thread(target=lambda: counts.append(sweep.run()))
    racing.start()
    assert first.wait(10)
    counts.append(sweep.run())
    racing.join()
    assert sum(counts) == len(studies)
    erased = [study for one in state.erasure.erasures() for study in one.studies]
    assert sorted(erased) == sorted(studies)


def test_what_the_policy_keeps_stays(state, clock):
    kept, gone = filed(state, 1), filed(state, 2)
    sweep = service(state, clock, used=1000, permit=lambda study: study != kept)
    assert sweep.run() == 1
    assert len(state.studies.instances(kept)) == 1
    with pytest.raises(NotFoundError):
        state.studies.instances(gone)


def test_the_box_sweeps_when_it_is_time_and_not_before(state, clock):
    filed(state, 1)
    sweep = service(state, clock, used=1000, every_s=60)
    assert sweep.nap() == pytest.approx(60)
    assert not sweep.step()
    assert len(state.retention.facts()) == 1
    clock.advance(61_000)
    assert not sweep.step()
    assert state.retention.facts() == []
    assert sweep.nap() == pytest.approx(60)


def test_a_hold_to_be_looked_at_again_is_an_alarm_once_until_it_is_released(state, clock):
    study = filed(state, 1)
    hold = state.holds.hold(
        study, reason="litigation", actor="person:a", review_at=clock.now() + DAY_MS
    )
    sweep = service(state, clock, every_s=60, remind=state.holds.remind)

    def swept_after(milliseconds):
        clock.advance(milliseconds)
        sweep.step()
        alarms = [(one.code, one.study_id) for one in state.studies.alarms()]
        told = [e.entry.refs for e in state.evidence.newest(kinds=[Kind.ALARM])]
        return alarms, told

    assert swept_after(DAY_MS - 1) == ([], [])
    raised = [("hold-overdue", study)], [{"code": "hold-overdue"}]
    assert swept_after(60_001) == raised
    assert swept_after(DAY_MS) == raised
    state.holds.release(hold.hold_id, actor="person:a")
    assert swept_after(DAY_MS) == ([], raised[1])


def test_more_studies_than_a_page_are_all_looked_at(state, clock, monkeypatch):
    monkeypatch.setattr("bedside_edge.services.retention._PAGE", 2)
    studies = [filed(state, n, at=T0 + n) for n in range(5)]
    sweep = service(state, clock, used=1000)
    assert [v.study.study_id for v in sweep.plan().verdicts] == studies
    assert sweep.run() > 0


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of its own, or skip: mounting takes root."""
    tools = shutil.which("mount"), shutil.which("umount")
    if None in tools:
        pytest.skip("no mount command here")
    with tempfile.TemporaryDirectory() as folder:
        mount = [tools[0], "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        done = subprocess.run(mount, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run([tools[1], folder], check=True)


def test_a_disk_that_fills_refuses_new_studies_before_it_is_full_and_a_sweep_makes_room(clock):
    with small_disk(64) as disk:
        limits = DiskLimits(high_watermark=0.9, min_free_bytes=4 << 20)
        with opened(disk / "state", clock, limits) as state:
            number = 0
            with contextlib.suppress(DiskFullError):
                while number < 64:
                    filed(state, number, at=T0 + number, size=1 << 20)
                    number += 1
            assert 20 < number < 64
            with pytest.raises(DiskFullError):
                state.objects.create()
            used, total = state.objects.space()
            assert total - used > 2 << 20, "room is left for results and for the log"
            sweep = RetentionService(state.retention, state.erasure, state.objects, clock, RULES)
            gone = sweep.run()
            used, total = state.objects.space()
            assert used <= total * 0.55
            assert len(state.retention.facts()) == number - gone
            filed(state, 1000, at=clock.now(), size=1 << 20)
        with opened(disk / "state", clock, limits) as state:
            assert len(state.retention.facts()) == number - gone + 1
