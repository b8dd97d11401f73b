"""A real box releases a statistic of its studies; a recipient verifies the file without the box."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from bedside_edge.system.policy_keys import make_key
from support.chest import chest
from support.privacy_folder import POLICY, edge
from support.running_box import RunningBox, part10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A box with two studies that was stopped, and a privacy policy signed by two people."""
    folder = tmp_path_factory.mktemp("box")
    box = RunningBox(folder)
    for number in (1, 2):
        box.analyze(part10(chest(number)))
    for role in ("privacy-officer", "administrator", "administrator"):
        box.person(role)
    assert box.stop() == 0
    keys = folder / "state" / "policy-keys"
    keys.mkdir(exist_ok=True)
    for name in ("officer", "head"):
        make_key(name, folder / f"{name}.pem", None)
        (keys / f"{name}.pub").write_bytes((folder / f"{name}.pub").read_bytes())
    (folder / "budget.toml").write_text(POLICY)
    (folder / "box.toml").write_text('[privacy]\nunwitnessed = "allowed"\n')
    return folder


def test_from_policy_to_a_file_that_is_verified_offline(folder):
    signed = folder / "budget.dsse.json"
    box = ("--state", folder / "state", "--config", folder / "box.toml")
    bare = ("--no-passphrase", "-o", signed)
    edge("privacy", "policy", folder / "budget.toml", "--sign", folder / "officer.pem", *bare)
    alone = edge("privacy", "policy", signed, *box, code=4)
    assert alone == ""
    edge("privacy", "policy", signed, "--sign", folder / "head.pem", *bare)
    assert "[caps]" in edge("privacy", "policy", signed, *box)
    assert "epoch 1, open" in edge(
        "privacy", "epoch", "open", "--from", "2020-01-01", "--days", 3650, *box
    )
    asked = ["privacy", "release", "prevalence", "--epsilon", 1, "--purpose", "quality"]
    file, page = folder / "release.json", folder / "release.html"
    made = json.loads(edge(*asked, "-o", file, "--page", page, "--json", *box))
    assert made["document"]["cells"][0]["cell"] == "studies"
    keys = folder / "log.vkeys"
    keys.write_text(edge("evidence", "keys", *box))
    told = edge("privacy", "verify", file, "--vkey", keys)
    assert "verified: entry" in told
    assert "share decided present" in told
    assert page.read_text().startswith("<!doctype html>")
    again = edge("privacy", "replay", made["fingerprint"], "--json", *box)
    assert json.loads(again) == made
    snapshot = made["document"]["identity"]["snapshot"]
    same = edge(*asked, "--snapshot", snapshot, "--json", *box)
    assert json.loads(same) == made
    assert "entries agree" in edge("privacy", "ledger", "--verify", *box)
    assert "final" in edge("privacy", "ledger", *box)
    yaml = folder / "epoch-1.yaml"
    about = ("--hospital", "St. Example", "--region", "Germany", "--author", "Eva Meier")
    report = edge("privacy", "report", "-o", yaml, *about, *box)
    assert "left of this epoch" in report
    assert "url_slug" in yaml.read_text()
    assert yaml.with_suffix(".summary.json").is_file()
    file = folder / "split.json"
    asked_split = ("privacy", "split", "--epsilon", 0.5, "--purpose", "quality", "-o", file)
    split = edge(*asked_split, *box)
    assert "split train" in split
    assert "by grade" in split
    assert "sampling rate" in split
    checked = json.loads(edge("privacy", "verify", file, "--vkey", keys, "--json"))
    grades = checked["document"]["grades"]
    widths = [one["cells"][0]["high"] - one["cells"][0]["estimate"] for one in grades]
    assert widths[4] > 3 * widths[0] > 0  # the strictest grade has the most noise
    charged = max(one["cost"]["units"] for one in grades)
    assert checked["document"]["cost"]["units"] == charged
    report = json.loads(edge("privacy", "report", "--json", *box))
    assert charged in [one["cost"]["units"] for one in report["releases"]]
    refused = edge(*asked[:-1], "advertising", *box, code=3)
    assert refused == ""
    asked[asked.index(1)] = 3.9
    assert edge(*asked, *box, code=3) == ""  # overdrawn


def backup_of(folder):
    database = folder / "state" / "bedside.db"
    with closing(sqlite3.connect(database)) as c, closing(sqlite3.connect(folder / "old.db")) as to:
        c.backup(to)
    return folder / "old.db"


def test_yesterdays_backup_is_locked_until_two_people_write_the_epoch_off(folder):
    box = ("--state", folder / "state", "--config", folder / "box.toml")
    asked = ("privacy", "release", "volume", "--epsilon", 0.2, "--purpose", "quality", *box)
    backup = backup_of(folder)
    edge(*asked)
    for path in (folder / "state").glob("bedside.db*"):
        path.unlink()
    shutil.copy(backup, folder / "state" / "bedside.db")
    assert edge(*asked, code=5) == ""
    assert "LOCKED" in edge("privacy", "report", *box)
    typed = "violet otter climbs stairs\n" * 2

    def unlock(first, second, code):
        people = ("--login", first, "--with", second)
        return edge("privacy", "unlock", *people, *box, code=code, typed=typed)

    officer, ada, bert = "privacy-officer-0", "administrator-1", "administrator-2"
    assert unlock(ada, ada, 3) == ""  # nobody of the two releases statistics
    assert unlock(ada, bert, 3) == ""
    assert unlock(officer, officer, 4) == ""  # one person
    assert "epoch 1 is written off" in unlock(officer, ada, 0)
    assert unlock(officer, ada, 4) == ""  # it is not locked
    assert edge(*asked, code=3) == ""  # nothing of the epoch is left
    report = json.loads(edge("privacy", "report", "--json", *box))
    assert [one["left"]["units"] for one in report["scopes"][:2]] == [0, 0]
    assert "burn" in edge("privacy", "ledger", *box)
    assert "entries agree" in edge("privacy", "ledger", "--verify", *box)
