"""Promises of every JobQueue: completion, priority without starvation, retries, one result."""

from collections.abc import Iterator

import pytest

from bedside_core.errors import NotFoundError, WrongStateError
from bedside_edge.ports import Job, JobState, Outcome, Priority
from bedside_edge.store.rules import CompletionRules, RetryRules
from support.ram import ram_folder
from support.state_houses import HOUSES, T0, House, arrival, opened


@pytest.fixture(params=HOUSES)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with ram_folder() as folder:
        yield HOUSES[request.param](folder)


RULES = CompletionRules(
    quiet_ms=5_000,
    quiet_ms_by_source={"SLOW": 20_000},
    max_wait_ms=60_000,
    priority_by_source={"ER": Priority.URGENT},
)
RETRIES = RetryRules(attempts=3, backoff_ms=(1_000, 2_000), interruptions=4)
DONE = Outcome(refused=False, reason="", body=b'{"p":1}')
MINUTE = 60_000


def file(state, uid="1.1", study="1", **more):
    return state.studies.file([arrival(state, uid, study=study, **more)])[0].study_id


def ready(state, study="1", at=T0, **more):
    """File an instance, complete its study, return the id of the job."""
    study_id = file(state, f"{study}.1", study, at=at, **more)
    state.jobs.complete(study_id, at)
    return state.jobs.jobs(study_id=study_id)[0].job_id


# --- completion ------------------------------------------------------------------------------


def test_a_study_becomes_ready_when_it_was_quiet_long_enough(house):
    with opened(house, completion=RULES) as state:
        file(state, "1.1")
        assert state.jobs.next_due() == T0 + 5_000
        file(state, "1.2", at=T0 + 4_000)
        assert state.jobs.next_due() == T0 + 9_000
        assert state.jobs.lease(T0 + 8_999) is None
        job = state.jobs.lease(T0 + 9_000)
        assert isinstance(job, Job)
        assert (job.state, job.instances, job.attempts) == (JobState.RUNNING, 2, 1)
        assert state.jobs.next_due() is None


def test_the_quiet_time_is_the_senders(house):
    with opened(house, completion=RULES) as state:
        file(state, source="SLOW")
        assert state.jobs.next_due() == T0 + 20_000


def test_a_study_that_never_falls_quiet_starts_after_the_longest_wait(house):
    with opened(house, completion=RULES) as state:
        for n in range(20):
            file(state, f"1.{n}", at=T0 + n * 4_000)
            if T0 + n * 4_000 >= T0 + MINUTE:
                break
        assert state.jobs.next_due() == T0 + MINUTE


def test_the_last_expected_instance_makes_it_ready_at_once(house):
    with opened(house, completion=RULES) as state:
        file(state, "1.1", expected=2)
        assert state.jobs.jobs()[0].state is JobState.COLLECTING
        file(state, "1.1", data=b"other bytes, same instance")
        assert state.jobs.jobs()[0].state is JobState.COLLECTING
        file(state, "1.2", expected=2, at=T0 + 100)
        assert state.jobs.jobs()[0].state is JobState.READY
        assert state.jobs.next_due() == T0 + 100


def test_complete_makes_it_ready_at_once_and_may_come_twice_or_for_nothing(house):
    with opened(house, completion=RULES) as state:
        study = file(state)
        state.jobs.complete(study, T0 + 1)
        state.jobs.complete(study, T0 + 9_999)
        state.jobs.complete("nothing", T0)
        assert state.jobs.next_due() == T0 + 1


@pytest.mark.parametrize("end", ["running", "done", "refused", "dead", "cancelled"])
def test_a_late_image_makes_a_new_job(house, end):
    with opened(house, completion=RULES, retries=RetryRules(attempts=1)) as state:
        first = ready(state)
        if end == "cancelled":
            state.jobs.cancel(first, T0)
        else:
            job = state.jobs.lease(T0)
            if end in ("done", "refused"):
                state.jobs.finish(job, Outcome(refused=end == "refused", reason="", body=b"1"), T0)
            if end == "dead":
                state.jobs.fail(job, "engine-failed", T0)
        assert state.jobs.job(first).state == end
        study = file(state, "1.2", at=T0 + 10)
        second, old = state.jobs.jobs(study_id=study)
        assert (second.state, second.instances) == (JobState.COLLECTING, 2)
        assert (old.job_id, old.state) == (first, end)


def test_an_image_before_the_start_joins_the_waiting_job(house):
    with opened(house, completion=RULES) as state:
        job_id = ready(state)
        file(state, "1.2", at=T0 + 10)
        assert [j.job_id for j in state.jobs.jobs()] == [job_id]
        assert state.jobs.lease(T0 + 10).instances == 2


# --- order -----------------------------------------------------------------------------------


