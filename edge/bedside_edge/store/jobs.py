"""The job queue in SQLite: every method is one transaction, so a kill between two loses nothing.

Laws:
- An instance that is filed has an open job, or one that is running and a later one to follow.
- Jobs of one study run one after the other, oldest first, so a later result never gives way to an
  older one; making a job more urgent hastens the older ones it waits for.
- `finish` and `fail` need the lease the job was taken with; of two workers only one can end it.
- Attempts count what failed, interruptions count deaths of the process; both are bounded.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final

from bedside_core.errors import NotFoundError, WrongStateError
from bedside_edge.ports import (
    Arrival,
    Job,
    JobState,
    Outcome,
    Priority,
    RandomBytes,
    StoredResult,
)
from bedside_edge.ports.evidence import BOX, Record
from bedside_edge.store import told
from bedside_edge.store.database import Database
from bedside_edge.store.rules import CREDIT_MS, CompletionRules, RetryRules, new_id, score
from bedside_edge.store.sealing import Box

INTERRUPTED: Final = "interrupted"
_NONCE: Final = 12

_SELECT: Final = """
  SELECT job_id, study_id, state, priority, created, updated, due, attempts, reason, instances,
         result_id, lease
  FROM jobs """
_BY_ID: Final = _SELECT + "WHERE job_id = ?"
_BY_SEQ: Final = _SELECT + "WHERE seq = ?"
_LIST: Final = """(?1 = '[]' OR state IN (SELECT value FROM json_each(?1)))
  AND (?3 IS NULL OR priority = ?3) ORDER BY seq DESC LIMIT ?2"""
_LIST_ALL: Final = f"{_SELECT} WHERE {_LIST}"
_LIST_STUDY: Final = f"{_SELECT} WHERE study_id = ?4 AND {_LIST}"
# An open job that no other job of its study has to end before, of a study under no legal hold,
# while the box is not sealed
_FREE: Final = """
  FROM jobs
  WHERE state IN ('collecting', 'ready') AND EXISTS (SELECT 1 FROM box_open)
  AND NOT EXISTS (SELECT 1 FROM jobs AS r WHERE r.study_id = jobs.study_id AND r.state = 'running')
  AND NOT EXISTS (SELECT 1 FROM jobs AS o WHERE o.study_id = jobs.study_id AND o.seq < jobs.seq
                  AND o.state IN ('collecting', 'ready'))
  AND NOT EXISTS (SELECT 1 FROM holds AS h WHERE h.study_id = jobs.study_id AND h.released_at = 0)
