"""What a trial leaves behind when its time is over: nothing."""

import subprocess
import sys
import time
from pathlib import Path

from bedside_edge.system.trial_process import _end

PARENT = (
    "import subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(child.pid, flush=True); time.sleep(60)"
)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        return status.rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_a_trial_started_ends_with_it():
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        child = int(process.stdout.readline())
        assert alive(child)
        _end(process)
        process.wait(10)
        deadline = time.monotonic() + 10
        while alive(child):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.stdout.close()
        _end(process)
    assert process.returncode == -9
