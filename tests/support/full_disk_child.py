"""Run under `unshare -rm`: fill a small disk of one's own, then seal the box on it."""

import json
import subprocess
import sys
from pathlib import Path

from bedside_core.errors import DiskFullError
from bedside_core.evidence.entry import Kind
from bedside_core.uses import Incident
from bedside_edge.ports.evidence import Event
from bedside_edge.store.state import open_state
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.state_houses import ANY_DISK


def open_at(folder: Path):
    return open_state(folder, SystemClock(), OsRandom(), open_box_keys, disk=ANY_DISK)


def main() -> None:
    place = Path(sys.argv[1])
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        sys.stdout.write(json.dumps({"mounted": False}))
        return
    state = open_at(place / "state")
    with (place / "rest").open("wb") as rest:
        try:
            while True:
                rest.write(b"x" * 65536)
                rest.flush()
        except OSError:
            pass
    refused = False
    try:
        for _ in range(200):
            state.evidence.append(Event(kind=Kind.ADMIN, actor="service:box", payload=b"x" * 30000))
    except DiskFullError:
        refused = True
    state.incidents.move(Incident.NORMAL, Incident.SEALED, incident_id="", actor="person:a", at=1)
    sealed = state.incidents.now()
    (entry,) = state.evidence.newest(limit=1)
    found = {"mounted": True, "refused": refused, "state": sealed, "kind": entry.entry.kind}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
