"""Access on a real `serve` process: set-up of a fresh box, restart, revocation, the commands."""

import json
import stat
import subprocess
import sys

import httpx
import pytest

from bedside_core.evidence.entry import Kind
from bedside_edge.cli import cli
from bedside_edge.config import Config
from bedside_edge.state_folder import open_folder
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom
from support.running_box import running_box

GOOD = "violet otter climbs stairs"


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "bedside_edge", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_a_fresh_box_is_set_up_by_its_link_and_keeps_what_was_decided(tmp_path):
    with running_box(tmp_path) as box:
        first = box.setup
        assert stat.S_IMODE((tmp_path / "ready.json").stat().st_mode) == 0o600
        assert first in box.log()
        assert httpx.get(f"{box.url}/api/v1/jobs").status_code == 401
        assert httpx.get(f"{box.url}/readyz").status_code == 200
        guess = {"login": "administrator", "password": "administrator"}
        assert httpx.post(f"{box.url}/api/v1/login", json=guess).status_code == 401
        assert box.stop() == 0
    with running_box(tmp_path) as box:
        secret = box.setup.partition("link=")[2]
        assert secret not in first
        void = {"link": first.partition("link=")[2], "password": GOOD}
        assert httpx.post(f"{box.url}/api/v1/setup", json=void).status_code == 404
        body = {"link": secret, "password": GOOD, "login": "anna", "name": "Muster^Anna"}
        assert httpx.post(f"{box.url}/api/v1/setup", json=body).status_code == 200
        browser = httpx.Client(base_url=box.url)
        opened = browser.post("/api/v1/login", json={"login": "anna", "password": GOOD})
        assert opened.status_code == 200
        browser.headers["X-CSRF-Token"] = opened.json()["csrf"]
        token = browser.post("/api/v1/tokens", json={"label": "t", "actions": ["monitor"]}).json()
        bearer = {"Authorization": f"Bearer {token['secret']}"}
        assert httpx.get(f"{box.url}/metrics", headers=bearer).status_code == 200
        box.kill()  # what was answered is durable
    with running_box(tmp_path) as box:
        assert box.setup == ""
        browser.base_url = box.url
        assert browser.get("/api/v1/me").json()["name"] == "Muster^Anna"
        assert httpx.get(f"{box.url}/metrics", headers=bearer).status_code == 200
        gone = browser.delete(f"/api/v1/tokens/{token['token']['id']}")
        assert gone.status_code == 204
        assert httpx.get(f"{box.url}/metrics", headers=bearer).status_code == 401
        log = box.log()
        assert box.stop() == 0
        browser.close()
    secrets = (GOOD, token["secret"], "Muster", browser.headers["X-CSRF-Token"])
    assert [secret for secret in secrets if secret in log] == []
    for path in (tmp_path / "state").rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert GOOD.encode() not in held
            assert token["secret"].encode() not in held
    assert told(tmp_path / "state") >= {
        *("account-added", "link-made", "password-by-link", "log-in", "log-in-failed"),
        *("token-created", "token-revoked"),
    }


def told(state):
    """What the evidence log says about access, in its own words."""
    opened = open_folder(Config(), state, SystemClock(), OsRandom())
    try:
        found = opened.evidence.newest(limit=200, kinds=[Kind.ACCESS, Kind.ADMIN])
    finally:
        opened.close()
    assert all(not kept.entry.actor.startswith("person:anna") for kept in found)
    return {kept.entry.refs.get("what") for kept in found}


@pytest.mark.slow
def test_the_commands_work_on_a_folder_and_through_a_running_box(tmp_path):
    state = tmp_path / "state"
    here = ("--state", state)
    made = command("token", "create", "console", "manage-accounts", "store", *here)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip().startswith("bst_")
    (tmp_path / "admin.token").write_text(made.stdout)
    added = command("accounts", "add", "bert", "Beispiel^Bert", "radiologist", *here, "--json")
    assert json.loads(added.stdout)["account"]["login"] == "bert"
    assert "/setup?link=" in added.stdout
    listed = command("accounts", "list", *here)
    assert listed.stdout == "bert  Beispiel^Bert  radiologist  (no password yet)\n"
    assert command("token", "create", "robot", "review", *here).returncode == 2
    with running_box(tmp_path) as box:
        locked = command("accounts", "list", *here)
        assert locked.returncode == 5
        assert "--url" in locked.stderr
        assert "--token-file" in locked.stderr
        there = ("--url", box.url, "--token-file", tmp_path / "admin.token")
        changed = command("accounts", "roles", "bert", "auditor", "vendor", *there)
        assert (changed.returncode, changed.stdout) == (0, "bert: auditor, vendor\n")
        link = command("accounts", "reset-link", "bert", *there).stdout.splitlines()[1].strip()
        assert link.startswith(f"{box.url}/setup?link=")
        off = command("accounts", "disable", "bert", *there)
        assert off.stdout == "bert: auditor, vendor (disabled)\n"
        assert command("accounts", "disable", "nobody", *there).returncode == 4
        more = command("token", "create", "pacs", "store", *there)
        assert more.returncode == 0, more.stderr
        beyond = command("token", "create", "stats", "release", *there)
        assert beyond.returncode == 3
        tokens = json.loads(command("token", "list", *there, "--json").stdout)["tokens"]
        found = next(one["id"] for one in tokens if one["label"] == "pacs")
        assert command("token", "revoke", found, *there).stdout == f"{found} revoked\n"
        bearer = {"Authorization": f"Bearer {more.stdout.strip()}"}
        assert httpx.post(f"{box.url}/dicom-web/studies", headers=bearer).status_code == 401
        no_token = command("accounts", "list", "--url", box.url)
        assert no_token.returncode == 3
        assert "unauthenticated" in no_token.stderr
        assert box.stop() == 0


@pytest.mark.parametrize("name", ["accounts", "token"])
def test_every_command_shows_examples(name):
    group = cli.commands[name]
    assert len(group.commands) >= 3
    for inner in group.commands.values():
        assert f"bedside-edge {name} {inner.name}" in inner.help
