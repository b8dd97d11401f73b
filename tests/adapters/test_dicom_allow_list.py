"""Who may call the receiver: title and address together, before anything is spent on a caller."""

import contextlib
import socket
import ssl
import time
from ipaddress import ip_address, ip_network

import pytest

from bedside_edge.dicom.association import peer_address
from bedside_edge.dicom.ul import Acceptor, AcceptorSettings, Caller
from bedside_edge.system.tls_openssl import ServerTls
from support.certificates import Authority

CT = Caller("CT", (ip_network("10.1.0.0/16"), ip_network("fd00::/8")))
MR = Caller("MR", (ip_network("10.2.3.4"),))


def settings(**more):
    return AcceptorSettings(host="127.0.0.1", port=0, ae_title="BEDSIDE", **more)


@pytest.mark.parametrize(
    ("title", "address", "may"),
    [
        ("CT", "10.1.2.3", True),
        ("CT", "fd00::1", True),
        ("MR", "10.2.3.4", True),
        ("MR", "10.1.2.3", False),  # an address of another node
        ("CT", "10.2.3.4", False),
        ("CT", "192.168.1.1", False),
        ("XA", "10.1.2.3", False),
    ],
)
def test_title_and_address_have_to_fit_the_same_node(title, address, may):
    assert settings(callers=(CT, MR)).may_call(title, ip_address(address)) is may


def test_without_a_list_the_titles_alone_decide():
    assert settings().may_call("ANY", None)
    narrow = settings(allowed_calling_ae=frozenset({"CT"}))
    assert narrow.may_call("CT", None)
    assert not narrow.may_call("MR", None)


def test_an_address_nobody_can_tell_is_nobodys():
    assert not settings(callers=(CT,)).may_call("CT", None)
    assert not settings(callers=(CT,)).may_call_from(None)


def test_an_ipv4_address_through_ipv6_is_the_same_address():
    class Mapped:
        def getpeername(self):
            return ("::ffff:10.1.2.3", 1, 0, 0)

    assert peer_address(Mapped()) == ip_address("10.1.2.3")


class NoSession:
    def store(self, command, context):
        raise AssertionError

    def released(self):
        pass


@pytest.fixture
def running():
    started = []

    def run(**more):
        acceptor = Acceptor(settings(**more), lambda _: NoSession(), lambda _: True, time.monotonic)
        started.append(acceptor)
        return acceptor, acceptor.start()

    yield run
    for acceptor in started:
        acceptor.stop(2)


def test_a_stranger_is_shut_out_before_a_thread_is_spent(running):
    acceptor, port = running(callers=(CT,))
    with socket.create_connection(("127.0.0.1", port), 5) as stranger:
        stranger.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(10) == b""
    until = time.monotonic() + 5
    while acceptor.counts.rejected == 0:  # the connection closes before it is counted
        assert time.monotonic() < until
        time.sleep(0.01)
    assert (acceptor.counts.rejected, acceptor.counts.accepted) == (1, 0)


def test_a_handshake_that_does_not_come_ends(running, tmp_path):
    issued = Authority().issue("box")
    (tmp_path / "c.pem").write_text(issued.certificate)
    (tmp_path / "k.pem").write_text(issued.key)
    tls = ServerTls(str(tmp_path / "c.pem"), str(tmp_path / "k.pem"), "off", "")
    acceptor, port = running(tls=tls.context, artim_timeout_s=0.3)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 5) as silent:
        silent.settimeout(10)
        silent.sendall(b"\x16\x03")  # two bytes of a handshake, then nothing
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(10) == b""
    assert time.monotonic() - started < 5
    until = time.monotonic() + 5
    while acceptor.counts.aborted == 0:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_silence_after_the_handshake_ends_too_and_stopping_does_not_wait(running, tmp_path):
    authority = Authority()
    issued = authority.issue("box")
    for name, text in (("c.pem", issued.certificate), ("k.pem", issued.key), ("ca", authority.pem)):
        (tmp_path / name).write_text(text)
    tls = ServerTls(str(tmp_path / "c.pem"), str(tmp_path / "k.pem"), "off", "")
    acceptor, port = running(tls=tls.context, artim_timeout_s=30.0)
    context = ssl.create_default_context(cafile=tmp_path / "ca")
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as quiet,
    ):
        quiet.settimeout(10)
        started = time.monotonic()
        acceptor.stop(2)
        assert time.monotonic() - started < 5
        with contextlib.suppress(OSError):
            assert quiet.recv(10) == b""


def test_a_key_that_is_none_is_refused_and_the_old_one_stays(tmp_path):
    from bedside_core.errors import InvalidConfigError

    issued, other = Authority().issue("box"), Authority().issue("box")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_text(issued.certificate)
    key.write_text(issued.key)
    tls = ServerTls(str(certificate), str(key), "off", "")
    key.write_text(other.key)
    with pytest.raises(InvalidConfigError):
        tls.reload()
    with pytest.raises(InvalidConfigError):
        ServerTls(str(certificate), str(key), "off", "")
    with pytest.raises(InvalidConfigError):
        ServerTls(str(certificate), str(tmp_path / "missing"), "off", "")
