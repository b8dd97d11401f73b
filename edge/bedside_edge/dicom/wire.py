"""One association's socket: a reusable buffer in, whole PDUs out, and every wait bounded."""

import math
import socket
import ssl
import struct
from collections.abc import Callable

from bedside_edge.dicom.pdu import BadPduError

_BUFFER = 1 << 18  # a 512 x 512 image arrives in two or three reads
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux


class ConnectionEndedError(Exception):
    """The peer is gone, fell silent or is too slow; nothing more can be said to it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Wire:
    """Buffered reads with deadlines over a blocking socket. For one thread.

    Senders with Nagle's algorithm on hold back the last segment of an image until the kernel
    acknowledges, which it delays by 40 ms; TCP_QUICKACK takes the delay away and has to be set
    again before every read, because it does not stick.
    """

    def __init__(self, connection: socket.socket, monotonic: Callable[[], float]) -> None:
        self._socket = connection
        self._tls = connection if isinstance(connection, ssl.SSLSocket) else None
        self._monotonic = monotonic
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._timeout = 0.0
        self.deadline = 0.0  # monotonic seconds by which the unit being read must be complete

    def send_at_once(self) -> None:
        """Have small answers leave without waiting for more: TCP_NODELAY, which does stick."""
        self._set(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def set_timeout(self, seconds: float) -> None:
        """Bound every single read and write; the kernel keeps the time, no poll is needed."""
        if seconds == self._timeout:
            return
        self._timeout = seconds
        if self._tls is not None:  # OpenSSL would try again for ever after the kernel's time
            self._tls.settimeout(seconds)
        else:
            microseconds = max(1, round(seconds * 1e6))  # 0 would mean for ever
            value = struct.pack("@ll", *divmod(microseconds, 1_000_000))
            self._set(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
            self._set(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def shake_hands(self) -> None:
        """Do the TLS handshake, if it is TLS, within the timeout that is set.

        Raises:
            ConnectionEndedError: it failed: no TLS, no common version, no certificate that counts.
        """
        if self._tls is None:
            return
        try:
            self._tls.do_handshake()
        except TimeoutError as cause:
            raise ConnectionEndedError("silent-handshake") from cause
        except OSError as cause:
            raise ConnectionEndedError("tls-failed") from cause

    def expect_within(self, seconds: float, limit: float = math.inf) -> None:
        """Give the next unit this long to arrive as a whole, however slowly it trickles.

        Args:
            seconds: from now.
            limit: monotonic time the deadline may not pass.
        """
        self.deadline = min(self._monotonic() + seconds, limit)

    def need(self, count: int) -> int:
        """Wait until `count` (small) bytes lie together; return their offset in the buffer.

        Raises:
            ConnectionEndedError: they do not come.
        """
        if self._start + count > _BUFFER:  # move the few bytes left to the front
            held = self._end - self._start
            self._view[:held] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, held
        while self._end - self._start < count:
            self._fill()
        return self._start

    def header(self, form: struct.Struct) -> tuple[int, ...]:
        """Read one fixed-size header."""
        at = self.need(form.size)
        self._start = at + form.size
        return form.unpack_from(self._buffer, at)

    def some(self, most: int) -> memoryview:
        """Return between 1 and `most` next bytes; valid until the next read.

        Raises:
            ConnectionEndedError: none come.
        """
        if self._start == self._end:
            self._fill()
        stop = min(self._end, self._start + most)
        piece = self._view[self._start : stop]
        self._start = stop
        return piece

    def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes as a copy."""
        collected = bytearray()
        while len(collected) < count:
            collected += self.some(count - len(collected))
        return bytes(collected)

    def skip(self, count: int) -> None:
        """Read `count` bytes and forget them."""
        while count:
            count -= len(self.some(count))

    def send(self, data: bytes) -> None:
        """Send everything.

        Raises:
            ConnectionEndedError: the peer does not take it.
        """
        try:
            self._socket.sendall(data)
        except OSError as cause:
            raise ConnectionEndedError("peer-gone") from cause

    def drain_until_closed(self, seconds: float) -> None:
        """Wait for the peer to close, so that a last PDU is not lost to a reset.

        Returns when the peer closed, fell silent or the time is up.
        """
        self.set_timeout(seconds)
        self.expect_within(seconds)
        try:
            while True:
                self._start = self._end = 0
                self._fill()
        except ConnectionEndedError:
            return

    def _set(self, level: int, option: int, value: int | bytes) -> None:
        try:
            self._socket.setsockopt(level, option, value)
        except OSError as cause:
            raise ConnectionEndedError("peer-gone") from cause

    def _fill(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        try:
            if _QUICKACK is not None:
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            count = self._socket.recv_into(self._view[self._end :])
        except (BlockingIOError, TimeoutError) as cause:  # SO_RCVTIMEO, or that of the TLS socket
            raise ConnectionEndedError("idle") from cause
        except OSError as cause:
            raise ConnectionEndedError("peer-gone") from cause
        if count == 0:
            raise ConnectionEndedError("peer-gone")
        self._end += count
        if self._monotonic() > self.deadline:
            raise ConnectionEndedError("too-slow")


def expect_length(actual: int, expected: int) -> None:
    """Check the length of a PDU that has only one.

    Raises:
        BadPduError: another length.
    """
    if actual != expected:
        raise BadPduError("a PDU of fixed length has another length")
