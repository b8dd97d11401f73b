"""The suite cannot reach another machine, so it passes in a closed network.

The guard is an audit hook in tests/conftest.py; here it is seen to act and to let loopback through.
"""

import socket

import pytest


def test_a_connection_to_another_machine_is_refused():
    with (
        socket.socket() as client,
        pytest.raises(RuntimeError, match="connects to another machine"),
    ):
        client.connect(("192.0.2.1", 80))  # TEST-NET-1, RFC 5737: belongs to nobody


def test_a_lookup_of_another_machine_is_refused():
    with pytest.raises(RuntimeError, match="looks up another machine"):
        socket.getaddrinfo("host.invalid", 80)


def test_loopback_is_open():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
