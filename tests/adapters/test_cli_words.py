"""What a command says when it asked the wrong box, or none: which one, and what to add."""

import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner

from bedside_core.errors import NotFoundError, StoreUnavailableError
from bedside_core.uses import Incident
from bedside_edge.cli import cli
from bedside_edge.config import load_config
from bedside_edge.state_folder import offline_access, offline_incidents


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


@pytest.mark.parametrize(
    "command", [["token", "list"], ["accounts", "list"], ["seal"], ["erase", "list"]]
)
def test_a_question_about_a_box_that_is_not_there_makes_none(tmp_path, command):
    nowhere = tmp_path / "nowhere"
    asked = CliRunner().invoke(cli, [*command, "--state", str(nowhere)])
    assert isinstance(asked.exception, NotFoundError)
    assert "--state" in str(asked.exception)
    assert not nowhere.exists()


def test_a_sealed_box_whose_ledger_was_changed_has_a_red_check(folder):
    config, _ = load_config(None)
    with offline_incidents(config, folder) as (incidents, _):
        opening = (Incident.SEALED, Incident.NORMAL)
        assert incidents.checks(*opening) == {"evidence": True, "ledger": True}
        with closing(sqlite3.connect(folder / "bedside.db")) as db:  # by hand, past the box
            db.execute("INSERT INTO privacy_scopes VALUES ('epoch', 'forged', 1000, 0)")
            db.commit()
        assert incidents.checks(*opening) == {"evidence": True, "ledger": False}
