"""Peers that break the protocol, fall silent or come in hundreds: no thread and no file is left."""

import socket
import struct
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import dicom_scu as scu
from support.dicom_ingest import MemoryIngest
from support.dicom_scu import RawScu, receiver
from support.synthetic import bytes_of, uid

ABORT, CLOSED = 7, 0


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)


def association_threads():
    return [t for t in threading.enumerate() if t.name == "dicom-association"]


def echo_works(scp):
    with RawScu(scp.acceptor.port) as good:
        good.message(1, scu.echo_rq())
        return good.status() == 0 and good.release() == 6


def trickle(raw, pieces):
    """Send slowly until the receiver hangs up."""
    try:
        for piece in pieces:
            raw.send(piece)
            time.sleep(0.05)
    except OSError:
        return
    pytest.fail("the receiver never hung up")


BEFORE_ASSOCIATION = {
    "http": b"GET / HTTP/1.1\r\nHost: box\r\n\r\n",
    "tls": bytes.fromhex("16030100a5010000a10303") + bytes(300),
    "release first": scu.pdu(5, bytes(4)),
    "data first": scu.pdu(4, scu.pdv(1, 3, scu.echo_rq())),
    "endless request": struct.pack(">BxI", 1, 0xFFFFFFFF) + bytes(1000),
    "empty request": scu.pdu(1, b""),
    "noise in a request": scu.pdu(1, bytes_of(500)),
    "unknown type": scu.pdu(0x99, bytes(4)),
}

WITHIN_ASSOCIATION = {
    "unknown type": scu.pdu(0x42, bytes(4)),
    "second request": scu.associate_rq(),
    "answer nobody wants": scu.pdu(2, bytes(68)),
    "release of another length": scu.pdu(5, bytes(400)),
    "empty data": scu.pdu(4, b""),
    "data longer than agreed": struct.pack(">BxI", 4, 131_073) + bytes(100),
    "fragment longer than its pdu": scu.pdu(4, struct.pack(">IBB", 5000, 1, 3) + b"abc"),
    "fragment of length 1": scu.pdu(4, struct.pack(">IBB", 1, 1, 3) + b""),
    "fragment header cut off": scu.pdu(4, scu.pdv(1, 1, b"abcdefgh") + b"\0\0"),
    "context never accepted": scu.pdu(4, scu.pdv(77, 3, scu.echo_rq())),
    "data set without command": scu.pdu(4, scu.pdv(1, 2, b"abc")),
    "command set without end": scu.pdu(4, scu.pdv(1, 1, bytes(20_000))),
    "noise as command": scu.pdu(4, scu.pdv(1, 3, bytes_of(100))),
    "two contexts in one command": scu.pdu(
        4, scu.pdv(1, 1, scu.echo_rq()[:20]) + scu.pdv(3, 3, scu.echo_rq()[20:])
    ),
    "something behind a command": scu.pdu(4, scu.pdv(1, 3, scu.echo_rq()) + scu.pdv(1, 3, b"")),
    "echo with a data set": scu.pdu(
        4, scu.pdv(1, 3, scu.command(0x30, sop_class="1.2.840.10008.1.1"))
    ),
    "command in a data set": scu.pdu(4, scu.pdv(3, 3, scu.store_rq(uid(1))))
    + scu.pdu(4, scu.pdv(3, 3, scu.echo_rq())),
    "release in a data set": scu.pdu(4, scu.pdv(3, 3, scu.store_rq(uid(1)))) + scu.pdu(5, bytes(4)),
    "something behind a data set": scu.pdu(4, scu.pdv(3, 3, scu.store_rq(uid(1))))
    + scu.pdu(4, scu.pdv(3, 2, b"abcd") + scu.pdv(3, 2, b"abcd")),
}


@pytest.fixture(scope="module")
def shared():
    """One receiver for all bad peers: it has to survive every one of them."""
    ingest = MemoryIngest()
    with receiver(ingest, idle_timeout_s=5.0, artim_timeout_s=5.0) as scp:
        yield scp, ingest
    assert not association_threads()


@pytest.mark.parametrize("what", BEFORE_ASSOCIATION)
def test_what_is_no_association_request_is_aborted(shared, what):
    scp, _ = shared
    with RawScu(scp.acceptor.port, associate=False) as raw:
        raw.send(BEFORE_ASSOCIATION[what])
        assert raw.receive()[0] == ABORT
    assert echo_works(scp)


