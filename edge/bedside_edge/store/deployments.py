"""Deployments in SQLite: a change and its line of history are one transaction."""

import json
import sqlite3
from typing import Final

from bedside_core.errors import DamagedObjectError, StaleRevisionError
from bedside_core.rollout import Deployment, deployment
from bedside_edge.ports.evidence import Record
from bedside_edge.services.rollout import Change, Comparison, Tally
from bedside_edge.store import told
from bedside_edge.store.database import Database

_SAVE: Final = """
  INSERT INTO deployments (name, revision, body) VALUES (?1, ?2, ?3)
  ON CONFLICT (name) DO UPDATE SET revision = ?2, body = ?3"""
_NOTE: Final = """
  INSERT INTO deployment_changes (name, revision, what, actor, at, body)
  VALUES (?, ?, ?, ?, ?, ?)"""
_CHANGES: Final = """
  SELECT revision, what, actor, at FROM deployment_changes
  WHERE name = ? ORDER BY seq DESC LIMIT ?"""
_COUNT: Final = """
  INSERT INTO shadow_tallies
    (name, version, shadow, decision, shadow_decision, studies, difference)
  VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)
  ON CONFLICT DO UPDATE SET studies = studies + 1, difference = difference + ?6"""
_TALLIES: Final = """
  SELECT version, shadow, decision, shadow_decision, studies, difference FROM shadow_tallies
  WHERE name = ? ORDER BY version, shadow, decision, shadow_decision"""


class SqliteDeployments:
    """`DeploymentStore` over the database."""

    def __init__(self, database: Database, record: Record) -> None:
        self._database, self._record = database, record

    def all(self) -> list[Deployment]:
        """Return the deployment of every model that was ever changed."""
        rows = self._database.read(lambda c: c.execute("SELECT body FROM deployments").fetchall())
        try:
            return [deployment(json.loads(body)) for (body,) in rows]
        except (KeyError, TypeError, ValueError) as cause:
            raise DamagedObjectError("a stored deployment cannot be read") from cause

    def save(self, new: Deployment, change: Change) -> None:
        """Store a deployment that follows the one held; StaleRevisionError otherwise."""
        body = json.dumps(new.document(), sort_keys=True)

        def write(c: sqlite3.Connection) -> None:
            row = c.execute(
                "SELECT revision FROM deployments WHERE name = ?", (new.name,)
            ).fetchone()
            if new.revision != (row[0] if row else 0) + 1:
                raise StaleRevisionError("the model's settings were changed meanwhile")
            c.execute(_SAVE, (new.name, new.revision, body))
            c.execute(_NOTE, (new.name, new.revision, change.what, change.actor, change.at, body))
            self._record(c, told.model_changed(new, change))

        self._database.write(write)

    def changes(self, name: str, limit: int = 50) -> list[Change]:
        """Return the changes of a model, newest first."""
        rows = self._database.read(lambda c: c.execute(_CHANGES, (name, limit)).fetchall())
        return [
            Change(revision=revision, what=what, actor=actor, at=at)
            for revision, what, actor, at in rows
        ]

    def compared(self, one: Comparison) -> None:
        """Count one study that a shadow read along."""
        values = (
            one.name,
            one.version,
            one.shadow,
            one.decision,
            one.shadow_decision,
            one.difference,
        )
        self._database.write(lambda c: c.execute(_COUNT, values) and None)

    def tallies(self, name: str) -> list[Tally]:
        """Return how the shadows of a model compared."""
        rows = self._database.read(lambda c: c.execute(_TALLIES, (name,)).fetchall())
        return [
            Tally(
                version=version,
                shadow=shadow,
                decision=decision,
                shadow_decision=shadow_decision,
                studies=studies,
                difference=difference,
            )
            for version, shadow, decision, shadow_decision, studies, difference in rows
        ]
