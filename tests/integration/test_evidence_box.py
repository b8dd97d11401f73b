"""A real box tells its log what it did, from the first image to the last signature."""

import json
import subprocess
import sys

from bedside_core.errors import EvidenceDamagedError
from bedside_core.evidence.entry import commits_to, parse_entry
from bedside_core.evidence.note import parse_verifier_key
from bedside_core.evidence.proof import verify_proof
from bedside_edge.store import evidence_rows as rows
from bedside_edge.store.evidence_check import check_log
from bedside_edge.store.evidence_offline import open_copy
from support.running_box import running_box
from support.synthetic import data_set, noise, part10

SETTINGS = "[completion]\nquiet_s = 0.2\nmax_wait_s = 1\n[http]\nshutdown_s = 2.0\n"
PATIENT = {"PatientName": "Muster^Ada", "PatientID": "PAT4711"}


def entries(box, **query):
    return box.http.get("/api/v1/evidence/entries", params=query).json()["entries"]


def words(found):
    """Kind and word of each entry, oldest first."""
    return [
        (one["entry"]["kind"], one["entry"].get("refs", {}).get("what", ""))
        for one in reversed(found)
    ]


def test_the_way_of_a_study_is_in_the_log_and_provable_afterwards(tmp_path):
    with running_box(tmp_path, SETTINGS) as box:
        image = part10(data_set(noise(64, 64, seed=1), number=1, study=1, **PATIENT))
        assert box.stow(image).status_code == 200
        (job,) = box.settled()
        assert box.http.get(job["result"]).status_code == 200
        told = entries(box, study=job["study"])
        assert ("raw_digest", "received") in words(told)
        kinds = [one["entry"]["kind"] for one in told]
        assert kinds.count("inference") == 1
        assert "decision" in kinds, "whoever read the result is in the log"
        inference = next(one for one in told if one["entry"]["kind"] == "inference")
        assert inference["entry"]["refs"]["outcome"] in ("analysed", "refused")
        proof = box.http.get(f"/api/v1/evidence/proofs/{inference['index']}").content
        keys = box.http.get("/api/v1/evidence/keys").json()
        audit = box.http.get("/api/v1/audit").json()
        assert len(audit["entry"]) >= len(told)
        origin = keys["origin"]
        vkeys = [parse_verifier_key(text) for text in keys["keys"]]
        proven = verify_proof(proof, origin, vkeys)
        assert parse_entry(proven.entry).kind.value == "inference"
        assert box.stop() == 0
    with open_copy(box.state) as c:
        checked = check_log(c, origin, vkeys, parse=True)
        newest = rows.latest_checkpoint(c)
        data = b"".join(one.data for one in rows.entries(c, 0, checked.entries))
        last = rows.newest(c, 1, None, ())[0]
    assert newest[0] == checked.entries, "the last word of the box is signed"
    assert dict(last.entry.refs) == {"what": "stopped"}
    for secret in ("Muster", "PAT4711", "1.2.826", job["study"], job["id"]):
        assert secret.encode() not in data
    done = subprocess.run(
        [sys.executable, "-m", "bedside_edge", "evidence", "check", "--state", str(box.state)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, f"{checked.entries} entries" in done.stdout) == (0, True), done.stderr


def test_a_box_whose_log_was_changed_does_not_serve(tmp_path):
    with running_box(tmp_path, SETTINGS) as box:
        assert box.http.get("/api/v1/evidence/entries").status_code == 200
        assert box.stop() == 0
    database = box.state / "bedside.db"
    data = database.read_bytes()
    assert data.count(b'"what":"started"') == 1
    database.write_bytes(data.replace(b'"what":"started"', b'"what":"startex"'))
    command = [sys.executable, "-m", "bedside_edge", "serve", "--state", str(box.state)]
    ports = ["--http-port", "0", "--dicom-port", "0"]
    done = subprocess.run(
        [*command, *ports], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == EvidenceDamagedError.exit_code
    assert "evidence-damaged" in done.stderr
    assert "evidence check" in done.stderr, "the way forward is named"


def test_commitments_open_with_the_salts_the_box_keeps(tmp_path):
    from support.evidence_child import arrival, opened

    state = opened(tmp_path / "state")
    try:
        (filed,) = state.studies.file([arrival(state)])
        (index,) = state.evidence.about(study_id=filed.study_id)
        kept = state.evidence.entry(index)
        assert commits_to(kept.entry, kept.salt, kept.payload)
        assert json.loads(kept.payload)["instances"][0][0] == filed.instance_id
    finally:
        state.close()
