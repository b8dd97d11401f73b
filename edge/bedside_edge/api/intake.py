"""The instances of one upload: received part by part, filed together, or all forgotten.

Runs in storage threads, one at a time; the event loop only hands over buffers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bedside_core.errors import (
    BedsideError,
    ConflictingInstanceError,
    DiskFullError,
    InvalidUidError,
    NotDicomError,
    NotPermittedError,
    SopClassMismatchError,
    TooLargeError,
)
from bedside_edge.api.services import Ingest, Receiving
from bedside_edge.ports import Arrival, Filed, Filing, Header, Way

# PS3.7 annex C and PS3.18 table 10.5.3-1, Failure Reason (0008,1197)
_REASONS = {
    DiskFullError.code: 0xA700,  # refused: out of resources
    NotPermittedError.code: 0x0124,  # refused: not authorised
    SopClassMismatchError.code: 0xA900,  # data set does not match
    NotDicomError.code: 0xC000,  # cannot understand
    InvalidUidError.code: 0xC000,
    ConflictingInstanceError.code: 0x0111,  # duplicate SOP Instance, with other content
}
_PROCESSING_FAILURE = 0x0110

Observe = Callable[[str, str], None]  # way, outcome


@dataclass(slots=True)
class Item:
    """One part of the upload and what became of it."""

    receiving: Receiving | None = None
    arrival: Arrival | None = None
    receipt: Filed | None = None
    error: BedsideError | None = None

    @property
    def header(self) -> Header | None:
        """What the object says it is, once that is known."""
        return self.arrival.header if self.arrival else None

    @property
    def reason(self) -> int:
        """DICOM failure reason of `error`."""
        code = self.error.code if self.error else ""
        return _REASONS.get(code, _PROCESSING_FAILURE)

    def fail(self, error: BedsideError) -> None:
        """Give the part up and leave nothing of it."""
        self.error = error
        if self.receiving is not None:
            self.receiving.abort()


class Intake:
    """Takes the parts of one request in order; every error stays with its part."""

    def __init__(
        self,
        ingest: Ingest,
        way: Way,
        *,
        max_parts: int,
        observe: Observe,
        admit: Callable[[Header], None] | None = None,
    ) -> None:
        """Prepare for one request.

        Args:
            ingest: where instances go.
            way: how they came.
            max_parts: most instances of one request.
            observe: told the outcome of every part.
            admit: raises a BedsideError for a header that has no place in this request.
        """
        self.items: list[Item] = []
        self._ingest, self._way, self._max_parts = ingest, way, max_parts
        self._observe, self._admit = observe, admit

    def begin(self) -> None:
        """A part starts."""
        if len(self.items) >= self._max_parts:
            raise TooLargeError(f"more than {self._max_parts} instances in one request")
        item = Item()
        self.items.append(item)
        try:
            item.receiving = self._ingest.begin(self._way, str(self._way))
        except BedsideError as error:
            item.error = error

    def write(self, data: bytes | memoryview) -> None:
        """Take bytes of the part; what follows an error is read and dropped."""
        item = self.items[-1]
        if item.error is None and item.receiving is not None:
            try:
                item.receiving.write(data)
            except BedsideError as error:
                item.fail(error)

    def end(self) -> None:
        """The part is complete."""
        item = self.items[-1]
        if item.error is None and item.receiving is not None:
            try:
                item.arrival = item.receiving.finish()
                if self._admit is not None:
                    self._admit(item.arrival.header)
            except BedsideError as error:
                item.fail(error)

    def file(self) -> None:
        """Make every good part durable in one go, and look at second encodings at once."""
        good = [item for item in self.items if item.error is None and item.arrival is not None]
        if good:
            try:
                receipts = self._ingest.file([item.arrival for item in good if item.arrival])
            except BedsideError as error:  # nothing of the batch stays
                for item in good:
                    item.fail(error)
            else:
                for item, receipt in zip(good, receipts, strict=True):
                    item.receipt = receipt
                    self._settle(item, receipt)
        for item in self.items:
            outcome = item.error.code if item.error else str(item.receipt and item.receipt.outcome)
            self._observe(str(self._way), outcome)

    def abort(self) -> None:
        """Forget whatever has not been filed."""
        for item in self.items:
            if item.receipt is None and item.receiving is not None:
                item.receiving.abort()

    def _settle(self, item: Item, receipt: Filed) -> None:
        if receipt.outcome is Filing.SECOND:
            try:
                self._ingest.settle(receipt)
            except BedsideError as error:  # kept all the same: conflict, or not comparable now
                item.error = error
