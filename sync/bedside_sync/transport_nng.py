"""Requests over nng, with mutual TLS or not at all.

What the library leaves open is closed here: only `tls+tcp` is dialled or listened on (`tcp` with a
TLS configuration would be plain text), every socket limits what it receives, demands the peer's
certificate and has timeouts, and a server is closed and joined before the process ends. The name
in a verified certificate is handed to the handler with each message; it must equal the box a
message speaks of.
"""

import atexit
import contextlib
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

import pynng

from bedside_core.errors import (
    BedsideError,
    HubRefusedError,
    HubUnavailableError,
    InvalidConfigError,
    InvalidMessageError,
    UnavailableError,
)
from bedside_sync.wire import MAX_MESSAGE, Message, read_message, write_message

log = logging.getLogger(__name__)

Handler = Callable[[str, Message], Message]  # (verified common name, request) -> answer

_HEADROOM: Final = 256  # nng counts its own header too
_UNDER_WAY: Final = 3  # requests of one upload at a time
_NOTICE_MS: Final = 100  # how soon a waiting thread notices that the server closes

# The package ends the library at exit while its own thread may still be freeing a connection:
# about one process in 60 aborted (measured). The operating system frees it all anyway.
_AT_EXIT: Callable[[], None] | None = getattr(pynng.nng, "_pynng_atexit", None)
if _AT_EXIT is not None:
    atexit.unregister(_AT_EXIT)

_SCHEME: Final = "tls+tcp://"
_TLS: Final = pynng.TLSConfig
REFUSED: Final = "refused"
_CODE: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """PEM texts: own certificate and key (EC P-256), and the authority both sides trust."""

    certificate: str
    key: str = field(repr=False)
    authority: str
    revoked: str = ""  # revocation list


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Milliseconds. `resend` is high on purpose: a slow handler must not be called twice."""

    receive: int = 10_000
    send: int = 10_000
    resend: int = 600_000


def _address(url: str) -> str:
    if not url.startswith(_SCHEME):
        raise InvalidConfigError("the hub is reached over tls+tcp:// only")
    return url


def _server_tls(identity: Identity) -> Any:  # noqa: ANN401  the library is untyped
    config = _TLS(
        _TLS.MODE_SERVER,
        own_cert_string=identity.certificate,
        own_key_string=identity.key,
        auth_mode=_TLS.AUTH_MODE_REQUIRED,
    )
    config.set_ca_chain(identity.authority, identity.revoked or None)
    return config


def _client_tls(identity: Identity, server_name: str) -> Any:  # noqa: ANN401
    return _TLS(
        _TLS.MODE_CLIENT,
        server_name=server_name,
        own_cert_string=identity.certificate,
        own_key_string=identity.key,
        ca_string=identity.authority,
        auth_mode=_TLS.AUTH_MODE_REQUIRED,
    )


def peer_name(pipe: Any) -> str:  # noqa: ANN401
    """Return the common name in the peer's verified certificate, or an empty string.

    Verification is asked first: an unverified certificate may carry any name.
    """
    verified = pynng.ffi.new("bool *")
    if pynng.lib.nng_pipe_get_bool(pipe.pipe, b"tls-verified", verified) or not verified[0]:
        return ""
    out = pynng.ffi.new("char **")
    if pynng.lib.nng_pipe_get_string(pipe.pipe, b"tls-peer-cn", out) or out[0] == pynng.ffi.NULL:
        return ""
    try:
        name: str = pynng.ffi.string(out[0]).decode("utf-8", "replace")
    finally:
        pynng.lib.nng_strfree(out[0])
    return name


class Server:
    """Answers requests with several threads; `close` ends them all."""

    def __init__(
        self,
        url: str,
        identity: Identity,
        handle: Handler,
        *,
        threads: int = 4,
        timeouts: Timeouts | None = None,
    ) -> None:
        """Listen; raises InvalidConfigError for a wrong address, UnavailableError when it is taken.

        Args:
            url: `tls+tcp://host:port`; port 0 lets the system choose one.
            identity: the hub's own.
            handle: called with the peer's verified name; must be safe to call twice with one
                request, for a client that lost its answer asks again.
            threads: requests worked on at a time.
            timeouts: of the socket.
        """
        self._handle, self._timeouts, self._count = handle, timeouts or Timeouts(), threads
        self.url = _address(url)
        self._lock = threading.Lock()  # of whoever opens and closes
        self._closed = False
        self._open(identity)

    def renew(self, identity: Identity) -> None:
        """Serve under another certificate or revocation list from now on.

        Requests being answered are answered, then every connection is closed: whoever is still
        allowed connects again by itself, and its pending request is sent again.
        """
        with self._lock:
            if not self._closed:
                self._shut()
                self._open(identity)

    def close(self) -> None:
        """Stop answering; returns when no thread is left. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._shut()

    def _open(self, identity: Identity) -> None:
        self._closing = threading.Event()
        try:
            self._socket = pynng.Rep0(
                tls_config=_server_tls(identity),
                recv_max_size=MAX_MESSAGE + _HEADROOM,
                recv_timeout=_NOTICE_MS,
                send_timeout=self._timeouts.send,
            )
            if self._socket.recv_max_size != MAX_MESSAGE + _HEADROOM:
                raise InvalidConfigError("nng does not limit what it receives")
            listener = self._socket.listen(self.url)
        except pynng.NNGException as cause:
            raise UnavailableError(f"the hub cannot listen: {type(cause).__name__}") from cause
        self.url = str(listener.url)
        self._threads = [
            threading.Thread(
                target=self._serve,
                args=(self._socket.new_context(), self._closing),
                name=f"hub-{number}",
                daemon=True,
            )
            for number in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    def _shut(self) -> None:
        self._closing.set()
        # each thread ends by itself first: closing a context that sends aborts the process
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, context: Any, closing: threading.Event) -> None:  # noqa: ANN401
        while not closing.is_set():
            try:
                raw = context.recv_msg()
            except pynng.NNGException:  # nothing came, or a peer broke off
                continue
            with contextlib.suppress(pynng.NNGException):  # the peer went away: it asks again
                context.send(self._answer(peer_name(raw.pipe), bytes(raw.bytes)))
        context.close()

    def _read(self, data: bytes) -> Message:
        try:
            return read_message(data)
        except InvalidMessageError as refused:  # of whom, nobody knows before the name is checked
            log.warning("a message was refused", extra={"code": refused.code})
            raise

    def _answer(self, name: str, data: bytes) -> bytes:
        if not name:  # nng refuses such peers before; this holds if it ever does not
            code = InvalidMessageError.code
            return write_message(refusal(code, "the peer shows no verified certificate"))
        try:
            return write_message(self._handle(name, self._read(data)))
        except UnavailableError as error:
            return write_message(refusal(error.code, str(error), later=True))
        except BedsideError as error:
            return write_message(refusal(error.code, str(error)))
        except Exception as error:  # the boundary: a handler's fault must not end the thread
            log.exception("unforeseen error in a request", exc_info=error)
            return write_message(refusal("internal", "the hub failed; its log says how"))