"""
# Nothing is made to wait longer than to ?2: what is due after that was dated by a clock that has
# been set back since, and would wait as long as that clock was ahead
_NEXT: Final = "SELECT seq" + _FREE + "AND (due <= ?1 OR due > ?2) ORDER BY score, seq LIMIT 1"
_NEXT_DUE: Final = "SELECT min(due)" + _FREE
_TAKE: Final = """
  UPDATE jobs SET state = 'running', lease = ?, attempts = attempts + 1, updated = ?,
    instances = (SELECT s.instances FROM studies AS s WHERE s.study_id = jobs.study_id)
  WHERE seq = ?"""
_END: Final = """
  UPDATE jobs SET state = ?, reason = ?, updated = ?, result_id = ?, due = coalesce(?, due),
    lease = ''
  WHERE job_id = ? AND lease = ? AND state = 'running' AND lease <> ''"""
_INTERRUPT: Final = """
  UPDATE jobs SET state = ?, due = ?, updated = ?, reason = ?, lease = '',
    attempts = max(0, attempts - 1), interruptions = ?
  WHERE job_id = ?"""
_REPLAY: Final = """
  UPDATE jobs SET state = 'ready', due = ?1, updated = ?1, attempts = 0, interruptions = 0
  WHERE job_id = ?2"""
_CANCEL: Final = "UPDATE jobs SET state = 'cancelled', lease = '', updated = ?1 WHERE job_id = ?2"
_PRIORITISE: Final = (
    "UPDATE jobs SET priority = ?, score = created - ?, updated = ? WHERE job_id = ?"
)
_HASTEN: Final = """
  UPDATE jobs SET priority = ?1, score = created - ?2, updated = ?3
  WHERE study_id = ?4 AND priority > ?1 AND state IN ('collecting', 'ready', 'running')"""
_NEWEST_OPEN: Final = """
  SELECT job_id, state, created, due FROM jobs
  WHERE study_id = ? AND state IN ('collecting', 'ready') ORDER BY seq DESC LIMIT 1"""
_COUNTS: Final = "SELECT expected, instances, uids FROM studies WHERE study_id = ?"
_JOIN: Final = "UPDATE jobs SET state = ?, due = ?, updated = ?, instances = ? WHERE job_id = ?"
_UNENDED: Final = (JobState.COLLECTING, JobState.READY, JobState.RUNNING)

KeyOf = Callable[[sqlite3.Connection, str], Box]


class SqliteJobs:
    """`JobQueue` over the database; `key_of` gives a study's data key inside a transaction."""

    def __init__(
        self,
        database: Database,
        key_of: KeyOf,
        random: RandomBytes,
        completion: CompletionRules,
        retries: RetryRules,
        record: Record,
    ) -> None:
        self._database = database
        self._record = record
        self._key_of = key_of
        self._random = random
        self._completion = completion
        self._retries = retries

    # --- the worker's side -------------------------------------------------------------------

    def lease(self, now: int) -> Job | None:
        """Take the next ready job (due ones included) and mark it RUNNING; None if none."""
        when = (now, now + self._longest_wait())
        if self._database.read(lambda c: c.execute(_NEXT, when).fetchone()) is None:
            return None  # a look costs no fsync

        def take(c: sqlite3.Connection) -> Job | None:
            row = c.execute(_NEXT, when).fetchone()
            if row is None:
                return None  # another worker was faster
            c.execute(_TAKE, (new_id(self._random), now, row[0]))
            return _job(c.execute(_BY_SEQ, row).fetchone())

        return self._database.write(take)

    def finish(self, job: Job, outcome: Outcome, now: int) -> str:
        """Store the result and end the job in one transaction; return the result id.

        Raises:
            WrongStateError: stale lease; nothing was stored.
        """

        def end(c: sqlite3.Connection) -> str:
            result_id = new_id(self._random)
            state = JobState.REFUSED if outcome.refused else JobState.DONE
            _end(c, job, state, outcome.reason, now, result_id=result_id)
            box = self._key_of(c, job.study_id)
            body = box.seal(outcome.body, f"result {result_id}", self._random(_NONCE))
            c.execute(
                "UPDATE results SET superseded_by = ? WHERE study_id = ? AND superseded_by = ''",
                (result_id, job.study_id),
            )
            c.execute(
                "INSERT INTO results (result_id, job_id, study_id, created, body)"
                " VALUES (?, ?, ?, ?, ?)",
                (result_id, job.job_id, job.study_id, now, body),
            )
            for instance_id, values in outcome.features.items():
                context = f"features {instance_id} {outcome.package}"
                features = box.seal(values.astype("<f4").tobytes(), context, self._random(_NONCE))
                c.execute(
                    "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)",
                    (instance_id, outcome.package, job.study_id, features),
                )
            self._record(c, told.result(job, result_id, outcome))
            return result_id

        return self._database.write(end)

    def fail(self, job: Job, code: str, now: int) -> JobState:
        """Back off and retry, or DEAD after the last attempt; WrongStateError: stale lease."""

        def end(c: sqlite3.Connection) -> JobState:
            row = c.execute(_BY_ID, (job.job_id,)).fetchone()
            if row is None:
                raise WrongStateError("the job was erased with its study")
            attempts = _job(row).attempts
            if attempts >= self._retries.attempts:
                _end(c, job, JobState.DEAD, code, now)
                self._record(c, told.job_dead(job.study_id, job.job_id, code))
                return JobState.DEAD
            _end(c, job, JobState.READY, code, now, due=now + self._retries.wait(attempts))
            return JobState.READY

        return self._database.write(end)

    def recover(self, now: int) -> int:
        """At start-up: put RUNNING jobs of a dead process back to READY; return how many.

        A job that was running at too many deaths of the process is DEAD with the reason
        "interrupted": it may be what kills it.
        """

        def back(c: sqlite3.Connection) -> int:
            rows = c.execute(
                "SELECT job_id, interruptions + 1, study_id FROM jobs WHERE state = 'running'"
            ).fetchall()
            for job_id, interruptions, study_id in rows:
                last = interruptions >= self._retries.interruptions
                if last:
                    self._record(c, told.job_dead(study_id, job_id, INTERRUPTED))
                c.execute(
                    _INTERRUPT,
                    (
                        JobState.DEAD if last else JobState.READY,
                        now + self._retries.wait_interrupted(interruptions),
                        now,
                        INTERRUPTED,
                        interruptions,
                        job_id,
                    ),
                )
            # A clock that ran ahead must not leave a job waiting for a day that is far away
            c.execute(
                "UPDATE jobs SET due = ?1 WHERE due > ?1 AND state IN ('collecting', 'ready')",
                (now + self._longest_wait(),),
            )
            return len(rows)

        return self._database.write(back)

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state; states without one are left out."""
        rows = self._database.read(
            lambda c: c.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        )
        return {JobState(state): count for state, count in rows}

    def next_due(self) -> int | None:
        """Return when the next job becomes ready, or None; lets workers sleep."""
        due: int | None = self._database.read(lambda c: c.execute(_NEXT_DUE).fetchone()[0])
        return due

    # --- people's and senders' side ----------------------------------------------------------

    def complete(self, study_id: str, now: int) -> None:
        """No more instances are expected (release, count reached, by hand): due at once."""
        self._database.write(
            lambda c: c.execute(
                "UPDATE jobs SET state = 'ready', due = ?, updated = ?"
                " WHERE study_id = ? AND state = 'collecting'",
                (now, now, study_id),
            )
        )

    def replay(self, job_id: str, now: int, actor: str = BOX) -> Job:
        """Put a DEAD job back with all its attempts; WrongStateError, NotFoundError."""
        return self._change(job_id, (JobState.DEAD,), _REPLAY, now, "job-replayed", actor)

    def cancel(self, job_id: str, now: int, actor: str = BOX) -> Job:
        """Cancel a job that is not finished; WrongStateError, NotFoundError."""
        allowed = (*_UNENDED, JobState.DEAD)
        return self._change(job_id, allowed, _CANCEL, now, "job-cancelled", actor)

    def prioritise(self, job_id: str, priority: Priority, now: int, actor: str = BOX) -> Job:
        """Change the priority of a job that has not ended; WrongStateError, NotFoundError."""

        def change(c: sqlite3.Connection) -> Job:
            job = _one(c, job_id)
            if job.state not in _UNENDED:
                raise WrongStateError("the job has ended")
            c.execute(_PRIORITISE, (int(priority), CREDIT_MS[priority], now, job_id))
            _hasten(c, job.study_id, priority, now)
            changed = _one(c, job_id)
            self._record(c, told.job_changed(changed, "job-prioritised", actor))
            return changed

        return self._database.write(change)

    def job(self, job_id: str) -> Job:
        """Return one job; NotFoundError."""
        return self._database.read(lambda c: _one(c, job_id))

    def jobs(
        self,
        *,
        states: Iterable[JobState] = (),
        study_id: str = "",
        priority: Priority | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return jobs, newest first; `jobs(study_id=...)[0]` is the study's current one."""
        wanted = json.dumps([str(state) for state in states])
        query = _LIST_STUDY if study_id else _LIST_ALL
        level = None if priority is None else int(priority)
        values = (wanted, max(0, limit), level, study_id)[: 4 if study_id else 3]
        rows = self._database.read(lambda c: c.execute(query, values).fetchall())
        return [_job(row) for row in rows]

    def result(self, result_id: str) -> StoredResult:
        """Return one result; NotFoundError."""

        def look(c: sqlite3.Connection) -> tuple[Box, Any]:
            row = c.execute(
                "SELECT result_id, job_id, study_id, created, superseded_by, body, grade"
                " FROM results"
                " WHERE result_id = ?",
                (result_id,),
            ).fetchone()
            if row is None:
                raise NotFoundError("no result of that id")
            return self._key_of(c, row[2]), row

        box, row = self._database.read(look)
        return StoredResult(
            result_id=row[0],
            job_id=row[1],
            study_id=row[2],
            created=row[3],
            superseded_by=row[4],
            body=box.open(row[5], f"result {row[0]}"),
            grade=row[6],
        )

    def _longest_wait(self) -> int:
        return max(self._completion.max_wait_ms, *self._retries.backoff_ms)

    def _change(
        self,
        job_id: str,
        allowed: tuple[JobState, ...],
        change: str,
        now: int,
        what: str,
        actor: str,
    ) -> Job:
        def update(c: sqlite3.Connection) -> Job:
            if _one(c, job_id).state not in allowed:
                raise WrongStateError("the job is not in a state that allows this")
            c.execute(change, (now, job_id))
            changed = _one(c, job_id)
            self._record(c, told.job_changed(changed, what, actor))
            return changed

        return self._database.write(update)


