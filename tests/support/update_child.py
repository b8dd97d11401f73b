"""A box that fetches from a stick in its own process, and dies at its n-th step on the disk."""

import os
import signal
import sys
from pathlib import Path

from bedside_edge.services.updates import Place, UpdateService
from bedside_edge.store.database import Database
from bedside_edge.store.distribution import SqliteDistribution
from bedside_sync.distribution.assignment import Running
from bedside_sync.distribution.chunks import ChunkStore
from bedside_sync.distribution.sources import FolderSource
from support.fake_clock import FakeClock

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}


def main() -> None:
    stick, box, root, now, die_at = *map(Path, sys.argv[1:4]), int(sys.argv[4]), int(sys.argv[5])
    database = Database(box / "bedside.db")
    service = UpdateService(
        SqliteDistribution(database, lambda connection, event: 0),
        ChunkStore(box / "chunks"),
        lambda: Place(root=root.read_bytes(), site="s0001", folder=box / "updates"),
        FakeClock(now * 1000),
        running=lambda: Running(counters={}, floors={}),
    )
    steps = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal steps
        if event not in STEPS or (event == "open" and not (args[2] & (os.O_WRONLY | os.O_RDWR))):
            return
        if not str(args[0]).startswith(str(box)):
            return
        steps += 1
        if steps == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    import bedside_sync.distribution.updater  # noqa: F401  what it imports writes nothing of ours

    sys.addaudithook(hook)
    service.fetch(FolderSource(stick))
    database.close()
    sys.stdout.write(f"{steps}\n")
