"""A real hub process, made and driven by its own commands, over real mutual TLS."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest

from bedside_core.errors import (
    BedsideError,
    HubRefusedError,
    HubUnavailableError,
    InvalidKeyError,
    ManifestRefusedError,
    StoreUnavailableError,
    UntrustedSignatureError,
    WrongStateError,
)
from bedside_sync.calls import HubCalls
from bedside_sync.hub.process import run_hub
from bedside_sync.secagg.machines import Box
from bedside_sync.wire import Message
from support.hub_child import HubProcess
from support.hub_sites import SLOW, Sites, command, vectors


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Sites(tmp_path_factory.mktemp("made"))


@pytest.fixture
def among(made, tmp_path):
    return made.copied(tmp_path / "among")


@contextlib.contextmanager
def serving(among, **how):
    hub = HubProcess(among.hub, **how)
    try:
        yield hub
    finally:
        hub.close()


def until(done, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_round(among, hub, values, name="census-1", seconds=60.0, reborn=None):
    """Drive boxes and helpers until the sum is there; the hub is started again when it died."""

    def once(step, *args):
        try:
            step(*args)
        except (HubUnavailableError, HubRefusedError):
            return False
        return True

    deadline = time.monotonic() + seconds
    waiting = dict(values)
    while among.show(name)["state"] != "published":
        assert time.monotonic() < deadline, among.show(name)
        if hub.died():
            (reborn or hub.again)()
        for box in list(waiting):
            if once(among.report, among.sites[box], hub.url, values[box], name):
                del waiting[box]
        if not waiting:
            for box in list(among.sites)[:4]:
                if not hub.died():
                    once(among.help, among.sites[box], hub.url, name)


def test_a_consortium_from_its_first_key_to_a_published_sum(among, tmp_path):
    values = vectors(among.sites)
    with serving(among, options=["--status-port", "0"]) as hub:
        among.open_round(hub.url)
        run_round(among, hub, values)
        shown = among.show()
        assert [one["state"] for one in shown["reported"]] == ["in"] * 4
        assert shown["waits_for"] == ""
        out = tmp_path / "results"
        command("round", "publish", "census-1", "--out", out, "--folder", among.hub)
        assert (np.load(out / "census-1.sum.npy") == sum(values.values())).all()
        record = json.loads((out / "census-1.record.json").read_text())
        assert len(record["body"]["reports"]) == 4
        page = fetch(hub.status_url, "/")
        assert page[0] == 200
        assert "census-1" in page[2]
        assert "<script" not in page[2]
        assert fetch(hub.status_url, "/", host="evil.example:80")[0] == 421
        assert fetch(hub.status_url, "/etc/passwd")[0] == 404
        rounds = json.loads(fetch(hub.status_url, "/rounds.json")[2])["rounds"]
        assert rounds[0]["state"] == "published"
        code, said = hub.stop()
    assert code == 0
    assert [json.loads(line)["event"] for line in said.splitlines()][-1] == "hub stops"


def fetch(url, path, host=None):
    port = int(url.rstrip("/").rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


@pytest.mark.parametrize(
    ("every", "before"),
    [
        (9, False),
        (11, True),
        pytest.param(1, False, marks=pytest.mark.slow),  # dies after every single write
        pytest.param(2, True, marks=pytest.mark.slow),
    ],
)
def test_a_hub_killed_again_and_again_publishes_the_same_sum(among, every, before):
    """SIGKILL just after (or before) every n-th thing made durable, all through one round."""
    values, deaths = vectors(among.sites), 0
    with serving(among) as hub:
        among.open_round(hub.url, open_for="1s", least_boxes=4)
        hub.stop()
        hub.again(die_at=every, before=before)

        def reborn():
            nonlocal deaths
            deaths += 1
            hub.again(die_at=every, before=before)

        run_round(among, hub, values, seconds=240, reborn=reborn)
    assert deaths >= 3
    out = among.folder / "out"
    command("round", "publish", "census-1", "--out", out, "--folder", among.hub)
    assert (np.load(out / "census-1.sum.npy") == sum(values.values())).all()
    record = json.loads((out / "census-1.record.json").read_text())["body"]
    assert [one["body"]["box"] for one in record["reports"]] == sorted(values)


def test_one_process_serves_a_folder_and_the_next_takes_over(among):
    with serving(among) as hub:
        with pytest.raises(StoreUnavailableError, match="another process"):
            run_hub(among.hub, "tls+tcp://127.0.0.1:0", None, None, ready=print)
        hub.kill()
        hub.again()
        with among.sites["box-0"].client(hub.url) as client:
            assert HubCalls(client).time() > 0


def test_revoked_and_renewed_certificates_are_out_at_once_and_a_new_site_in(among):
    with serving(among) as hub:
        renewing, leaving = among.sites["box-0"], among.sites["box-1"]
        with renewing.client(hub.url) as old, leaving.client(hub.url) as gone:
            assert HubCalls(old).time() == pytest.approx(HubCalls(gone).time(), abs=5)
            before = renewing.identity
            among.approve(renewing)  # a new certificate under the same key
            among.revoke("box-1")
            among.join("box-9", "hospital-9")
            others = (among.sites["box-2"].folder / "welcome.json").read_bytes()

            def newcomer():
                try:
                    with among.sites["box-9"].client(hub.url) as client:
                        return HubCalls(client).time() > 0
                except BedsideError:
                    return False

            until(newcomer)
            for client in (old, gone):  # their connections were closed and do not come back
                with pytest.raises(HubUnavailableError):
                    client.ask(Message(kind="time"))
        assert before != renewing.identity
        with renewing.client(hub.url) as client:
            assert HubCalls(client).time() > 0
        with among.sites["box-2"].client(hub.url) as client:
            assert HubCalls(client).time() > 0
        assert (among.sites["box-2"].folder / "welcome.json").read_bytes() == others
        listed = command("roster", "list", "--folder", among.hub)
        assert listed["revoked"] == ["box-1"]
        assert [one["box"] for one in listed["members"]] == ["box-0", "box-2", "box-3", "box-9"]


def test_a_proposed_certificate_serves_nobody_until_two_administrators_signed(among):
    from support.hub_sites import Site

    site = Site("box-7", among.folder / "box-7", "hospital-7")
    entry, welcome = site.folder / "entry.json", site.folder / "welcome.json"
    command("roster", "propose", site.request(), "--out", entry, "--folder", among.hub)
    approve = ("roster", "approve", entry, "--out", welcome, "--folder", among.hub)
    assert isinstance(command(*approve, fails=True), UntrustedSignatureError)
    among.sign(entry, among.admins[:1])
    among.sign(entry, among.admins[:1])  # one administrator twice is one
    assert isinstance(command(*approve, fails=True), UntrustedSignatureError)
    among.sign(entry, among.admins[1:])
    among.join("box-8", "hospital-8")  # the roster grew meanwhile: sign again
    assert isinstance(command(*approve, fails=True), BedsideError)
    assert not welcome.exists()


def test_requests_and_entries_that_cannot_be_right_are_refused(among):
    from support.hub_sites import Site

    site = Site("box-0", among.folder / "again", "hospital-0")  # a member's name, another key
    propose = ("roster", "propose", site.request(), "--out", among.folder / "x.json")
    assert isinstance(command(*propose, "--folder", among.hub, fails=True), WrongStateError)
    path = among.sites["box-2"].request()
    path.write_bytes(path.read_bytes().replace(b"hospital-2", b"hospital-3"))
    shown = command("roster", "show", path, fails=True)
    assert isinstance(shown, UntrustedSignatureError)
    (among.folder / "wrong").write_text("another passphrase\n")
    signed = command(
        *("admin", "sign", among.sites["box-3"].folder / "entry.json", "--yes"),
        *("--key", among.admins[0], "--passphrase-file", among.folder / "wrong"),
        fails=True,
    )
    assert isinstance(signed, InvalidKeyError)


def test_a_round_needs_its_helpers_keys_and_two_signatures_and_a_bound_that_holds(among):
    manifest = among.folder / "m.json"
    with serving(among) as hub:
        overflow = among.plan("too-much", largest=64, patients_a_box=2**24, most_boxes=1000)
        words = ("round", "propose", overflow, "--out", manifest, "--folder", among.hub)
        assert command(*words)["awaited"] == ["box-0", "box-1", "box-2", "box-3"]
        for box in among.sites.values():
            with box.client(hub.url) as client:
                calls = HubCalls(client)
                key = box.helper().announce("too-much")
                calls.helper_key("too-much", key)
                calls.helper_key("too-much", key)  # told twice
                other = key.model_copy(update={"signature": "00" * 64})
                with pytest.raises(HubRefusedError, match="not signed"):
                    calls.helper_key("too-much", other)
                with pytest.raises(HubRefusedError, match="announced"):
                    calls.helper_key("never-announced", key)
                assert calls.upcoming() == []
        refused = command(*words, fails=True)
        assert isinstance(refused, ManifestRefusedError)
        assert "overflow" in str(refused)
        plan = among.plan("fine", open_for="1h")
        words = ("round", "propose", plan, "--out", manifest, "--folder", among.hub)
        command(*words)
        for box in among.sites.values():
            with box.client(hub.url) as client:
                HubCalls(client).helper_key("fine", box.helper().announce("fine"))
        told = command(*words)
        assert "<= 2147483647" in told["overflow"]
        assert "epsilon" in told["privacy"]
        among.sign(manifest, among.admins[:1])
        opened = ("round", "open", manifest, "--folder", among.hub)
        assert isinstance(command(*opened, fails=True), ManifestRefusedError)
        among.sign(manifest)
        command(*opened)
        closed = command("round", "close", "fine", "--folder", among.hub)
        assert closed["state"] == "open"
        assert closed["waits_for"] == "its closing time and 4 more organisations"


def test_two_callers_at_once_leave_one_report_and_one_sum(among):
    """Four boxes, each from three threads with the very same report, chunks interleaved."""
    import threading

    values = vectors(among.sites, length=200_000)
    with serving(among) as hub:
        among.open_round(hub.url, length=200_000, open_for="3s")
        manifest, reports, receipts = None, {}, {}
        for box, site in among.sites.items():
            with site.client(hub.url) as client:
                calls = HubCalls(client)
                role = site.box(values[box])
                signed = among.manifest(calls, "census-1")
                role.open(signed, among.roster(calls))
                role.seal("census-1")
                manifest, reports[box] = signed.manifest, role._report("census-1")

        def send(box):
            report, envelopes, masked = reports[box]
            with among.sites[box].client(hub.url, SLOW) as client:
                calls = HubCalls(client)
                calls.upload(manifest, "report", np.frombuffer(masked, np.uint32))
                receipts.setdefault(box, []).append(calls.seal("census-1", report, envelopes))

        threads = [threading.Thread(target=send, args=(box,)) for _ in range(3) for box in reports]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert {box: len(got) for box, got in receipts.items()} == dict.fromkeys(reports, 3)
        assert all(got[0] == got[1] == got[2] for got in receipts.values())

        def help_(site):
            with contextlib.suppress(HubUnavailableError):
                among.help(site, hub.url)

        helpers = [
            threading.Thread(target=help_, args=(site,))
            for _ in range(2)
            for site in among.sites.values()
        ]
        for thread in helpers:
            thread.start()
        for thread in helpers:
            thread.join(60)
        run_round(among, hub, values)
        out = among.folder / "out"
        command("round", "publish", "census-1", "--out", out, "--folder", among.hub)
        assert (np.load(out / "census-1.sum.npy") == sum(values.values())).all()
        assert len(among.show()["reported"]) == 4


def test_nobody_writes_into_anothers_upload_and_every_refusal_is_shown(among):
    values = vectors(among.sites)
    with serving(among) as hub:
        among.open_round(hub.url, open_for="1h")
        site, other = among.sites["box-0"], among.sites["box-1"]
        with site.client(hub.url) as client:
            calls = HubCalls(client)
            role = site.box(values["box-0"])
            role.open(among.manifest(calls, "census-1"), among.roster(calls))
            role.seal("census-1")
            report, envelopes, masked = role._report("census-1")
        with other.client(hub.url) as client:
            calls = HubCalls(client)
            with pytest.raises(HubRefusedError):  # no vector of its own is announced
                calls._ask("put", masked[:1000], round="census-1", what="report", number=0)
            with pytest.raises(HubRefusedError, match="own"):
                calls.seal("census-1", report, envelopes)
            for what in ("mask-99", "../box-0.report", "report/../../x"):
                with pytest.raises(HubRefusedError):
                    calls._ask(
                        *("begin", bytes(32)),
                        **{"round": "census-1", "what": what, "digest": "00" * 32, "words": 3000},
                    )
            with pytest.raises(HubRefusedError):
                calls._ask("record", round="../../etc/passwd", at=0)
        among.report(site, hub.url, values["box-0"])
        shown = among.show()
        assert [one["box"] for one in shown["reported"]] == ["box-0"]
        assert shown["refusals"]["round-refused"] >= 4
        assert shown["silent"] == ["box-1", "box-2", "box-3"]


def test_garbage_and_idle_connections_leave_a_whole_hub_serving(among):
    values = vectors(among.sites)
    with serving(among) as hub:
        idle = []
        for number in range(60):
            one = socket.create_connection(("127.0.0.1", hub.port))
            if number % 2:
                one.sendall(os.urandom(200))
            idle.append(one)
        with among.sites["box-0"].client(hub.url) as client:
            for kind in ("nonsense", "put", "seal", "begin", "sum", "record", "candidates"):
                with pytest.raises(HubRefusedError):
                    client.ask(Message(kind=kind, payload=os.urandom(500)))
            client._socket.send(os.urandom(300))  # no message at all
            assert b"invalid-message" in client._socket.recv()
            client._socket.send(b"BSY\x01\xff\xff\xff\xff")  # a header that claims 4 GiB
            assert b"invalid-message" in client._socket.recv()
            client._socket.send(bytes((1 << 20) + 4096))  # over the limit: dropped unread
            with pytest.raises(Exception, match="Timed out"):
                client._socket.recv()
        among.open_round(hub.url)
        run_round(among, hub, values)
        for one in idle:
            one.close()
        assert hub.stop()[0] == 0


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    tools = [shutil.which("mount"), shutil.which("umount")]
    if not all(tools):
        pytest.skip("no mount here: a full disk is not tried")
    words = [tools[0], "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, check=False, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run([tools[1], "-l", str(folder)], check=True)


def test_a_full_disk_means_later_and_loses_nothing(among, small_disk):
    values = vectors(among.sites, length=200_000)
    shutil.copytree(among.hub, small_disk / "hub")
    among.hub = small_disk / "hub"
    with serving(among) as hub:
        among.open_round(hub.url, length=200_000, open_for="1s", least_boxes=4)

        def everybody():
            for box, site in among.sites.items():  # 4 x 800 kB do not fit
                among.report(site, hub.url, values[box], timeouts=SLOW)

        with pytest.raises(HubUnavailableError, match="disk is full"):
            everybody()
        shown = among.show()
        assert shown["state"] == "open"
        assert not hub.died()
        larger = ["-o", "remount,size=64m", str(small_disk)]
        subprocess.run([shutil.which("mount"), *larger], check=True)
        run_round(among, hub, values)
    out = among.folder / "out"
    command("round", "publish", "census-1", "--out", out, "--folder", among.hub)
    assert (np.load(out / "census-1.sum.npy") == sum(values.values())).all()


def test_a_box_finds_itself_in_the_record_the_next_night(among):
    values = vectors(among.sites)
    with serving(among) as hub:
        among.open_round(hub.url)
        run_round(among, hub, values)
        for box, site in among.sites.items():
            with site.client(hub.url) as client:
                calls = HubCalls(client)
                assert calls.records(0) == ["census-1"]
                record = calls.record("census-1")
                state = site.box(None).finish("census-1", record, among.roster(calls), bytes(32))
            assert state is Box.INCLUDED, box
