"""Studies to be erased, and the search for whatever may be left of them."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bedside_edge.ports import Outcome
from bedside_edge.services.outputs import Kind, NewOutput, Occasion, Routes
from bedside_edge.store.evidence_open import LogSettings
from bedside_edge.store.state import State, open_state
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.log_keys import open_log_keys
from bedside_edge.system.random_os import OsRandom
from support.state_houses import ANY_DISK, T0, arrival, sealed

ROW = bytes(range(7, 247)) * 20  # a row of pixels that would be found again


@contextmanager
def opened(folder: Path, *, step=None, **more) -> Iterator[State]:
    state = open_at(folder, **more)
    try:
        if step:
            state.erasure._step = step
        yield state
    finally:
        state.close()


def open_at(folder: Path, **more) -> State:
    return open_state(
        folder,
        SystemClock(),
        OsRandom(),
        open_box_keys,
        disk=ANY_DISK,
        **more,
        evidence=LogSettings(open_keys=open_log_keys),
    )


def fill(state: State, patient: str = "PATIENT-4711", study: str = "1.2.840.55555") -> str:
    """File a study of two instances with a result and an object of it; return its id."""
    state.outputs.publish_results(wanted=True)
    for number in (1, 2):
        sent = arrival(
            state,
            f"{study}.{number}",
            study=study,
            patient=patient,
            data=f"{patient} {study}.{number} ".encode() + ROW,
        )
        study_id = state.studies.file([sent])[0].study_id
    state.jobs.complete(study_id, T0)
    job = state.jobs.lease(T0)
    body = json.dumps({"patient": patient, "study": study, "probability": 0.875}).encode()
    result = state.jobs.finish(job, Outcome(refused=False, reason="", body=body), T0)
    made = NewOutput(
        kind=Kind.SR,
        occasion=Occasion.RESULT,
        sealed=sealed(state, f"report of {patient}".encode()),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
        sop_instance_uid=f"{study}.99",
    )
    routes = Routes(kinds={"pacs": frozenset({Kind.SR})}, everywhere=True)
    state.outputs.published(result, [made], routes, T0)
    return study_id


def secrets_of(state: State, folder: Path, study_id: str) -> dict[str, bytes]:
    """Everything that must not be found again: plain values, keys, and their wrapped forms."""
    found = {
        "name": b"Muster^Ada",
        "patient": b"PATIENT-4711",
        "uid": b"1.2.840.55555",
        "pixels": ROW[:64],
        "probability": b"0.875",
    }
    slots = (folder / "keys" / "slots").read_bytes()

    def look(c: sqlite3.Connection) -> None:
        row = c.execute(
            "SELECT slot, data_key, subject_id FROM studies WHERE study_id = ?", (study_id,)
        ).fetchone()
        found["slot"] = slots[row[0] * 32 : row[0] * 32 + 32]
        found["wrapped data key"] = row[1]
        found["data key"] = state.slots.unwrap(row[0], row[1], b"study " + study_id.encode())
        headers = c.execute(
            "SELECT object_key, header, uid_hash FROM instances WHERE study_id = ?", (study_id,)
        )
        for number, (key, header, uid_hash) in enumerate(headers):
            found[f"wrapped object key {number}"] = key
            found[f"header {number}"] = header
            found[f"uid hash {number}"] = uid_hash.encode()
        (body,) = c.execute("SELECT body FROM results WHERE study_id = ?", (study_id,)).fetchone()
        found["result"] = body

    state.database.read(look)
    for number, instance in enumerate(state.studies.instances(study_id)):
        found[f"object key {number}"] = instance.object_key
    return found


def search(folder: Path, secrets: dict[str, bytes]) -> set[tuple[str, str]]:
    """Return (what, where) for every secret found in any file or name below `folder`."""
    hits = set()
    for path in sorted(folder.rglob("*")):
        content = str(path.relative_to(folder)).encode()
        content += path.read_bytes() if path.is_file() else b""
        for what, secret in secrets.items():
            forms = (secret, secret.hex().encode(), secret.decode("latin-1").encode("utf-16-le"))
            if any(form in content for form in forms):
                hits.add((what, path.name))
    return hits
