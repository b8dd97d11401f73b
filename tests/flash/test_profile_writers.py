"""What a vendor types to write a hardware profile: a draft that fits, a check that names."""

import json

import pytest
from click.testing import CliRunner

from bedside_core.errors import InvalidProfileError
from bedside_core.hardware.matching import choose, unmet
from bedside_core.hardware.profile import parse_profile
from bedside_flash.cli import cli
from bedside_flash.profile_draft import draft
from support.boards import FOLDER, IDS, PROFILES, recorded


def run(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.mark.parametrize("name", IDS)
def test_a_draft_is_a_profile_that_its_board_meets_and_that_claims_nothing(name):
    board = recorded(name)
    loaded = parse_profile(draft(board, "acme", "acme-box", 'Box "3"').encode())
    assert unmet(loaded.profile, board) == []
    assert loaded.profile.evidence == "unverified"
    assert choose([loaded], board).loaded.profile.name == 'Box "3"'


def test_init_writes_once_and_lint_says_what_to_look_at(tmp_path):
    out = tmp_path / "acme" / "box-3.toml"
    probe = FOLDER / "intel-n100.json"
    assert run("init", probe, out, "--vendor", "acme").exit_code == 0
    text = out.read_text()
    assert '# pci = [{ vendor = "8086", device = ["46d1"], driver = ["i915"] }]' in text
    again = run("init", probe, out, "--vendor", "acme")
    assert again.exit_code != 0
    assert out.read_text() == text
    checked = run("lint", out, "--probe", probe)
    assert checked.exit_code == 0
    assert "note  evidence is unverified" in checked.output
    assert "yes   cpu.model" in checked.output
    other = run("lint", out, "--probe", FOLDER / "nvidia-l4.json", "--json")
    assert other.exit_code == 3
    told = {one["rule"]: one["told"] for one in json.loads(other.output)["rules"]}
    assert told["cpu.vendor"] == "is AuthenticAMD, not GenuineIntel"


def test_lint_names_every_problem_with_its_place(tmp_path):
    text = (PROFILES / "generic" / "x86-64-v3.toml").read_text()
    path = tmp_path / "bad.toml"
    path.write_text(
        text.replace('device = "CPU"', 'device = "AUTO"', 1).replace("seq = 2", "seq = 0")
    )
    found = run("lint", path, "--json")
    assert found.exit_code == 4
    problems = {one["where"]: one["problem"] for one in json.loads(found.output)["problems"]}
    assert "picks a device by itself" in problems["engines.0"]
    assert "greater than or equal to 1" in problems["seq"]
    path.write_text("no [toml")
    assert run("lint", path).exit_code == 4
    moved = run("lint", PROFILES / "generic" / "x86-64-v3.toml")
    assert moved.exit_code == 0
    assert "folder" not in moved.output


def test_a_vendor_name_that_cannot_stand_in_a_path_is_refused(tmp_path):
    done = run("init", FOLDER / "rpi5.json", tmp_path / "x.toml", "--vendor", "../acme")
    assert isinstance(done.exception, InvalidProfileError)
    assert not (tmp_path / "x.toml").exists()
