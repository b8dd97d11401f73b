"""Real nng with real mutual TLS on loopback: who is served, who is not, and what ends cleanly."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bedside_core.errors import (
    HubRefusedError,
    HubUnavailableError,
    InvalidConfigError,
    RoundRefusedError,
)
from bedside_sync.transport_nng import Client, Identity, Server, Timeouts
from bedside_sync.wire import Message
from support.certificates import Authority

CA, FOREIGN = Authority(), Authority("test authority")
HUB = CA.issue("hub")
QUICK = Timeouts(receive=2000, send=2000)


def identity(issued, authority=CA, **more) -> Identity:
    return Identity(certificate=issued.certificate, key=issued.key, authority=authority.pem, **more)


def echo(name: str, request: Message) -> Message:
    if request.kind == "refuse":
        raise RoundRefusedError("not this one")
    if request.kind == "break":
        raise RuntimeError("a secret")
    return Message(kind="echo", fields={"name": name}, payload=request.payload)


@contextmanager
def serving(handle=echo, **more):
    with Server("tls+tcp://127.0.0.1:0", identity(HUB, **more), handle) as server:
        yield server


def test_a_box_is_served_under_the_name_in_its_certificate():
    with (
        serving() as server,
        Client(server.url, identity(CA.issue("box-1")), "hub", timeouts=QUICK) as client,
    ):
        payload = os.urandom(262_144)
        answer = client.ask(Message(kind="put", payload=payload))
        assert answer == Message(kind="echo", fields={"name": "box-1"}, payload=payload)
        with pytest.raises(HubRefusedError, match="not this one") as refused:
            client.ask(Message(kind="refuse"))
        assert refused.value.reason == "round-refused"
        with pytest.raises(HubRefusedError) as failed:
            client.ask(Message(kind="break"))
        assert failed.value.reason == "internal"
        assert "secret" not in str(failed.value)
        assert client.ask(Message(kind="put")).kind == "echo"


def test_whoever_shows_no_good_certificate_is_not_served():
    served = []

    def handle(name, request):
        served.append(name)
        return echo(name, request)

    stolen = CA.issue("box-2")
    with serving(handle, revoked=CA.revoked(stolen.serial)) as server:
        for wrong in (
            identity(FOREIGN.issue("box-1")),
            identity(FOREIGN.issue("box-1"), FOREIGN),
            identity(CA.issue("box-1", days=-1)),
            identity(stolen),
        ):
            with (
                pytest.raises(HubUnavailableError),
                Client(server.url, wrong, "hub", timeouts=QUICK) as client,
            ):
                client.ask(Message(kind="put"))
        with pytest.raises(HubUnavailableError):
            Client(server.url, identity(CA.issue("box-1")), "another-hub", timeouts=QUICK)
    assert served == []


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "wss://127.0.0.1:0", "ipc:///x", "hub"])
def test_every_other_transport_is_refused(url):
    with pytest.raises(InvalidConfigError):
        Server(url, identity(HUB), echo)
    with pytest.raises(InvalidConfigError):
        Client(url, identity(HUB), "hub")


def test_garbage_and_idle_connections_leave_a_good_box_served():
    with serving() as server:
        port = int(server.url.rsplit(":", 1)[1])
        before = psutil.Process().num_fds()
        open_ones = []
        for number in range(60):
            one = socket.create_connection(("127.0.0.1", port))
            if number % 3 == 0:
                one.sendall(os.urandom(64))
            elif number % 3 == 1:
                one.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01")  # a hello that stops
            open_ones.append(one)
        started = time.monotonic()
        with Client(server.url, identity(CA.issue("box-1")), "hub", timeouts=QUICK) as client:
            assert client.ask(Message(kind="put")).fields["name"] == "box-1"
        assert time.monotonic() - started < 2.0
        for one in open_ones:
            one.close()
        deadline = time.monotonic() + 10
        while psutil.Process().num_fds() > before + 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert psutil.Process().num_fds() <= before + 5


def test_a_claim_of_gigabytes_costs_no_memory():
    """An own TLS client speaks the protocol's framing and announces 8 GiB."""
    import ssl

    with serving() as server:
        port = int(server.url.rsplit(":", 1)[1])
        context = ssl.create_default_context(cadata=CA.pem)
        context.check_hostname = False
        box = CA.issue("box-1")
        folder = Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
        files = [folder / f"bedside-test-{os.getpid()}-{n}.pem" for n in "ck"]
        files[0].write_text(box.certificate)
        files[1].write_text(box.key)
        context.load_cert_chain(*files)
        for file in files:
            file.unlink()
        before = psutil.Process().memory_info().rss
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain) as secure,
        ):
            secure.sendall(b"\x00SP\x00\x00\x30\x00\x00")  # SP header: REQ
            secure.sendall((8 << 30).to_bytes(8, "big") + bytes(4096))
            secure.settimeout(3)
            try:
                while secure.recv(4096):
                    pass
            except OSError:
                pass
        assert psutil.Process().memory_info().rss - before < 50 << 20
        with Client(server.url, identity(box), "hub", timeouts=QUICK) as client:
            assert client.ask(Message(kind="put")).kind == "echo"


def test_many_boxes_at_once_get_their_own_answers():
    with serving() as server:
        found: dict[str, str] = {}

        def run(name: str) -> None:
            with Client(server.url, identity(CA.issue(name)), "hub", timeouts=QUICK) as client:
                for _ in range(10):
                    found[name] = str(client.ask(Message(kind="put")).fields["name"])

        threads = [threading.Thread(target=run, args=(f"box-{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert found == {f"box-{n}": f"box-{n}" for n in range(8)}


def test_a_hub_that_is_not_there_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"tls+tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(HubUnavailableError, match="cannot be reached"):
            Client(url, identity(CA.issue("box-1")), "hub", timeouts=QUICK)


def test_the_process_ends_in_order_with_a_server_running():
    """A daemon thread inside recv() at exit aborts the process: close joins first."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from support.certificates import Authority
from bedside_sync.transport_nng import Client, Identity, Server
from bedside_sync.wire import Message
ca = Authority()
def identity(name):
    issued = ca.issue(name)
    return Identity(certificate=issued.certificate, key=issued.key, authority=ca.pem)
with Server("tls+tcp://127.0.0.1:0", identity("hub"), lambda n, m: m) as server:
    with Client(server.url, identity("box-1"), "hub") as client:
        client.ask(Message(kind="put"))
"""
    tests = str(Path(__file__).parents[1])
    for _ in range(5):
        ended = subprocess.run([sys.executable, "-c", program, tests], timeout=60, check=False)
        assert ended.returncode == 0
