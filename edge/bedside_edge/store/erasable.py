"""Which rows are about a study or a patient, table by table: what an erasure deletes, what stays.

A test compares both lists with the database's schema, so that a new table cannot be forgotten.
"""

import sqlite3
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_OF_RESULTS: Final = "result_id IN (SELECT result_id FROM results WHERE study_id = ?)"
_OF_STUDY: Final = "study_id = ?"
# A request under an Idempotency-Key keeps a keyed hash of what it carried: images, a sign-off
_OF_ANSWERS: Final = """subject IN (
  SELECT ?1 UNION ALL SELECT job_id FROM jobs WHERE study_id = ?1
  UNION ALL SELECT result_id FROM results WHERE study_id = ?1
  UNION ALL SELECT review_id FROM reviews WHERE study_id = ?1
  UNION ALL SELECT delivery_id FROM deliveries WHERE study_id = ?1)"""

# In this order: a row goes before the row it refers to. The log's own rows about a study
# (`entry_about`) go through EvidenceLog.forget.
STUDY_ROWS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "requests": _OF_ANSWERS,
        "features": _OF_STUDY,
        "reviews": _OF_STUDY,
        "workitems": _OF_STUDY,
        "deliveries": _OF_STUDY,
        "publications": _OF_RESULTS,
        "outputs": _OF_STUDY,
        "alarms": _OF_STUDY,
        "events": _OF_STUDY,
        "holds": _OF_STUDY,
        "results": _OF_STUDY,
        "jobs": _OF_STUDY,
        "instances": _OF_STUDY,
        "studies": _OF_STUDY,
    }
)
SUBJECT_ROWS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "consents": "subject_id = ?",
        "withdrawals": "subject_id = ?",
        "rights_requests": "subject_id = ?",
        "extras": "subject_id = ?",
        "subjects": "subject_id = ?",
    }
)

# Tables with such a column that an erasure leaves alone, and why
KEPT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "entry_about": "deleted through EvidenceLog.forget, together with the log's entry",
        "deidentifications": "who answers for a lowered grade; random ids of ours, nothing more",
        "lowerings": "who answers for a lowered grade; random ids of ours, nothing more",
    }
)

# What a later arrival, search or echo finds a study by: cut off before the first key is destroyed
_CUT_OFF: Final = (
    "UPDATE studies SET lookup = 'erased ' || study_id WHERE study_id = ?",
    "UPDATE instances SET uid_hash = 'erased ' || instance_id WHERE study_id = ?",
    "UPDATE outputs SET uid_hash = 'erased ' || output_id WHERE study_id = ?",
)


def cut_off(c: sqlite3.Connection, study_id: str) -> None:
    """Let nothing that arrives find the study: it makes a new one."""
    for statement in _CUT_OFF:
        c.execute(statement, (study_id,))


def is_cut_off(c: sqlite3.Connection, study_id: str) -> bool:
    """Tell whether an erasure of the study has begun."""
    row = c.execute("SELECT lookup FROM studies WHERE study_id = ?", (study_id,)).fetchone()
    return row is not None and row[0] == f"erased {study_id}"


def delete_study(c: sqlite3.Connection, study_id: str) -> None:
    """Delete every row of a study."""
    _delete(c, STUDY_ROWS, study_id)


def delete_subject(c: sqlite3.Connection, subject_id: str) -> None:
    """Delete every row of a patient whose studies are gone."""
    _delete(c, SUBJECT_ROWS, subject_id)


def _delete(c: sqlite3.Connection, rows: Mapping[str, str], value: str) -> None:
    for table, where in rows.items():
        c.execute(f"DELETE FROM {table} WHERE {where}", (value,))  # noqa: S608  names of ours
