"""`bedside-edge evidence` on a stopped box's folder and a copy; the verifier that stands alone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bedside_core.errors import BedsideError
from bedside_core.evidence.entry import Kind
from bedside_core.evidence.note import NoteSignature
from bedside_core.evidence.proof import parse_proof
from bedside_edge.cli import cli
from bedside_edge.ports.evidence import Event
from support import evidence_child
from support.evidence_log import HUB_ED, HUB_ML, LOG_ED, STRANGER
from support.repository import ROOT

VERIFIER = ROOT / "docs" / "verify_tlog_proof.py"
_STRANGERS = {"openvino", "onnxruntime", "pydicom", "pynetdicom", "highdicom", "fastapi"}


def run(*words: object, code: int = 0) -> str:
    """Run the command as `main` does; return what it printed and said."""
    done = CliRunner().invoke(cli, ["evidence", *map(str, words)], standalone_mode=False)
    error, told = done.exception, done.output
    if isinstance(error, BedsideError):
        assert error.exit_code == code, error
        return f"{told}{error} [{error.code}]"
    assert error is None or isinstance(error, SystemExit), error
    assert code == 0, told
    return told


def test_the_exit_status_of_a_process_is_that_of_the_error(proof, tmp_path):
    other = tmp_path / "other.vkeys"
    other.write_text(f"{LOG_ED.key.text}\n")
    command = [sys.executable, "-m", "bedside_edge", "evidence", "verify", str(proof)]
    done = subprocess.run(
        [*command, "--vkey", str(other)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, "[wrong-origin]" in done.stderr) == (3, True), done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A stopped box with 300 entries about one study, 290 of them signed and cosigned."""
    folder = tmp_path_factory.mktemp("box") / "state"
    state = evidence_child.opened(folder)
    (filed,) = state.studies.file([evidence_child.arrival(state)])

    def many(count):
        def write(c):
            for number in range(count):
                payload = f"payload {number}".encode()
                about = filed.study_id if number % 2 else ""
                event = Event(
                    kind=Kind.ALARM if number % 10 == 0 else Kind.ADMIN,
                    actor="service:box",
                    study_id=about,
                    payload=payload,
                    refs={"n": number},
                )
                state.record(c, event)

        state.database.write(write)

    many(289)
    head = parse_head(state.evidence.checkpoint())
    lines = [pair.signs(head, 1_800_000_000).line.encode() for pair in (HUB_ED, HUB_ML)]
    state.evidence.cosigned(290, lines)
    many(10)
    state.close()
    return folder


def parse_head(note: bytes):
    from bedside_core.evidence.checkpoint import parse_checkpoint_text
    from bedside_core.evidence.note import parse_note

    return parse_checkpoint_text(parse_note(note).text)


@pytest.fixture
def keys(folder, tmp_path) -> Path:
    path = tmp_path / "log.vkeys"
    path.write_text(run("keys", "--state", folder))
    return path


@pytest.fixture
def hub(tmp_path) -> Path:
    path = tmp_path / "hub.vkeys"
    path.write_text(f"{HUB_ED.key.text}\n{HUB_ML.key.text}\n")
    return path


@pytest.fixture
def proof(folder, tmp_path) -> Path:
    path = tmp_path / "entry.tlog-proof"
    run("prove", 17, "--state", folder, "-o", path)
    return path


def test_list_and_show_read_the_folder_and_a_copy_of_its_database(folder, tmp_path):
    told = json.loads(run("list", "--state", folder, "--limit", 3, "--json"))
    assert (told["size"], [one["index"] for one in told["entries"]]) == (300, [299, 298, 297])
    assert "of 300 entries" in run("list", "--state", folder, "--kind", "alarm", "--before", 50)
    copy = tmp_path / "copy.db"
    shutil.copy(folder / "bedside.db", copy)
    one = json.loads(run("show", 2, "--state", copy, "--json"))
    assert one["entry"]["refs"] == {"n": 1}
    assert one["study"]
    assert "kind      admin" in run("show", 2, "--state", copy)
    assert "not-found" in run("show", 300, "--state", folder, code=4)
    assert "store-unavailable" in run("list", "--state", tmp_path / "nowhere", code=5)
    (tmp_path / "other.db").write_text("no database")
    assert "store-unavailable" in run("list", "--state", tmp_path / "other.db", code=5)


