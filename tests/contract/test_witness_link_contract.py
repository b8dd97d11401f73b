"""Every way to a witness carries status, media type and bytes, and says when nobody answers."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bedside_core.errors import DestinationUnavailableError, InvalidConfigError
from bedside_core.evidence.checkpoint import signed_note
from bedside_core.evidence.witness import MAX_ANSWER, SIZE_TYPE, Request, cosignatures
from bedside_edge.services.witness import WitnessService
from bedside_edge.store.database import Database
from bedside_edge.store.witness import SqliteWitness
from bedside_edge.system.witness_http import HttpWitness
from bedside_edge.system.witness_keys import open_witness_keys
from support.evidence_log import LOG_ED, LOG_ML, ORIGIN, head
from support.fake_clock import FakeClock, SeededBytes
from support.witness_link import DirectWitness

ENTRIES = [b"one", b"two", b"three"]
NOTE = signed_note(head(ENTRIES), [LOG_ED.signs(head(ENTRIES)), LOG_ML.signs(head(ENTRIES), 7)])


class Served:
    """A service behind a socket, as a witness's HTTP server has it."""

    def __init__(self, link: DirectWitness, huge: bool = False) -> None:
        self.headers: list[str] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                served.headers.append(self.headers.get("Authorization", ""))
                self.answer(link.add_checkpoint(body) if self.path == "/w/add-checkpoint" else None)

            def do_GET(self) -> None:
                digest = hashlib.sha256(ORIGIN.encode()).hexdigest()
                known = self.path == f"/w/{digest}/checkpoint"
                self.answer(link.last_checkpoint(ORIGIN) if known else None)

            def answer(self, found) -> None:
                body = b"x" * (MAX_ANSWER + 1) if huge else found.body if found else b""
                self.send_response(found.status if found else 404)
                self.send_header("Content-Type", found.content_type if found else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/w/"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service(tmp_path):
    database = Database(tmp_path / "box.db")
    keys = open_witness_keys(tmp_path, SeededBytes("keys"), True)
    store = SqliteWitness(database, lambda c, event: 0)
    yield WitnessService(store, keys.signers("peer/witness"), FakeClock())
    database.close()


@pytest.fixture(params=["direct", "http"])
def link(request, service):
    direct = DirectWitness(service)
    if request.param == "direct":
        yield direct
        return
    served = Served(direct)
    yield HttpWitness(served.url)
    served.close()


def test_the_whole_protocol_goes_over_it(link, service):
    request = Request(old=0, proof=(), checkpoint=NOTE).encode()
    assert link.add_checkpoint(request).status == 404
    assert link.last_checkpoint(ORIGIN).status == 404
    service.enrol([LOG_ED.key.text, LOG_ML.key.text], "service:test")
    assert link.last_checkpoint(ORIGIN).status == 404
    answer = link.add_checkpoint(request)
    assert answer.status == 200
    assert len(cosignatures(NOTE, answer.body, service.keys)) == 2
    shown = link.last_checkpoint(ORIGIN)
    assert (shown.status, shown.body) == (200, NOTE)
    conflict = link.add_checkpoint(Request(old=1, proof=(), checkpoint=NOTE).encode())
    assert (conflict.status, conflict.content_type, conflict.body) == (409, SIZE_TYPE, b"3\n")
    assert link.add_checkpoint(b"old x\n\n").status == 400


def test_nobody_there_is_said_so(service):
    down = DirectWitness(service)
    down.down = True
    for link in (down, HttpWitness("http://127.0.0.1:9/w")):
        with pytest.raises(DestinationUnavailableError):
            link.add_checkpoint(b"")
        with pytest.raises(DestinationUnavailableError):
            link.last_checkpoint(ORIGIN)


def test_an_endless_answer_is_cut_off(service):
    served = Served(DirectWitness(service), huge=True)
    try:
        with pytest.raises(DestinationUnavailableError):
            HttpWitness(served.url).last_checkpoint(ORIGIN)
    finally:
        served.close()


def test_the_token_is_shown(service, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    served = Served(DirectWitness(service))
    try:
        HttpWitness(served.url, token_file=str(tmp_path / "token")).add_checkpoint(b"")
        HttpWitness(served.url).add_checkpoint(b"")
    finally:
        served.close()
    assert served.headers == ["Bearer secret", ""]
    with pytest.raises(InvalidConfigError):
        HttpWitness(served.url, token_file=str(tmp_path / "nothing"))