def test_the_more_urgent_goes_first_and_equals_in_order_of_arrival(house):
    with opened(house, completion=RULES) as state:
        routine = ready(state, "1")
        again = ready(state, "2")
        urgent = ready(state, "3", priority="HIGH")
        stat = ready(state, "4", priority=" stat")
        by_sender = ready(state, "5", source="ER")
        order = [state.jobs.lease(T0).job_id for _ in range(5)]
        assert order == [stat, urgent, by_sender, routine, again]


def test_waiting_earns_what_urgency_gives_so_nothing_starves(house):
    with opened(house, completion=RULES) as state:
        routine = ready(state, "1")
        for n in range(2, 40):
            at = T0 + n * MINUTE
            stat = ready(state, str(n), at=at, priority="STAT")
            taken = state.jobs.lease(at)
            if taken.job_id == routine:
                break
            assert taken.job_id == stat
            state.jobs.finish(taken, DONE, at)
        assert n in (30, 31)


def test_a_later_image_may_raise_the_priority_and_never_lowers_it(house):
    with opened(house, completion=RULES) as state:
        file(state, "1.1")
        file(state, "1.2", priority="STAT")
        file(state, "1.3")
        assert state.jobs.jobs()[0].priority is Priority.STAT


def test_a_person_may_change_the_priority_until_the_job_has_ended(house):
    with opened(house, completion=RULES) as state:
        first, second = ready(state, "1"), ready(state, "2")
        assert state.jobs.prioritise(second, Priority.STAT, T0).priority is Priority.STAT
        assert state.jobs.lease(T0).job_id == second
        state.jobs.prioritise(first, Priority.URGENT, T0)
        lowered = state.jobs.prioritise(first, Priority.ROUTINE, T0)
        assert lowered.priority is Priority.ROUTINE
        state.jobs.cancel(first, T0)
        with pytest.raises(WrongStateError):
            state.jobs.prioritise(first, Priority.STAT, T0)
        with pytest.raises(NotFoundError):
            state.jobs.prioritise("nobody", Priority.STAT, T0)


def test_two_jobs_of_one_study_never_run_at_once(house):
    with opened(house, completion=RULES) as state:
        ready(state)
        first = state.jobs.lease(T0)
        study = file(state, "1.2", priority="STAT")
        state.jobs.complete(study, T0)
        assert state.jobs.next_due() is None
        assert state.jobs.lease(T0) is None
        assert state.jobs.fail(first, "engine-failed", T0) is JobState.READY
        again = state.jobs.lease(T0 + 1_000)
        assert again.job_id == first.job_id  # the older one first, now as urgent as the newer
        assert again.priority is Priority.STAT
        old = state.jobs.finish(again, DONE, T0 + 1_000)
        late = state.jobs.lease(T0 + 1_000)
        new = state.jobs.finish(late, DONE, T0 + 1_000)
        assert state.jobs.result(old).superseded_by == new
        assert state.jobs.result(new).superseded_by == ""


# --- results ---------------------------------------------------------------------------------


def test_a_result_is_there_after_a_restart_byte_for_byte(house):
    with opened(house, completion=RULES) as state:
        job_id = ready(state)
        result_id = state.jobs.finish(state.jobs.lease(T0), DONE, T0 + 3)
    with opened(house, completion=RULES) as state:
        result = state.jobs.result(result_id)
        assert (result.body, result.job_id, result.created) == (DONE.body, job_id, T0 + 3)
        job = state.jobs.job(job_id)
        assert (job.state, job.result_id, job.lease) == (JobState.DONE, result_id, "")
        assert job.study_id == result.study_id


def test_a_refusal_is_a_result_with_a_reason(house):
    with opened(house, completion=RULES) as state:
        job_id = ready(state)
        refusal = Outcome(refused=True, reason="wrong-modality", body=b"{}")
        state.jobs.finish(state.jobs.lease(T0), refusal, T0)
        job = state.jobs.job(job_id)
        assert (job.state, job.reason) == (JobState.REFUSED, "wrong-modality")


def test_a_newer_result_supersedes_the_older_ones_of_its_study_only(house):
    with opened(house, completion=RULES) as state:
        ready(state, "9")
        other = state.jobs.finish(state.jobs.lease(T0), DONE, T0)
        made = []
        for n in range(3):
            study = file(state, f"1.{n}", at=T0 + n)
            state.jobs.complete(study, T0 + n)
            made.append(state.jobs.finish(state.jobs.lease(T0 + n), DONE, T0 + n))
        chain = [state.jobs.result(r).superseded_by for r in made]
        assert chain == [made[1], made[2], ""]
        assert state.jobs.result(other).superseded_by == ""


