"""What is held, read for searches: a few rows to see what is new, headers in bulk."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from bedside_core.errors import BedsideError, NotFoundError
from bedside_edge.ports import Header, Instance, InstanceState
from bedside_edge.services.holdings import Changes, HeldStudy, Marks
from bedside_edge.services.outputs import Kind, Output
from bedside_edge.store.database import Database
from bedside_edge.store.headers import unpack
from bedside_edge.store.outputs import SqliteOutputs
from bedside_edge.store.sealing import Box
from bedside_edge.store.studies import SqliteStudies, StudyKeys

_HEADERS: Final = """
  SELECT instance_id, header FROM instances WHERE study_id = ? AND state = 'held' ORDER BY seq"""
_Rows = tuple[str, Box, list[tuple[str, bytes]], list[str]]


class SqliteHoldings:
    """`HeldRows` over the database."""

    def __init__(
        self,
        database: Database,
        study_keys: StudyKeys,
        studies: SqliteStudies,
        outputs: SqliteOutputs,
    ) -> None:
        self._database, self._study_keys = database, study_keys
        self._studies, self._outputs = studies, outputs

    def changes(self, since: Marks) -> Changes:
        """Return what there is and what is new since `since`."""

        def look(c: sqlite3.Connection) -> Changes:
            changed: set[str] = set()
            marks = []
            for table, seen in (("instances", since.instances), ("outputs", since.outputs)):
                last = seen
                for study_id, newest in c.execute(
                    f"SELECT study_id, max(seq) FROM {table} WHERE seq > ? GROUP BY study_id",  # noqa: S608
                    (seen,),
                ):
                    changed.add(study_id)
                    last = max(last, newest)
                marks.append(last)
            studies = dict(c.execute("SELECT study_id, data_key FROM studies ORDER BY created"))
            return Changes(
                studies=studies,
                changed=frozenset(changed),
                marks=Marks(instances=marks[0], outputs=marks[1]),
            )

        return self._database.read(look)

    def studies(self, study_ids: Sequence[str]) -> list[HeldStudy]:
        """Return what is known of these studies; those that are gone or erased are left out."""

        def look(c: sqlite3.Connection) -> list[_Rows]:
            return [rows for study_id in study_ids if (rows := self._rows(c, study_id))]

        found = []
        for study_id, box, headers, kinds in self._database.read(look):
            read: list[Header] = []
            try:
                read = [unpack(box, name, header)[0] for name, header in headers]
            except BedsideError:  # the key was destroyed meanwhile
                continue
            made = [Kind(kind) for kind in kinds]
            found.append(HeldStudy(study_id=study_id, headers=read, made=made))
        return found

    def instances(self, study_id: str) -> list[Instance]:
        """Return the instances of a study that count, with their keys; NotFoundError."""
        return _that_count(self._studies.instances(study_id))

    def instances_of(self, sop_instance_uid: str) -> list[Instance]:
        """Return the instances that count under a UID: one for each study that has it."""
        return _that_count(self._studies.with_uid(sop_instance_uid))

    def made(self, study_id: str) -> list[Output]:
        """Return the objects the box made of a study."""
        return self._outputs.outputs(study_id=study_id)

    def made_of(self, sop_instance_uid: str) -> list[Output]:
        """Return the object the box made under a UID, if any."""
        return self._outputs.with_uid(sop_instance_uid)

    def _rows(self, c: sqlite3.Connection, study_id: str) -> _Rows | None:
        try:
            box = self._study_keys.of(c, study_id)
        except (BedsideError, NotFoundError):
            return None
        headers = c.execute(_HEADERS, (study_id,)).fetchall()
        kinds = c.execute(
            "SELECT kind FROM outputs WHERE study_id = ? ORDER BY seq", (study_id,)
        ).fetchall()
        return study_id, box, headers, [kind for (kind,) in kinds]


def _that_count(instances: Sequence[Instance]) -> list[Instance]:
    return [instance for instance in instances if instance.state is InstanceState.HELD]
