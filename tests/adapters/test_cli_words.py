"""What a command says when it asked the wrong box, or none: which one, and what to add."""

import pytest
from click.testing import CliRunner

from bedside_core.errors import StoreUnavailableError
from bedside_edge.cli import cli
from bedside_edge.config import load_config
from bedside_edge.state_folder import offline_access


@pytest.fixture
def folder(tmp_path):
    made = CliRunner().invoke(
        cli, ["token", "create", "me", "view-worklist", "--state", str(tmp_path / "state")]
    )
    assert made.exit_code == 0, made.output
    return tmp_path / "state"


def test_a_seal_says_which_box_it_sealed(folder):
    sealed = CliRunner().invoke(cli, ["seal", "--state", str(folder), "--reason", "a drill"])
    assert sealed.exit_code == 0, sealed.output
    assert f"the box is sealed: {folder}" in sealed.output


@pytest.mark.parametrize("command", [["token", "list"], ["erase", "list"], ["seal"]])
def test_a_folder_that_a_box_has_open_names_the_options_to_add(folder, command):
    config, _ = load_config(None)
    with offline_access(config, folder):
        asked = CliRunner().invoke(cli, [*command, "--state", str(folder)])
    assert isinstance(asked.exception, StoreUnavailableError)
    assert "--url http://127.0.0.1:8642 --token-file FILE" in str(asked.exception)


def test_consents_without_an_address_name_the_options_to_add():
    asked = CliRunner().invoke(cli, ["consent", "list", "x"], env={"BEDSIDE_URL": ""})
    assert asked.exit_code == 2
    assert "--url http://127.0.0.1:8642" in asked.output