@pytest.mark.parametrize("what", WITHIN_ASSOCIATION)
def test_a_broken_pdu_aborts_its_association_only(shared, what):
    scp, ingest = shared
    begun, aborted = ingest.begun, ingest.aborted
    with RawScu(scp.acceptor.port) as raw:
        raw.send(WITHIN_ASSOCIATION[what])
        assert raw.receive()[0] == ABORT
    assert echo_works(scp)
    wait_for(lambda: ingest.begun - begun == ingest.aborted - aborted)


@settings(max_examples=40)
@given(data=st.data())
def test_no_noise_inside_an_association_takes_the_receiver_down(shared, data):
    scp, _ = shared
    stream = bytearray(
        scu.pdu(4, scu.pdv(3, 3, scu.store_rq(uid(1))))
        + scu.pdu(4, scu.pdv(3, 0, bytes(300)))
        + scu.pdu(4, scu.pdv(3, 2, bytes(300)))
        + scu.pdu(5, bytes(4))
    )
    for _ in range(data.draw(st.integers(1, 8))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    with RawScu(scp.acceptor.port) as raw:
        raw.send(bytes(stream[: data.draw(st.integers(1, len(stream)))]))
        raw.socket.shutdown(socket.SHUT_WR)
        while raw.receive()[0] != CLOSED:
            pass
    assert echo_works(scp)


def test_silence_before_the_request_ends_with_the_artim_timer():
    with receiver(artim_timeout_s=0.3) as scp, RawScu(scp.acceptor.port, associate=False) as raw:
        began = time.monotonic()
        assert raw.receive()[0] in (ABORT, CLOSED)
        assert 0.2 < time.monotonic() - began < 3.0


def test_a_request_that_trickles_ends_with_the_artim_timer():
    with receiver(artim_timeout_s=0.5) as scp, RawScu(scp.acceptor.port, associate=False) as raw:
        request, began = scu.associate_rq(), time.monotonic()
        trickle(raw, (request[at : at + 1] for at in range(len(request))))
        assert time.monotonic() - began < 5.0


def test_silence_within_an_association_is_aborted():
    with receiver(idle_timeout_s=0.3) as scp, RawScu(scp.acceptor.port) as raw:
        assert raw.receive()[0] == ABORT
        wait_for(lambda: scp.acceptor.associations == 0)


def test_a_data_set_that_trickles_is_aborted_although_never_silent():
    ingest = MemoryIngest()
    with receiver(ingest, idle_timeout_s=0.4) as scp, RawScu(scp.acceptor.port) as raw:
        raw.send(scu.pdu(4, scu.pdv(3, 3, scu.store_rq(uid(1)))))
        began = time.monotonic()
        trickle(raw, [scu.pdu(4, scu.pdv(3, 0, b"x"))] * 160)
        assert time.monotonic() - began < 6.0
        wait_for(lambda: ingest.aborted == 1)


def test_half_open_connections_leave_room_for_a_good_sender():
    with receiver(max_associations=4, artim_timeout_s=30.0) as scp:
        silent = [socket.create_connection(("127.0.0.1", scp.acceptor.port)) for _ in range(4)]
        try:
            assert echo_works(scp)
        finally:
            for connection in silent:
                connection.close()


def test_a_flood_of_connections_is_bounded_and_passes():
    with receiver(max_associations=2) as scp:
        flood = [socket.create_connection(("127.0.0.1", scp.acceptor.port)) for _ in range(60)]
        wait_for(lambda: scp.acceptor.counts.rejected >= 40)
        assert len(association_threads()) <= 10
        for connection in flood:
            connection.close()
        wait_for(lambda: not association_threads())
        assert echo_works(scp)


def test_a_thousand_aborts_leave_no_thread_and_no_object():
    ingest = MemoryIngest()
    message = scu.associate_rq() + scu.pdu(4, scu.pdv(3, 3, scu.store_rq(uid(1))))
    message += scu.pdu(4, scu.pdv(3, 0, bytes(1000)))
    before = threading.active_count()
    with receiver(ingest) as scp:
        for number in range(1000):
            with socket.create_connection(("127.0.0.1", scp.acceptor.port)) as connection:
                # a third each: reset, clean close in the middle, A-ABORT
                if number % 3 == 0:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.sendall(message + (scu.pdu(7, bytes(4)) if number % 3 == 1 else b""))
        wait_for(lambda: not association_threads(), 30.0)
        assert ingest.begun == ingest.aborted
        assert not ingest.arrivals
        assert scp.acceptor.associations == 0
        assert echo_works(scp)
    assert threading.active_count() == before
