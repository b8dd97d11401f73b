"""A real box process in a round with a real hub process: joined, charged, killed, counted."""

import contextlib
import hashlib
import json
import secrets
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from bedside_sync.calls import HubCalls
from bedside_sync.task_code import task_code
from bedside_sync.tasks import kinds
from support import hub_sites
from support.chest import ROOT, chest
from support.hub_child import HubProcess
from support.hub_sites import Sites, command
from support.running_box import running_box

pytestmark = pytest.mark.slow

CENSUS = kinds.KINDS["collect"].model_validate(
    {"tables": [{"name": "kind", "axes": [{"field": "image.modality", "keys": ["CR", "CT"]}]}]}
)
SETTINGS = """
[sync]
window_start_minute = 0
window_minutes = 1440
jitter_minutes = 0
poll_s = 1
purposes = ["collect"]
least_hospitals = 3
"""
STUDIES = 4


def words_of(*words):
    code = "from bedside_edge.cli import main; main()"
    return [sys.executable, "-c", code, "sync", *map(str, words), "--json"]


def run(*words):
    return subprocess.run(
        words_of(*words), capture_output=True, text=True, timeout=120, check=False
    )


def cli(*words):
    ran = run(*words)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def until(found, seconds=60.0, pause=0.1):
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline
        time.sleep(pause)
    return answer


def offline(folder):
    return "--config", folder / "bedside.toml", "--state", folder / "state"


def where_of(box):
    return "--url", box.url, "--token", box.token


def states(box):
    return {one["round"]: one["state"] for one in box.http.get("/api/v1/sync").json()["rounds"]}


