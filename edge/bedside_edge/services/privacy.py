"""The services that release statistics and answers, in one hand."""

from dataclasses import dataclass

from bedside_edge.services.budget import BudgetService
from bedside_edge.services.local_answer import LocalAnswerService
from bedside_edge.services.nights import NightlyReleases
from bedside_edge.services.privacy_desk import PrivacyDesk
from bedside_edge.services.release import ReleaseService
from bedside_edge.services.slots import Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyServices:
    """What the API, the pages and commands stand on.

    Attributes:
        budget: policy, epochs, snapshots, requests.
        releases: statistics.
        local: single results for outsiders.
        nights: what runs by itself.
        slots: when answers leave.
        desk: all of it as people and programs ask, by name and in views.
    """

    budget: BudgetService
    releases: ReleaseService
    local: LocalAnswerService
    nights: NightlyReleases
    slots: Slots
    desk: PrivacyDesk
