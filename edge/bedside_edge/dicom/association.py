"""One association from TCP connect to close, in a blocking thread of its own.

The acceptor's half of PS3.8 section 9, and C-ECHO and C-STORE of PS3.7. Data set fragments go
from the receive buffer to the session as they come: no object per PDU, no copy, no decoding.
Whatever a peer does wrong ends its association and nothing else.
"""

import logging
import socket
import ssl
import struct
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Protocol

from bedside_edge.dicom import pdu
from bedside_edge.dicom.dimse import (
    MAX_COMMAND,
    VERIFICATION,
    Command,
    Operation,
    Status,
    decode_command,
    encode_response,
)
from bedside_edge.dicom.pdu import AbortReason, AcceptedContext, BadPduError, PduType, Rejection
from bedside_edge.dicom.wire import ConnectionEndedError, Wire, expect_length

log = logging.getLogger(__name__)

_PDV = struct.Struct(">IBB")  # length, context id, message control
_COMMAND_BIT, _LAST_BIT = 1, 2
_MAX_ASSOCIATE_RQ = 1 << 20
_SLOWEST = 4096  # bytes per second below which a data set does not arrive but holds a thread
_DRAIN_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status of one operation, and the error code that explains it."""

    status: int
    comment: str = ""


class Incoming(Protocol):
    """A data set on its way in. No method raises for a reason the peer should hear of."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes; the buffer is reused after return."""
        ...

    def finish(self) -> Answer:
        """The data set is complete: keep it durably, then say what became of it."""
        ...

    def abort(self) -> None:
        """The association ended in the middle; forget it."""
        ...


class Session(Protocol):
    """What one association's messages lead to."""

    def store(self, command: Command, context: AcceptedContext) -> Incoming:
        """Start one C-STORE."""
        ...

    def released(self) -> None:
        """The peer released the association: it has sent what it wanted to send."""
        ...


Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Caller:
    """A node that may call: its AE title, and where from."""

    ae_title: str
    networks: tuple[Network, ...]

    def calls_from(self, address: Address | None) -> bool:
        """Tell whether an address is one of its."""
        return address is not None and any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptorSettings:
    """How the acceptor listens and where its limits are.

    With `callers` nobody else gets in: title and address have to fit the same one.
    """

    host: str
    port: int
    ae_title: str
    max_associations: int = 16
    max_pdu_bytes: int = 131_072
    idle_timeout_s: float = 60.0
    artim_timeout_s: float = 30.0
    max_object_bytes: int = 1 << 31
    allowed_calling_ae: frozenset[str] = frozenset()
    callers: tuple[Caller, ...] = ()
    tls: ssl.SSLContext | None = None

    def may_call_from(self, address: Address | None) -> bool:
        """Tell whether anybody may call from an address."""
        return not self.callers or any(caller.calls_from(address) for caller in self.callers)

    def may_call(self, ae_title: str, address: Address | None) -> bool:
        """Tell whether a node of this title may call from this address."""
        if self.allowed_calling_ae and ae_title not in self.allowed_calling_ae:
            return False
        fits = (c.ae_title == ae_title and c.calls_from(address) for c in self.callers)
        return not self.callers or any(fits)


def peer_address(connection: socket.socket) -> Address | None:
    """Return where a connection comes from; None when that is no IP address, or it has ended."""
    try:
        found = ip_address(connection.getpeername()[0])
    except (OSError, ValueError, IndexError):
        return None
    return getattr(found, "ipv4_mapped", None) or found


