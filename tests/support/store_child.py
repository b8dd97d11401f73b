"""A process that files, leases, finishes and fails until it is killed.

Run as `python store_child.py FOLDER ROUND THREADS`. Every line on standard output is written after
the call it names has returned: those are the promises the parent checks after killing it.
"""

import hashlib
import sys
import threading
from pathlib import Path

from bedside_core.errors import WrongStateError
from bedside_edge.ports import Outcome
from bedside_edge.store.objects import DiskLimits
from bedside_edge.store.rules import CompletionRules
from bedside_edge.store.state import State, open_state
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.state_houses import arrival

SAY = threading.Lock()


def say(*words: object) -> None:
    with SAY:
        sys.stdout.write(" ".join(map(str, words)) + "\n")
        sys.stdout.flush()


def content(uid: str) -> bytes:
    """Return the bytes of an instance, as the parent can tell them again."""
    return hashlib.sha256(uid.encode()).digest() * 3_000


def send(state: State, clock: SystemClock, run: str, thread: int) -> None:
    number = 0
    while True:
        number += 1
        study = f"1.{run}.{thread}.{number // 3}"
        uid = f"{study}.{number}"
        sent = arrival(state, uid, study=study, data=content(uid), at=clock.now(), source="CT1")
        (filed,) = state.studies.file([sent])
        say("filed", filed.study_id, filed.instance_id, uid)


def work(state: State, clock: SystemClock) -> None:
    number = 0
    while True:
        number += 1
        job = state.jobs.lease(clock.now())
        if job is None:
            continue
        if number % 5 == 0:
            state.jobs.fail(job, "engine-failed", clock.now())
            continue
        body = f"{job.job_id} {job.instances}".encode()
        try:
            result = state.jobs.finish(
                job, Outcome(refused=False, reason="", body=body), clock.now()
            )
        except WrongStateError:
            sys.exit("a lease ended under a live worker")
        say("result", job.job_id, result)


def main() -> None:
    folder, run, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    clock = SystemClock()
    state = open_state(
        folder,
        clock,
        OsRandom(),
        open_box_keys,
        completion=CompletionRules(quiet_ms=0, max_wait_ms=0),
        disk=DiskLimits(high_watermark=1.0, min_free_bytes=0),
    )
    say("open", state.recovered, state.swept)
    for n in range(threads):
        threading.Thread(target=send, args=(state, clock, run, n), daemon=True).start()
    work(state, clock)


if __name__ == "__main__":
    main()
