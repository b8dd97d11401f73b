"""C-STORE to a DICOM node: acknowledged, refused, or to be tried later."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

import pydicom
from pynetdicom.association import Association

from bedside_core.errors import DeliveryRefusedError, DestinationUnavailableError
from bedside_edge.dicom.quiet import muted_warnings
from bedside_edge.dicom.scu import (
    EXPLICIT_LE,
    IMPLICIT_LE,
    Peer,
    association,
    contexts_for,
    echo,
)
from bedside_edge.services.outputs import Kind


class StoreScu:
    """`Destination` over C-STORE."""

    def __init__(self, name: str, peer: Peer, objects: frozenset[Kind]) -> None:
        self.name, self.objects = name, objects
        self._peer = peer

    @contextmanager
    def open(self, sop_classes: Sequence[str]) -> Iterator["_StoreSession"]:
        """Open an association for objects of these classes.

        Raises:
            DestinationUnavailableError: not reachable, rejected or aborted.
        """
        contexts = contexts_for(sop_classes, [EXPLICIT_LE, IMPLICIT_LE])
        with association(self._peer, contexts) as opened:
            yield _StoreSession(opened)

    def probe(self) -> str:
        """C-ECHO; DestinationUnavailableError."""
        return echo(self._peer)


class _StoreSession:
    def __init__(self, opened: Association) -> None:
        self._association = opened

    def send(self, data: bytes) -> None:
        """Send one object and wait for its status (PS3.4 B.2.3)."""
        if not self._association.is_established:
            raise DestinationUnavailableError("the association ended")
        with muted_warnings():
            made = pydicom.dcmread(BytesIO(data))
            try:
                answer = self._association.send_c_store(made)
            except ValueError as cause:  # no accepted context for this class
                raise DeliveryRefusedError("the DICOM node takes no object of this kind") from cause
            except (RuntimeError, AttributeError, OSError) as cause:  # it broke under our hands
                raise DestinationUnavailableError("the association broke") from cause
        _judge(answer.Status if answer else None)


def _judge(status: int | None) -> None:
    """Turn a C-STORE status into nothing or an error.

    Warnings (0xB000, coercion and the like) are successes: the object is stored. Out of resources
    (0xA7xx) is a matter of time; everything else is about this object.
    """
    if status is None:
        raise DestinationUnavailableError("no answer to C-STORE")
    if status == 0x0000 or status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116):
        return
    if status & 0xFF00 == 0xA700:
        raise DestinationUnavailableError("the DICOM node is out of resources")
    raise DeliveryRefusedError(f"C-STORE status {status:04X}")