def test_a_job_ends_once(house):
    with opened(house, completion=RULES) as state:
        ready(state)
        job = state.jobs.lease(T0)
        state.jobs.finish(job, DONE, T0)
        for end in (
            lambda: state.jobs.finish(job, DONE, T0),
            lambda: state.jobs.fail(job, "engine-failed", T0),
        ):
            with pytest.raises(WrongStateError):
                end()
        assert state.jobs.job(job.job_id).state is JobState.DONE


def test_a_stale_lease_stores_nothing(house):
    with opened(house, completion=RULES, retries=RETRIES) as state:
        job_id = ready(state)
        stale = state.jobs.lease(T0)
        state.jobs.fail(stale, "timed-out", T0)
        fresh = state.jobs.lease(T0 + 1_000)
        assert fresh.job_id == job_id
        with pytest.raises(WrongStateError):
            state.jobs.finish(stale, DONE, T0 + 1_000)
        result_id = state.jobs.finish(fresh, DONE, T0 + 1_000)
        assert state.jobs.job(job_id).result_id == result_id


def test_a_job_that_was_never_leased_cannot_be_finished(house):
    with opened(house, completion=RULES) as state:
        waiting = state.jobs.job(ready(state))
        with pytest.raises(WrongStateError):
            state.jobs.finish(waiting, DONE, T0)


# --- failure and recovery --------------------------------------------------------------------


def test_a_failed_job_backs_off_and_ends_in_the_dead_letter(house):
    with opened(house, completion=RULES, retries=RETRIES) as state:
        job_id = ready(state)
        now = T0
        for wait in (1_000, 2_000):
            assert state.jobs.fail(state.jobs.lease(now), "engine-failed", now) is JobState.READY
            assert state.jobs.next_due() == now + wait
            assert state.jobs.lease(now + wait - 1) is None
            now += wait
        assert state.jobs.fail(state.jobs.lease(now), "engine-failed", now) is JobState.DEAD
        dead = state.jobs.job(job_id)
        assert (dead.state, dead.reason, dead.attempts) == (JobState.DEAD, "engine-failed", 3)
        assert [j.job_id for j in state.jobs.jobs(states=[JobState.DEAD])] == [job_id]
        assert state.jobs.next_due() is None


def test_a_dead_job_is_replayed_with_all_its_attempts(house):
    with opened(house, completion=RULES, retries=RETRIES) as state:
        job_id = ready(state)
        for step in range(3):
            state.jobs.fail(state.jobs.lease(T0 + step * MINUTE), "x", T0 + step * MINUTE)
        replayed = state.jobs.replay(job_id, T0 + 5 * MINUTE)
        assert (replayed.state, replayed.attempts) == (JobState.READY, 0)
        with pytest.raises(WrongStateError):
            state.jobs.replay(job_id, T0)
        with pytest.raises(NotFoundError):
            state.jobs.replay("nobody", T0)
        again = state.jobs.lease(T0 + 5 * MINUTE)
        assert state.jobs.fail(again, "x", T0 + 5 * MINUTE) is JobState.READY


def test_a_running_job_of_a_dead_process_runs_again_and_its_old_lease_is_void(house):
    with opened(house, completion=RULES, retries=RETRIES) as state:
        job_id = ready(state)
        stale = state.jobs.lease(T0)
    with opened(house, completion=RULES, retries=RETRIES) as state:
        assert state.jobs.recover(T0) == 0  # opening did it
        job = state.jobs.job(job_id)
        assert (job.state, job.reason, job.attempts) == (JobState.READY, "interrupted", 0)
        with pytest.raises(WrongStateError):
            state.jobs.finish(stale, DONE, T0)
        assert state.jobs.lease(T0).job_id == job_id


def test_a_job_that_keeps_killing_the_process_ends_in_the_dead_letter(house):
    with opened(house, completion=RULES, retries=RETRIES) as state:
        job_id = ready(state)
        waits = []
        for _ in range(4):
            job = state.jobs.lease(T0 + 10 * MINUTE)
            assert job.job_id == job_id
            assert state.jobs.recover(T0) == 1
            waits.append(state.jobs.job(job_id).due - T0)
        assert state.jobs.job(job_id).state is JobState.DEAD
        assert waits[:3] == [0, 0, 1_000]
        assert state.jobs.lease(T0 + 10 * MINUTE) is None
        assert state.jobs.replay(job_id, T0).state is JobState.READY


@pytest.mark.parametrize("failed", [False, True])
def test_a_clock_that_is_set_back_does_not_hold_a_job_back_while_the_box_runs(house, failed):
    with opened(house, completion=RULES, retries=RETRIES) as state:
        ahead = T0 + 60 * MINUTE
        if failed:
            ready(state, at=ahead)
            state.jobs.fail(state.jobs.lease(ahead), "engine-failed", ahead)
        else:
            file(state, at=ahead)
        assert state.jobs.lease(T0) is not None


