"""Senders for tests of the receiver: a raw one that may break every rule, and a proper one."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bedside_edge.dicom.scp import StorageScp
from bedside_edge.dicom.ul import AcceptorSettings
from support.dicom_ingest import MemoryIngest

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
CR = "1.2.840.10008.5.1.4.1.1.1"


class SystemClock:
    """Real time: the receiver's deadlines are under test."""

    def now(self) -> int:
        return int(time.time() * 1000)

    def monotonic(self) -> float:
        return time.monotonic()


@contextmanager
def receiver(ingest: MemoryIngest | None = None, **settings) -> Iterator[StorageScp]:
    """A running receiver on a free port of loopback."""
    values = {"host": "127.0.0.1", "port": 0, "ae_title": "BEDSIDE"} | settings
    scp = StorageScp(AcceptorSettings(**values), ingest or MemoryIngest(), SystemClock())
    scp.start()
    try:
        yield scp
    finally:
        scp.stop(2.0)


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def context(context_id: int, abstract: str, *transfer: str) -> bytes:
    names = [item(0x30, abstract.encode()), *(item(0x40, t.encode()) for t in transfer)]
    return item(0x20, bytes((context_id, 0, 0, 0)) + b"".join(names))


def associate_rq(
    *contexts: bytes,
    called: str = "BEDSIDE",
    calling: str = "SENDER",
    version: int = 1,
    application: str = "1.2.840.10008.3.1.1.1",
    max_pdu: int = 16384,
    extra: bytes = b"",
) -> bytes:
    chosen = contexts or (
        context(1, VERIFICATION, IMPLICIT_LE),
        context(3, CR, EXPLICIT_LE),
    )
    user = item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.3.4") + extra
    titles = called.ljust(16).encode()[:16] + calling.ljust(16).encode()[:16]
    body = struct.pack(">H2x", version) + titles + bytes(32)
    body += item(0x10, application.encode()) + b"".join(chosen) + item(0x50, user)
    return pdu(0x01, body)


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, control) + data


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, tag, len(value)) + value


def command(field: int, *, sop_class: str, instance: str = "", data_set: bool = True) -> bytes:
    def padded(text: str) -> bytes:
        return text.encode() + b"\0" * (len(text) % 2)

    elements = element(0x0002, padded(sop_class)) + element(0x0100, struct.pack("<H", field))
    elements += element(0x0110, struct.pack("<H", 7))
    if field == 1:
        elements += element(0x0700, struct.pack("<H", 0))
    elements += element(0x0800, struct.pack("<H", 0x0001 if data_set else 0x0101))
    if instance:
        elements += element(0x1000, padded(instance))
    return element(0x0000, struct.pack("<I", len(elements))) + elements


def store_rq(instance: str, sop_class: str = CR) -> bytes:
    return command(1, sop_class=sop_class, instance=instance)


def echo_rq() -> bytes:
    return command(0x30, sop_class=VERIFICATION, data_set=False)


class RawScu:
    """A TCP connection that sends what it is told, byte for byte."""

    def __init__(self, port: int, *, associate: bool = True, **request) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        if associate:
            self.send(associate_rq(**request))
            kind, self.accept = self.receive()
            assert kind == 0x02, f"association answered with PDU type {kind}"

    def __enter__(self) -> "RawScu":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The next PDU; (0, b"") when the receiver closed."""
        head = self._exactly(6)
        if not head:
            return 0, b""
        kind, length = struct.unpack(">BxI", head)
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                return b""
            if not piece:
                return b""
            data += piece
        return data

    def message(self, context_id: int, command_set: bytes, data_set: bytes = b"") -> None:
        """Send a whole message, the data set in fragments of the usual 16 kB."""
        self.send(pdu(4, pdv(context_id, 3, command_set)))
        pieces = [data_set[at : at + 16378] for at in range(0, len(data_set), 16378)]
        for number, piece in enumerate(pieces, 1):
            self.send(pdu(4, pdv(context_id, 2 if number == len(pieces) else 0, piece)))

    def status(self) -> int:
        """The status in the next response."""
        return self.response()[0x0900]

    def response(self) -> dict[int, int | bytes]:
        kind, body = self.receive()
        assert kind == 4, f"answered with PDU type {kind}"
        data, values, at = body[6:], {}, 0
        while at < len(data):
            _, tag, length = struct.unpack_from("<HHI", data, at)
            value = data[at + 8 : at + 8 + length]
            values[tag] = int.from_bytes(value, "little") if length == 2 else value
            at += 8 + length
        return values

    def release(self) -> int:
        """Ask for release; the type of the answer."""
        self.send(pdu(5, bytes(4)))
        return self.receive()[0]
