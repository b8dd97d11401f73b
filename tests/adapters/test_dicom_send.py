"""What every answer of an archive means: delivered, refused, or try later."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bedside_core.errors import (
    DeliveryRefusedError,
    DestinationUnavailableError,
    InvalidConfigError,
    NotFoundError,
    TooLargeError,
)
from bedside_edge.dicom.scu import Peer, TlsFiles
from bedside_edge.dicom.send import StoreScu
from bedside_edge.dicom.web import StowClient, WebArchive, WebPeer, split_parts
from bedside_edge.services.outputs import Kind
from support.dicom_peer import dicom_peer, self_signed
from support.synthetic import CR, CT, data_set, part10, uid

EVERY = frozenset(Kind)
DATA = part10(data_set())


def scu(peer, **changed):
    fields = {"host": "127.0.0.1", "port": peer.port, "called_ae": "PEER", "calling_ae": "BOX"}
    return StoreScu("peer", Peer(**(fields | {"timeout_s": 5.0} | changed)), EVERY)


def send(destination, data=DATA, sop_class=CR):
    with destination.open([sop_class]) as session:
        session.send(data)


# --- C-STORE ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007])
def test_success_and_warning_are_delivered(status):
    with dicom_peer([CR]) as peer:
        peer.status = status
        send(scu(peer))
        assert peer.received == [uid(1, 1, 1)]


@pytest.mark.parametrize("status", [0xA700, 0xA701])
def test_out_of_resources_is_tried_later(status):
    with dicom_peer([CR]) as peer:
        peer.status = status
        with pytest.raises(DestinationUnavailableError):
            send(scu(peer))


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0110, 0x0124])
def test_any_other_failure_is_a_refusal_and_the_association_goes_on(status):
    with dicom_peer([CR]) as peer, scu(peer).open([CR]) as session:
        peer.status = status
        with pytest.raises(DeliveryRefusedError):
            session.send(DATA)
        peer.status = 0x0000
        session.send(DATA)


def test_a_class_the_node_does_not_take_is_refused():
    with dicom_peer([CR]) as peer, scu(peer).open([CR, CT]) as session:
        with pytest.raises(DeliveryRefusedError):
            session.send(part10(data_set(SOPClassUID=CT)))
        session.send(DATA)


def test_a_node_that_aborts_is_tried_later():
    with dicom_peer([CR]) as peer:
        peer.aborts = True
        with pytest.raises(DestinationUnavailableError):
            send(scu(peer))


def test_a_wrong_title_is_rejected_and_said():
    with dicom_peer([CR]) as peer, pytest.raises(DestinationUnavailableError, match="rejected"):
        scu(peer, called_ae="OTHER").probe()


def test_an_echo_is_seen():
    with dicom_peer([CR]) as peer:
        assert scu(peer).probe() == "C-ECHO answered"


def test_dicom_over_tls_checks_the_peer(tmp_path):
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with dicom_peer([CR], context) as peer:
        send(scu(peer, tls=TlsFiles(ca_file=str(certificate))))
        assert peer.received == [uid(1, 1, 1)]
        with pytest.raises(DestinationUnavailableError):
            scu(peer, tls=TlsFiles()).probe()  # the system's authorities do not know it
    with pytest.raises(InvalidConfigError):
        TlsFiles(ca_file=str(tmp_path / "nothing")).context()


# --- DICOMweb --------------------------------------------------------------------------------


class _Answers(BaseHTTPRequestHandler):
    answer: tuple[int, bytes, str]
    bodies: list[bytes]
    seen: list[dict[str, str]]

    def do_POST(self):
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self._reply()

    def do_GET(self):
        self._reply()

    def _reply(self):
        self.seen.append(dict(self.headers))
        status, body, kind = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def service(status=200, body=b"", kind="application/dicom+json") -> Iterator[type[_Answers]]:
    """An HTTP server that gives one answer to everything."""
    answers = type("Answers", (_Answers,), {"bodies": [], "seen": []})
    answers.answer = (status, body, kind)
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    try:
        yield answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def failed(reason):
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def stow(answers, **changed):
    return StowClient("web", WebPeer(url=answers.url, timeout_s=5.0, **changed), EVERY)


def test_an_object_is_posted_whole_and_alone():
    with service() as answers:
        send(stow(answers))
        (body,) = answers.bodies
        kind = answers.seen[0]["Content-Type"]
        assert split_parts(body, kind) == [DATA]


def test_a_warning_is_delivered():
    with service(202, b"{}") as answers:
        send(stow(answers))
        assert len(answers.bodies) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(202, failed(0x0110)), (409, failed(0xC000)), (409, b"not json"), (400, b""), (415, b"")],
)
def test_a_failed_object_is_a_refusal_whatever_the_status(status, body):
    with service(status, body) as answers, pytest.raises(DeliveryRefusedError):
        send(stow(answers))


@pytest.mark.parametrize(
    ("status", "body"),
    [(409, failed(0xA700)), (500, b""), (503, b""), (401, b""), (403, b""), (302, b"")],
)
def test_trouble_of_the_service_is_tried_later(status, body):
    with service(status, body) as answers, pytest.raises(DestinationUnavailableError):
        send(stow(answers))


def test_a_service_is_asked_with_its_credential(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("Bearer abc\n")
    with service(204) as answers:
        assert stow(answers, authorization_file=str(secret)).probe() == "QIDO answered 204"
        assert answers.seen[0]["Authorization"] == "Bearer abc"
        with pytest.raises(InvalidConfigError):
            stow(answers, authorization_file=str(tmp_path / "no")).probe()
    with service(500) as answers, pytest.raises(DestinationUnavailableError):
        stow(answers).probe()


def archive(answers, most=1 << 20):
    return WebArchive("web", WebPeer(url=answers.url, timeout_s=5.0), most)


def ignore(*_):
    raise AssertionError("nothing may be taken")


@pytest.mark.parametrize("answer", [(204, b""), (404, b""), (200, b"[]")])
def test_an_unknown_study_is_not_found(answer):
    with service(*answer) as answers, pytest.raises(NotFoundError):
        archive(answers).fetch("1.2.3", ignore)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'[{"00080018": {}}]',
        b'[{"0020000E": {"Value": ["../x"]}, "00080018": {"Value": ["1.2"]}}]',
    ],
)
def test_a_list_that_cannot_be_read_is_said(body):
    with service(200, body) as answers, pytest.raises(DestinationUnavailableError):
        archive(answers).fetch("1.2.3", ignore)


def test_an_object_larger_than_the_box_takes_is_not_read_on():
    listed = b'[{"0020000E": {"Value": ["1.2"]}, "00080018": {"Value": ["1.3"]}}]'
    with service(200, listed) as answers, pytest.raises(TooLargeError):
        archive(answers, most=10).fetch("1.2.3", ignore)


@pytest.mark.parametrize(
    ("body", "kind", "parts"),
    [
        (b"whole", "application/dicom", [b"whole"]),
        (b"--b\r\n\r\none\r\n--b--", 'multipart/related; boundary="b"', [b"one"]),
        (
            b"--b\r\nA: 1\r\n\r\none--b\r\n--b\r\n\r\n\r\n--b--\r\n",
            "x; boundary=b",
            [b"one--b", b""],
        ),
    ],
)
def test_parts_are_told_by_their_whole_delimiter(body, kind, parts):
    assert split_parts(body, kind) == parts


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"--b\r\n\r\none", "x; boundary=b"),
        (b"--b\r\n\r\none\r\n--b\r\n\r\ntwo", "x; boundary=b"),
        (b"--b\r\nno blank line\r\n--b--", "x; boundary=b"),
        (b"anything", "text/html"),
    ],
)
def test_a_body_that_ends_early_is_not_a_study(body, kind):
    with pytest.raises(DestinationUnavailableError):
        split_parts(body, kind)