def wake(
    c: sqlite3.Connection,
    study_id: str,
    arrival: Arrival,
    rules: CompletionRules,
    random: RandomBytes,
) -> None:
    """Give the study's open job another instance, or make a job; inside `file`'s transaction."""
    now = arrival.at
    priority = rules.priority(arrival.header, arrival.source)
    row = c.execute(_NEWEST_OPEN, (study_id,)).fetchone()
    if row is None:
        row = (new_id(random), JobState.COLLECTING, now, now)
        c.execute(
            "INSERT INTO jobs (job_id, study_id, state, priority, created, updated, due, score)"
            " VALUES (?, ?, 'collecting', ?, ?, ?, ?, ?)",
            (row[0], study_id, int(priority), now, now, now, score(now, priority)),
        )
    job_id, state, created, due = row
    expected, instances, uids = c.execute(_COUNTS, (study_id,)).fetchone()
    if state == JobState.COLLECTING:
        whole = 0 < expected <= uids
        state = JobState.READY if whole else JobState.COLLECTING
        due = now if whole else rules.due(arrival.source, now, created)
    c.execute(_JOIN, (state, due, now, instances, job_id))
    if priority is not Priority.ROUTINE:
        _hasten(c, study_id, priority, now)


def _hasten(c: sqlite3.Connection, study_id: str, priority: Priority, now: int) -> None:
    """Make every job of the study that has not ended at least as urgent as `priority`.

    The running one too: if it fails, the others wait for it.
    """
    c.execute(_HASTEN, (int(priority), CREDIT_MS[priority], now, study_id))


def _end(
    c: sqlite3.Connection,
    job: Job,
    state: JobState,
    reason: str,
    now: int,
    *,
    result_id: str = "",
    due: int | None = None,
) -> None:
    """Take a running job out of its lease; WrongStateError when the lease is not the job's."""
    done = c.execute(_END, (state, reason, now, result_id, due, job.job_id, job.lease))
    if done.rowcount != 1:
        raise WrongStateError("the lease on this job has ended")


def _one(c: sqlite3.Connection, job_id: str) -> Job:
    row = c.execute(_BY_ID, (job_id,)).fetchone()
    if row is None:
        raise NotFoundError("no job of that id")
    return _job(row)


def _job(row: tuple[Any, ...]) -> Job:
    return Job(
        job_id=row[0],
        study_id=row[1],
        state=JobState(row[2]),
        priority=Priority(row[3]),
        created=row[4],
        updated=row[5],
        due=row[6],
        attempts=row[7],
        reason=row[8],
        instances=row[9],
        result_id=row[10],
        lease=row[11],
    )