def test_a_small_step_back_of_the_clock_changes_nothing(house):
    with opened(house, completion=RULES) as state:
        file(state, at=T0)
        assert state.jobs.lease(T0 - 1_000) is None
        assert state.jobs.lease(T0 + 5_000) is not None


def test_a_clock_that_ran_ahead_does_not_hold_a_job_back_after_a_restart(house):
    year = 365 * 24 * 60 * MINUTE
    with opened(house, completion=RULES, retries=RETRIES) as state:
        file(state, at=T0 + year)
        assert state.jobs.next_due() == T0 + year + 5_000
    with opened(house, completion=RULES, retries=RETRIES) as state:
        assert state.jobs.next_due() == T0 + MINUTE


def test_a_job_is_cancelled_in_any_state_that_has_no_result(house):
    with opened(house, completion=RULES, retries=RetryRules(attempts=1)) as state:
        collecting = state.jobs.jobs(study_id=file(state, "1.1", "1"))[0].job_id
        assert state.jobs.cancel(collecting, T0).state is JobState.CANCELLED
        waiting = ready(state, "2")
        assert state.jobs.cancel(waiting, T0).state is JobState.CANCELLED
        ready(state, "3")
        running = state.jobs.lease(T0)
        assert state.jobs.cancel(running.job_id, T0).state is JobState.CANCELLED
        with pytest.raises(WrongStateError):
            state.jobs.finish(running, DONE, T0)
        ready(state, "4")
        dead = state.jobs.lease(T0)
        state.jobs.fail(dead, "x", T0)
        assert state.jobs.cancel(dead.job_id, T0).state is JobState.CANCELLED
        ready(state, "5")
        done = state.jobs.lease(T0)
        state.jobs.finish(done, DONE, T0)
        for job_id in (done.job_id, waiting):
            with pytest.raises(WrongStateError):
                state.jobs.cancel(job_id, T0)
        with pytest.raises(NotFoundError):
            state.jobs.cancel("nobody", T0)


# --- looking ---------------------------------------------------------------------------------


def test_jobs_come_newest_first_by_state_and_study_up_to_the_limit(house):
    with opened(house, completion=RULES) as state:
        made = [ready(state, str(n)) for n in range(5)]
        assert [j.job_id for j in state.jobs.jobs()] == made[::-1]
        assert [j.job_id for j in state.jobs.jobs(limit=2)] == made[:2:-1]
        assert state.jobs.jobs(limit=0) == []
        running = state.jobs.lease(T0)
        assert [j.job_id for j in state.jobs.jobs(states=[JobState.RUNNING])] == [running.job_id]
        states = (JobState.RUNNING, JobState.READY)
        assert len(state.jobs.jobs(states=states)) == 5
        assert state.jobs.jobs(study_id=running.study_id)[0].job_id == running.job_id
        assert state.jobs.jobs(study_id=running.study_id, states=[JobState.READY]) == []


def test_counts_are_by_state_without_empty_ones(house):
    with opened(house, completion=RULES) as state:
        assert state.jobs.counts() == {}
        for n in range(3):
            ready(state, str(n))
        file(state, "9.1", "9")
        state.jobs.finish(state.jobs.lease(T0), DONE, T0)
        wanted = {JobState.DONE: 1, JobState.READY: 2, JobState.COLLECTING: 1}
        assert state.jobs.counts() == wanted


def test_what_is_not_there_is_not_found(house):
    with opened(house, completion=RULES) as state:
        assert state.jobs.lease(T0) is None
        assert state.jobs.next_due() is None
        with pytest.raises(NotFoundError):
            state.jobs.job("nobody")
        with pytest.raises(NotFoundError):
            state.jobs.result("nothing")


def test_ids_are_ours_safe_in_urls_and_never_made_of_uids(house):
    with opened(house, completion=RULES) as state:
        ready(state, "1.2.840.99")
        job = state.jobs.lease(T0)
        result_id = state.jobs.finish(job, DONE, T0)
        for made in (job.job_id, job.study_id, job.lease, result_id):
            assert len(made) == 26
            assert set(made) <= set("abcdefghijklmnopqrstuvwxyz234567")


def test_jobs_are_narrowed_before_they_are_counted_off(house):
    with opened(house, completion=RULES) as state:
        urgent = ready(state, "1", source="ER")
        for study in "234":
            ready(state, study)
        assert [j.job_id for j in state.jobs.jobs(priority=Priority.URGENT, limit=1)] == [urgent]
        study_id = state.jobs.job(urgent).study_id
        assert state.jobs.jobs(priority=Priority.STAT, study_id=study_id) == []
        assert len(state.jobs.jobs(priority=Priority.URGENT, study_id=study_id)) == 1
