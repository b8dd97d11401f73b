"""An ingest service in memory: keeps the promises of the real one, forgets on exit."""

import hashlib
import threading
from collections.abc import Sequence

from bedside_core.errors import BedsideError, TooLargeError
from bedside_edge.dicom.header import check_announced, read_header
from bedside_edge.dicom.part10 import head
from bedside_edge.ports import Arrival, Filed, Filing, Sealed, Way


class MemoryIngest:
    """Implements `dicom.scp.Ingest`. Every public attribute is what tests look at.

    Args:
        fail_begin, fail_file: an error to raise there, as a full disk would.
        max_object_bytes: TooLargeError above.
        keep: whether to keep the objects; benchmarks only hash them.
    """

    def __init__(
        self,
        *,
        fail_begin: BaseException | None = None,
        fail_file: BaseException | None = None,
        max_object_bytes: int = 1 << 30,
        keep: bool = True,
    ) -> None:
        self.lock = threading.Lock()
        self.fail_begin, self.fail_file = fail_begin, fail_file
        self.max_object_bytes, self.keep = max_object_bytes, keep
        self.objects: dict[str, bytes] = {}
        self.arrivals: list[Arrival] = []
        self.begun = 0
        self.aborted = 0
        self.completed: list[tuple[str, ...]] = []
        self.errors: list[BedsideError] = []

    def begin(
        self,
        way: Way,
        source: str,
        *,
        transfer_syntax: str = "",
        sop_class: str = "",
        sop_instance: str = "",
    ) -> "MemoryReceiving":
        if self.fail_begin is not None:
            raise self.fail_begin
        with self.lock:
            self.begun += 1
        return MemoryReceiving(self, way, source, transfer_syntax, sop_class, sop_instance)

    def file(self, arrivals: Sequence[Arrival]) -> list[Filed]:
        if self.fail_file is not None:
            raise self.fail_file
        filed = []
        with self.lock:
            for arrival in arrivals:
                uid, digest = arrival.header.sop_instance_uid, arrival.sealed.digest
                held = [a for a in self.arrivals if a.header.sop_instance_uid == uid]
                outcome = Filing.STORED
                if held:
                    same = any(a.sealed.digest == digest for a in held)
                    outcome = Filing.DUPLICATE if same else Filing.SECOND
                if outcome is not Filing.DUPLICATE:
                    self.arrivals.append(arrival)
                study = hashlib.sha256(arrival.header.study_uid.encode()).hexdigest()[:16]
                filed.append(Filed(outcome=outcome, study_id=study, instance_id=digest[:16]))
        return filed

    def complete(self, study_ids: Sequence[str]) -> None:
        with self.lock:
            self.completed.append(tuple(study_ids))


class MemoryReceiving:
    def __init__(self, ingest, way, source, transfer_syntax, sop_class, sop_instance) -> None:
        self.ingest, self.way, self.source = ingest, way, source
        self.syntax, self.announced = transfer_syntax, (sop_class, sop_instance)
        self.pieces = bytearray(head(sop_class, sop_instance, transfer_syntax))
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self.size > self.ingest.max_object_bytes:
            raise TooLargeError("larger than this simulator takes")
        self.hash.update(data)
        if self.ingest.keep or len(self.pieces) < 1 << 16:
            self.pieces += data

    def finish(self) -> Arrival:
        header = read_header(bytes(self.pieces))
        check_announced(header, *self.announced)
        self.hash.update(self.syntax.encode())
        digest = self.hash.hexdigest()
        if self.ingest.keep:
            with self.ingest.lock:
                self.ingest.objects[digest] = bytes(self.pieces)
        sealed = Sealed(name=digest, object_key=b"", size=self.size, digest=digest)
        return Arrival(header=header, sealed=sealed, way=self.way, source=self.source, at=0)

    def abort(self) -> None:
        with self.ingest.lock:
            self.ingest.aborted += 1
