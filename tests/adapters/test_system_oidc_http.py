"""Calls to the identity provider: bounded in number, size and time, errors of one kind."""

import socket
import threading

import pytest

from bedside_core.errors import IdentityProviderError, InvalidConfigError
from bedside_edge.system.oidc_http import HttpProvider


class Deaf:
    """Listens, takes what is sent, and answers `says` (nothing for ever when empty)."""

    def __init__(self, says=b""):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.says, self.taken, self.held = says, threading.Semaphore(0), []
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/x"

    def _run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.recv(4096)
            if self.says:
                connection.sendall(self.says)
                connection.close()
            else:
                self.held.append(connection)
            self.taken.release()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        for connection in self.held:
            connection.close()


def answer(body, status="200 OK"):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_provider_that_hangs_keeps_few_threads_and_the_others_hear_it_at_once():
    with Deaf() as deaf:
        provider = HttpProvider("box", "", "")
        refused = []

        def ask():
            try:
                provider.get(deaf.url)
            except IdentityProviderError as error:
                refused.append(str(error))

        waiting = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
        for thread in waiting:
            thread.start()
        for _ in waiting:
            assert deaf.taken.acquire(timeout=5)
        with pytest.raises(IdentityProviderError, match="too many"):
            provider.get(deaf.url)
        for connection in deaf.held:
            connection.close()
        for thread in waiting:
            thread.join(10)
    assert refused == ["the identity provider does not answer"] * 4
    with Deaf(answer(b"{}")) as well:
        assert provider.get(well.url) == {}


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (answer(b"{}", "500 No"), "answered 500"),
        (answer(b"{}", "302 Elsewhere"), "answered 302"),
        (answer(b"<html>"), "no JSON"),
        (answer(b"[1]"), "no JSON object"),
        (answer(b" " * (300 << 10)), "too large"),
        (b"SSH-2.0\r\n", "does not answer"),
    ],
)
def test_an_answer_that_is_none_is_one_kind_of_error(says, words):
    with Deaf(says) as provider, pytest.raises(IdentityProviderError, match=words):
        HttpProvider("box", "", "").get(provider.url)


def test_a_secret_that_cannot_be_read_is_an_error_of_the_settings(tmp_path):
    with pytest.raises(InvalidConfigError):
        HttpProvider("box", str(tmp_path / "missing"), "")
