"""A witness in a process of its own that is killed between its verdict and the commit.

Arguments: state folder, file with a request, `verdict` or `commit`: die after which of the two.
"""

import os
import signal
import sys
from pathlib import Path

from bedside_core.evidence.witness import judge
from bedside_edge.store.evidence_open import LogSettings
from bedside_edge.store.state import open_state
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.log_keys import open_log_keys
from support.fake_clock import FakeClock, SeededBytes


def main(folder: str, request: str, when: str) -> None:
    data = Path(request).read_bytes()
    settings = LogSettings(open_keys=open_log_keys)
    random = SeededBytes("child")
    state = open_state(Path(folder), FakeClock(), random, open_box_keys, evidence=settings)

    def judge_and_die(keys, seen):
        verdict = judge(data, keys, seen)
        sys.stdout.write(f"{verdict.why}\n")
        sys.stdout.flush()
        if when == "verdict":
            os.kill(os.getpid(), signal.SIGKILL)
        return verdict

    state.witness.decide(judge_and_die, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
