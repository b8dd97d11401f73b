"""Calling other DICOM nodes: one association with bounded waits, no Nagle delay, TLS if asked.

pynetdicom does the protocol; what it raises or leaves unsaid becomes our errors here.
"""

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from bedside_core.errors import DestinationUnavailableError, InvalidConfigError
from bedside_edge.dicom.quiet import mute_loggers

VERIFICATION: Final = "1.2.840.10008.1.1"
EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"
IMPLICIT_LE: Final = "1.2.840.10008.1.2"
_MAX_PDU: Final = 131_072


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files; empty names are not used."""

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    def context(self) -> ssl.SSLContext:
        """Return a client context that checks the peer.

        Raises:
            InvalidConfigError: a file cannot be read.
        """
        try:
            made = ssl.create_default_context(cafile=self.ca_file or None)
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate_file:
                made.load_cert_chain(self.certificate_file, self.key_file or None)
        except (OSError, ssl.SSLError) as cause:
            raise InvalidConfigError("a TLS file of a destination cannot be used") from cause
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A DICOM node and how we call it."""

    host: str
    port: int
    called_ae: str
    calling_ae: str
    timeout_s: float = 30.0
    tls: TlsFiles | None = None


def contexts_for(sop_classes: Sequence[str], syntaxes: Sequence[str]) -> list[PresentationContext]:
    """Return one context per class that offers the given transfer syntaxes."""
    return [build_context(sop_class, list(syntaxes)) for sop_class in sop_classes]


@contextmanager
def association(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    provider_of: Sequence[str] = (),
    handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
) -> Iterator[Association]:
    """Open an association and release it at the end; abort it when the block fails.

    Args:
        peer: whom to call.
        contexts: what to propose, at most 128.
        provider_of: classes for which we take the SCP role (C-GET).
        handlers: pynetdicom event handlers.

    Raises:
        DestinationUnavailableError: not reachable, rejected or aborted.
    """
    mute_loggers()
    entity = AE(ae_title=peer.calling_ae)
    entity.acse_timeout = entity.dimse_timeout = peer.timeout_s
    entity.connection_timeout = min(peer.timeout_s, 10.0)
    entity.network_timeout = peer.timeout_s
    tls = (peer.tls.context(), peer.host) if peer.tls else None
    opened = entity.associate(
        peer.host,
        peer.port,
        contexts=list(contexts),
        ae_title=peer.called_ae,
        max_pdu=_MAX_PDU,
        ext_neg=[build_role(sop_class, scp_role=True) for sop_class in provider_of],
        tls_args=tls,
        evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay), *handlers],
    )
    if not opened.is_established:
        opened.kill() if opened.is_alive() else None
        if opened.dul.socket is not None and opened.dul.socket.socket is not None:
            opened.dul.socket.socket.close()  # pynetdicom forgets it when TLS fails late
        why = "rejected the association" if opened.is_rejected else "does not answer"
        raise DestinationUnavailableError(f"the DICOM node {why}")
    keep_answers(opened)
    try:
        yield opened
    except BaseException:
        opened.abort()
        raise
    if opened.is_established:
        opened.release()


def keep_answers(opened: Association) -> None:
    """Let no answer be lost to the library's own thread.

    pynetdicom 3.0.4 pauses its reactor before a call by an event and a flag that can be stale: the
    reactor then takes the answer off the queue, finds it is no request and drops it, and the call
    waits for its timeout (measured: one association in 150 to 350 on a busy machine, DCMTK's
    receiver included). A node that only calls serves no requests, so whatever the reactor takes
    is put back.
    """
    queue = opened.dimse.msg_queue
    opened._serve_request = lambda message, context_id: queue.put((context_id, message))


def echo(peer: Peer) -> str:
    """C-ECHO; return what was seen; DestinationUnavailableError."""
    with association(peer, contexts_for([VERIFICATION], [IMPLICIT_LE])) as opened:
        status = opened.send_c_echo()
        if not status or status.Status != 0:
            raise DestinationUnavailableError("the DICOM node did not answer C-ECHO")
    return "C-ECHO answered"


def _without_delay(event: evt.Event) -> None:
    """Nagle's algorithm would hold back the end of every object for 40 ms."""
    opened = event.assoc.dul.socket.socket
    if opened is not None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def read_secret(path: str) -> str:
    """Return the one line of a secret file; InvalidConfigError when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidConfigError("a secret file of a destination cannot be read") from cause
