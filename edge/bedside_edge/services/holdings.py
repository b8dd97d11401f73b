"""What the box holds, for those who search: one entry per study, kept decrypted in memory.

Identifiers lie encrypted under each study's key, so a search cannot be a query of the database.
Headers are decrypted once and remembered; before every search the store says which entries are
still true, so an erased study is gone with the next question, `forget` or not. Nothing of this
touches the disk. Of every study about 2 KiB are remembered; of objects a bounded number, beyond
which a search decrypts again and is slow, never wrong.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from bedside_core.errors import BedsideError, NotFoundError
from bedside_edge.ports import Header, Instance, ObjectStore, PixelReader
from bedside_edge.services.outputs import Kind, Output

_MOST_ITEMS: Final = 50_000  # headers of about 1 KiB
_BATCH: Final = 256  # studies decrypted per look at the database
_MODALITY: Final = {Kind.SR: "SR", Kind.SC: "OT", Kind.SEG: "SEG", Kind.KO: "KO"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """How far somebody has read: the last row of each kind."""

    instances: int = 0
    outputs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is there, and what came since the marks.

    Attributes:
        studies: every study with what its key looks like in the database: once that is another
            value, or the study is not here, whatever was remembered of it is to be forgotten.
        changed: studies that got an instance or an object of the box.
        marks: for the next call.
    """

    studies: Mapping[str, bytes] = field(repr=False)
    changed: frozenset[str]
    marks: Marks


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStudy:
    """What the rows of a study say. Second copies of an instance do not count."""

    study_id: str
    headers: Sequence[Header] = field(repr=False)
    made: Sequence[Kind]  # of every object the box made


class HeldRows(Protocol):
    """Read access to what is held, in the order it came."""

    def changes(self, since: Marks) -> Changes:
        """Return what there is and what is new."""
        ...

    def studies(self, study_ids: Sequence[str]) -> list[HeldStudy]:
        """Return what is known of these studies; those that are gone or erased are left out."""
        ...

    def instances(self, study_id: str) -> list[Instance]:
        """Return the instances of a study that count, with their keys; NotFoundError."""
        ...

    def instances_of(self, sop_instance_uid: str) -> list[Instance]:
        """Return the instances that count under a UID: one for each study that has it."""
        ...

    def made(self, study_id: str) -> list[Output]:
        """Return the objects the box made of a study."""
        ...

    def made_of(self, sop_instance_uid: str) -> list[Output]:
        """Return the object the box made under a UID, if any."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object of a study, received or made; `study_id` is ours."""

    study_id: str
    header: Header = field(repr=False)
    read: Callable[[], bytes] = field(repr=False)  # the Part 10 bytes; NotFoundError once erased
    made: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEntry:
    """What a search at study level looks at."""

    study_id: str
    seal: bytes = field(repr=False)
    header: Header = field(repr=False)  # of the first instance
    modalities: tuple[str, ...]
    sop_classes: frozenset[str] = field(repr=False)
    series: int
    instances: int

    @property
    def newest_first(self) -> tuple[str, str, str]:
        """Sort key, to be reversed: date and time of the study."""
        return self.header.study_date, self.header.study_time, self.study_id


