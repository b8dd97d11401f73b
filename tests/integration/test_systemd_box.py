"""A real box process as systemd starts it: READY when it serves, pings while it is well."""

import contextlib
import socket
import sqlite3
import time

import httpx
import pytest

from support.running_box import RunningBox

PERIOD_S = 1.5
PATIENCE_S = 30.0

pytestmark = pytest.mark.slow


@pytest.fixture
def notified(tmp_path, monkeypatch):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", str(int(PERIOD_S * 1e6)))
        yield inbox


def heard(inbox, seconds):
    """Return the next datagram, or None when there is none for so long."""
    inbox.settimeout(seconds)
    try:
        return inbox.recv(4096).decode()
    except TimeoutError:
        return None


def drain(inbox):
    while heard(inbox, 0.05):
        pass


def test_pings_stop_while_the_database_cannot_be_written_and_come_back(tmp_path, notified):
    box = RunningBox(tmp_path / "box")
    with contextlib.ExitStack() as stack:
        stack.callback(box.kill)
        assert heard(notified, PATIENCE_S) == "READY=1\nSTATUS=serving"
        assert httpx.get(f"{box.url}/readyz").status_code == 200
        assert heard(notified, PATIENCE_S) == "WATCHDOG=1"
        foreign = stack.enter_context(
            contextlib.closing(sqlite3.connect(box.state / "bedside.db", isolation_level=None))
        )
        foreign.execute("PRAGMA busy_timeout = 10000")
        foreign.execute("BEGIN IMMEDIATE")  # another process holds the database
        time.sleep(PERIOD_S)  # a check under way may still pass
        drain(notified)
        assert heard(notified, 3 * PERIOD_S) is None
        foreign.execute("ROLLBACK")
        assert heard(notified, PATIENCE_S) == "WATCHDOG=1"
        drain(notified)
        box.stop()
    drain(notified)


def test_stopping_is_said(tmp_path, notified):
    box = RunningBox(tmp_path / "box")
    box.stop()
    told = []
    while (word := heard(notified, 0.2)) is not None:
        told.append(word)
    assert told[0].startswith("READY=1")
    assert told[-1] == "STOPPING=1"
