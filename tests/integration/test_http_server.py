"""The application on a real socket: what ASGI in memory cannot show."""

import contextlib
import http.client
import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest
from fastapi import Response

from bedside_core.access import Action
from bedside_core.errors import InvalidConfigError
from bedside_edge.api.guard import needs
from bedside_edge.api.server import bind
from bedside_edge.config import Http
from support.http_box import HttpBox, multipart, related
from support.http_server import HttpServer
from support.synthetic import data_set, noise, part10

INFER = "/v2/models/sample/infer"
STOW = "/dicom-web/studies"
ANALYZE = "/api/v1/studies:analyze"
TENSOR = np.linspace(-1, 1, 1024, dtype=np.float32)
DEADLINE_S = 5


def made(number=1, size=16):
    return part10(data_set(noise(size, size, seed=number), number=number))


@pytest.fixture
def served():
    box = HttpBox(upload_idle_s=0.5)
    with HttpServer(box.app, shutdown_s=2.0) as server:
        yield box, server


def eventually(condition):
    """Wait for something another thread does; False after five seconds."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def binary_body():
    entry = {"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32"}
    entry["parameters"] = {"binary_data_size": TENSOR.nbytes}
    text = json.dumps({"inputs": [entry]}).encode()
    return text + TENSOR.tobytes(), {"Inference-Header-Content-Length": str(len(text))}


def start_of_upload(server, path, content_type, length, body):
    """Open a connection and send the head of a request and some of its body."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("step", [7, 1000, 100_000])
def test_a_tensor_arrives_whole_however_the_network_cuts_it(served, step):
    _, server = served
    body, headers = binary_body()
    whole = httpx.post(server.url + INFER, content=body, headers=headers).json()
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = head.encode() + body
        for at in range(0, len(sent), step):
            connection.sendall(sent[at : at + step])
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert json.loads(answer.read()) == whole


def test_a_kept_connection_serves_one_request_after_the_other(served):
    _, server = served
    body, headers = binary_body()
    with httpx.Client(base_url=server.url) as client:
        answers = [client.post(INFER, content=body, headers=headers) for _ in range(5)]
        assert client.get("/livez").status_code == 200
    assert len({answer.content for answer in answers}) == 1


def test_a_chunked_upload_of_many_megabytes_is_stored_byte_for_byte(served):
    box, server = served
    objects = [made(number, 1024) for number in range(1, 6)]
    body = multipart(objects)
    pieces = (body[at : at + 50_000] for at in range(0, len(body), 50_000))
    answer = httpx.post(server.url + STOW, content=pieces, headers=related())
    assert answer.status_code == 200
    assert box.ingest.stored == objects


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(served):
    box, server = served
    body = made()
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(
            f"POST {ANALYZE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/dicom\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 202 ")
    assert box.ingest.stored == [body]