@pytest.fixture
def read_only(tmp_path) -> Iterator[Path]:
    """A folder nobody can write to: root ignores modes, so for root it is mounted read-only."""
    medium = tmp_path / "medium"
    medium.mkdir()
    yield medium
    if not os.geteuid():  # a bind mount within one file system does not look like a mount
        command = [shutil.which("umount") or "umount", "--lazy", medium]
        subprocess.run(command, check=False, capture_output=True)
    medium.chmod(0o755)


def shut(medium: Path) -> None:
    medium.chmod(0o555)
    if os.geteuid():
        return
    mount = shutil.which("mount") or "mount"
    for words in (["--bind", medium, medium], ["-o", "remount,ro,bind", medium]):
        if subprocess.run([mount, *words], capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount")


def test_a_copy_on_a_medium_that_cannot_be_written_is_read(folder, read_only):
    shutil.copy(folder / "bedside.db", read_only)
    shut(read_only)
    assert json.loads(run("check", "--state", read_only, "--json"))["entries"] == 300
    assert [path.name for path in read_only.iterdir()] == ["bedside.db"]


def test_a_proof_verifies_with_the_keys_and_counts_its_witnesses(proof, keys, hub):
    told = json.loads(run("verify", proof, "--vkey", keys, "--json"))
    assert (told["proven"], told["index"], told["size"], len(told["signers"])) == (True, 17, 290, 2)
    spoken = run("verify", proof, "--vkey", keys, "--witness", hub, "--quorum", 2)
    assert "proven: entry 17 of 290" in spoken
    assert "2027-01-15 08:00:00Z" in spoken
    told = run(
        "verify", proof, "--vkey", keys, "--witness", STRANGER.key.text, "--quorum", 1, code=3
    )
    assert "untrusted-signature" in told


def changed(proof: Path, how: str) -> bytes:
    data = proof.read_bytes()
    file = parse_proof(data)
    if how == "another entry":
        return data.replace(file.encode(), proof_with(file, extra=(file.extra or b"") + b" "))
    if how == "another index":
        return proof_with(file, index=18)
    if how == "a step left out":
        return proof_with(file, path=file.path[1:])
    if how == "another root":
        lines = data.split(b"\n")
        place = lines.index(b"290") + 1
        lines[place] = b"A" * 43 + b"="
        return b"\n".join(lines)
    assert how == "a signature less"
    lines = data.splitlines(keepends=True)
    head = file.checkpoint.split(b"\n")[0]
    gone = next(
        n for n, line in enumerate(lines) if line.startswith("\N{EM DASH} ".encode() + head)
    )
    return b"".join(lines[:gone] + lines[gone + 1 :])


def proof_with(file, **changes) -> bytes:
    from dataclasses import replace

    return replace(file, **changes).encode()


FORGED = ["another entry", "another index", "a step left out", "another root", "a signature less"]


@pytest.mark.parametrize("how", FORGED)
def test_a_changed_proof_is_refused_by_both_verifiers(proof, keys, tmp_path, how):
    forged = tmp_path / "forged"
    forged.write_bytes(changed(proof, how))
    assert forged.read_bytes() != proof.read_bytes()
    run("verify", forged, "--vkey", keys, code=3)
    assert "NOT PROVEN" in alone(forged, "--vkey", keys, code=1)


def test_what_is_no_proof_or_no_key_is_said_so(proof, keys, tmp_path):
    (tmp_path / "text").write_text("hello")
    assert "invalid-proof" in run("verify", tmp_path / "text", "--vkey", keys, code=4)
    assert "invalid-proof" in run("verify", tmp_path / "missing", "--vkey", keys, code=4)
    assert "invalid-key" in run("verify", proof, "--vkey", tmp_path / "missing", code=4)
    assert "invalid-input" in run(
        "verify", proof, "--vkey", keys, "--vkey", HUB_ED.key.text, code=4
    )


def test_verify_loads_nothing_of_the_inference_the_dicom_or_the_web_side(proof, keys):
    code = (
        "import sys; from bedside_edge.cli import cli;"
        f"cli(['evidence', 'verify', {str(proof)!r}, '--vkey', {str(keys)!r}],"
        " standalone_mode=False);"
        f"late = {_STRANGERS!r} & set(sys.modules); sys.exit(' '.join(sorted(late)) or 0)"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (seen.returncode, seen.stderr) == (0, "")


# --- the verifier that stands alone ------------------------------------------------------------


def alone(*words: object, code: int = 0) -> str:
    """Run the file in an interpreter that sees no package but `cryptography` and what it needs."""
    runner = (
        "import importlib.abc, runpy, sys\n"
        "class Only(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0].startswith('bedside'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Only())\n"
        f"sys.argv = [{str(VERIFIER)!r}, *{[str(word) for word in words]!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(VERIFIER)!r}, run_name='__main__')\n"
        "finally:\n"
        "    seen = {n.split('.')[0] for n in sys.modules} - set(sys.stdlib_module_names)\n"
        "    seen -= {'__main__', 'cryptography', '_cffi_backend'}\n"
        "    strangers = [n for n in seen if not n.startswith('_')]\n"
        "    assert not strangers, strangers\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", runner], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_single_file_verifier_proves_it_without_the_product(proof, keys, hub):
    told = json.loads(alone(proof, "--vkey", keys, "--witness", hub, "--quorum", "2"))
    assert (told["index"], told["size"], len(told["signed"])) == (17, 290, 4)
    assert json.loads(told["entry"])["refs"] == {"n": 16}
    assert "2 must have" in alone(
        proof, "--vkey", keys, "--witness", HUB_ED.key.text, "--quorum", "2", code=1
    )


def test_the_single_file_verifier_proves_nothing_without_a_key(proof, tmp_path):
    empty = tmp_path / "box.vkeys"
    empty.write_text("")
    assert "no key of the log" in alone(proof, "--vkey", empty, code=1)


def test_the_single_file_verifier_is_one_short_file():
    lines = VERIFIER.read_text().splitlines()
    assert len(lines) < 250
    imports = {
        line.split()[1].split(".")[0] for line in lines if line.startswith(("import", "from"))
    }
    assert imports - set(sys.stdlib_module_names) == {"cryptography"}


# --- the others --------------------------------------------------------------------------------


def test_an_unsigned_entry_is_proven_after_a_checkpoint_was_signed(folder, tmp_path):
    box = tmp_path / "box"
    shutil.copytree(folder, box)
    out = tmp_path / "p"
    assert "not-ready" in run("prove", 299, "--state", box, "-o", out, code=5)
    note = run("checkpoint", "--state", box)
    assert note.splitlines()[1] == "300"
    run("prove", 299, "--state", box, "-o", out)
    assert parse_proof(out.read_bytes()).index == 299
    padded = run("checkpoint", "--outgoing", "--state", box)
    assert int(padded.splitlines()[1]) % 2048 == 0
    assert "not-found" in run("checkpoint", "--state", tmp_path / "nowhere", code=4)
    assert not (tmp_path / "nowhere").exists()


def test_an_export_is_brought_up_to_date_and_its_checkpoint_is_the_newest(folder, tmp_path):
    box, mirror = tmp_path / "box", tmp_path / "mirror"
    shutil.copytree(folder, box)
    first = json.loads(run("export", mirror, "--state", box, "--json"))
    assert first == {"size": 290, "files": 5}
    run("checkpoint", "--state", box)
    again = json.loads(run("export", mirror, "--state", box, "--json"))
    assert again == {"size": 300, "files": 2}
    assert (mirror / "checkpoint").read_text().splitlines()[1] == "300"
    assert (mirror / "tile/0/000").stat().st_size == 8192
    assert json.loads(run("export", mirror, "--state", box, "--json"))["files"] == 0


def test_check_says_what_it_went_over_and_where_a_changed_log_breaks(folder, tmp_path):
    assert "300 entries and 1 checkpoints agree" in run("check", "--state", folder)
    copy = tmp_path / "copy.db"
    data = bytearray((folder / "bedside.db").read_bytes())
    place = data.rindex(b'"refs":{"n":201}')
    data[place + 13] ^= 1
    copy.write_bytes(data)
    told = run("check", "--state", copy, code=5)
    assert "evidence-damaged" in told
    assert "the nodes of entry 20" in told
    run("list", "--state", copy)
    assert "300 entries" in run("check", "--quick", "--state", folder)


def test_signature_lines_of_strangers_change_nothing(proof, keys, tmp_path):
    name = NoteSignature(name="example.org/x", key_id=b"abcd", signature=b"x" * 72).line
    longer = tmp_path / "longer"
    longer.write_bytes(proof.read_bytes() + name.encode())
    run("verify", longer, "--vkey", keys)
    alone(longer, "--vkey", keys)
