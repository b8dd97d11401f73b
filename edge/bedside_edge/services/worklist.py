"""The worklist: every study, most urgent first; names are decrypted for what is shown or sought.

Names and answers that were decrypted are kept in memory up to a bound, and only as long as the
study's key is the one they were decrypted with.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Generic, TypeVar

from bedside_edge.ports import JobState, Priority
from bedside_edge.ports.review import ReviewState
from bedside_edge.ports.worklist import Answer, Names, WorkRow, WorkRows

T = TypeVar("T")

_KEPT: Final = 20_000  # studies; about 2 kB each
_IN_PROGRESS: Final = frozenset({JobState.COLLECTING, JobState.READY, JobState.RUNNING})
_FAILED: Final = frozenset({JobState.REFUSED, JobState.DEAD})


class Show(StrEnum):
    """Which part of the worklist."""

    ALL = "all"
    UNSIGNED = "unsigned"  # analysed, and nobody has signed
    OPEN = "open"  # images arriving, waiting, being analysed
    FAILED = "failed"  # not processed, with the reason
    SIGNED = "signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkQuery:
    """What to show.

    Attributes:
        text: part of a name, a patient ID or an accession number; empty for everything.
        show: which part.
        priority: only this one; None for any.
        offset, limit: which of the matching studies.
    """

    text: str = field(repr=False, default="")
    show: Show = Show.ALL
    priority: Priority | None = None
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkEntry:
    """One line; `names` is None when the study was erased a moment ago."""

    row: WorkRow
    names: Names | None
    answer: Answer | None

    @property
    def renewed(self) -> bool:
        """Whether new images are being read while an earlier result stands."""
        return bool(self.row.result_id) and self.row.state in _IN_PROGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPage:
    """Some lines, and how many there are of each part under the same search."""

    entries: Sequence[WorkEntry]
    total: int
    counts: Mapping[Show, int]


class WorklistService:
    """Safe to call from several threads."""

    def __init__(
        self, rows: WorkRows, kept: int = _KEPT, *, gone: Callable[[str], None] | None = None
    ) -> None:
        """Stand on the rows.

        Args:
            rows: the store.
            kept: of how many studies what was decrypted is remembered.
            gone: told the id of a remembered study that was erased, so that others forget it too.
        """
        self._rows, self._gone = rows, gone
        self._names: _Kept[Names] = _Kept(kept)
        self._answers: _Kept[Answer | None] = _Kept(kept)

    def page(self, query: WorkQuery) -> WorkPage:
        """Return the lines of a query, open work first, then by priority, then newest."""
        rows = self._rows.rows()
        present = {row.study_id: row.key for row in rows}
        for study_id in self._names.keep(present) | self._answers.keep(present):
            if self._gone is not None:
                self._gone(study_id)
        rows = [row for row in rows if query.priority in (None, row.priority)]
        if query.text.strip():
            rows = self._matching(rows, query.text)
        counts = Counter(part for row in rows for part in parts(row))
        shown = [row for row in rows if query.show in parts(row)]
        shown.sort(key=_order)
        window = shown[query.offset : query.offset + query.limit]
        return WorkPage(
            entries=self._entries(window),
            total=len(shown),
            counts={part: counts[part] for part in Show},
        )

    def entry(self, study_id: str) -> WorkEntry | None:
        """Return one study's line, or None if there is none."""
        rows = [row for row in self._rows.rows() if row.study_id == study_id]
        return self._entries(rows)[0] if rows else None

    def neighbours(self, study_id: str) -> tuple[str, str]:
        """Return the ids of the studies before and after one on the whole list, or empty."""
        order = [row.study_id for row in sorted(self._rows.rows(), key=_order)]
        if study_id not in order:
            return "", ""
        place = order.index(study_id)
        after = order[place + 1] if place + 1 < len(order) else ""
        return (order[place - 1] if place else ""), after

    def forget(self, study_id: str) -> None:
        """Drop what was decrypted of a study: it has been erased."""
        self._names.forget(study_id)
        self._answers.forget(study_id)

    def _matching(self, rows: Sequence[WorkRow], text: str) -> list[WorkRow]:
        names = self._all_names(rows)
        sought = text.casefold().split()
        return [
            row
            for row in rows
            if row.study_id in names
            and all(word in _searchable(names[row.study_id]) for word in sought)
        ]

    def _entries(self, rows: Sequence[WorkRow]) -> list[WorkEntry]:
        names = self._all_names(rows)
        answered = [row for row in rows if row.result_id]
        keys = {row.study_id: (row.key + row.result_id.encode()) for row in answered}
        answers = self._answers.get(
            {row.study_id: keys[row.study_id] for row in answered},
            lambda missing: self._fetch_answers(
                {row.study_id: row.result_id for row in answered if row.study_id in missing}
            ),
        )
        return [
            WorkEntry(row=row, names=names.get(row.study_id), answer=answers.get(row.study_id))
            for row in rows
        ]

    def _all_names(self, rows: Sequence[WorkRow]) -> Mapping[str, Names]:
        keys = {row.study_id: row.key for row in rows}
        return self._names.get(keys, lambda missing: self._rows.names(list(missing)))

    def _fetch_answers(self, wanted: Mapping[str, str]) -> Mapping[str, Answer | None]:
        found = self._rows.answers(list(wanted.values()))
        return {study_id: found.get(result_id) for study_id, result_id in wanted.items()}


