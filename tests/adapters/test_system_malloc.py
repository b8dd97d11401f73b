"""Freed memory stays with the process, so that the next image does not fault it in again."""

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys, threading
import numpy as np
from bedside_edge.system.malloc_glibc import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def images(count):
    for _ in range(count):
        parts = [np.ones(300_000, np.float32) for _ in range(4)]
        del parts

found = []
def work():  # threads other than the first have arenas of their own, as workers do
    images(5)
    before = faults()
    images(50)
    found.append(faults() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(found[0])
"""


def _faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_images_in_a_worker_thread_cost_no_page_faults_once_memory_is_kept():
    kept, plain = _faults("keep"), _faults("plain")
    assert kept < 200
    assert plain > 10 * max(kept, 1), (
        "the default no longer faults: keep_freed_memory is not needed"
    )
