"""How the box is, for whoever uses data: read it in the transaction of the use.

The triggers of schema/0012_incidents.sql refuse the writes of a sealed box by themselves; what
only picks work looks here first, so that it waits instead of failing.
"""

import sqlite3

from bedside_core.uses import Incident


def incident_state(connection: sqlite3.Connection) -> Incident:
    """Return how the box is, as this transaction sees it."""
    row = connection.execute("SELECT state FROM box_states ORDER BY seq DESC LIMIT 1").fetchone()
    return Incident(row[0])
