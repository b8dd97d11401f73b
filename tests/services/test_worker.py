"""The worker ends every job it took, whatever fails on the way."""

import pytest

from bedside_core.errors import BedsideError, DiskFullError, EngineFailedError, WrongStateError
from bedside_edge.ports import JobState, Outcome
from bedside_edge.services.ingest import IngestService
from bedside_edge.services.worker import Bell, Worker
from bedside_edge.store.rules import RetryRules
from support.fake_clock import FakeClock
from support.memory_store import MemoryDisk, MemoryState
from support.state_houses import T0, arrival

DONE = Outcome(refused=False, reason="", body=b"{}")
RETRIES = RetryRules(attempts=2, backoff_ms=(1_000,))


class FillingQueue:
    """A queue on a disk that is `full`: reading and leasing work, nothing else is written."""

    def __init__(self, queue):
        self._queue, self.full = queue, False

    def __getattr__(self, name):
        return getattr(self._queue, name)

    def finish(self, *arguments):
        self._refuse_when_full()
        return self._queue.finish(*arguments)

    def fail(self, *arguments):
        self._refuse_when_full()
        return self._queue.fail(*arguments)

    def _refuse_when_full(self):
        if self.full:
            raise DiskFullError("the disk is full; nothing was written")


class Reader:
    """Answers with an outcome, or raises what it is told to; may do something first."""

    def __init__(self):
        self.error = None
        self.before = lambda: None

    def analyse_study(self, instances, read):
        self.before()
        if self.error is not None:
            raise self.error
        return DONE


class House:
    """A worker over the simulators."""

    def __init__(self):
        self.clock = FakeClock(T0)
        self.state = MemoryState(MemoryDisk(), retries=RETRIES)
        self.queue = FillingQueue(self.state.jobs)
        self.reader, self.codes = Reader(), []
        ingest = IngestService(
            objects=self.state.objects,
            studies=self.state.studies,
            queue=self.queue,
            reader=None,
            clock=self.clock,
            wrap=lambda *_: b"",
            wake=lambda: None,
            max_object_bytes=1 << 20,
        )
        self.worker = Worker(
            queue=self.queue,
            objects=self.state.objects,
            ingest=ingest,
            analysis=self.reader,
            clock=self.clock,
            bell=Bell(),
            job_timeout_s=60,
            observe=lambda code, seconds: self.codes.append(code),
            resting=lambda: self.hot,
        )
        self.hot = False

    def file(self, study="1"):
        filed = self.state.studies.file([arrival(self.state, f"{study}.1", study=study)])
        self.state.jobs.complete(filed[0].study_id, self.clock.now())
        return self.state.jobs.jobs(study_id=filed[0].study_id)[0].job_id


def test_a_job_whose_end_the_full_disk_refused_ends_when_there_is_room():
    house = House()
    job_id = house.file()
    house.queue.full = True
    with pytest.raises(DiskFullError):
        house.worker.step()
    with pytest.raises(DiskFullError):
        house.worker.step()
    house.queue.full = False
    house.clock.advance(1_000)
    house.worker.step()  # gives it back
    house.clock.advance(1_000)
    house.worker.step()
    assert house.state.jobs.job(job_id).state is JobState.DONE


def test_nothing_new_is_begun_while_a_job_cannot_be_given_back():
    house = House()
    first, second = house.file("1"), house.file("2")
    house.queue.full = True
    for _ in range(3):
        with pytest.raises(DiskFullError):
            house.worker.step()
    assert house.state.jobs.job(first).attempts == 1
    assert house.state.jobs.job(second).state is JobState.READY


@pytest.mark.parametrize("error", [WrongStateError("of another thing"), EngineFailedError("x")])
def test_an_error_that_is_not_about_the_lease_fails_the_job(error):
    house = House()
    job_id, house.reader.error = house.file(), error
    assert house.worker.step()
    assert house.state.jobs.job(job_id).state is JobState.READY
    house.clock.advance(1_000)
    assert house.worker.step()
    assert house.state.jobs.job(job_id).state is JobState.DEAD
    assert house.codes == [error.code] * 2


@pytest.mark.parametrize("error", [None, EngineFailedError("x"), BedsideError("x")])
def test_a_job_that_is_cancelled_while_it_runs_stays_cancelled(error):
    house = House()
    job_id, house.reader.error = house.file(), error
    house.reader.before = lambda: house.state.jobs.cancel(job_id, house.clock.now())
    assert house.worker.step()
    assert house.state.jobs.job(job_id).state is JobState.CANCELLED
    assert house.codes == ["superseded"]


def test_no_job_is_taken_while_the_board_is_too_hot_and_none_is_lost():
    house = House()
    job_id = house.file()
    house.hot = True
    assert house.worker.step() is False
    assert house.worker._nap() > 0, "a resting worker does not spin"
    assert house.state.jobs.job(job_id).state is JobState.READY
    house.hot = False
    assert house.worker.step() is True
    assert house.state.jobs.job(job_id).state is JobState.DONE
