"""Two boxes and a witness, real processes: a copy of a box is refused, and everybody knows.

A copied state folder, a backup put back and a cloned disk look alike to whoever runs the box; the
witness tells them apart, since it saw more, or something else, than the copy has.
"""

import json
import shutil
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from bedside_core.errors import QuorumMissingError, UnauthenticatedError
from bedside_core.evidence.note import parse_verifier_key
from bedside_core.evidence.proof import verify_proof
from bedside_core.evidence.witness import contradiction
from bedside_core.signatures import exact_base64
from bedside_edge.cli import cli
from bedside_edge.store.evidence_check import check_log
from bedside_edge.store.evidence_offline import open_copy
from support.running_box import RunningBox, running_box

QUOTA = "nightly_quota = 8\n"
BASE = "[http]\nshutdown_s = 2.0\n[evidence]\n" + QUOTA


def settings(*witnesses: tuple[str, RunningBox], policy: str = "") -> str:
    text = BASE + (f'witness_policy = "{policy}"\n' if policy else "")
    for name, box in witnesses:
        keys = json.dumps(box.http.get("/api/v1/witness").json()["keys"])
        token = box.folder / "token"
        text += (
            f'[evidence.witnesses.{name}]\nurl = "{box.url}/witness"\nkeys = {keys}\n'
            f'token_file = "{token}"\n'
        )
    return text


def enrol(witness: RunningBox, log: RunningBox) -> list[str]:
    keys = log.http.get("/api/v1/evidence/keys").json()["keys"]
    answer = witness.http.post("/api/v1/witness/logs", json={"keys": keys})
    assert answer.status_code == 201, answer.text
    return keys


def sync(box: RunningBox) -> dict:
    return box.http.post("/api/v1/evidence/witnesses:sync").raise_for_status().json()


def status(box: RunningBox) -> dict:
    return box.http.get("/api/v1/evidence/witnesses").raise_for_status().json()


