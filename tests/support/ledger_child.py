"""Four processes release against one budget in one file while they are killed, again and again.

`python ledger_child.py FOLDER KILLS RELEASES`: makes a hospital whose epoch pays for exactly
RELEASES releases and asks for a quarter more. Every line on standard output is written after the
call that it names has returned.
"""

import os
import signal
import sys
import time
from pathlib import Path

from bedside_core.errors import BudgetExhaustedError
from bedside_core.release import prepare
from bedside_edge.store.ledger_rows import digest
from bedside_edge.system.clock import SystemClock
from support.privacy_house import EPOCH, OFFICER, Hospital, policy_text, rows, signed

UNITS = 10**6
WORKERS = 4
_YEARS = 10 * 365 * 86_400_000


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())  # one call: never torn


def hospital(folder: Path) -> Hospital:
    return Hospital(folder, SystemClock())


def prepare_house(folder: Path, releases: int) -> tuple[list[str], int]:
    """Return labels of snapshots, a quarter more than are paid for, and the price of a release."""
    house = hospital(folder)
    house.budget.activate(signed(policy_text()), "person:anna")
    house.budget.open_epoch(EPOCH[0], EPOCH[1] + _YEARS, "person:anna")
    labels = [house.snapshot(rows(12)) for _ in range(releases + releases // 4)]
    cost = prepare(house.ask("prevalence", units=UNITS, snapshot=labels[0])).cost
    house.budget.activate(signed(policy_text(epoch=releases * cost)), "person:anna")
    house.close()
    return labels, cost


def work(folder: Path, labels: list[str], first: int) -> None:
    """Ask for everything once, from another place than the others; end when all were answered."""
    house = hospital(folder)
    house.service.resume()
    for n in range(len(labels)):
        label = labels[(first + n) % len(labels)]
        try:
            answer = house.service.release(
                house.ask("prevalence", units=UNITS, snapshot=label), OFFICER
            )
        except BudgetExhaustedError:
            say("exhausted", label)
        else:
            say("answer", answer.fingerprint, digest(answer.document))
    os._exit(0)


def drive(folder: Path, kills: int, releases: int) -> None:
    labels, cost = prepare_house(folder, releases)
    say("cost", cost)
    alive: dict[int, float] = {}
    killed = 0

    def start() -> None:
        first = int.from_bytes(os.urandom(4)) % len(labels)
        pid = os.fork()
        if pid == 0:
            try:
                work(folder, labels, first)
            except BaseException as error:
                say("failed", type(error).__name__, str(error).replace("\n", " "))
                os._exit(1)
        alive[pid] = time.monotonic() + 0.01 + int.from_bytes(os.urandom(2)) / 65_536 * 0.25

    for _ in range(WORKERS):
        start()
    while alive:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if pid:
            del alive[pid]
            if killed < kills:
                start()
            continue
        now = time.monotonic()
        for victim, when in list(alive.items()):
            if killed < kills and now >= when:
                os.kill(victim, signal.SIGKILL)
                killed += 1
                alive[victim] = now + 3600
        time.sleep(0.001)
    say("killed", killed)


if __name__ == "__main__":
    drive(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
