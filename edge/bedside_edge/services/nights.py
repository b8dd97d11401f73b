"""What privacy does by itself: finish what a kill left, release nights, destroy old snapshots."""

import logging

from bedside_edge.services.budget import BudgetService
from bedside_edge.services.release import ReleaseService

log = logging.getLogger(__name__)

_HOUR_MS = 3_600_000
_NAP_S = 30.0


class NightlyReleases:
    """`Steps` of a loop. The first step also warms the mechanisms up, so that no answer waits."""

    def __init__(
        self, releases: ReleaseService, budget: BudgetService, snapshot_hours: int
    ) -> None:
        self._releases, self._budget = releases, budget
        self._keep_ms = snapshot_hours * _HOUR_MS
        self._started = False

    def step(self) -> bool:
        """Release what is due; False: there is nothing for a while."""
        if not self._started:
            self._releases.warm()
            self._releases.resume()
            self._started = True
        made = self._releases.nights()
        self._budget.sweep(self._keep_ms)
        return made > 0

    def nap(self) -> float:
        """Return seconds until the next look."""
        return _NAP_S
