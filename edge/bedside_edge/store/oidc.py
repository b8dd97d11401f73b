"""Accounts of the identity provider's people, in SQLite."""

import sqlite3

from bedside_core.errors import WrongStateError
from bedside_edge.ports.evidence import Event, Record
from bedside_edge.store.database import Database


class SqliteSubjectLinks:
    """`SubjectLinks` over the database."""

    def __init__(self, database: Database, record: Record) -> None:
        self._database, self._record = database, record

    def account_of(self, subject: str) -> str:
        """Return the account id of a hashed subject; empty when it has none."""
        row = self._database.read(
            lambda c: c.execute(
                "SELECT account_id FROM oidc_subjects WHERE subject = ?", (subject,)
            ).fetchone()
        )
        return str(row[0]) if row else ""

    def link(self, subject: str, account_id: str, event: Event) -> None:
        """Remember whose account it is, with its evidence; WrongStateError when it has one."""

        def write(c: sqlite3.Connection) -> None:
            if c.execute("SELECT 1 FROM oidc_subjects WHERE subject = ?", (subject,)).fetchone():
                raise WrongStateError("the person has an account already")
            c.execute("INSERT INTO oidc_subjects VALUES (?, ?)", (subject, account_id))
            self._record(c, event)

        self._database.write(write)
