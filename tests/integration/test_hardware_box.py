"""A box over a real folder: accepted at its first start, at no other, and refused by name."""

import json

import pytest
from click.testing import CliRunner

from bedside_core.errors import AcceptanceFailedError, RollbackRefusedError
from bedside_core.evidence.entry import Kind
from bedside_edge.api.routes_hardware import hardware_view
from bedside_edge.box import Box
from bedside_edge.cli import cli
from bedside_edge.config import Config, Model
from support.boards import FOLDER, PROFILES
from support.tiny_package import write_tiny_package

V3 = (PROFILES / "generic" / "x86-64-v3.toml").read_text().replace("n = 60", "n = 6")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_tiny_package(tmp_path_factory.mktemp("models") / "tiny" / "1.0.0")


def settings(package, tmp_path, *changes):
    text = V3
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "board.toml"
    path.write_text(text)
    return Config(model=Model(package=str(package), profile=str(path)))


def opened(config, folder):
    """Open a box, return what serves and its evidence about acceptance, close it."""
    box = Box(config, folder)
    try:
        entries = box.state.evidence.newest(kinds=[Kind.ACCEPTANCE])
        return box.hardware.serving, entries
    finally:
        box.stop()


def test_the_first_start_accepts_with_evidence_and_the_next_start_relies_on_it(package, tmp_path):
    config, folder = settings(package, tmp_path), tmp_path / "state"
    first, entries = opened(config, folder)
    assert first.level == "measured-on-site"
    assert [one.entry.refs["what"] for one in entries] == ["accepted"]
    assert entries[0].entry.refs["record"] == first.record.digest
    again, entries = opened(config, folder)
    assert again.record == first.record
    assert len(entries) == 1
    view = hardware_view(again)
    assert view.acceptance_digest == first.record.digest
    assert "serial" not in json.dumps(view.board)


def test_a_changed_profile_is_accepted_anew_and_an_older_one_refused(package, tmp_path):
    folder = tmp_path / "state"
    opened(settings(package, tmp_path), folder)
    newer, entries = opened(settings(package, tmp_path, ("seq = 2", "seq = 3")), folder)
    assert newer.record.subject.profile_seq == 3
    assert len(entries) == 2
    with pytest.raises(RollbackRefusedError, match="older than revision 3"):
        Box(settings(package, tmp_path), folder)
    opened(settings(package, tmp_path, ("seq = 2", "seq = 3")), folder)  # the folder was let go


def test_no_box_serves_when_no_engine_keeps_its_promise_and_each_reason_is_told(package, tmp_path):
    tight = settings(package, tmp_path, ("p50_ms = 250", "p50_ms = 1e-6"))
    with pytest.raises(AcceptanceFailedError) as refusal:
        Box(tight, tmp_path / "state")
    assert "onnxruntime f32: onnxruntime f32 on this unit: *: p50" in str(refusal.value)
    assert "| openvino f32: openvino f32 on this unit: *: p50" in str(refusal.value)
    _, entries = opened(settings(package, tmp_path), tmp_path / "state")
    told = sorted(str(one.entry.refs["what"]) for one in entries)
    assert told == ["accepted", "not-accepted", "not-accepted"]


def run(*words):
    return CliRunner().invoke(cli, list(map(str, words)), catch_exceptions=False)


def test_the_commands_say_which_profile_fits_and_why_not_the_others():
    probe = FOLDER / "nvidia-l4.json"
    chosen = json.loads(run("hardware", "explain", "--probe", probe, "--json").output)
    assert chosen["profile"] == "nvidia-l4#1"
    one = run("hardware", "explain", "intel-n100", "--probe", probe)
    assert one.exit_code == 3
    assert "no   pci  8086:46d0, 8086:46d1, 8086:46d2 absent" in one.output
    found = json.loads(run("hardware", "list", "--probe", probe, "--json").output)["profiles"]
    fits = {row["profile"] for row in found if row["fits"]}
    assert fits == {"nvidia-l4#1", "generic-x86-64-v3#2"}
    assert {row["evidence"] for row in found if not row["profile"].startswith("generic-x86")} == {
        "unverified"
    }


def test_the_probe_of_this_machine_is_a_probe_file(tmp_path):
    done = run("hardware", "probe", "--json")
    path = tmp_path / "board.json"
    path.write_text(done.output)
    assert run("hardware", "explain", "--probe", path).exit_code in (0, 3)


def test_accepting_by_hand_keeps_the_verdict_the_box_then_relies_on(package, tmp_path):
    settings(package, tmp_path)
    folder, profile = tmp_path / "state", tmp_path / "board.toml"
    words = ("hardware", "accept", "--package", package, "--profile", profile, "--json")
    dry = run(*words, "--dry-run")
    assert json.loads(dry.output)["accepted"] is True
    assert not folder.exists()
    kept = json.loads(run(*words, "--state", folder).output)
    serving, entries = opened(settings(package, tmp_path), folder)
    assert serving.record.at == kept["at"]
    assert len(entries) == 1
    few = run(*words, "--dry-run", "--runs", "2")
    assert few.exit_code == 3
    assert "2 runs, 6 asked" in json.loads(few.output)["failures"][0]
