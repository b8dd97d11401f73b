"""The worklist's rows in SQLite: one query for where all studies stand, decryption on request."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bedside_core.errors import BedsideError, DamagedObjectError
from bedside_core.findings import Decision
from bedside_core.review import ReviewKind
from bedside_edge.ports import Header, JobState, Priority
from bedside_edge.ports.review import ReviewState
from bedside_edge.ports.worklist import Answer, Names, WorkRow
from bedside_edge.store.database import Database
from bedside_edge.store.headers import unpack
from bedside_edge.store.jobs import KeyOf
from bedside_edge.store.sealing import Box

_ROWS: Final = """
  SELECT s.study_id, s.data_key, j.job_id, j.state, j.priority, s.created, j.updated, j.reason,
         s.instances, coalesce(r.result_id, ''), coalesce(v.kind, ''), s.grade
  FROM studies AS s
  JOIN jobs AS j ON j.seq = (SELECT max(seq) FROM jobs WHERE study_id = s.study_id)
  LEFT JOIN results AS r ON r.study_id = s.study_id AND r.superseded_by = ''
  LEFT JOIN reviews AS v ON v.result_id = r.result_id
    AND v.revision = (SELECT max(revision) FROM reviews WHERE result_id = r.result_id)
  WHERE length(s.data_key) > 0
  ORDER BY j.seq DESC"""
_FIRST: Final = """
  SELECT i.study_id, i.instance_id, i.header
  FROM json_each(?) AS wanted
  JOIN instances AS i ON i.seq = (SELECT min(seq) FROM instances WHERE study_id = wanted.value)"""
_BODIES: Final = """
  SELECT r.study_id, r.result_id, r.body FROM json_each(?) AS wanted
  JOIN results AS r ON r.result_id = wanted.value"""
_REVIEWED: Final = {
    "": ReviewState.UNSIGNED,
    ReviewKind.ACCEPT: ReviewState.ACCEPTED,
    ReviewKind.EDIT: ReviewState.EDITED,
    ReviewKind.REJECT: ReviewState.REJECTED,
}


class SqliteWorkRows:
    """`WorkRows` over the database; `key_of` gives a study's data key inside a transaction."""

    def __init__(self, database: Database, key_of: KeyOf) -> None:
        self._database, self._key_of = database, key_of

    def rows(self) -> list[WorkRow]:
        """Return one row per study whose key is there, newest job first."""
        rows = self._database.read(lambda c: c.execute(_ROWS).fetchall())
        return [_row(*row) for row in rows]

    def names(self, study_ids: Sequence[str]) -> Mapping[str, Names]:
        """Return names by study id; a study that is gone or erased is left out."""
        found: dict[str, Names] = {}
        for box, (study_id, instance_id, header) in self._sealed(_FIRST, study_ids):
            try:
                found[study_id] = _names(unpack(box, instance_id, header)[0])
            except DamagedObjectError:  # erased between two looks: it has no names any more
                continue
        return found

    def answers(self, result_ids: Sequence[str]) -> Mapping[str, Answer]:
        """Return answers by result id; results without a value and erased ones are left out."""
        found: dict[str, Answer] = {}
        for box, (_, result_id, body) in self._sealed(_BODIES, result_ids):
            try:
                document = json.loads(box.open(body, f"result {result_id}"))
            except DamagedObjectError:
                continue
            if document["value"] is not None:
                found[result_id] = answer_of(document)
        return found

    def _sealed(self, query: str, wanted: Sequence[str]) -> list[tuple[Box, tuple[Any, ...]]]:
        """Return rows whose first column is a study with the box that opens them."""

        def look(c: sqlite3.Connection) -> list[tuple[Box, tuple[Any, ...]]]:
            opened: list[tuple[Box, tuple[Any, ...]]] = []
            for row in c.execute(query, (json.dumps(list(wanted)),)).fetchall():
                try:
                    opened.append((self._key_of(c, row[0]), row))
                except BedsideError:  # its key is destroyed
                    continue
            return opened

        return self._database.read(look)


def answer_of(document: dict[str, Any]) -> Answer:
    """Return what a result document with a value says."""
    value, model = document["value"], document["model"]
    low, high = value["undetermined"]
    return Answer(
        decision=Decision(value["decision"]),
        probability=value["probability"],
        threshold=value["threshold"],
        low=low,
        high=high,
        finding=document["finding"]["meaning"],
        model=f"{model['name']} {model['version']}",
    )


def _names(header: Header) -> Names:
    return Names(
        patient_name=header.patient_name,
        patient_id=header.patient_id,
        accession_number=header.accession_number,
        study_date=header.study_date,
        modality=header.modality,
        body_part=header.body_part,
        description=header.study_description,
    )


def _row(
    study_id: str,
    key: bytes,
    job_id: str,
    state: str,
    priority: int,
    received: int,
    changed: int,
    reason: str,
    images: int,
    result_id: str,
    kind: str,
    grade: int,
) -> WorkRow:
    return WorkRow(
        study_id=study_id,
        key=key,
        job_id=job_id,
        state=JobState(state),
        priority=Priority(priority),
        received=received,
        changed=changed,
        reason=reason,
        images=images,
        result_id=result_id,
        review=_REVIEWED[kind],
        grade=grade,
    )
