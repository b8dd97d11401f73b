"""A real process is killed at any moment; what it acknowledged is there when the folder opens."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from bedside_edge.ports import JobState, Outcome
from bedside_edge.store.state import State
from support import store_child
from support.repository import ROOT
from support.state_houses import T0, FolderHouse

ENDED = {JobState.DONE, JobState.REFUSED, JobState.DEAD, JobState.CANCELLED}


def run_and_kill(
    folder: Path, run: int, threads: int, after_lines: int, delay_s: float
) -> list[str]:
    """Start a child, wait for `after_lines` acknowledgements and `delay_s`, SIGKILL; its lines."""
    command = [sys.executable, str(Path(store_child.__file__)), str(folder), str(run), str(threads)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    with (folder.parent / "errors").open("w+") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        late = threading.Timer(60, child.kill)
        late.start()
        try:
            assert child.stdout is not None
            read = [child.stdout.readline() for _ in range(after_lines)]
            threading.Event().wait(delay_s)
            child.send_signal(signal.SIGKILL)
            read.append(child.stdout.read())
            child.wait(30)
        finally:
            late.cancel()
            child.kill()
            child.stdout.close()
        errors.seek(0)
        assert child.returncode == -signal.SIGKILL, errors.read()
    whole = "".join(read)
    return whole[: whole.rfind("\n") + 1].splitlines()  # nobody read a line torn by the kill


def check(state: State, filed: dict[str, tuple[str, str]], results: dict[str, str]) -> None:
    """Every acknowledged instance and result is there, once, and no job has two results."""
    studies = {study for study, _ in filed.values()}
    held = {i.instance_id: i for study in studies for i in state.studies.instances(study)}
    for instance_id, (study_id, uid) in filed.items():
        instance = held[instance_id]
        assert (instance.study_id, instance.header.sop_instance_uid) == (study_id, uid)
        data = state.objects.read(instance.object_name, instance.object_key)
        assert data == store_child.content(uid)
    assert max(Counter(i.header.sop_instance_uid for i in held.values()).values(), default=1) == 1
    for job_id, result_id in results.items():
        result = state.jobs.result(result_id)
        assert result.job_id == job_id
        assert result.body.startswith(job_id.encode())
        assert state.jobs.job(job_id).result_id == result_id
    jobs = state.jobs.jobs(limit=1_000_000)
    made = [j.result_id for j in jobs if j.result_id]
    assert len(made) == len(set(made))
    counted = state.database.read(
        lambda c: c.execute("SELECT count(*), count(DISTINCT job_id) FROM results").fetchone()
    )
    assert counted == (len(made), len(made))
    assert set(state.objects.names()) == state.studies.object_names()
    for study in studies:  # each study has a job that saw all of it, or one to come
        newest = state.jobs.jobs(study_id=study)[0]
        seen = sum(i.study_id == study for i in held.values())
        assert newest.state not in ENDED or newest.instances == seen


def drain(state: State) -> None:
    """Run what is left to run; no study may be stuck."""
    far = T0 + 10**12
    while (job := state.jobs.lease(far)) is not None:
        body = f"{job.job_id} {job.instances}".encode()
        state.jobs.finish(job, Outcome(refused=False, reason="", body=body), far)
    assert state.jobs.jobs(states=[JobState.COLLECTING, JobState.READY, JobState.RUNNING]) == []


def kills(folder: Path, rounds: int) -> int:
    house = FolderHouse(folder)
    filed: dict[str, tuple[str, str]] = {}
    results: dict[str, str] = {}
    for run in range(rounds):
        lines = run_and_kill(
            house.folder,
            run,
            threads=1 + run % 4,
            after_lines=(1, 2, 7, 25, 60)[run % 5],
            delay_s=(run * 37 % 101) / 4_000,
        )
        for words in map(str.split, lines):
            if words[0] == "filed":
                filed[words[2]] = (words[1], words[3])
            elif words[0] == "result":
                results[words[1]] = words[2]
        state = house.open()
        check(state, filed, results)
        if run % 3 == 2:
            drain(state)
        state.close()
    assert filed
    assert results
    return len(filed)


def test_nothing_acknowledged_is_lost_over_some_kills(tmp_path):
    kills(tmp_path, 6)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_over_many_kills(tmp_path):
    assert kills(tmp_path, 100) > 1_000
