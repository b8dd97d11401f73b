"""Storage and Verification SCP: what the acceptor receives is handed to the ingest service.

Every patient-related storage SOP Class is taken, private ones too, in every transfer syntax, as
it came. Success is answered only after the instance is durable.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from bedside_core.errors import (
    BedsideError,
    DiskFullError,
    InvalidUidError,
    NotDicomError,
    NotPermittedError,
    QueueFullError,
    SealedError,
    SopClassMismatchError,
    StoreUnavailableError,
    TooLargeError,
)
from bedside_edge.dicom.association import Answer, Incoming, Session
from bedside_edge.dicom.dimse import Command, Status
from bedside_edge.dicom.part10 import valid_uid
from bedside_edge.dicom.pdu import AcceptedContext
from bedside_edge.dicom.ul import Acceptor, AcceptorSettings
from bedside_edge.ports import Arrival, Clock, Filed, Way

log = logging.getLogger(__name__)

# Which error a sender hears as which status (PS3.4 table B.2-1); any other is 0x0110.
STATUS_OF_ERROR: tuple[tuple[type[BedsideError], Status], ...] = (
    (DiskFullError, Status.OUT_OF_RESOURCES),
    (TooLargeError, Status.OUT_OF_RESOURCES),
    (QueueFullError, Status.OUT_OF_RESOURCES),
    (StoreUnavailableError, Status.OUT_OF_RESOURCES),
    (SealedError, Status.OUT_OF_RESOURCES),
    (SopClassMismatchError, Status.DATA_SET_MISMATCH),
    (InvalidUidError, Status.CANNOT_UNDERSTAND),
    (NotDicomError, Status.CANNOT_UNDERSTAND),
    (NotPermittedError, Status.NOT_AUTHORISED),
)
Observe = Callable[[str], None]

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_STORAGE_ELSEWHERE = frozenset(
    (
        "1.2.840.10008.5.1.4.34.7",  # RT Beams Delivery Instruction
        "1.2.840.10008.5.1.4.34.10",  # RT Brachy Application Setup Delivery Instruction
    )
)
_REGISTERED = "1.2.840.10008."
_MOST_STUDIES = 4096  # remembered until release; beyond that the quiet timer completes them


class ReceivingObject(Protocol):
    """One instance on its way in; not for two threads at once."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the data set; the buffer may be reused after return."""
        ...

    def finish(self) -> Arrival:
        """Check header and announcement, seal; a BedsideError leaves nothing behind."""
        ...

    def abort(self) -> None:
        """Forget the instance; may be called at any time."""
        ...


class Ingest(Protocol):
    """Takes instances in (`services.ingest.IngestService`)."""

    def begin(
        self,
        way: Way,
        source: str,
        *,
        transfer_syntax: str = "",
        sop_class: str = "",
        sop_instance: str = "",
    ) -> ReceivingObject:
        """Start taking a bare data set; the file meta group is made from what is announced."""
        ...

    def file(self, arrivals: Sequence[Arrival]) -> Sequence[Filed]:
        """File together; durable on return."""
        ...

    def complete(self, study_ids: Sequence[str]) -> None:
        """Expect no more instances of these studies."""
        ...


def serves_storage(sop_class_uid: str) -> bool:
    """Tell whether a SOP Class is one of storage, or private and taken as such."""
    if sop_class_uid.startswith(_REGISTERED):
        return sop_class_uid.startswith(_STORAGE) or sop_class_uid in _STORAGE_ELSEWHERE
    return True


def status_of(error: BaseException) -> Answer:
    """Return what a sender hears about an error; our code goes along as comment."""
    if not isinstance(error, BedsideError):
        return Answer(status=Status.PROCESSING_FAILURE, comment="internal")
    for kind, status in STATUS_OF_ERROR:
        if isinstance(error, kind):
            return Answer(status=status, comment=error.code)
    return Answer(status=Status.PROCESSING_FAILURE, comment=error.code)


