"""A process that writes evidence until it is killed, and one that does so under strace.

`python evidence_child.py loop`: reads `FOLDER ROUND` lines, forks a writer for each and says its
number; the parent kills the writer. `python evidence_child.py run FOLDER COUNT`: writes COUNT
entries and ends. Every line on standard output is written after the call it names has returned.
"""

import os
import sys
import threading
from pathlib import Path

from bedside_core.evidence.checkpoint import parse_checkpoint_text
from bedside_core.evidence.entry import Kind
from bedside_core.evidence.note import parse_note
from bedside_edge.ports.evidence import Event
from bedside_edge.store.evidence_open import LogSettings
from bedside_edge.store.state import State, open_state
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.log_keys import open_log_keys
from bedside_edge.system.random_os import OsRandom
from support.state_houses import ANY_DISK, arrival


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())  # one call: never torn by a thread


def opened(folder: Path) -> State:
    return open_state(
        folder,
        SystemClock(),
        OsRandom(),
        open_box_keys,
        disk=ANY_DISK,
        evidence=LogSettings(open_keys=open_log_keys, nightly_quota=16),
    )


def append(state: State, mark: str) -> None:
    """One entry that names itself."""
    index = state.evidence.append(
        Event(kind=Kind.ADMIN, actor="service:box", payload=mark.encode(), refs={"mark": mark})
    )
    say("entry", index, mark)


def sign(state: State, *, outgoing: bool) -> None:
    log = state.evidence
    note = log.outgoing_checkpoint() if outgoing else log.checkpoint()
    head = parse_checkpoint_text(parse_note(note).text)
    say("checkpoint", head.size, head.root.hex())


def write_until_killed(folder: Path, number: str) -> None:
    state = opened(folder)
    say("open", os.getpid())

    def entries(thread: int) -> None:
        for n in range(10**9):
            append(state, f"r{number}.t{thread}.{n}")

    def files() -> None:
        for n in range(10**9):
            uid = f"1.{number}.{n}"
            (filed,) = state.studies.file([arrival(state, uid, study=f"1.{number}.{n // 4}")])
            say("filed", filed.instance_id)

    for thread in range(2):
        threading.Thread(target=entries, args=(thread,), daemon=True).start()
    threading.Thread(target=files, daemon=True).start()
    for n in range(10**9):
        sign(state, outgoing=n % 3 == 2)


def loop() -> None:
    """Fork a writer for every line read: the imports are paid for once."""
    for line in sys.stdin:
        folder, number = line.split()
        writer = os.fork()
        if writer == 0:
            write_until_killed(Path(folder), number)
        os.waitpid(writer, 0)
        say("ended")


def run(folder: Path, count: int) -> None:
    state = opened(folder)
    # small, so that the log moves into the database file many times in a short run
    state.database.write(lambda c: c.execute("PRAGMA wal_autocheckpoint = 40").fetchall())
    say("open", os.getpid())
    for n in range(count):
        append(state, f"run.{n}")
        if n % 20 == 19:
            sign(state, outgoing=n % 40 == 39)
    say("end")
    os._exit(0)  # as it stands, without closing


if __name__ == "__main__":
    if sys.argv[1] == "loop":
        loop()
    else:
        run(Path(sys.argv[2]), int(sys.argv[3]))