def _shown(text: str) -> str:
    """Return the hub's words as one short line for logs, pages and terminals."""
    return "".join(one if one.isprintable() else " " for one in text[:500])


def refusal(code: str, text: str, *, later: bool = False) -> Message:
    """Return the answer that says no, or not now (`later`)."""
    return Message(kind=REFUSED, fields={"code": code, "text": text[:500], "later": int(later)})


class Client:
    """Asks a hub. One request at a time; not for two threads."""

    def __init__(
        self, url: str, identity: Identity, server_name: str, *, timeouts: Timeouts | None = None
    ) -> None:
        """Dial; HubUnavailableError when it does not answer or is not who it should be."""
        timeouts = timeouts or Timeouts()
        address = _address(url)
        self._socket = pynng.Req0(
            tls_config=_client_tls(identity, server_name),
            recv_max_size=MAX_MESSAGE + _HEADROOM,
            recv_timeout=timeouts.receive,
            send_timeout=timeouts.send,
            resend_time=timeouts.resend,
        )
        try:
            self._socket.dial(address, block=True)
        except pynng.NNGException as cause:
            self._socket.close()
            raise HubUnavailableError(f"the hub cannot be reached: {_why(cause)}") from cause

    def ask(self, request: Message) -> Message:
        """Return the answer.

        Raises:
            HubUnavailableError: no answer in time, or the hub cannot now (a full disk, for one);
                ask again later, with the same request.
            HubRefusedError: the hub said no.
        """
        try:
            self._socket.send(write_message(request))
            return _answered(self._socket.recv())
        except pynng.NNGException as cause:
            raise HubUnavailableError(f"the hub does not answer: {_why(cause)}") from cause

    def ask_each(self, requests: Iterable[Message]) -> Iterator[Message]:
        """Yield the answers in order, with several requests under way; errors as in `ask`.

        One side encrypts while the other writes: for chunks of a long vector, in any order.
        """
        free = [self._socket.new_context() for _ in range(_UNDER_WAY)]
        waiting: deque[Any] = deque()
        try:
            for request in requests:
                if not free:
                    free.append(waiting.popleft())
                    yield _answered(free[-1].recv())
                waiting.append(free.pop())
                waiting[-1].send(write_message(request))
            while waiting:
                free.append(waiting.popleft())
                yield _answered(free[-1].recv())
        except pynng.NNGException as cause:
            raise HubUnavailableError(f"the hub does not answer: {_why(cause)}") from cause
        finally:
            for context in (*free, *waiting):
                context.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _answered(data: bytes) -> Message:
    answer = read_message(data)
    if answer.kind == REFUSED and answer.fields.get("later"):
        raise HubUnavailableError(f"the hub cannot now: {_shown(answer.text('text'))}")
    if answer.kind == REFUSED:
        code = answer.text("code")  # kept and shown: nothing but a code's letters
        reason = code if _CODE.fullmatch(code) else InvalidMessageError.code
        raise HubRefusedError(reason, _shown(answer.text("text")))
    return answer


def _why(cause: Exception) -> str:
    return {
        "CryptoError": "its certificate, or ours, is not accepted",
        "ConnectionRefused": "connection refused",
        "Timeout": "timed out",
    }.get(type(cause).__name__, type(cause).__name__)