class Holdings:
    """Studies and objects by their UIDs. Safe to call from several threads."""

    def __init__(
        self,
        rows: HeldRows,
        objects: ObjectStore,
        reader: PixelReader,
        *,
        most_items: int = _MOST_ITEMS,
    ) -> None:
        self._rows, self._objects, self._reader = rows, objects, reader
        self._most_items = most_items
        self._lock = threading.Lock()
        self._marks = Marks()
        self._seals: dict[str, bytes] = {}  # of every study looked at, readable or not
        self._entries: dict[str, StudyEntry] = {}
        self._items: OrderedDict[str, tuple[bytes, list[Item]]] = OrderedDict()
        self._held = 0  # items in `_items`
        self._sorted: list[StudyEntry] | None = None
        self._by_uid: dict[str, list[StudyEntry]] = {}

    def forget(self, study_id: str) -> None:
        """Drop what is remembered of a study, at once; for whoever erases it."""
        with self._lock:
            self._drop(study_id)

    def studies(self) -> list[StudyEntry]:
        """Return every study, newest first."""
        with self._lock:
            self._refresh()
            return self._order()

    def study(self, study_uid: str) -> list[StudyEntry]:
        """Return the studies of a UID: more than one when two patients share it."""
        with self._lock:
            self._refresh()
            self._order()
            return list(self._by_uid.get(study_uid, ()))

    def items(self, entry: StudyEntry) -> list[Item]:
        """Return every object of a study, received before made, each kind in order of arrival."""
        with self._lock:
            kept = self._items.get(entry.study_id)
            if kept is not None and kept[0] == entry.seal:
                self._items.move_to_end(entry.study_id)
                return kept[1]
        try:
            found = self._load(entry.study_id)
        except BedsideError:  # erased between two looks
            return []
        with self._lock:
            current = self._entries.get(entry.study_id)
            if current is not None and current.instances == len(found):
                self._remember(entry.study_id, current.seal, found)
        return found

    def find(self, study_uid: str, series_uid: str = "", instance_uid: str = "") -> list[Item]:
        """Return the objects under a DICOMweb path; an instance is found by its keyed hash.

        Raises:
            NotFoundError: nothing is held there.
        """
        if instance_uid:
            found = [self._received(instance) for instance in self._rows.instances_of(instance_uid)]
            found += [self._made(output) for output in self._rows.made_of(instance_uid)]
            found = [item for item in found if item.header.study_uid == study_uid]
        else:
            found = [item for entry in self.study(study_uid) for item in self.items(entry)]
        found = [item for item in found if series_uid in ("", item.header.series_uid)]
        if not found:
            raise NotFoundError("nothing is held under that path")
        return found

    # --- inside, under the lock ----------------------------------------------------------------

    def _refresh(self) -> None:
        changes = self._rows.changes(self._marks)
        for study_id in [s for s, seal in self._seals.items() if changes.studies.get(s) != seal]:
            self._drop(study_id)
        known = self._seals
        missing = [s for s in changes.studies if s in changes.changed or s not in known]
        for study_id in missing:
            self._drop(study_id)
            self._seals[study_id] = changes.studies[study_id]
        for start in range(0, len(missing), _BATCH):
            for held in self._rows.studies(missing[start : start + _BATCH]):
                if held.headers:
                    self._entries[held.study_id] = _entry(held, self._seals[held.study_id])
                    self._sorted = None
        self._marks = changes.marks

    def _order(self) -> list[StudyEntry]:
        if self._sorted is None:
            self._sorted = sorted(
                self._entries.values(), key=lambda entry: entry.newest_first, reverse=True
            )
            self._by_uid = {}
            for entry in self._sorted:
                self._by_uid.setdefault(entry.header.study_uid, []).append(entry)
        return self._sorted

    def _drop(self, study_id: str) -> None:
        self._seals.pop(study_id, None)
        if self._entries.pop(study_id, None) is not None:
            self._sorted = None
        _, items = self._items.pop(study_id, (b"", []))
        self._held -= len(items)

    def _remember(self, study_id: str, seal: bytes, items: list[Item]) -> None:
        _, before = self._items.pop(study_id, (b"", []))
        self._items[study_id] = (seal, items)
        self._held += len(items) - len(before)
        while self._held > self._most_items and self._items:
            _, (_, oldest) = self._items.popitem(last=False)
            self._held -= len(oldest)

    # --- objects -------------------------------------------------------------------------------

    def _load(self, study_id: str) -> list[Item]:
        found = [self._received(instance) for instance in self._rows.instances(study_id)]
        return found + [self._made(output) for output in self._rows.made(study_id)]

    def _received(self, instance: Instance) -> Item:
        def read() -> bytes:
            return self._objects.read(instance.object_name, instance.object_key)

        return Item(study_id=instance.study_id, header=instance.header, read=read)

    def _made(self, output: Output) -> Item:
        def read() -> bytes:
            return self._objects.read(output.object_name, output.object_key)

        header = self._reader.header(read())
        return Item(study_id=output.study_id, header=header, read=read, made=True)


def _entry(held: HeldStudy, seal: bytes) -> StudyEntry:
    first = held.headers[0]
    received = {header.modality for header in held.headers if header.modality}
    made = {_MODALITY[kind] for kind in held.made}
    return StudyEntry(
        study_id=held.study_id,
        seal=seal,
        header=first,
        modalities=tuple(sorted(received | made)),
        sop_classes=frozenset(header.sop_class_uid for header in held.headers),
        # every object the box makes is a series of its own
        series=len({header.series_uid for header in held.headers}) + len(held.made),
        instances=len(held.headers) + len(held.made),
    )


def by_series(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Return the objects by their Series Instance UID, in order of arrival."""
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.header.series_uid, []).append(item)
    return found
