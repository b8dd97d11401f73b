"""Laws of the queue under any sequence of operations, restarts and clock jumps.

The real store and the simulator are driven side by side: they must answer alike, and both must
keep the laws. Ids are random, so jobs are compared by the order they were made in.
"""

from contextlib import ExitStack
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bedside_core.errors import BedsideError
from bedside_edge.ports import JobState, Outcome, Priority
from bedside_edge.store.rules import CompletionRules, RetryRules
from support.ram import ram_folder
from support.state_houses import T0, FolderHouse, MemoryHouse, arrival, digest_of

COMPLETION = CompletionRules(quiet_ms=500, max_wait_ms=1_500)
RETRIES = RetryRules(attempts=2, backoff_ms=(1_000,), interruptions=3)
ENDED = (JobState.DONE, JobState.REFUSED, JobState.CANCELLED, JobState.DEAD)


class Pair(RuleBasedStateMachine):
    """The same operations on both; every answer is compared."""

    @initialize()
    def start(self):
        self._folder = ExitStack()
        folder = self._folder.enter_context(ram_folder())
        self.houses = (FolderHouse(folder), MemoryHouse(Path()))
        self.states = [house.open(completion=COMPLETION, retries=RETRIES) for house in self.houses]
        self.now = T0
        self.numbers: list[dict[str, int]] = [{}, {}]  # id -> number, by house
        self.leases: list[tuple] = []
        self.acknowledged: set[tuple[str, str]] = set()
        self.results: dict[int, list[str]] = {}

    def teardown(self):
        if hasattr(self, "states"):
            for state in self.states:
                state.close()
            self._folder.close()

    def both(self, operation):
        """Run `operation(state, side)` on both; return the two answers or raise if they differ."""
        answers = []
        for side, state in enumerate(self.states):
            try:
                answers.append(operation(state, side))
            except BedsideError as error:
                answers.append(type(error))
        return answers

    def view(self, side, job):
        """Return a job without what is random."""
        if job is None or isinstance(job, type):
            return job
        number = self.numbers[side].setdefault(job.job_id, len(self.numbers[side]))
        return (
            number, job.state, job.priority, job.created, job.updated, job.due, job.attempts,
            job.reason, job.instances, bool(job.lease), bool(job.result_id),
        )  # fmt: skip

    def same(self, answers):
        views = [self.view(side, job) for side, job in enumerate(answers)]
        assert views[0] == views[1]
        return views[0]

    def job_id(self, side, number):
        ids = sorted(self.numbers[side], key=self.numbers[side].__getitem__)
        return ids[number % len(ids)] if ids else "nobody"

    @rule(
        study=st.integers(1, 2),
        instance=st.integers(1, 9),
        bytes_=st.integers(1, 2),
        priority=st.sampled_from(["", "STAT", "HIGH"]),
        expected=st.sampled_from([0, 0, 2]),
        quiet=st.booleans(),
    )
    def file(self, study, instance, bytes_, priority, expected, quiet):
        """File an instance; often the study then falls quiet, so that there is work to do."""

        def one(state, _side):
            sent = arrival(
                state,
                f"{study}.{instance}",
                study=str(study),
                data=bytes([bytes_]),
                at=self.now,
                priority=priority,
                expected=expected,
            )
            return state.studies.file([sent])[0].outcome

        first, second = self.both(one)
        assert first == second
        self.acknowledged.add((f"{study}.{instance}", digest_of(bytes([bytes_]))))
        self.number_all()
        if quiet:
            self.now += 1_500

    @rule()
    def work(self):
        """The ordinary course: take a job and end it."""
        had = len(self.leases)
        self.lease()
        if len(self.leases) > had:
            self.finish(which=had, refused=False)

    @rule()
    def lease(self):
        answers = self.both(lambda state, _: state.jobs.lease(self.now))
        if self.same(answers) is not None:
            self.leases.append(tuple(answers))

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(-2, 9), refused=st.booleans())
    def finish(self, which, refused):
        pair = self.leases[which % len(self.leases)]  # stale ones stay in the list on purpose
        outcome = Outcome(refused=refused, reason="r" * refused, body=b"body")
        answers = self.both(lambda state, side: state.jobs.finish(pair[side], outcome, self.now))
        assert isinstance(answers[0], type) == isinstance(answers[1], type)
        if isinstance(answers[0], str):
            number = self.numbers[0][pair[0].job_id]
            self.results.setdefault(number, []).append(answers[0])

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 9))
    def fail(self, which):
        pair = self.leases[which % len(self.leases)]
        first, second = self.both(lambda s, side: s.jobs.fail(pair[side], "code", self.now))
        assert first == second

    @rule(study=st.integers(0, 9))
    def complete(self, study):
        def one(state, side):
            job = self.job_id(side, study)
            if job != "nobody":
                state.jobs.complete(state.jobs.job(job).study_id, self.now)

        self.both(one)

    @rule(which=st.integers(0, 9))
    def replay(self, which):
        self.same(self.both(lambda s, side: s.jobs.replay(self.job_id(side, which), self.now)))

    @rule(which=st.integers(0, 9))
    def cancel(self, which):
        self.same(self.both(lambda s, side: s.jobs.cancel(self.job_id(side, which), self.now)))

    @rule(which=st.integers(0, 9), priority=st.sampled_from(Priority))
    def prioritise(self, which, priority):
        self.same(
            self.both(
                lambda s, side: s.jobs.prioritise(self.job_id(side, which), priority, self.now)
            )
        )

    @rule(ms=st.sampled_from([1, 500, 2_000, 2_000, 10_000, 3_600_000, -5_000, -86_400_000]))
    def time(self, ms):
        self.now += ms

    @rule()
    def restart(self):
        for side, house in enumerate(self.houses):
            self.states[side].close()
            self.states[side] = house.open(completion=COMPLETION, retries=RETRIES)
        self.number_all()

    def number_all(self):
        for side, state in enumerate(self.states):
            for job in reversed(state.jobs.jobs(limit=1000)):
                self.numbers[side].setdefault(job.job_id, len(self.numbers[side]))

    @invariant()
    def both_sides_agree(self):
        if not hasattr(self, "states"):
            return
        views = [
            [self.view(side, job) for job in state.jobs.jobs(limit=1000)]
            for side, state in enumerate(self.states)
        ]
        assert views[0] == views[1]
        assert self.states[0].jobs.next_due() == self.states[1].jobs.next_due()
        for state in self.states:
            self.keeps_the_laws(state)

    def keeps_the_laws(self, state):
        jobs = state.jobs.jobs(limit=1000)
        held = set()
        for study in {job.study_id for job in jobs}:
            mine = [job for job in jobs if job.study_id == study]
            instances = state.studies.instances(study)
            held |= {(i.header.sop_instance_uid, i.digest) for i in instances}
            assert sum(job.state is JobState.RUNNING for job in mine) <= 1
            # an instance is either in the view of the newest job or has a job to come
            newest = mine[0]
            assert newest.state not in ENDED or newest.instances == len(instances)
            current = [j for j in mine if j.result_id]
            marks = [state.jobs.result(j.result_id).superseded_by for j in current]
            assert marks.count("") == (1 if marks else 0)
        assert self.acknowledged <= held  # nothing acknowledged is lost
        assert all(len(made) == 1 for made in self.results.values())  # one result a job


Pair.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestQueueLaws = Pair.TestCase
