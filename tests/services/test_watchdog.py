"""The watchdog is pinged by a self-check that has just passed, and by nothing else."""

import os
import socket

import pytest

from bedside_edge.services.loop import Loop
from bedside_edge.services.watchdog import Watchdog
from bedside_edge.services.worker import Bell
from bedside_edge.system.notify_systemd import SystemdManager


@pytest.fixture
def notified(tmp_path):
    """A socket as systemd opens it; what has arrived so far."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(path)
        inbox.setblocking(False)

        def arrived():
            found = []
            while True:
                try:
                    found.append(inbox.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield path, arrived


def test_a_ping_follows_a_passed_self_check_and_nothing_else(notified):
    path, arrived = notified
    manager = SystemdManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "300000"})
    assert manager.watchdog_s == 0.3
    found = {"queue": True, "model": True}
    watchdog = Watchdog(manager, lambda: found)
    assert watchdog.step() is False
    assert arrived() == ["WATCHDOG=1"]
    found["model"] = False
    watchdog.step()
    assert arrived() == []
    found["model"] = True
    watchdog.step()
    assert arrived() == ["WATCHDOG=1"]
    assert watchdog.nap() == pytest.approx(0.1)


def test_a_self_check_that_raises_pings_nothing(notified):
    path, arrived = notified
    manager = SystemdManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "300000"})

    def broken():
        loop.stop()
        raise OSError("the disk is gone")

    loop = Loop(Watchdog(manager, broken), Bell())
    loop.run()
    assert arrived() == []


def test_ready_and_stopping_are_said_in_systemd_s_words(notified):
    path, arrived = notified
    manager = SystemdManager({"NOTIFY_SOCKET": path})
    manager.ready("serving")
    manager.stopping()
    assert arrived() == ["READY=1\nSTATUS=serving", "STOPPING=1"]
    assert manager.watchdog_s == 0


def test_an_abstract_socket_is_reached_and_a_dead_one_is_survived():
    name = f"@bedside-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind("\0" + name[1:])
        SystemdManager({"NOTIFY_SOCKET": name}).alive()
        assert inbox.recv(64) == b"WATCHDOG=1"
    SystemdManager({"NOTIFY_SOCKET": name}).alive()
    SystemdManager({}).alive()


@pytest.mark.parametrize("pid", [str(os.getpid() + 1), "1"], ids=["a neighbour", "init"])
def test_another_process_s_watchdog_is_not_ours(notified, pid):
    given = {"NOTIFY_SOCKET": notified[0], "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": pid}
    assert SystemdManager(given).watchdog_s == 0