class Host(Protocol):
    """What an association needs of its acceptor."""

    settings: AcceptorSettings
    stopping: threading.Event

    def open_session(self, calling_ae: str) -> Session:
        """Make the session of an association."""
        ...

    def serves(self, sop_class_uid: str) -> bool:
        """Tell whether a SOP Class is taken."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    def count(self, what: str) -> None:
        """Count an event."""
        ...

    def enter(self) -> bool:
        """Count one established association in, unless the limit is reached."""
        ...

    def leave(self) -> None:
        """Count one established association out."""
        ...


class Association:
    """One association from TCP connect to close; runs in its own thread."""

    def __init__(self, acceptor: Host, connection: socket.socket) -> None:
        self._acceptor = acceptor
        self._settings = acceptor.settings
        self._address = peer_address(connection)
        if self._settings.tls is not None:  # no byte passes here: the handshake is in `run`
            connection = self._settings.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self._socket = connection
        self._wire = Wire(connection, acceptor.monotonic)
        self._waiting = True  # nothing under way that stopping would lose
        self._max_answer = 0
        self._left_in_pdu = 0
        self._contexts: dict[int, AcceptedContext] = {}
        self._incoming: Incoming | None = None

    def interrupt(self, *, only_if_waiting: bool) -> None:
        """Wake the thread from another one; it then says goodbye or breaks off."""
        if only_if_waiting and not self._waiting:
            return
        try:
            # the plain method: that of a TLS socket would go on in the clear
            how = socket.SHUT_RD if only_if_waiting else socket.SHUT_RDWR
            socket.socket.shutdown(self._socket, how)
        except OSError:
            log.debug("the connection had ended already")

    def run(self) -> None:
        """Serve until released, aborted, silent or stopped."""
        with self._socket:
            try:
                self._serve()
            except ConnectionEndedError as ended:
                self._broken_off(ended.why)
            except BadPduError as bad:
                self._abort(bad.reason)
                self._broken_off("bad-pdu")
            except Exception:
                log.exception("an association ended with an error")
                self._abort(AbortReason.NOT_SPECIFIED)
                self._broken_off("error")

    def _serve(self) -> None:
        wire, settings = self._wire, self._settings
        wire.send_at_once()
        wire.set_timeout(settings.artim_timeout_s)
        wire.shake_hands()
        wire.expect_within(settings.artim_timeout_s)
        request = self._associate_request()
        self._waiting = False
        self._max_answer = request.max_pdu
        if (why := self._objection(request)) is not None:
            self._reject(why)
            return
        if not self._acceptor.enter():
            self._reject(Rejection.TOO_MANY_ASSOCIATIONS)
            return
        try:
            contexts = pdu.negotiate(
                request.contexts, lambda uid: uid == VERIFICATION or self._acceptor.serves(uid)
            )
            self._contexts = {c.context_id: c for c in contexts if c.result == 0}
            wire.send(pdu.encode_associate_ac(request, contexts, settings.max_pdu_bytes))
            self._acceptor.count("accepted")
            wire.set_timeout(settings.idle_timeout_s)
            self._messages(self._acceptor.open_session(request.calling_ae))
        finally:
            self._acceptor.leave()

    def _associate_request(self) -> pdu.AssociateRequest:
        kind, length = self._wire.header(pdu.HEADER)
        if kind == PduType.ABORT:
            raise ConnectionEndedError("peer-aborted")
        if kind != PduType.ASSOCIATE_RQ:
            raise BadPduError("no association request", AbortReason.UNEXPECTED_PDU)
        if length > _MAX_ASSOCIATE_RQ:
            raise BadPduError("the association request is too long")
        return pdu.decode_associate_rq(self._wire.exactly(length))

    def _objection(self, request: pdu.AssociateRequest) -> Rejection | None:
        """Say why the association is not wanted, in the order of PS3.8 9.3.4."""
        if not request.protocol_version & 1:
            return Rejection.PROTOCOL_VERSION
        if request.application_context != pdu.APPLICATION_CONTEXT:
            return Rejection.APPLICATION_CONTEXT
        if request.called_ae != self._settings.ae_title:
            return Rejection.CALLED_AE_TITLE
        calling = request.calling_ae
        printable = calling.isascii() and calling.isprintable()
        if not calling or not printable or not self._settings.may_call(calling, self._address):
            return Rejection.CALLING_AE_TITLE
        return None

    def _reject(self, why: Rejection) -> None:
        self._acceptor.count("rejected")
        log.info("association rejected", extra={"reason": why.name.lower()})
        self._wire.send(pdu.encode_associate_rj(why))
        self._waiting = True
        self._wire.drain_until_closed(min(_DRAIN_S, self._settings.artim_timeout_s))

    def _messages(self, session: Session) -> None:
        """Serve one message after the other until the peer releases."""
        while True:
            context_id, command = self._command()
            if command is None:
                self._release(session)
                return
            context = self._contexts[context_id]
            if command.operation == Operation.C_STORE:
                answer = self._store(session, command, context)
            elif command.operation == Operation.C_ECHO:
                answer = self._echo(command, context)
            elif command.operation == Operation.C_CANCEL:
                continue  # every operation here has ended by the time a cancel can arrive
            else:
                answer = Answer(status=Status.UNRECOGNISED_OPERATION)
                self._data_set(context_id, command, None)
            self._count(command, answer)
            response = encode_response(command, answer.status, answer.comment)
            self._wire.send(pdu.encode_command(context_id, response, self._max_answer))

    def _count(self, command: Command, answer: Answer) -> None:
        if command.operation == Operation.C_STORE and answer.status == Status.SUCCESS:
            self._acceptor.count("stored")
        elif answer.status != Status.SUCCESS:
            self._acceptor.count("refused")
            log.info("operation refused", extra={"status": answer.status, "code": answer.comment})

    def _echo(self, command: Command, context: AcceptedContext) -> Answer:
        if command.has_data_set:
            raise BadPduError("a C-ECHO carries no data set")
        right = context.abstract_syntax == VERIFICATION
        return Answer(status=Status.SUCCESS if right else Status.SOP_CLASS_NOT_SUPPORTED)

    def _store(self, session: Session, command: Command, context: AcceptedContext) -> Answer:
        if not command.has_data_set:
            return Answer(status=Status.CANNOT_UNDERSTAND)
        self._incoming = incoming = session.store(command, context)
        self._data_set(context.context_id, command, incoming)
        answer = incoming.finish()
        self._incoming = None
        return answer

    def _release(self, session: Session) -> None:
        self._wire.send(pdu.encode_release_rp())
        session.released()
        self._waiting = True
        self._wire.drain_until_closed(min(_DRAIN_S, self._settings.artim_timeout_s))

    def _command(self) -> tuple[int, Command | None]:
        """Read one command set; None when the peer asks for release."""
        self._wait_for_message()
        wire, collected, context_id = self._wire, bytearray(), 0
        limit = self._acceptor.monotonic() + self._settings.idle_timeout_s
        while True:
            remaining = self._data_pdu(limit)
            if remaining is None:
                if collected:
                    raise BadPduError("a release in a message", AbortReason.UNEXPECTED_PDU)
                return 0, None
            while remaining:
                length, this_id, control = self._pdv(remaining)
                remaining -= length + 6
                if not control & _COMMAND_BIT or (collected and this_id != context_id):
                    raise BadPduError("a data set without its command")
                if len(collected) + length > MAX_COMMAND:
                    raise BadPduError("the command set is too long")
                context_id = this_id
                collected += wire.exactly(length)
                if control & _LAST_BIT:
                    return context_id, self._whole_command(collected, remaining)

    def _whole_command(self, data: bytearray, left_in_pdu: int) -> Command:
        command = decode_command(data)
        if left_in_pdu and not command.has_data_set:
            raise BadPduError("something follows a command without data set")
        self._left_in_pdu = left_in_pdu
        return command

    def _wait_for_message(self) -> None:
        """Wait between messages: the one place where a stopping acceptor may interrupt."""
        wire = self._wire
        self._waiting = True  # before the look at `stopping`: one of the two threads sees the other
        if self._acceptor.stopping.is_set():
            raise ConnectionEndedError("stopping")
        wire.expect_within(self._settings.idle_timeout_s)
        wire.need(1)
        self._waiting = False

    def _data_set(self, context_id: int, command: Command, incoming: Incoming | None) -> None:
        """Stream one data set to `incoming`, or past it."""
        if not command.has_data_set:
            return
        wire, received, remaining = self._wire, 0, self._left_in_pdu
        patience = self._acceptor.monotonic() + self._settings.idle_timeout_s
        while True:
            if not remaining:
                next_pdu = self._data_pdu(patience + received / _SLOWEST)
                if next_pdu is None:
                    raise BadPduError("a release in a message", AbortReason.UNEXPECTED_PDU)
                remaining = next_pdu
            length, this_id, control = self._pdv(remaining)
            remaining -= length + 6
            if control & _COMMAND_BIT or this_id != context_id:
                raise BadPduError("a command inside a data set")
            received += length
            if received > 2 * self._settings.max_object_bytes:
                raise BadPduError("a data set without end")  # refused long before
            while length:
                piece = wire.some(length)
                length -= len(piece)
                if incoming is not None:
                    incoming.write(piece)
            if control & _LAST_BIT:
                if remaining:
                    raise BadPduError("something follows the last fragment")
                return

    def _data_pdu(self, limit: float) -> int | None:
        """Read the header of the next PDU; its length, or None for a release request."""
        wire = self._wire
        wire.expect_within(self._settings.idle_timeout_s, limit)
        kind, length = wire.header(pdu.HEADER)
        if kind == PduType.DATA_TF:
            if not 6 <= length <= self._settings.max_pdu_bytes:
                raise BadPduError("a P-DATA-TF is longer than was agreed, or empty")
            return length
        if kind == PduType.ABORT:
            raise ConnectionEndedError("peer-aborted")
        if kind == PduType.RELEASE_RQ:
            expect_length(length, 4)
            wire.skip(4)
            return None
        known = kind in PduType.__members__.values()
        raise BadPduError(
            "a PDU that does not belong here",
            AbortReason.UNEXPECTED_PDU if known else AbortReason.UNRECOGNISED_PDU,
        )

    def _pdv(self, remaining: int) -> tuple[int, int, int]:
        """Read a fragment's header; return its payload length, context and control."""
        if remaining < 6:
            raise BadPduError("a fragment header is cut off")
        length, context_id, control = self._wire.header(_PDV)
        if not 2 <= length <= remaining - 4:
            raise BadPduError("a fragment is longer than its PDU")
        if context_id not in self._contexts:
            raise BadPduError("a fragment of a context that was not accepted")
        return length - 2, context_id, control

    def _abort(self, reason: AbortReason) -> None:
        try:
            self._wire.send(pdu.encode_abort(reason))
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            self._wire.drain_until_closed(_DRAIN_S)
        except (ConnectionEndedError, OSError):
            log.debug("the peer was gone before the abort")

    def _broken_off(self, why: str) -> None:
        """Drop what was coming in; say why in the log."""
        if self._acceptor.stopping.is_set():
            why = "stopping"
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.abort()
        self._acceptor.count("aborted")
        if why in ("idle", "stopping", "too-slow"):
            self._abort(AbortReason.NOT_SPECIFIED)
        log.info("association broken off", extra={"reason": why})
