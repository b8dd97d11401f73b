"""Taking instances in: stream, encrypt, make durable, file, then acknowledge.

Nothing is decoded here. A byte that was acknowledged survives a power cut; a transfer that broke
off leaves nothing behind.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence

from bedside_core.errors import (
    BedsideError,
    ConflictingInstanceError,
    NotDicomError,
    RefusedError,
    SopClassMismatchError,
    TooLargeError,
)
from bedside_core.grading import IDENTIFYING
from bedside_core.part10 import MAX_META, data_set_start, finish_start
from bedside_edge.ports import (
    Arrival,
    Clock,
    Filed,
    Filing,
    Header,
    Instance,
    InstanceState,
    JobQueue,
    ObjectSink,
    ObjectStore,
    PixelReader,
    Sealed,
    StudyStore,
    Way,
)

log = logging.getLogger(__name__)

_HEAD = 128 << 10  # bytes kept aside to read the header from; longer headers are read back
_FIRST_LOOK = 1 << 10

WrapDataSet = Callable[[str, str, str], bytes]  # SOP class, SOP instance, syntax -> file meta


class Receiving:
    """One instance on its way in. Not for use by two threads at once."""

    def __init__(
        self, service: "IngestService", way: Way, source: str, announced: tuple[str, str, str]
    ) -> None:
        self._service, self._way, self._source = service, way, source
        self._class, self._instance, self._syntax = announced
        self._hash = hashlib.sha256()
        self._head = bytearray()
        self._started = False
        self._size = 0
        self._sink: ObjectSink = service.objects.create()
        if self._syntax:  # a bare data set over DIMSE: give it the file meta it lacks
            prefix = service.wrap(self._class, self._instance, self._syntax)
            self._head += prefix
            self._sink.write(prefix)
            self._started = True

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; the buffer may be reused after return.

        Raises:
            NotDicomError: the first bytes are no DICOM.
            TooLargeError: the object exceeds the configured size.
            DiskFullError: the disk is full.
        """
        self._size += len(data)
        if self._size > self._service.max_object_bytes:
            raise TooLargeError("the object is larger than this box takes")
        if self._started:
            self._take(data)
            return
        self._head += data
        if len(self._head) >= _FIRST_LOOK:
            found = data_set_start(self._head)
            if found is None and len(self._head) > MAX_META + 4096:
                raise NotDicomError("the file meta information does not end")
            if found is not None:
                self._start(*found)

    def finish(self) -> Arrival:
        """Check the header and seal the object; it still has to be filed.

        Raises:
            NotDicomError, InvalidUidError, SopClassMismatchError: nothing is kept.
        """
        try:
            if not self._started:
                self._start(*finish_start(self._head))
            self._hash.update(self._syntax.encode())
            header, sealed = self._header_and_seal()
            self._check_announced(header)
        except BaseException:
            self.abort()
            raise
        finally:
            self._head = bytearray()  # an upload of thousands keeps no beginning of each
        now = self._service.clock.now()
        return Arrival(
            header=header,
            sealed=sealed,
            way=self._way,
            source=self._source,
            at=now,
            grade=self._service.grade(header, self._source),
        )

    def abort(self) -> None:
        """Forget the instance; may be called at any time."""
        self._sink.abort()

    def _check_announced(self, header: Header) -> None:
        found = (header.sop_class_uid, header.sop_instance_uid)
        if self._class and (self._class, self._instance) != found:
            raise SopClassMismatchError("the data set is not what the request announced")

    def _start(self, offset: int, syntax: str) -> None:
        """The data set begins at `offset` of the head: hash from there, store everything."""
        held, self._head = bytes(self._head), bytearray()
        self._started, self._syntax = True, syntax
        if offset == 0:
            prefix = self._service.wrap("", "", syntax)
            self._head += prefix
            self._sink.write(prefix)
        self._head += held[:offset]
        if offset:
            self._sink.write(held[:offset])
        self._take(memoryview(held)[offset:])

    def _take(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._sink.write(data)
        if (room := _HEAD - len(self._head)) > 0:
            self._head += data[:room]

    def _header_and_seal(self) -> tuple[Header, Sealed]:
        """Read the header before sealing; one longer than the head is read back after it."""
        reader, digest = self._service.reader, self._hash.hexdigest()
        cut = len(self._head) >= _HEAD
        try:
            header = reader.header(bytes(self._head), cut=cut)
        except NotDicomError:
            if not cut:
                raise
        else:
            return header, self._sink.seal(digest)
        sealed = self._sink.seal(digest)
        return reader.header(self._service.objects.read(sealed.name, sealed.object_key)), sealed


class IngestService:
    """Receives, files and settles instances. Safe to use from several threads."""

    def __init__(
        self,
        *,
        objects: ObjectStore,
        studies: StudyStore,
        queue: JobQueue,
        reader: PixelReader,
        clock: Clock,
        wrap: WrapDataSet,
        wake: Callable[[], None],
        max_object_bytes: int,
        wake_soon: Callable[[], None] | None = None,
        grade: Callable[[Header, str], int] = lambda _header, _source: IDENTIFYING,
        permit: Callable[[Way, str], None] = lambda _way, _source: None,
    ) -> None:
        """Stand on the ports; `wrap` makes the file meta group of a bare data set.

        `wake` is called when a job may be ready now, `wake_soon` (default `wake`) after every
        filing, which may come in floods. `grade` gives an object its grade from its header and
        source. `permit` returns when a sender may send, and raises NotPermittedError otherwise;
        it is called for every instance, so it has to be quick.
        """
        self.objects, self.reader, self.clock, self.wrap = objects, reader, clock, wrap
        self.max_object_bytes = max_object_bytes
        self._studies, self._queue = studies, queue
        self._wake, self._wake_soon = wake, wake_soon or wake
        self.grade, self._permit = grade, permit

    def begin(
        self,
        way: Way,
        source: str,
        *,
        transfer_syntax: str = "",
        sop_class: str = "",
        sop_instance: str = "",
    ) -> Receiving:
        """Start taking an instance.

        Args:
            way: how it comes in.
            source: calling AE title or client label.
            transfer_syntax: given for a bare data set (DIMSE); empty for a Part 10 stream.
            sop_class: announced by the request; checked at the end.
            sop_instance: likewise.

        Raises:
            NotPermittedError: the policy lets this sender send nothing.
            DiskFullError: above the high watermark nothing is taken in.
        """
        self._permit(way, source)
        return Receiving(self, way, source, (sop_class, sop_instance, transfer_syntax))

    def file(self, arrivals: Sequence[Arrival]) -> list[Filed]:
        """File sealed objects together; durable on return, safe to acknowledge.

        A duplicate's new copy is dropped. On an error nothing of the batch stays.
        """
        try:
            self.objects.flush()
            filed = self._studies.file(arrivals)
        except BaseException:
            for arrival in arrivals:
                self.objects.delete(arrival.sealed.name)
            raise
        for arrival, receipt in zip(arrivals, filed, strict=True):
            if receipt.outcome is Filing.DUPLICATE:
                self.objects.delete(arrival.sealed.name)
            log.debug(  # a thousand a second may come; /metrics and the job's lines tell enough
                "instance filed",
                extra={"instance": receipt.instance_id, "outcome": str(receipt.outcome)},
            )
        self._wake_soon()
        return filed

    def complete(self, study_ids: Sequence[str]) -> None:
        """No more instances are expected for these studies."""
        for study_id in study_ids:
            self._queue.complete(study_id, self.clock.now())
        self._wake()

    def settle_study(self, study_id: str) -> list[Instance]:
        """Compare what still awaits comparison and return the study's instances."""
        held = self._studies.instances(study_id)
        if not any(instance.state is InstanceState.SECOND for instance in held):
            return held
        for instance in held:
            if instance.state is InstanceState.SECOND:
                self._settle(instance, held)
        return self._studies.instances(study_id)

    def settle(self, receipt: Filed) -> None:
        """Compare a SECOND at once, for a sender that is told about conflicts.

        Raises:
            ConflictingInstanceError: the pixels differ; both are kept and an alarm is raised.
        """
        for instance in self.settle_study(receipt.study_id):
            if instance.instance_id == receipt.instance_id:
                if instance.state is InstanceState.CONFLICT:
                    raise ConflictingInstanceError(
                        "this UID is held with other pixels or another description; both kept"
                    )
                return

    def _settle(self, second: Instance, held: Sequence[Instance]) -> None:
        """Same pixels in another encoding are the same instance; what cannot be read is not.

        Nor is what was described anew: a corrected polarity, side or body part changes what the
        same pixels mean, and only a person knows which description is right.
        """
        first = self._first(second, held)
        try:
            same = (
                first is not None
                and _described(first.header) == _described(second.header)
                and self._pixels(first) == self._pixels(second)
            )
        except RefusedError:
            same = False
        state = InstanceState.SAME if same else InstanceState.CONFLICT
        self._studies.settle(second.instance_id, state, self.clock.now())
        log.warning(
            "second instance under one UID",
            extra={"instance": second.instance_id, "outcome": str(state)},
        )

    def _first(self, second: Instance, held: Sequence[Instance]) -> Instance | None:
        for instance in held:
            if instance.instance_id == second.same_as:
                return instance
        return None  # held under another patient or study: never the same

    def _pixels(self, instance: Instance) -> str:
        return self.reader.pixel_digest(
            self.objects.read(instance.object_name, instance.object_key)
        )


def _described(header: Header) -> tuple[str, ...]:
    """Return what decides how pixels are read, and whether at all."""
    return (
        header.modality,
        header.photometric,
        header.presentation_intent,
        header.body_part,
        header.view,
        header.laterality,
    )


def failure_code(error: BaseException) -> str:
    """Return the stable code of an error, `internal` for one nobody foresaw."""
    return error.code if isinstance(error, BedsideError) else "internal"


__all__ = ["IngestService", "Receiving", "Sealed", "WrapDataSet", "failure_code"]
