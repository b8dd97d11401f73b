"""A real `bedside-hub serve`, and one that is killed at the n-th thing it makes durable."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from bedside_sync.hub.process import run_hub
from bedside_sync.hub.store_sqlite import HubStore

ROOT = Path(__file__).parents[1]
SERVE = "import sys; sys.path.insert(0, sys.argv[1]); from support.hub_child import main; main()"


class DyingStore(HubStore):
    """Kills the process just before (`before`) or just after its n-th durable write."""

    left = 0
    before = False

    @contextmanager
    def write(self):
        with super().write() as db:
            changes = db.total_changes
            yield db
            changed = db.total_changes > changes  # what changes nothing is no step
            if changed and DyingStore.before:
                self.count()
        if changed and not DyingStore.before:
            self.count()

    def refused(self, *args):
        held, DyingStore.left = DyingStore.left, 0  # a refusal is no step of a round
        super().refused(*args)
        DyingStore.left = held

    def put(self, *args):
        super().put(*args)
        self.count()

    def count(self):
        DyingStore.left -= 1
        if DyingStore.left == 0:  # below zero: not counting
            os.kill(os.getpid(), signal.SIGKILL)


def main():
    """Serve the folder in argv as `bedside-hub serve` does, and die as told."""
    folder, listen, left, before = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
    DyingStore.left, DyingStore.before = left, before == "before"
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def ready(where):
        sys.stdout.write(json.dumps({"url": where.url, "status_url": where.status_url}) + "\n")
        sys.stdout.flush()

    run_hub(folder, listen, None, stop, ready=ready, open_store=DyingStore)


class HubProcess:
    """One serving process; `again` starts another on the same port."""

    def __init__(self, folder: Path, *, options=(), die_at=0, before=False, port=0, env=None):
        self.folder = folder
        self.start(options=options, die_at=die_at, before=before, port=port, env=env)

    def start(self, *, options=(), die_at=0, before=False, port=0, env=None):
        listen = f"tls+tcp://127.0.0.1:{port}"
        if die_at:
            when = "before" if before else "after"
            words = ["-c", SERVE, str(ROOT), str(self.folder), listen, str(die_at), when]
        else:
            code = "from bedside_sync.hub.cli import main; main()"
            options = ["--listen", listen, "--folder", str(self.folder), "--json", *options]
            words = ["-c", code, "serve", *options]
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
        )
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(20)
            raise AssertionError(self.process.stderr.read())
        where = json.loads(line)
        self.url, self.status_url = where["url"], where["status_url"]
        self.port = int(self.url.rsplit(":", 1)[1])

    def died(self) -> bool:
        return self.process.poll() is not None

    def again(self, **how) -> None:
        self.process.wait(20)
        self.close()
        self.start(port=self.port, **how)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> tuple[int, str]:
        """End it in order; returns exit status and what it logged."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said

    def close(self) -> None:
        if not self.died():
            self.process.kill()
        self.process.wait(20)
        for pipe in (self.process.stdout, self.process.stderr):
            pipe.close()