def test_a_box_joins_by_files_and_its_cases_are_counted_although_it_is_killed(
    tmp_path, monkeypatch
):
    folder = tmp_path / "box"
    sites, hub = consortium(tmp_path, monkeypatch)
    try:
        with running_box(folder, SETTINGS) as box:
            join(box, sites, tmp_path)
            refused = run("now", *offline(folder))
            assert refused.returncode == 5
            assert "while a box runs, ask it" in refused.stderr
            open_round(sites, hub, open_for="60s")
            visit = subprocess.Popen(  # it would come by itself, within ten minutes
                words_of("now", *where_of(box)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            until(lambda: states(box).get("census-1") in ("opened", "sealed", "acked"), pause=0.01)
            box.kill()
            visit.wait(60)
        with running_box(folder, SETTINGS) as box:
            cli("now", *where_of(box))
            assert states(box)["census-1"] == "acked"
            values = np.zeros(CENSUS.layout.length, np.int64)
            for site in list(sites.sites.values()):
                sites.report(site, hub.url, values, timeouts=hub_sites.SLOW)
            sites.wait("closed", seconds=120)
            for _ in range(4):
                for site in sites.sites.values():
                    sites.help(site, hub.url)
            sites.wait("published")
            cli("now", *where_of(box))  # it would come by itself, within ten minutes
            assert states(box) == {"census-1": "included"}
            view = box.http.get("/api/v1/sync").json()["rounds"][0]
            assert view["honest_boxes"] == 5
            assert view["epsilon"] > 0
            night = box.http.get("/api/v1/sync/nights").json()["nights"][0]
            steps = [(one["step"], one["outcome"]) for one in night["events"]]
            assert ("send", "done") in steps
            assert ("record", "done") in steps
            (tmp_path / "page.html").write_text(box.http.get("/nights").text)
            assert "census-1" in (tmp_path / "page.html").read_text()
            assert box.stop() == 0
        command("round", "publish", "census-1", "--out", tmp_path / "out", "--folder", sites.hub)
        total = np.load(tmp_path / "out" / "census-1.sum.npy")
        reports = sites.show()["reported"]
        assert sorted(one["box"] for one in reports) == [*(f"box-{n}" for n in range(4)), "box-9"]
        sigma = 64 * 2 / 5**0.5 * 1.1  # of one box's noise; only the real box adds any
        assert abs(int(total[0]) - 64 * STUDIES) <= 12 * sigma
        assert total.any()  # it did
        with sites.sites["box-0"].client(hub.url) as client:
            assert HubCalls(client).records(0) == ["census-1"]
        assert named(tmp_path, b"box-9")  # what is there is found
        for secret in (b"SECRET0", b"Hidden^", ROOT.encode()):
            assert named(tmp_path, secret) == []
    finally:
        hub.stop()
        hub.close()


def test_nights_killed_at_random_charge_once_and_send_one_report(tmp_path, monkeypatch):
    """Each visit is a process of its own, as with cron, and most of them die."""
    folder = tmp_path / "box"
    sites, hub = consortium(tmp_path, monkeypatch)
    try:
        with running_box(folder, SETTINGS) as box:
            join(box, sites, tmp_path)
            assert box.stop() == 0
        cli("now", *offline(folder))  # the roster
        open_round(sites, hub, open_for="5min")
        reached = []
        for _ in range(10):
            before = writes(folder)
            visit = subprocess.Popen(
                words_of("now", *offline(folder)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            until(lambda: visit.poll() is not None or writes(folder) > before, pause=0.002)  # noqa: B023
            time.sleep(secrets.randbelow(20) / 1000)
            visit.kill()
            visit.wait()
            facts = rows(folder, "SELECT fact FROM sync_facts WHERE round = 'census-1'")
            reached.append(sorted(fact for (fact,) in facts))
            if "receipt" in reached[-1]:
                break
        cli("now", *offline(folder))
        found = cli("status", *offline(folder))
        assert [(one["round"], one["state"]) for one in found["rounds"]] == [("census-1", "acked")]
        charges = rows(folder, "SELECT round, count(DISTINCT patient) FROM sync_charges")
        assert charges == [("census-1", STUDIES)], reached
        assert [one["box"] for one in sites.show()["reported"]] == ["box-9"]
    finally:
        hub.stop()
        hub.close()


def consortium(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_sites, "CODE", task_code().hex())
    (tmp_path / "consortium").mkdir()
    sites = Sites(tmp_path / "consortium")
    hub = HubProcess(sites.hub)
    place = sites.hub / "hub.json"
    place.write_text(place.read_text().replace("tls+tcp://127.0.0.1:7443", hub.url))
    return sites, hub


def join(box, sites, tmp_path):
    """Make the box a member by files, with an agreement and some studies."""
    where = where_of(box)
    (tmp_path / "agreement.pdf").write_bytes(b"signed by both")
    agreed = ("--title", "Lungs", "--purpose", "collect", "--same-region", *where)
    cli("agreement", "add", "lungs", tmp_path / "agreement.pdf", *agreed)
    request, entry = tmp_path / "request.json", tmp_path / "entry.json"
    asked = ("--box", "box-9", "--organisation", "hospital-9", "-o", request)
    told = cli("join", *asked, *where)["fingerprint"]
    words = ("roster", "propose", request, "--out", entry, "--folder", sites.hub)
    assert command(*words)["fingerprint"] == told
    sites.sign(entry)
    welcome = tmp_path / "welcome.json"
    command("roster", "approve", entry, "--out", welcome, "--folder", sites.hub)
    cli("join", "--welcome", welcome, *where)
    box.store_datasets([chest(number) for number in range(1, STUDIES + 1)])
    box.settled()


def rows(folder, query):
    with contextlib.closing(sqlite3.connect(folder / "state" / "bedside.db")) as database:
        return database.execute(query).fetchall()


def writes(folder):
    return rows(folder, "SELECT value FROM sync_marks WHERE name = 'writes'")


def named(folder, secret):
    """Return the files of every state, log and message in which something stands."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if secret in path.read_bytes()]


def open_round(sites, hub, open_for="20s"):
    plan = kinds.plan_lines(CENSUS)
    (sites.folder / "census.json").write_bytes(CENSUS.encode())
    path = sites.plan(
        length=CENSUS.layout.length,
        open_for=open_for,
        task="collect",
        settings=hashlib.sha256(CENSUS.encode()).hexdigest(),
        code=task_code().hex(),
        scale=plan["scale"],
        sensitivity2=plan["sensitivity2"],
        largest=plan["largest"],
        least_boxes=5,
    )
    text = path.read_text().replace(
        f'settings = "{hashlib.sha256(CENSUS.encode()).hexdigest()}"',
        'settings_file = "census.json"',
    )
    (segment,) = plan["segments"]
    path.write_text(text.replace('name = "all"', f'name = "{segment["name"]}"'))
    manifest = sites.folder / "census-1.manifest.json"
    words = ("round", "propose", path, "--out", manifest, "--folder", sites.hub)
    for box in command(*words)["awaited"]:
        with sites.sites[box].client(hub.url) as client:
            calls = HubCalls(client)
            for wanted in calls.upcoming():
                calls.helper_key(wanted, sites.sites[box].helper().announce(wanted))
    assert command(*words)["awaited"] == []
    sites.sign(manifest)
    command("round", "open", manifest, "--folder", sites.hub)
