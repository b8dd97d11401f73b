"""sd_notify(3): one datagram to the socket systemd names; nothing where it names none.

`WATCHDOG_USEC` counts for this process only if `WATCHDOG_PID` is absent or ours: a child that
inherits both must not keep its parent alive.
"""

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class SystemdManager:
    """`ServiceManager` as systemd's `Type=notify` wants it."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.get("NOTIFY_SOCKET", "")
        mine = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        given = environ.get("WATCHDOG_USEC", "")
        waits = bool(self._address) and mine and given.isdecimal()
        self.watchdog_s = int(given) / 1e6 if waits else 0.0

    def ready(self, status: str) -> None:
        """Say READY=1."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """Say WATCHDOG=1."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say STOPPING=1."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.connect(address)
                out.sendall(text.encode())
        except OSError as error:  # systemd then ends the service by its own clock
            log.warning("service manager not reached", extra={"reason": type(error).__name__})
