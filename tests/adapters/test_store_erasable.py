"""No table is forgotten: rows about a study or a patient are deleted, or it is said why not."""

import sqlite3

import pytest

from bedside_edge.store.database import Database
from bedside_edge.store.erasable import KEPT, STUDY_ROWS, SUBJECT_ROWS

ABOUT = {"study_id", "subject_id", "result_id", "instance_id", "job_id", "output_id", "review_id"}


@pytest.fixture
def schema(tmp_path):
    """Columns of every table, and which tables each refers to."""
    database = Database(tmp_path / "bedside.db")

    def look(c: sqlite3.Connection):
        names = [n for (n,) in c.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = {n: {row[1] for row in c.execute(f"PRAGMA table_info({n})")} for n in names}
        refers = {n: {row[2] for row in c.execute(f"PRAGMA foreign_key_list({n})")} for n in names}
        return columns, refers

    yield database.read(look)
    database.close()


def test_every_table_about_a_study_or_patient_is_deleted_or_kept_for_a_reason(schema):
    columns, _ = schema
    about = {name for name, found in columns.items() if found & ABOUT}
    named = {*STUDY_ROWS, *SUBJECT_ROWS, *KEPT}
    assert about <= named, "say in store/erasable.py what an erasure does to these tables"
    assert named <= set(columns)
    assert all(KEPT.values())


def test_a_row_goes_before_the_row_it_refers_to(schema):
    _, refers = schema
    order = [*STUDY_ROWS, *SUBJECT_ROWS]
    for name in order:
        for other in refers[name] & set(order):
            assert order.index(name) <= order.index(other), f"{name} before {other}"
    for name, targets in refers.items():
        if name not in order and name not in KEPT:
            assert not targets & set(order), f"{name} refers to rows that an erasure deletes"