@pytest.mark.parametrize("path", [STOW, ANALYZE])
def test_an_upload_that_breaks_off_leaves_nothing(served, path):
    box, server = served
    body = multipart([made(1), made(2, 1024)])
    kind = related()["Content-Type"]
    connection = start_of_upload(server, path, kind, len(body), body[: len(body) // 2])
    assert eventually(lambda: box.ingest.begun > 0)
    connection.close()
    assert eventually(lambda: box.ingest.begun == box.ingest.aborted > 0)
    assert box.ingest.arrivals == []
    assert httpx.get(server.url + "/livez").status_code == 200


def test_a_sender_that_falls_silent_is_given_up(served):
    box, server = served
    kind = related()["Content-Type"]
    body = multipart([made(1)])
    with start_of_upload(server, STOW, kind, 10_000, body[:500]) as connection:
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert eventually(lambda: box.ingest.begun == box.ingest.aborted)
    assert box.ingest.arrivals == []


def test_a_slow_sender_is_not_given_up(served):
    box, server = served
    body = multipart([made(1)])
    kind = related()["Content-Type"]
    with start_of_upload(server, STOW, kind, len(body), b"") as connection:
        for at in range(0, len(body), len(body) // 6 + 1):
            time.sleep(0.2)  # longer in all than the silence that is allowed
            connection.sendall(body[at : at + len(body) // 6 + 1])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert len(box.ingest.arrivals) == 1


def test_a_slow_store_slows_the_sender_and_not_the_memory(served):
    box, server = served
    gate = threading.Event()
    receive = box.ingest.begin

    def slow(way, source):
        gate.wait(DEADLINE_S)
        return receive(way, source)

    box.ingest.begin = slow
    body = multipart([made(number, 1024) for number in range(1, 9)])  # 16 MB
    kind = related()["Content-Type"]
    with start_of_upload(server, STOW, kind, len(body), b"") as connection:
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.sendall(body)
        gate.set()
    assert eventually(lambda: box.ingest.begun == box.ingest.aborted)


def test_what_is_no_http_ends_the_connection_and_nothing_else(served):
    _, server = served
    for rubbish in (b"\x00" * 100, b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as rude:
            rude.sendall(rubbish)
            assert rude.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(server.url + "/livez").status_code == 200


def test_requests_that_run_are_finished_before_the_service_stops():
    box = HttpBox()
    begun, gate = threading.Event(), threading.Event()

    def slowly(data):
        begun.set()
        gate.wait(DEADLINE_S)
        return {"value": None}

    box.analysis.analyse_object = slowly
    answers = []
    with HttpServer(box.app) as server:
        headers = {"Content-Type": "application/dicom"}
        url = server.url + INFER
        client = threading.Thread(
            target=lambda: answers.append(httpx.post(url, content=b"x", headers=headers))
        )
        client.start()
        assert begun.wait(DEADLINE_S)
        stopping = threading.Thread(target=server.leave)
        stopping.start()
        assert eventually(lambda: _refused(server.port))
        gate.set()
        stopping.join()
        client.join()
    assert answers[0].json() == {"value": None}


def test_a_request_that_waits_for_its_result_gets_the_job_when_the_service_stops():
    box = HttpBox()
    waiting = threading.Event()
    box.jobs.on_wait = lambda job: waiting.set()
    answers = []
    with HttpServer(box.app, shutdown_s=4.0) as server:
        headers = {"Content-Type": "application/dicom", "Prefer": "wait=30"}
        url = server.url + ANALYZE
        client = threading.Thread(
            target=lambda: answers.append(httpx.post(url, content=made(), headers=headers))
        )
        client.start()
        assert waiting.wait(DEADLINE_S)
        server.leave()
        client.join()
    assert answers[0].status_code == 202
    assert answers[0].headers["location"] == "/api/v1/jobs/job-1"


def test_the_service_stops_in_time_whatever_clients_do():
    box = HttpBox(upload_idle_s=60)
    with HttpServer(box.app, shutdown_s=1.0) as server:
        kind = related()["Content-Type"]
        body = multipart([made(1)])
        idle = socket.create_connection(("127.0.0.1", server.port))
        stalled = start_of_upload(server, STOW, kind, 10_000, body[:500])
        assert httpx.get(server.url + "/livez").status_code == 200
        started = time.monotonic()
        server.leave()
        assert time.monotonic() - started < DEADLINE_S
        idle.close()
        stalled.close()
    assert box.ingest.arrivals == []
    assert box.ingest.begun == box.ingest.aborted


def test_no_thread_is_left_when_the_service_has_stopped():
    before = set(threading.enumerate())
    box = HttpBox()
    with HttpServer(box.app) as server:
        assert httpx.get(server.url + "/readyz").status_code == 200
    assert eventually(lambda: set(threading.enumerate()) <= before)


def test_a_taken_port_is_an_error_before_anything_starts():
    with bind(Http(port=0)) as taken:
        taken.listen()
        with pytest.raises(InvalidConfigError, match="cannot be bound"):
            bind(Http(port=taken.getsockname()[1]))


def test_the_answer_names_no_server_software(served):
    _, server = served
    assert "server" not in httpx.get(server.url + "/livez").headers


def _refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return True
    return False


@pytest.fixture
def impatient():
    with HttpServer(HttpBox().app, upload_idle_s=0.5) as server:
        yield server


def send_for_ever(connection):
    for _ in range(400):
        connection.sendall(b"a" * (1 << 16))
        time.sleep(0.001)


def test_a_head_without_end_is_refused_before_it_fills_the_memory(served):
    _, server = served
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        with pytest.raises(ConnectionError):
            send_for_ever(connection)


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTT", b"GET /livez HTTP/1.1\r\nHost: loc"])
def test_a_head_that_does_not_come_ends_the_connection(impatient, sent):
    with socket.create_connection(("127.0.0.1", impatient.port), DEADLINE_S) as connection:
        connection.sendall(sent)
        assert connection.recv(100) == b""


def test_the_second_head_of_a_connection_has_the_same_time(impatient):
    client = http.client.HTTPConnection("127.0.0.1", impatient.port, timeout=DEADLINE_S)
    for _ in range(2):
        client.request("GET", "/livez")
        assert client.getresponse().read()
        time.sleep(0.7)  # longer than a head may take: between requests none is under way
    client.sock.sendall(b"GET /livez HTT")
    assert client.sock.recv(100) == b""
    client.close()


def test_a_head_of_ordinary_size_passes(served):
    _, server = served
    headers = {f"X-Header-{number}": "v" * 1000 for number in range(40)}
    assert httpx.get(f"{server.url}/livez", headers=headers).status_code == 200


def test_a_small_request_with_a_body_without_end_is_refused_before_it_is_gathered(served):
    _, server = served
    kind = {"Content-Type": "application/json"}
    path, sent = f"{server.url}/api/v1/jobs/j1:priority", []

    def pieces():
        for number in range(64):
            sent.append(number)
            yield b'"' + b"a" * (1 << 20)

    announced = httpx.post(path, content=b" " * (5 << 20), headers=kind)
    assert announced.status_code == 413
    assert announced.json()["type"].endswith("too-large")
    try:
        answer = httpx.post(path, content=pieces(), headers=kind)
    except httpx.TransportError:  # the server closed while it was being sent
        return
    assert answer.status_code in (400, 413)
    assert answer.json()["type"] != "urn:bedside:error:invalid-request"  # nobody parsed it


@pytest.fixture(scope="module")
def hasty():
    box = HttpBox(known_peer=False, upload_idle_s=0.2)
    with HttpServer(box.app, upload_idle_s=0.2) as server:
        yield server


@pytest.mark.parametrize("path", ["/api/v1/login", "/login", "/setup", "/api/v1/logout"])
@pytest.mark.parametrize("trickles", [False, True])
def test_a_small_body_that_does_not_come_ends_whoever_sends_it(hasty, path, trickles):
    kind = "application/json" if path.startswith("/api") else "application/x-www-form-urlencoded"
    with start_of_upload(hasty, path, kind, 10_000, b'{"login"') as connection:
        until = time.monotonic() + DEADLINE_S
        connection.settimeout(0.1)
        answer = b""
        while not answer and time.monotonic() < until:
            if trickles:
                connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(4096)
    assert answer.split()[1] in (b"400", b"401", b"504")


LARGE = 24 << 20


@pytest.fixture
def reader():
    """A connection that has asked for a large answer, over a small window."""
    box = HttpBox()

    @box.app.get("/large", dependencies=[needs(Action.VIEW_OWN)])
    def large():
        return Response(bytes(LARGE))

    with HttpServer(box.app, upload_idle_s=1.0) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        connection.settimeout(DEADLINE_S)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        yield server, connection


def test_a_reader_that_takes_nothing_holds_no_answer_in_memory(reader):
    server, connection = reader
    assert connection.recv(1024).startswith(b"HTTP/1.1 200 ")
    assert eventually(lambda: not server.server.server_state.connections)
    seen = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            seen += len(piece)
    assert seen < LARGE


def test_a_slow_reader_gets_its_answer_whole(reader):
    _, connection = reader
    seen = 0
    for _ in range(6):  # longer in all than the time a reader may take nothing
        time.sleep(0.2)
        for _ in range(16):
            seen += len(connection.recv(64 << 10))
    while seen < LARGE:
        seen += len(connection.recv(1 << 20))
    assert seen > LARGE
