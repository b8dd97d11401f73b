"""Fetching a study from an archive into the box, as if it had been sent."""

import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from bedside_core.errors import InvalidUidError, NotFoundError
from bedside_edge.ports import Arrival, Filed, Way
from bedside_edge.services.ingest import IngestService
from bedside_edge.services.outputs import Archive

log = logging.getLogger(__name__)

_BATCH = 16  # instances that share one flush and one transaction
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What came of a pull; `studies` is empty when the archive sends to the receiver (C-MOVE)."""

    instances: int
    studies: tuple[str, ...]


class PullService:
    """Fetches studies. Safe to call from several threads."""

    def __init__(self, ingest: IngestService, archives: Mapping[str, Archive]) -> None:
        self._ingest, self._archives = ingest, dict(archives)

    @property
    def names(self) -> list[str]:
        """The archives by name."""
        return sorted(self._archives)

    def pull(self, source: str, study_uid: str) -> Pulled:
        """Fetch a study and declare it complete.

        Raises:
            NotFoundError: no such archive, or no such study in it.
            InvalidUidError: `study_uid` breaks PS3.5 section 9.
            DestinationUnavailableError: the archive does not answer or broke off; what had
                arrived stays.
        """
        archive = self._archives.get(source)
        if archive is None:
            raise NotFoundError("no archive of that name is configured")
        if len(study_uid) > 64 or not _UID.fullmatch(study_uid):
            raise InvalidUidError("the Study Instance UID breaks PS3.5 section 9")
        taking = _Taking(self._ingest, source)
        try:
            offered = archive.fetch(study_uid, taking.take)
        finally:
            taking.file()
        self._ingest.complete(sorted(taking.studies))
        log.info("study fetched", extra={"destination": source, "instances": offered})
        return Pulled(instances=offered, studies=tuple(sorted(taking.studies)))


class _Taking:
    """Instances of one pull on their way into the store."""

    def __init__(self, ingest: IngestService, source: str) -> None:
        self._ingest, self._source = ingest, source
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self.studies: set[str] = set()

    def take(self, syntax: str, sop_class: str, sop_instance: str, data: bytes) -> None:
        """Take one instance: a bare data set when `syntax` is given, else a Part 10 stream."""
        receiving = self._ingest.begin(
            Way.DIMSE if syntax else Way.HTTP,
            self._source,
            transfer_syntax=syntax,
            sop_class=sop_class,
            sop_instance=sop_instance,
        )
        try:
            receiving.write(data)
            arrival = receiving.finish()
        except BaseException:
            receiving.abort()
            raise
        with self._lock:
            self._arrivals.append(arrival)
            full = len(self._arrivals) >= _BATCH
        if full:
            self.file()

    def file(self) -> list[Filed]:
        """File what was taken; durable on return."""
        with self._lock:
            arrivals, self._arrivals = self._arrivals, []
        filed = self._ingest.file(arrivals) if arrivals else []
        self.studies.update(receipt.study_id for receipt in filed)
        return filed
