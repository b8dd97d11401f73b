"""Association acceptor: DICOM Upper Layer over TCP, one blocking thread per association.

Threads are bounded, every wait has an end, and a stopped acceptor leaves no thread behind. What
happens within an association is in `association`.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from bedside_core.errors import UnavailableError
from bedside_edge.dicom.association import (
    AcceptorSettings,
    Association,
    Caller,
    Session,
    peer_address,
)

__all__ = ["Acceptor", "AcceptorSettings", "Caller", "Counts"]

log = logging.getLogger(__name__)

_REJECTING = 8  # connections above the limit that still get a proper A-ASSOCIATE-RJ


@dataclass(slots=True)
class Counts:
    """What happened since the start; whole numbers for /metrics."""

    accepted: int = 0
    rejected: int = 0
    aborted: int = 0
    stored: int = 0
    refused: int = 0


class Acceptor:
    """Listens, and runs a thread for every association.

    Args:
        settings: addresses and limits.
        open_session: makes the session of an association from its calling AE title.
        serves: whether a SOP Class is taken (Verification is always).
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        settings: AcceptorSettings,
        open_session: Callable[[str], Session],
        serves: Callable[[str], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.open_session, self.serves, self.monotonic = open_session, serves, monotonic
        self.counts = Counts()
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, Association] = {}
        self._established = 0
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def start(self) -> int:
        """Bind, listen, and return the port.

        Raises:
            UnavailableError: the address cannot be bound.
        """
        settings = self.settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(128)
        except OSError as cause:
            listener.close()
            why = f"DICOM port {settings.port} cannot be bound: {cause.strerror}"
            raise UnavailableError(why) from cause
        self._listener, self.port = listener, listener.getsockname()[1]
        self._thread = threading.Thread(
            target=self._accept, args=(listener,), name="dicom-accept", daemon=True
        )
        self._thread.start()
        log.info("DICOM receiver listens", extra={"port": self.port})
        return self.port

    @property
    def associations(self) -> int:
        """Number of established associations."""
        with self._lock:
            return self._established

    @property
    def listening(self) -> bool:
        """Whether new associations are taken; /readyz asks."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, seconds: float = 5.0) -> None:
        """Stop listening, let data sets in transfer finish, end every thread.

        What is not complete after `seconds` is broken off; its sender has no acknowledgement.
        """
        self.stopping.set()
        listener, self._listener = self._listener, None
        if listener is not None and self._thread is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # close() alone does not wake accept()
            self._thread.join()
            listener.close()
        until = self.monotonic() + seconds
        for _, association in self._running():
            association.interrupt(only_if_waiting=True)
        for thread, association in self._running():
            thread.join(max(0.0, until - self.monotonic()))
            association.interrupt(only_if_waiting=False)
        for thread, _ in self._running():
            thread.join(max(1.0, seconds))
        if left := len(self._running()):  # stuck in storage, not in the network
            log.error("associations did not end", extra={"count": left})

    def count(self, what: str) -> None:
        """Add one to a field of `counts`."""
        with self._lock:
            setattr(self.counts, what, getattr(self.counts, what) + 1)

    def enter(self) -> bool:
        """Count one established association in, unless the limit is reached."""
        with self._lock:
            if self._established >= self.settings.max_associations:
                return False
            self._established += 1
            return True

    def leave(self) -> None:
        """Count one established association out."""
        with self._lock:
            self._established -= 1

    def _running(self) -> "list[tuple[threading.Thread, Association]]":
        with self._lock:
            return list(self._open.items())

    def _accept(self, listener: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as cause:
                if not self.stopping.is_set():  # out of descriptors, or the peer is gone already
                    log.warning("a connection was not accepted", extra={"reason": cause.errno})
                    self.stopping.wait(0.05)
                continue
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        if not self.settings.may_call_from(peer_address(connection)):
            connection.close()  # before a thread or a handshake is spent on it
            self.count("rejected")
            log.info("association rejected", extra={"reason": "address"})
            return
        association = Association(self, connection)
        thread = threading.Thread(
            target=self._run, args=(association,), name="dicom-association", daemon=True
        )
        with self._lock:
            room = len(self._open) < self.settings.max_associations + _REJECTING
            if room:
                self._open[thread] = association
        if not room:
            connection.close()
            self.count("rejected")
            return
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            log.warning("no thread for an association")
            self._forget(thread)
            connection.close()

    def _run(self, association: "Association") -> None:
        try:
            association.run()
        finally:
            self._forget(threading.current_thread())

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            self._open.pop(thread, None)