def parts(row: WorkRow) -> frozenset[Show]:
    """Return the parts of the list that a study belongs to."""
    if row.state in _IN_PROGRESS:
        return frozenset({Show.ALL, Show.OPEN})
    if row.state in _FAILED:
        return frozenset({Show.ALL, Show.FAILED})
    if row.review is not ReviewState.UNSIGNED:
        return frozenset({Show.ALL, Show.SIGNED})
    if row.state is JobState.DONE:
        return frozenset({Show.ALL, Show.UNSIGNED})
    return frozenset({Show.ALL})  # cancelled


def _order(row: WorkRow) -> tuple[bool, int, int]:
    """What is signed or cancelled sinks, however urgent it once was."""
    settled = row.state is JobState.CANCELLED or Show.SIGNED in parts(row)
    return settled, 0 if settled else int(row.priority), -row.received


def _searchable(names: Names) -> str:
    text = f"{names.patient_name} {names.patient_id} {names.accession_number}"
    return text.replace("^", " ").replace("=", " ").casefold()


class _Kept(Generic[T]):
    """Decrypted values by study, each under the key it was decrypted with; bounded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[str, tuple[bytes, T]] = OrderedDict()

    def get(
        self, keys: Mapping[str, bytes], fetch: Callable[[frozenset[str]], Mapping[str, T]]
    ) -> dict[str, T]:
        """Return the values of these studies, fetching what is not kept under the same key."""
        found: dict[str, T] = {}
        with self._lock:
            for study_id, key in keys.items():
                held = self._values.get(study_id)
                if held is not None and held[0] == key:
                    self._values.move_to_end(study_id)
                    found[study_id] = held[1]
        missing = frozenset(keys.keys() - found.keys())
        if missing:
            fresh = fetch(missing)
            with self._lock:
                for study_id, value in fresh.items():
                    self._values[study_id] = (keys[study_id], value)
                while len(self._values) > self._most:
                    self._values.popitem(last=False)
            found |= fresh
        return found

    def keep(self, present: Mapping[str, bytes]) -> frozenset[str]:
        """Forget the studies that are gone or whose key was replaced; return them."""
        with self._lock:
            forgotten = frozenset(
                study_id
                for study_id, (key, _) in self._values.items()
                if study_id not in present or not key.startswith(present[study_id])
            )
            for study_id in forgotten:
                del self._values[study_id]
        return forgotten

    def forget(self, study_id: str) -> None:
        """Drop one study."""
        with self._lock:
            self._values.pop(study_id, None)
