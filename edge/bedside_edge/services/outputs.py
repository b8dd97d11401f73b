"""What leaves the box as DICOM: the objects of a result, where they go, how they arrived.

Values and Protocols only. The writer (`dicom.write`) makes objects, the store (`store.outputs`)
keeps them and their deliveries, senders (`dicom.send`, `dicom.stow`) carry them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.result import Json
from bedside_core.review import Review
from bedside_edge.ports import Sealed
from bedside_edge.ports.evidence import BOX


class Kind(StrEnum):
    """Kinds of DICOM objects the box makes."""

    SR = "sr"  # Comprehensive 3D SR, TID 1500
    SC = "sc"  # secondary capture: the overlay for viewers that show nothing else
    SEG = "seg"  # segmentation of strong saliency, where the source has a frame of reference
    KO = "ko"  # key object selection: a rejection


class Occasion(StrEnum):
    """Why an object was made."""

    RESULT = "result"  # preliminary, by the box alone
    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A freshly made object; `data` is the whole Part 10 file."""

    kind: Kind
    sop_class_uid: str
    sop_instance_uid: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Everything the writer needs to turn a result into objects.

    Attributes:
        body: the result document.
        sources: Part 10 bytes of every analysed image, by the box's instance id.
        picture: (rows, columns, 3) overlay with its caption burned in.
        at: when the objects are made, milliseconds since 1970.
        earlier: the report this one replaces, as Part 10 bytes; empty when there is none.
    """

    body: Json = field(repr=False)
    sources: Mapping[str, bytes] = field(repr=False)
    picture: NDArray[np.uint8] | None = field(repr=False, default=None)
    at: int
    earlier: bytes = field(repr=False, default=b"")


class ObjectWriter(Protocol):
    """Makes DICOM objects; every call returns valid ones or raises."""

    def result_objects(self, draft: Draft) -> list[Made]:
        """Return the preliminary report, the secondary capture and, if possible, a SEG."""
        ...

    def review_objects(self, draft: Draft, review: Review, rejected: Sequence[bytes]) -> list[Made]:
        """Return the signed report; for a rejection a key object naming `rejected` before it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A kept object, encrypted like an instance."""

    output_id: str
    result_id: str
    study_id: str
    kind: Kind
    occasion: Occasion
    object_name: str
    object_key: bytes = field(repr=False)
    sop_class_uid: str
    sop_instance_uid: str
    size: int
    created: int


class DeliveryState(StrEnum):
    """Life of one object on its way to one destination."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"  # refused or given up: a person may send it again
    WITHDRAWN = "withdrawn"  # replaced before the first attempt: never left the box


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One object on its way to one destination. Times are milliseconds since 1970."""

    delivery_id: str
    output_id: str
    result_id: str
    study_id: str
    kind: Kind
    occasion: Occasion
    destination: str
    state: DeliveryState
    attempts: int
    refusals: int
    created: int
    updated: int
    due: int
    since: int  # when the present series of attempts began; moved by a replay
    reason: str  # code of the last failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A result whose objects are still to be made and sent."""

    result_id: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOutput:
    """A sealed object with what is known of it, ready to be filed."""

    kind: Kind
    occasion: Occasion
    sop_class_uid: str
    sop_instance_uid: str
    sealed: Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Where new objects go.

    Attributes:
        kinds: what each configured destination takes.
        everywhere: send to all of them.
        follow: also send to wherever objects of this result went, configured or not.
    """

    kinds: Mapping[str, frozenset[Kind]]
    everywhere: bool = True
    follow: str = ""

    def takes(self, destination: str, kind: Kind) -> bool:
        """Tell whether the destination gets objects of this kind; a retraction always arrives."""
        return kind is Kind.KO or kind in self.kinds.get(destination, frozenset(Kind))


class OutputStore(Protocol):
    """Objects made and their deliveries. Every method is one transaction."""

    def pending(self, now: int, limit: int = 1) -> list[Pending]:
        """Return results whose publication is due, oldest first."""
        ...

    def next_pending(self) -> int | None:
        """Return when the next publication is due, or None."""
        ...

    def published(
        self,
        result_id: str,
        made: Sequence[NewOutput],
        routes: Routes,
        now: int,
        *,
        again: Sequence[str] = (),
        withdraw: str = "",
        unfinished: bool = False,
    ) -> list[Output]:
        """File objects, queue their deliveries, end the publication: all or nothing.

        Args:
            result_id: whose objects they are.
            made: sealed and flushed objects.
            routes: where they go.
            now: when they were made.
            again: ids of kept objects that are to be sent along the same routes.
            withdraw: a result whose deliveries are withdrawn where none was attempted yet.
            unfinished: leave the publication waiting.
        """
        ...

    def not_published(self, result_id: str, code: str, now: int, due: int | None) -> None:
        """Record a failed publication; `due` None ends the tries."""
        ...

    def outputs(self, *, study_id: str = "", result_id: str = "") -> list[Output]:
        """Return objects in the order they were made."""
        ...

    def output(self, output_id: str) -> Output:
        """Return one object; NotFoundError."""
        ...

    def earlier_result(self, study_id: str, result_id: str) -> str:
        """Return the newest other result of the study that has objects; empty if none."""
        ...

    def due(self, destination: str, now: int, limit: int) -> list[Delivery]:
        """Return deliveries to try now, in the order the objects were made.

        An object waits while an earlier one of its study to the same destination backs off.
        """
        ...

    def next_due(self, destination: str) -> int | None:
        """Return when the next delivery to the destination is due, or None."""
        ...

    def attempt(self, delivery_id: str, now: int) -> int:
        """Count an attempt before it is made; return how many there are now."""
        ...

    def delivered(self, delivery_id: str, now: int) -> None:
        """The destination has acknowledged the object."""
        ...

    def failed(
        self, delivery_id: str, code: str, now: int, due: int | None, *, refused: bool = False
    ) -> None:
        """Record a failure: try again at `due`, or (None) dead-letter it."""
        ...

    def expire(self, destination: str, before: int, code: str, now: int) -> int:
        """Dead-letter what has waited since before `before`; return how many."""
        ...

    def replay(self, delivery_id: str, now: int, actor: str = BOX) -> Delivery:
        """Put a DEAD delivery back; WrongStateError, NotFoundError."""
        ...

    def delivery(self, delivery_id: str) -> Delivery:
        """Return one delivery; NotFoundError."""
        ...

    def deliveries(
        self,
        *,
        states: Iterable[DeliveryState] = (),
        destination: str = "",
        study_id: str = "",
        result_id: str = "",
        limit: int = 100,
    ) -> list[Delivery]:
        """Return deliveries, newest first."""
        ...

    def delivery_counts(self) -> dict[tuple[str, DeliveryState], int]:
        """Return how many deliveries each destination has in each state."""
        ...

    def same_patient(self, study_id: str, issuer: str, patient_id: str, study_uid: str) -> bool:
        """Tell whether the study is still that patient's and no image of it came in under another.

        False when the key differs, or when an image of the study was received again later under
        another patient or study.
        """
        ...


class Session(Protocol):
    """An open way to a destination; for one thread."""

    def send(self, data: bytes) -> None:
        """Hand one Part 10 object over; returns when the destination acknowledged it.

        Raises:
            DestinationUnavailableError: the way broke or the destination asks to try later.
            DeliveryRefusedError: the destination will not take this object.
        """
        ...


class Destination(Protocol):
    """Where objects go."""

    name: str
    objects: frozenset[Kind]

    def open(self, sop_classes: Sequence[str]) -> AbstractContextManager[Session]:
        """Open a way for objects of these classes; DestinationUnavailableError."""
        ...

    def probe(self) -> str:
        """Ask whether anybody answers, without sending anything; return what was seen.

        Raises:
            DestinationUnavailableError: nobody does.
        """
        ...


class Archive(Protocol):
    """Where studies can be fetched from."""

    name: str

    def fetch(self, study_uid: str, take: "Take") -> int:
        """Fetch every instance of a study; return how many were offered.

        Raises:
            NotFoundError: the archive knows no such study.
            DestinationUnavailableError: it does not answer or breaks off.
        """
        ...


# transfer syntax, SOP Class, SOP Instance ("" for a Part 10 stream) and the bytes
Take = Callable[[str, str, str, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRules:
    """How long the box keeps trying (milliseconds)."""

    first_wait_ms: int = 5_000
    longest_wait_ms: int = 300_000
    give_up_ms: int = 72 * 3_600_000  # a destination that is silent over a long weekend comes back
    refusal_waits_ms: tuple[int, ...] = (60_000, 600_000, 3_600_000)

    def wait(self, failures: int) -> int:
        """Return how long to wait after the n-th failure (from 1)."""
        return min(self.longest_wait_ms, self.first_wait_ms << min(failures - 1, 20))

    def refusal_wait(self, refusals: int) -> int | None:
        """Return the wait after the n-th refusal (from 1); None: it will not change its mind."""
        waits = self.refusal_waits_ms
        return waits[refusals - 1] if refusals <= len(waits) else None