def until(box: RunningBox, what, seconds: float = 40.0) -> dict:
    deadline = time.monotonic() + seconds
    while not what(found := status(box)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def incidents(box: RunningBox) -> list[dict]:
    return box.http.get("/api/v1/incidents").raise_for_status().json()["incidents"]


def asked(found: dict) -> bool:
    return all(one["asked"] for one in found["witnesses"])


@contextmanager
def ended(box: RunningBox):
    """Whatever happens, no process is left."""
    try:
        yield box
    finally:
        if box.process.poll() is None:
            box.kill()


@dataclass
class House:
    """A box whose log the witness cosigned once, stopped, and two copies of its folder."""

    folder: Path
    clone: Path
    backup: Path
    settings: str
    keys: list[str]


@pytest.fixture(scope="module")
def witness(tmp_path_factory):
    with running_box(tmp_path_factory.mktemp("witness"), BASE) as box:
        yield box


@pytest.fixture(scope="module")
def house(tmp_path_factory, witness):
    top = tmp_path_factory.mktemp("boxes")
    text = settings(("w", witness))
    with running_box(top / "a", text) as box:
        keys = enrol(witness, box)
        found = sync(box)
        assert (found["quorum"], found["locked"], found["sent"] % 8) == (True, False, 0)
        assert found["witnessed"] == found["sent"] > 0
        assert box.stop() == 0
    for name in ("clone", "backup"):
        shutil.copytree(top / "a", top / name)
    return House(top / "a", top / "clone", top / "backup", text, keys)


def code_of(answer) -> str:
    return answer.json()["type"].rpartition(":")[2]


def locked(box: RunningBox) -> dict:
    """What a caught copy is like: an incident, and nothing signed, cosigned or released."""
    found = until(box, lambda now: now["locked"] and now["gap"]["incident"])
    (case,) = [one for one in incidents(box) if one["id"] == found["gap"]["incident"]]
    assert case["cause"] == "tampering"
    told = box.http.get("/api/v1/evidence/entries", params={"kind": "alarm"}).json()["entries"]
    assert "evidence-gap" in [one["entry"]["refs"]["code"] for one in told]
    assert box.http.get("/api/v1/privacy/budget").json()["locked"], "no charge, so no release"
    newest = box.http.get("/api/v1/evidence/entries").json()["size"] - 1
    refusal = box.http.get(f"/api/v1/evidence/proofs/{newest}")
    assert (refusal.status_code, code_of(refusal)) == (503, "evidence-gap")
    refusal = box.http.post("/witness/add-checkpoint", content=b"old 0\n\n")
    assert (refusal.status_code, code_of(refusal)) == (503, "evidence-gap")
    return found


@pytest.mark.slow
def test_a_clone_is_refused_and_both_sides_open_an_incident(house, witness):
    before = len(incidents(witness))
    log_keys = [parse_verifier_key(key) for key in house.keys]
    origin = log_keys[0].name
    with ExitStack() as stack:
        box, clone = (
            stack.enter_context(ended(RunningBox(folder, house.settings)))
            for folder in (house.folder, house.clone)
        )
        for one in (box, clone):  # each asked at its start what the witness saw, and was right
            assert not until(one, asked)["locked"]
        size = sync(box)["sent"]
        found = sync(clone)
        assert (found["locked"], found["quorum"]) == (True, False)
        gap = locked(clone)["gap"]
        shown = contradiction(exact_base64(gap["note"]), origin, log_keys, lambda _: None)
        assert shown.size == gap["witnessed_size"] == size, "signed by the box's own keys"
        refused = witness.http.get("/api/v1/witness").json()["refused"]
        (proof,) = [one for one in refused if one["origin"] == origin]
        accused = contradiction(exact_base64(proof["note"]), origin, log_keys, lambda _: b"")
        assert accused is not None, "and so is what the witness keeps of the clone"
        assert len(incidents(witness)) == before + 1
        told = witness.http.get("/api/v1/evidence/entries", params={"kind": "alarm"}).json()
        assert "witness-refused" in [e["entry"]["refs"]["code"] for e in told["entries"]]
        found = sync(box)
        assert (found["locked"], found["quorum"]) == (False, True), "the one the witness knows"
        assert clone.stop() == 0
        assert box.stop() == 0


def command(*arguments: str, said: str = ""):
    return CliRunner().invoke(cli, ["evidence", *arguments], input=said)


@pytest.mark.slow  # tests/services/test_witnessing.py holds the same without processes
def test_yesterdays_backup_locks_and_goes_on_under_a_new_name(house, witness):
    with running_box(house.folder, house.settings) as box:
        assert sync(box)["quorum"]
        assert box.stop() == 0
    with running_box(house.backup, house.settings) as box:  # nobody sends anything
        box.person("administrator", login="eva")
        old = locked(box)
        assert box.stop() == 0
    where = ["--config", str(house.backup / "bedside.toml")]
    where += ["--state", str(house.backup / "state")]
    found = command("witness", "status", *where)
    assert (found.exit_code, "LOCKED" in found.output) == (5, True)
    decide = ["continue", "--login", "eva", "--reason", "the disk failed", *where]
    wrong = command(*decide, said="not her password\n")
    assert isinstance(wrong.exception, UnauthenticatedError)
    done = command(*decide, said="violet otter climbs stairs\n")
    assert (done.exit_code, f"{old['origin']}#2" in done.output) == (0, True), done.output
    with running_box(house.backup, house.settings) as box:
        found = until(box, lambda now: now["witnesses"][0]["said"] == "not-watched")
        assert not found["locked"], "under the new name it is unknown there, not contradicted"
        keys = enrol(witness, box)
        assert sync(box)["quorum"]
        entries = box.http.get("/api/v1/evidence/entries", params={"limit": 1000}).json()["entries"]
        (first,) = [one for one in entries if one["entry"]["kind"] == "gap"]
        refs, at = first["entry"]["refs"], first["index"]
        assert refs["witnessed_size"] == old["gap"]["witnessed_size"]
        assert refs["size"] == at >= old["gap"]["size"]
        proofs = [box.http.get(f"/api/v1/evidence/proofs/{n}").content for n in (1, at, at + 3)]
        assert box.stop() == 0
    new = [parse_verifier_key(key) for key in keys]
    was = [parse_verifier_key(key) for key in house.keys]
    assert verify_proof(proofs[0], was[0].name, was).index == 1, "what was proven stays proven"
    proven = verify_proof(proofs[1], new[0].name, new)
    assert (proven.index, b'"kind":"gap"' in proven.entry) == (0, True)
    assert verify_proof(proofs[2], new[0].name, new).index == 3
    with open_copy(house.backup / "state") as c:
        assert check_log(c, new[0].name, new, parse=True).entries > at


def test_the_quorum_stands_in_the_proof_file(house, witness, tmp_path):
    ours = witness.http.get("/api/v1/witness").json()["keys"]
    lines = [f"log {key}" for key in house.keys]
    lines += [f"witness w{n} {key}" for n, key in enumerate(ours)]
    policy, proof = tmp_path / "policy", tmp_path / "p.tlog-proof"
    policy.write_text("\n".join([*lines, "group w all w0 w1", "quorum w", ""]))
    assert (
        command("prove", "1", "--state", str(house.folder / "state"), "-o", str(proof)).exit_code
        == 0
    )
    good = command("verify", str(proof), "--policy", str(policy))
    assert (good.exit_code, good.output.count("/witness")) == (0, 2), good.output
    proof.write_bytes(proof.read_bytes().rsplit("\N{EM DASH} ".encode(), 1)[0])
    bad = command("verify", str(proof), "--policy", str(policy))
    assert isinstance(bad.exception, QuorumMissingError)


def test_whoever_may_not_is_kept_out(witness):
    stranger = {"Authorization": "Bearer nothing"}
    path = "/witness/add-checkpoint"
    assert witness.http.post(path, content=b"old 0\n\n", headers=stranger).status_code == 401
    assert witness.http.post(path, content=b"old 0\n\n").status_code == 400
    assert witness.http.get("/witness/" + "0" * 64 + "/checkpoint").status_code == 404
    assert witness.http.post(path, content=b"x" * 1_100_000).status_code == 413