class StorageScp:
    """The DICOM receiver of the box.

    Args:
        settings: addresses and limits.
        ingest: where instances go.
        clock: for deadlines.
        observe: told the outcome of every data set: a `Filing` word or an error's code.
    """

    def __init__(
        self,
        settings: AcceptorSettings,
        ingest: Ingest,
        clock: Clock,
        observe: Observe = lambda outcome: None,
    ) -> None:
        def open_session(calling_ae: str) -> Session:
            return _StorageSession(ingest, calling_ae, observe)

        self.acceptor = Acceptor(settings, open_session, serves_storage, clock.monotonic)

    def start(self) -> int:
        """Bind and listen; return the port. UnavailableError when it cannot be bound."""
        return self.acceptor.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Let transfers finish for that long, then end every thread."""
        self.acceptor.stop(seconds)


class _StorageSession:
    """One association: remembers which studies it brought."""

    def __init__(self, ingest: Ingest, source: str, observe: Observe) -> None:
        self._ingest, self._source, self._observe = ingest, source, observe
        self._studies: dict[str, None] = {}

    def store(self, command: Command, context: AcceptedContext) -> Incoming:
        """Start one C-STORE; a refusal is kept until the data set has passed."""
        return _StorageIncoming(self._ingest, self._source, command, context, self)

    def released(self) -> None:
        """The sender is done: its studies need not wait for the quiet timer."""
        if not self._studies:
            return
        try:
            self._ingest.complete(tuple(self._studies))
        except BedsideError as failed:  # they complete by the quiet timer instead
            log.warning("studies not marked complete", extra={"code": failed.code})

    def refused(self, answer: Answer) -> None:
        """Count a data set that was not taken."""
        self._observe(answer.comment)

    def stored(self, receipt: Filed) -> None:
        """Count a data set and remember its study until release."""
        self._observe(str(receipt.outcome))
        if len(self._studies) < _MOST_STUDIES:
            self._studies[receipt.study_id] = None


class _StorageIncoming:
    """One data set: the first error wins, the rest of the bytes is let pass."""

    def __init__(
        self,
        ingest: Ingest,
        source: str,
        command: Command,
        context: AcceptedContext,
        session: _StorageSession,
    ) -> None:
        self._ingest, self._session = ingest, session
        self._refusal: Answer | None = None
        self._receiving: ReceivingObject | None = None
        try:
            _check_announcement(command, context)
            self._receiving = ingest.begin(
                Way.DIMSE,
                source,
                transfer_syntax=context.transfer_syntax,
                sop_class=command.sop_class_uid,
                sop_instance=command.sop_instance_uid,
            )
        except Exception as error:  # nothing may end the association; the sender hears a status
            self._refuse(error)

    def write(self, data: memoryview) -> None:
        """Pass bytes on until something went wrong."""
        if self._receiving is None:
            return
        try:
            self._receiving.write(data)
        except Exception as error:
            self._refuse(error)

    def finish(self) -> Answer:
        """Seal and file; success only when durable."""
        if self._receiving is not None:
            try:
                receipt = self._ingest.file([self._receiving.finish()])[0]
            except Exception as error:
                self._refuse(error)
            else:
                self._session.stored(receipt)
        return self._refusal or Answer(status=Status.SUCCESS)

    def abort(self) -> None:
        """Forget what has come."""
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.abort()

    def _refuse(self, error: Exception) -> None:
        if not isinstance(error, BedsideError):
            log.error("an instance could not be taken in", exc_info=error)
        self._refusal = status_of(error)
        self._session.refused(self._refusal)
        self.abort()


def _check_announcement(command: Command, context: AcceptedContext) -> None:
    """Hold the command's UIDs against PS3.5 and its context.

    Raises:
        InvalidUidError: a UID is malformed; it would end up in file names elsewhere.
        SopClassMismatchError: another SOP Class than the presentation context's.
    """
    if not valid_uid(command.sop_instance_uid) or not valid_uid(command.sop_class_uid):
        raise InvalidUidError("the request announces a malformed UID")
    if command.sop_class_uid != context.abstract_syntax:
        raise SopClassMismatchError("the request does not belong to its presentation context")
