"""`bedside-models` explains itself, inspects a package without torch, and fails with a reason."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bedside_core.errors import InvalidPackageError
from bedside_models.cli import cli

WITHOUT_TRAINING_SIDE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "nncf", "matplotlib", "sklearn"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
"""
COMMANDS = ("train", "export", "quantise", "evaluate", "package", "inspect")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_and_a_json_switch(command):
    shown = CliRunner().invoke(cli, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: bedside-models {command}" in " ".join(shown.output.split())
    assert "--json" in shown.output


def test_inspect_prints_the_manifest_as_json(shipped, manifest):
    shown = CliRunner().invoke(cli, ["inspect", str(shipped), "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.output)["pipeline"]["digest"] == manifest.pipeline.digest


def test_inspect_says_that_it_is_no_medical_device(shipped):
    shown = CliRunner().invoke(cli, ["inspect", str(shipped)])
    assert "all digests match" in shown.output
    assert "not a medical device" in shown.output


def test_inspect_says_the_digest_by_which_rounds_name_a_package(shipped):
    digest = hashlib.sha256((shipped / "manifest.json").read_bytes()).hexdigest()
    assert digest in CliRunner().invoke(cli, ["inspect", str(shipped)]).output
    hub_page = Path(__file__).parents[2] / "docs" / "hub.md"
    assert f'model = "{digest}"' in hub_page.read_text(encoding="utf-8")  # to be copied as it is


def test_inspect_of_a_broken_package_names_the_code_and_exits_4(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    assert isinstance(
        CliRunner().invoke(cli, ["inspect", str(tmp_path)]).exception, InvalidPackageError
    )
    run = subprocess.run(
        [sys.executable, "-m", "bedside_models.cli", "inspect", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr.split(":")[0]) == (4, "invalid-package")


def test_inspect_needs_nothing_of_the_training_side(shipped):
    program = (
        f"{WITHOUT_TRAINING_SIDE}"
        "from bedside_models.cli import main\n"
        f"sys.argv = ['bedside-models', 'inspect', {str(shipped)!r}]\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_a_missing_training_side_is_named_and_exits_5(shipped):
    program = (
        f"{WITHOUT_TRAINING_SIDE}"
        "from bedside_models.cli import main\n"
        f"sys.argv = ['bedside-models', 'export', {str(shipped)!r}]\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 5
    assert "make train-env" in run.stderr
