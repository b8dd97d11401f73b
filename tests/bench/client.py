"""An HTTP client that costs little: prepared bytes over plain sockets; asked over a pipe."""

import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.objects import Template
from bench.processes import WARM_UP, answer_questions

_BOUNDARY = b"bench-4f1c9a"
_PART = b"\r\n--" + _BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
_CLOSE = b"\r\n--" + _BOUNDARY + b"--\r\n"
_MOST_PIECES = 512  # per sendmsg; the kernel takes 1024


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 20)

    def send(self, pieces: Sequence[bytes]) -> None:
        """Send every byte of a list of buffers without joining them."""
        rest = [memoryview(piece) for piece in pieces]
        while rest:
            done = self._socket.sendmsg(rest[:_MOST_PIECES])
            while rest and done >= len(rest[0]):
                done -= len(rest.pop(0))
            if done:
                rest[0] = rest[0][done:]

    def answer(self) -> int:
        """Read one whole answer and return its status."""
        held = 0
        end = -1
        while end < 0:
            held += self._more(held)
            end = self._buffer.find(b"\r\n\r\n", 0, held)
        head = bytes(self._buffer[:end]).lower()
        length = 0
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        total = end + 4 + length
        while held < total:
            held += self._more(held)
        return int(head[9:12])

    def close(self) -> None:
        self._socket.close()

    def _more(self, at: int) -> int:
        if at == len(self._buffer):
            self._buffer += bytes(len(self._buffer))
        with memoryview(self._buffer) as view:
            count = self._socket.recv_into(view[at:])
        if not count:
            raise ConnectionError("the service hung up")
        return count


_TOKENS: dict[int, str] = {}


def head(path: str, port: int, headers: dict[str, str], length: int) -> bytes:
    """Return a request head."""
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {length}"]
    if port in _TOKENS:
        lines.append(f"Authorization: Bearer {_TOKENS[port]}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _request(path: str, port: int, headers: dict[str, str], body: str) -> list[bytes]:
    content = Path(body).read_bytes()
    return [head(path, port, headers, len(content)), content]


class Client:
    """The measuring operations; connections stay open between questions."""

    def __init__(self) -> None:
        self._open: dict[int, list[Connection]] = {}

    def identify(self, port: int, token: str) -> dict[str, Any]:
        """Show this token to the service on that port from now on."""
        _TOKENS[port] = token
        return {}

    def latency(
        self, port: int, path: str, headers: dict[str, str], body: str, count: int
    ) -> dict[str, Any]:
        """Milliseconds of single requests, one after the other on one connection."""
        connection = self._connections(port, 1)[0]
        request = _request(path, port, headers, body)
        taken, statuses = [], set()
        for _ in range(WARM_UP + count):
            began = time.perf_counter()
            connection.send(request)
            statuses.add(connection.answer())
            taken.append((time.perf_counter() - began) * 1e3)
        return {"ms": taken[WARM_UP:], "statuses": sorted(statuses)}

    def throughput(
        self,
        port: int,
        path: str,
        headers: dict[str, str],
        body: str,
        connections: int,
        seconds: float,
    ) -> dict[str, Any]:
        """Requests per second with so many clients at once."""
        request = _request(path, port, headers, body)
        counts = [0] * connections
        statuses: set[int] = set()

        def loop(index: int, connection: Connection) -> None:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                connection.send(request)
                statuses.add(connection.answer())
                counts[index] += 1

        before = time.process_time()
        taken = _together(
            [(loop, n, c) for n, c in enumerate(self._connections(port, connections))]
        )
        cpu = time.process_time() - before
        return {"per_s": sum(counts) / taken, "statuses": sorted(statuses), "client_cpu_s": cpu}

    def analyze(
        self,
        port: int,
        path: str,
        headers: dict[str, str],
        template: Sequence[str],
        first: int,
        count: int,
    ) -> dict[str, Any]:
        """Milliseconds of storing and analysing one fresh instance."""
        connection, made = self._connections(port, 1)[0], _template(template)
        taken, statuses = [], set()
        for serial in range(first, first + count):
            request = [
                head(path, port, headers, made.size),
                made.head_of(serial, serial),
                made.tail,
            ]
            began = time.perf_counter()
            connection.send(request)
            statuses.add(connection.answer())
            taken.append((time.perf_counter() - began) * 1e3)
        return {"ms": taken, "statuses": sorted(statuses)}

    def stow(
        self,
        port: int,
        template: Sequence[str],
        first: int,
        requests: int,
        per_request: int,
        connections: int,
    ) -> dict[str, Any]:
        """Instances per second by STOW-RS, every instance with a UID nobody has seen.

        Args:
            port: of the service.
            template: two files, head and tail of the instance.
            first: first serial number; requests * per_request are used.
            requests: how many requests, dealt to the connections.
            per_request: instances in each.
            connections: clients at once.
        """
        made = _template(template)
        prepared: list[list[list[bytes]]] = [[] for _ in range(connections)]
        for number in range(requests):
            lane = number % connections
            serial = first + number * per_request
            study = first + lane
            body = [
                piece
                for copy in range(serial, serial + per_request)
                for piece in (_PART, made.head_of(copy, study), made.tail)
            ]
            body.append(_CLOSE)
            kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY.decode()}'
            headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
            size = sum(len(piece) for piece in body)
            prepared[lane].append([head("/dicom-web/studies", port, headers, size), *body])
        statuses: set[int] = set()

        def loop(lane: int, connection: Connection) -> None:
            for request in prepared[lane]:
                connection.send(request)
                statuses.add(connection.answer())

        before = time.process_time()
        taken = _together(
            [(loop, n, c) for n, c in enumerate(self._connections(port, connections))]
        )
        cpu = time.process_time() - before
        return {
            "per_s": requests * per_request / taken,
            "statuses": sorted(statuses),
            "client_cpu_s": cpu,
        }

    def _connections(self, port: int, count: int) -> list[Connection]:
        held = self._open.setdefault(port, [])
        while len(held) < count:
            held.append(Connection(port))
        return held[:count]

    def hang_up(self, port: int) -> dict[str, Any]:
        """Close what is open to one service."""
        for connection in self._open.pop(port, []):
            connection.close()
        return {}


def _template(paths: Sequence[str]) -> Template:
    return Template(*(Path(path).read_bytes() for path in paths))


def _together(calls: list[tuple[Any, ...]]) -> float:
    """Run the calls in threads; return seconds until the last has ended."""
    failures: list[BaseException] = []

    def guarded(function: Any, *arguments: object) -> None:
        try:
            function(*arguments)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=call) for call in calls]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - began
    if failures:
        raise failures[0]
    return taken


def main() -> None:
    client = Client()
    names = ("identify", "latency", "throughput", "analyze", "stow", "hang_up")
    answer_questions({name: getattr(client, name) for name in names})


if __name__ == "__main__":
    main()
